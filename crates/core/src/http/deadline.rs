//! The header with which a client says how long it waits.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::error::HttpError;

const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// Longer waits are no bound.
const LONGEST: f64 = 1e9;

/// When the client no longer waits: `X-Request-Timeout`, in seconds, counted from now.
pub fn of(headers: &HeaderMap) -> Result<Option<Instant>, HttpError> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let wrong = || {
        HttpError::bad_request(format!(
            "header 'X-Request-Timeout': expected seconds above 0 such as 2.5, got '{text}'"
        ))
    };
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(wrong());
    }
    match text.parse::<f64>() {
        Ok(seconds) if seconds > LONGEST => Ok(None),
        Ok(seconds) if seconds > 0.0 => Ok(Some(Instant::now() + Duration::from_secs_f64(seconds))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(text: &str) -> Result<Option<u128>, String> {
        let headers = HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_str(text).unwrap())]);
        let start = Instant::now();
        of(&headers).map(|at| at.map(|at| (at - start).as_millis())).map_err(|error| error.text().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn seconds_with_a_fraction() {
        assert!(matches!(of(&HeaderMap::new()), Ok(None)));
        for (text, millis) in [("2", 2000), ("2.5", 2500), (".25", 250), ("0.001", 1)] {
            assert_eq!(read(text), Ok(Some(millis)), "{text}");
        }
        assert_eq!(read(&"9".repeat(400)), Ok(None), "no bound");
        for text in ["", "0", "0.0", "-1", "1e3", "inf", "NaN", "1.2.3", ".", "2 s", "+1"] {
            let expected = format!("header 'X-Request-Timeout': expected seconds above 0 such as 2.5, got '{text}'");
            assert_eq!(read(text), Err(expected));
        }
    }
}
