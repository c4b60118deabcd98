//! Keeps web pages away from a listener without keys: known `Host` values only, nothing across sites (F2).

use std::net::{IpAddr, SocketAddr};

use hyper::Method;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

use super::error::HttpError;

/// Which `Host` values a listener answers.
#[derive(Clone, Debug)]
pub struct Hosts {
    bound: IpAddr,
    allowed: Vec<String>,
    /// A listener that others reach needs a key, which no web page has.
    any: bool,
}

impl Hosts {
    /// Those of a listener bound to `address`.
    pub fn new(address: SocketAddr, allowed: &[String]) -> Self {
        let bound = address.ip();
        let any = !bound.is_loopback() || allowed.iter().any(|host| host == "*");
        Self { bound, allowed: allowed.iter().map(|host| host.to_ascii_lowercase()).collect(), any }
    }

    /// Refuses a request that came by a foreign name or from a foreign page.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), HttpError> {
        let mut hosts = headers.get_all(HOST).iter();
        if let Some(host) = hosts.next() {
            let name = host_name(host).filter(|_| hosts.next().is_none());
            let name = name.ok_or_else(|| HttpError::bad_request("malformed 'Host' header"))?;
            if !self.knows(name) {
                return Err(HttpError::wrong_host(name));
            }
        }
        if self.any || matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let foreign = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
            || headers.get_all(ORIGIN).iter().any(|origin| !self.knows_origin(origin));
        if foreign { Err(HttpError::forbidden("requests from web pages of other sites are refused")) } else { Ok(()) }
    }

    fn knows(&self, name: &str) -> bool {
        if self.any {
            return true;
        }
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        match bare.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() || address == self.bound => true,
            _ => name.eq_ignore_ascii_case("localhost") || self.allowed.contains(&name.to_ascii_lowercase()),
        }
    }

    fn knows_origin(&self, origin: &HeaderValue) -> bool {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.and_then(|(_, authority)| split_port(authority)).is_some_and(|name| self.knows(name))
    }
}

/// The name of a `Host` value without its port; `None` if it is malformed (A2).
fn host_name(value: &HeaderValue) -> Option<&str> {
    split_port(value.to_str().ok()?)
}

fn split_port(authority: &str) -> Option<&str> {
    let (name, port) = match authority.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => authority.split_at(end + 2),
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let port_is_fine =
        port.is_empty() || port[1..].bytes().all(|digit| digit.is_ascii_digit()) && port.starts_with(':');
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    (!name.is_empty() && port_is_fine && name.bytes().all(letter)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, method: &Method, headers: &[(&'static str, &'static str)]) -> Option<u16> {
        let hosts = Hosts::new(address.parse().unwrap(), &["gpu.lab".to_owned()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        hosts.check(method, &map).err().map(|error| error.response().status().as_u16())
    }

    #[test]
    fn a_loopback_listener_knows_its_names() {
        for host in ["localhost", "LOCALHOST:9", "127.0.0.1:8000", "[::1]:8000", "127.8.8.8", "gpu.lab:80"] {
            assert_eq!(refused("127.0.0.1:8000", &Method::GET, &[("host", host)]), None, "{host}");
        }
        for (host, status) in [
            ("evil.test", 421),
            ("127.0.0.1.evil.test", 421),
            ("192.168.0.1", 421),
            ("a/health?x=", 400),
            ("a b", 400),
            ("localhost:80:80", 400),
            ("[::1]x", 400),
            ("", 400),
        ] {
            assert_eq!(refused("127.0.0.1:8000", &Method::GET, &[("host", host)]), Some(status), "{host}");
        }
        assert_eq!(refused("127.0.0.1:1", &Method::GET, &[("host", "localhost"), ("host", "localhost")]), Some(400));
        assert_eq!(refused("10.0.0.1:1", &Method::GET, &[("host", "any.test")]), None);
    }

    #[test]
    fn pages_of_other_sites_cannot_post() {
        let from = |name, value| refused("127.0.0.1:1", &Method::POST, &[("host", "localhost"), (name, value)]);
        assert_eq!(from("origin", "http://evil.test"), Some(403));
        assert_eq!(from("origin", "null"), Some(403));
        assert_eq!(from("sec-fetch-site", "cross-site"), Some(403));
        assert_eq!(from("origin", "http://localhost:3000"), None);
        assert_eq!(from("sec-fetch-site", "same-origin"), None);
    }
}
