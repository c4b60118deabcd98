//! Keeps web pages away from a listener without keys: known `Host` values only, nothing across sites (F2).

use std::net::{IpAddr, SocketAddr};

use hyper::Method;
use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::http::request::Parts;

use super::cors::Origins;
use super::error::HttpError;

/// Which `Host` values a listener answers.
#[derive(Clone, Debug)]
pub struct Hosts {
    bound: IpAddr,
    allowed: Vec<String>,
    /// A listener that others reach needs a key, which no web page has.
    any: bool,
    /// Web pages that may call all the same.
    pub origins: Origins,
}

impl Hosts {
    /// Those of a listener bound to `address`.
    pub fn new(address: SocketAddr, allowed: &[String], origins: Origins) -> Self {
        let bound = address.ip();
        let any = !bound.is_loopback() || allowed.iter().any(|host| host == "*");
        Self { bound, allowed: allowed.iter().map(|host| host.to_ascii_lowercase()).collect(), any, origins }
    }

    /// Refuses a request that came by a foreign name or from a foreign page.
    pub fn check(&self, parts: &Parts) -> Result<(), HttpError> {
        let headers = &parts.headers;
        let mut hosts = headers.get_all(HOST).iter();
        if let Some(host) = hosts.next() {
            self.check_name(host.to_str().ok().filter(|_| hosts.next().is_none()))?;
        }
        // HTTP/2 has it instead of the header, an absolute URL beside it.
        if let Some(authority) = parts.uri.authority() {
            self.check_name(Some(authority.as_str()))?;
        }
        if self.any || matches!(parts.method, Method::GET | Method::HEAD) || self.origins.of(headers).is_some() {
            return Ok(());
        }
        let foreign = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
            || headers.get_all(ORIGIN).iter().any(|origin| !self.knows_origin(origin));
        if foreign { Err(HttpError::forbidden("requests from web pages of other sites are refused")) } else { Ok(()) }
    }

    /// The name without its port has to be one of ours (A2).
    fn check_name(&self, host: Option<&str>) -> Result<(), HttpError> {
        let name = host.and_then(split_port).ok_or_else(|| HttpError::bad_request("malformed 'Host' header"))?;
        if self.knows(name) { Ok(()) } else { Err(HttpError::wrong_host(name)) }
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
    use hyper::Request;

    use super::*;

    fn refused(address: &str, method: &Method, headers: &[(&'static str, &'static str)]) -> Option<u16> {
        let origins = Origins::new(&["https://page.test".to_owned()]);
        let hosts = Hosts::new(address.parse().unwrap(), &["gpu.lab".to_owned()], origins);
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = match *name {
                ":authority" => request.uri(format!("http://{value}/v2")),
                name => request.header(name, *value),
            };
        }
        hosts.check(&request.body(()).unwrap().into_parts().0).err().map(|error| error.response().status().as_u16())
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
        let listed = [("origin", "https://page.test"), ("sec-fetch-site", "cross-site")];
        assert_eq!(refused("127.0.0.1:1", &Method::POST, &listed), None);
        assert_eq!(from("origin", "https://page.test.evil"), Some(403));
    }

    #[test]
    fn an_authority_is_a_host_too() {
        let from = |value| refused("127.0.0.1:1", &Method::GET, &[(":authority", value)]);
        assert_eq!((from("localhost:8000"), from("evil.test:8000"), from("u@localhost")), (None, Some(421), Some(400)));
        let both = [("host", "localhost"), (":authority", "evil.test")];
        assert_eq!(refused("127.0.0.1:1", &Method::GET, &both), Some(421));
    }
}
