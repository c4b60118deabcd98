//! `Server-Timing`: where the time of an inference went, in milliseconds, for whoever reads the answer.

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};

use crate::request::Timing;

/// The header, and the metadata of gRPC.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What `Server-Timing` says of a response; an answer of the cache has waited and computed nothing.
pub(crate) fn value(timing: Timing) -> HeaderValue {
    if timing.times.start == 0 {
        return HeaderValue::from_static("cache;desc=\"hit\"");
    }
    let [input, infer, output] = timing.times.spans();
    let mut text = Vec::with_capacity(112);
    let spans = [
        ("queue;dur=", timing.queue()),
        (", compute_input;dur=", input),
        (", compute_infer;dur=", infer),
        (", compute_output;dur=", output),
    ];
    for (name, nanoseconds) in spans {
        text.extend_from_slice(name.as_bytes());
        millis(&mut text, nanoseconds / 1000);
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Microseconds as milliseconds with three places.
fn millis(text: &mut Vec<u8>, micros: u64) {
    let mut digits = [b'0'; 21];
    let mut at = digits.len();
    let mut left = micros;
    for place in 0.. {
        if place == 3 {
            at -= 1;
            digits[at] = b'.';
        }
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 && place >= 3 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Times;

    #[test]
    fn spans_are_milliseconds_with_three_places() {
        let times = Times { start: 1_021_400, input: 1_021_400, infer: 3_021_400, output: 12_345_678_999_999 };
        let timing = Timing { queued: 1_000_000, times, batch: 1 };
        let expected = "queue;dur=0.021, compute_input;dur=0.000, compute_infer;dur=2.000, \
                        compute_output;dur=12345675.978";
        assert_eq!(value(timing).to_str().unwrap(), expected);
        let mut text = Vec::new();
        millis(&mut text, u64::MAX / 1000);
        assert_eq!(String::from_utf8(text).unwrap(), "18446744073709.551");
        assert_eq!(value(Timing::default()), "cache;desc=\"hit\"");
    }
}
