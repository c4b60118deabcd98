//! W3C trace context: the span of a caller, those of a request, and the one that the model sees.

use std::fmt::Write as _;

use hyper::HeaderMap;
use rustix::rand::{GetRandomFlags, getrandom};

const SAMPLED: u8 = 1;

/// The span of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace that it belongs to.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// Whether the caller keeps it.
    pub sampled: bool,
}

impl Parent {
    /// From `traceparent`; one that is malformed or sent twice is as good as none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        Self::read(value.to_str().ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let mut fields = text.splitn(5, '-');
        let [version] = bytes(fields.next()?)?;
        let (trace, span) = (bytes(fields.next()?)?, bytes(fields.next()?)?);
        let [flags] = bytes(fields.next()?)?;
        // Later versions may say more behind what is known.
        let known = version != 0xff && (version != 0 || fields.next().is_none());
        (known && trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled: flags & SAMPLED != 0 })
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(is_digit) {
        return None;
    }
    let mut read = [0; N];
    for (byte, pair) in read.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(read)
}

/// The ids of a request's spans.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// The caller's, if it told.
    pub parent: Option<Parent>,
    /// The trace that all belong to.
    pub trace: [u8; 16],
    /// The request as a whole.
    pub root: [u8; 8],
    /// Its stay in the model's queue and worker.
    pub model: [u8; 8],
    /// Its stay in the worker.
    pub compute: [u8; 8],
}

impl Spans {
    /// Below the caller's span, or a trace of their own.
    pub fn below(parent: Option<Parent>) -> Option<Self> {
        let mut random = [0; 40];
        getrandom(&mut random[..], GetRandomFlags::empty()).ok()?;
        let (trace, rest) = random.split_first_chunk()?;
        let (root, rest) = rest.split_first_chunk()?;
        let (model, rest) = rest.split_first_chunk()?;
        let compute = rest.first_chunk()?;
        let trace = parent.map_or(*trace, |parent| parent.trace);
        Some(Self { parent, trace, root: *root, model: *model, compute: *compute })
    }

    /// What tells a model's code which span it runs in.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", hex(&self.trace), hex(&self.model))
    }
}

/// In lower case, as OpenTelemetry wants it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_w3c_has_it() {
        let parent = Parent::read(GOOD).unwrap();
        assert_eq!((hex(&parent.trace).as_str(), parent.sampled), ("0af7651916cd43dd8448eb211c80319c", true));
        let spans = Spans::below(Some(parent)).unwrap();
        assert_eq!(spans.trace, parent.trace);
        assert_eq!(Parent::read(&spans.traceparent()).unwrap().span, spans.model);
        assert!(!Parent::read(&GOOD.replace("-01", "-02")).unwrap().sampled);
        assert!(Parent::read(&format!("cc{}-more", &GOOD[2..])).is_some(), "a version to come");
        for bad in [
            &GOOD[1..],
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "",
        ] {
            assert_eq!(Parent::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_of_them_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(Parent::of(&headers).is_some());
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(Parent::of(&headers).is_none());
    }
}
