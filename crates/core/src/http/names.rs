//! Reads a model's name from a segment of the path: decoded after the route matched, then checked (W4, C1).

use std::borrow::Cow;

use crate::operations::names::is_name;

/// The name in a segment, or what it looks like where it is none.
pub fn read(segment: &str) -> Result<Cow<'_, str>, String> {
    match decode(segment) {
        Some(name) if is_name(&name) => Ok(name),
        Some(name) => Err(name.into_owned()),
        None => Err(segment.to_owned()),
    }
}

/// The name of a region in a segment, which may be any text.
pub fn read_region(segment: &str) -> Result<String, String> {
    let name = decode(segment).ok_or_else(|| format!("invalid name of a shared memory region '{segment}'"))?;
    Ok(name.into_owned())
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            rest = after;
            bytes.push(hex(digits[0])? << 4 | hex(digits[1])?);
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded() {
        for (segment, name) in [("mnist-cnn.v1", "mnist-cnn.v1"), ("a%20b", "a b"), ("%E6%A8%A1", "模"), ("_x", "_x")]
        {
            assert_eq!(read(segment).unwrap(), name);
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for segment in [
            "..",
            "%2e%2e",
            "a..b",
            "..%2fx",
            "%2fetc",
            "..%5cx",
            "a%00",
            "a%0a",
            ".hidden",
            "",
            "%zz",
            "%e",
            "%ff",
            "a%2fb",
            ";id",
            "$(id)",
            "%E2%80%A4%E2%80%A4",
            "a%EF%BC%8Fb",
            "-x",
        ] {
            assert!(read(segment).is_err(), "{segment}");
        }
        assert!(read(&"a".repeat(256)).is_err());
    }
}
