//! `X-Request-Id`: an id that a client or proxy gave a request, so that it can be followed from end to end.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::request::InferRequest;

/// The header, and the metadata of gRPC.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones are no ids.
const LONGEST: usize = 128;

/// The id of a request; none if there is none, or if it is no plain word.
pub(crate) fn of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let plain = (1..=LONGEST).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    plain.then_some(value)
}

/// Stands in where the request itself names no id.
pub(crate) fn complete(request: &mut InferRequest, headers: &HeaderMap) {
    if request.id.is_empty()
        && let Some(id) = of(headers).and_then(|value| value.to_str().ok())
    {
        id.clone_into(&mut request.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_ids() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(text.as_bytes()).unwrap())]);
            of(&headers).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(of("5f1c-a:1").as_deref(), Some("5f1c-a:1"));
        for text in ["", "a b", "\u{e9}", &"x".repeat(129)] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(super::of(&HeaderMap::new()), None);
    }
}
