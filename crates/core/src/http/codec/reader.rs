//! An iterative JSON reader over bytes: no tree of values, no recursion, a byte offset for every fault.

use std::borrow::Cow;

use super::{Fault, Trouble};

/// A place in a JSON text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// A scalar that is not a tensor element.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Cow<'a, str>),
    /// An object or array; skipped.
    Nested,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn fault(&self, message: &'static str) -> Fault {
        Fault { message, at: self.at }
    }

    #[inline]
    pub(super) fn peek(&self) -> u8 {
        // A NUL is no JSON, so it can stand for the end.
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Skips white space; the next byte, or 0 at the end.
    #[inline]
    pub(super) fn next_token(&mut self) -> u8 {
        loop {
            match self.peek() {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return byte,
            }
        }
    }

    fn eat(&mut self, byte: u8, message: &'static str) -> Result<(), Fault> {
        if self.next_token() == byte {
            self.at += 1;
            return Ok(());
        }
        Err(self.fault(message))
    }

    /// A word that must stand here; the fault is at its first byte that does not.
    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        for byte in word.bytes() {
            if self.peek() != byte {
                return Err(self.fault("Invalid value."));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Checks the whole text: one value and nothing behind it.
    pub(super) fn check(mut self) -> Result<(), Fault> {
        self.start()?;
        self.skip()?;
        self.end()
    }

    /// Goes to the first token; the document must have one.
    pub(super) fn start(&mut self) -> Result<(), Fault> {
        self.next_token();
        if self.at == self.bytes.len() {
            return Err(self.fault("The document is empty."));
        }
        Ok(())
    }

    /// Calls `member` for each name of the object that starts here; it must read the value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.eat(b'{', "Invalid value.")?;
        if self.next_token() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.next_token() != b'"' {
                return Err(self.fault("Missing a name for object member.").into());
            }
            let name = self.string()?;
            self.eat(b':', "Missing a colon after a name of object member.")?;
            self.next_token();
            member(self, &name)?;
            match self.next_token() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault("Missing a comma or '}' after an object member.").into()),
            }
        }
    }

    /// Calls `element` for each element of the array that starts here; it must read the value.
    pub(super) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), Trouble>) -> Result<(), Trouble> {
        self.eat(b'[', "Invalid value.")?;
        if self.next_token() == b']' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.next_token();
            element(self)?;
            match self.next_token() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault("Missing a comma or ']' after an array element.").into()),
            }
        }
    }

    /// The end of the document: nothing but white space follows.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.next_token();
        if self.at < self.bytes.len() {
            return Err(self.fault("The document root must not be followed by other values."));
        }
        Ok(())
    }

    /// A string, borrowed where it holds no escape.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at + 1;
        let plain = self.plain_end(start);
        let borrowed = self.bytes.get(start..plain).unwrap_or_default();
        if self.bytes.get(plain) == Some(&b'"') {
            self.at = plain + 1;
            let text = std::str::from_utf8(borrowed)
                .map_err(|error| Fault { message: "Invalid encoding in string.", at: start + error.valid_up_to() })?;
            return Ok(Cow::Borrowed(text));
        }
        let mut out = Vec::new();
        self.string_bytes(&mut out)?;
        String::from_utf8(out).map(Cow::Owned).map_err(|_| Fault { message: "Invalid encoding in string.", at: start })
    }

    /// The first byte from `from` on that ends the plain part of a string.
    fn plain_end(&self, from: usize) -> usize {
        let rest = self.bytes.get(from..).unwrap_or_default();
        from + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len())
    }

    /// Appends the bytes of the string that starts here, escapes resolved.
    pub(super) fn string_bytes(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.at += 1;
        loop {
            let end = self.plain_end(self.at);
            out.extend_from_slice(&self.bytes[self.at.min(end)..end]);
            self.at = end;
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape(out)?,
                0 => return Err(self.fault("Missing a closing quotation mark in string.")),
                _ => return Err(self.fault("Invalid escape character in string.")),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let plain = match self.bytes.get(self.at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(out),
            _ => return Err(self.fault("Invalid escape character in string.")),
        };
        out.push(plain);
        self.at += 2;
        Ok(())
    }

    fn unicode_escape(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut code = self.hex4(self.at + 2)?;
        let mut length = 6;
        if (0xd800..0xdc00).contains(&code) {
            let low = match self.bytes.get(self.at + 6..self.at + 8) {
                Some(b"\\u") => self.hex4(self.at + 8)?,
                _ => 0,
            };
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.fault("The surrogate pair in string is invalid."));
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            length = 12;
        }
        let Some(character) = char::from_u32(code) else {
            return Err(self.fault("The surrogate pair in string is invalid."));
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += length;
        Ok(())
    }

    fn hex4(&self, at: usize) -> Result<u32, Fault> {
        let fault = self.fault("Incorrect hex digit after \\u escape in string.");
        let Some(digits) = self.bytes.get(at..at + 4) else { return Err(fault) };
        let mut code = 0;
        for digit in digits {
            let Some(value) = char::from(*digit).to_digit(16) else { return Err(fault) };
            code = code * 16 + value;
        }
        Ok(code)
    }

    /// A scalar; objects and arrays are skipped.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Fault> {
        match self.peek() {
            b'"' => self.string().map(Scalar::String),
            b'{' | b'[' => self.skip().map(|()| Scalar::Nested),
            b't' => self.literal("true").map(|()| Scalar::Bool(true)),
            b'f' => self.literal("false").map(|()| Scalar::Bool(false)),
            b'n' => self.literal("null").map(|()| Scalar::Null),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Result<Scalar<'a>, Fault> {
        let start = self.at;
        let text = self.number_text()?;
        let is_integer = !text.contains(['.', 'e', 'E', 'N', 'I']);
        if is_integer && text != "-0" {
            if let Ok(value) = text.parse() {
                return Ok(Scalar::Int(value));
            }
            if let Ok(value) = text.parse() {
                return Ok(Scalar::Uint(value));
            }
        }
        let value = super::numbers::slow_f64(text).ok_or(Fault { message: super::numbers::TOO_BIG, at: start })?;
        Ok(Scalar::Double(value))
    }

    /// The text of the number that starts here, checked against JSON's grammar; `NaN`, `Inf` and `Infinity` too (W17).
    pub(super) fn number_text(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'N' {
            self.literal("NaN")?;
        } else if self.peek() == b'I' {
            self.literal("Inf")?;
            if self.peek() == b'i' {
                self.literal("inity")?;
            }
        } else {
            match self.peek() {
                b'0' => self.at += 1,
                b'1'..=b'9' => self.digits(),
                _ => return Err(self.fault("Invalid value.")),
            }
            if self.peek() == b'.' {
                self.at += 1;
                self.some_digits("Miss fraction part in number.")?;
            }
            if matches!(self.peek(), b'e' | b'E') {
                self.at += 1;
                if matches!(self.peek(), b'+' | b'-') {
                    self.at += 1;
                }
                self.some_digits("Miss exponent in number.")?;
            }
        }
        // Only ASCII was taken.
        std::str::from_utf8(&self.bytes[start..self.at]).map_err(|_| Fault { message: "Invalid value.", at: start })
    }

    fn digits(&mut self) {
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, message: &'static str) -> Result<(), Fault> {
        if !self.peek().is_ascii_digit() {
            return Err(self.fault(message));
        }
        self.digits();
        Ok(())
    }

    /// Skips a value of any depth, checked; iterative, so depth costs a byte a level (B2).
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            // A value starts here.
            match self.next_token() {
                b'{' => {
                    self.at += 1;
                    if self.next_token() == b'}' {
                        self.at += 1;
                    } else {
                        open.push(b'}');
                        self.name()?;
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    if self.next_token() == b']' {
                        self.at += 1;
                    } else {
                        open.push(b']');
                        continue;
                    }
                }
                b'"' => self.skip_string()?,
                b't' | b'f' | b'n' => {
                    self.scalar()?;
                }
                _ => {
                    let start = self.at;
                    super::numbers::check_range(self.number_text()?, start)?;
                }
            }
            // A value ended: close what ends here, or go on to the next one.
            loop {
                let Some(&closing) = open.last() else { return Ok(()) };
                let byte = self.next_token();
                if byte == closing {
                    self.at += 1;
                    open.pop();
                } else if byte == b',' {
                    self.at += 1;
                    if closing == b'}' {
                        self.name()?;
                    }
                    break;
                } else if closing == b'}' {
                    return Err(self.fault("Missing a comma or '}' after an object member."));
                } else {
                    return Err(self.fault("Missing a comma or ']' after an array element."));
                }
            }
        }
    }

    fn name(&mut self) -> Result<(), Fault> {
        if self.next_token() != b'"' {
            return Err(self.fault("Missing a name for object member."));
        }
        self.skip_string()?;
        self.eat(b':', "Missing a colon after a name of object member.")
    }

    fn skip_string(&mut self) -> Result<(), Fault> {
        let end = self.plain_end(self.at + 1);
        if self.bytes.get(end) == Some(&b'"') && self.bytes[self.at..end].is_ascii() {
            self.at = end + 1;
            return Ok(());
        }
        self.string().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips(text: &str) -> Result<usize, Fault> {
        let mut reader = Reader::new(text.as_bytes());
        reader.skip().map(|()| reader.at)
    }

    #[test]
    fn skip_takes_exactly_one_value() {
        for text in ["{}", "[]", r#"{"a":[1,{"b":null}],"c":"\u00e9\"x"}"#, "-1.5e+10", "true", r#""\ud83d\ude00""#] {
            assert_eq!(skips(&format!("{text} ,")), Ok(text.len()), "{text}");
        }
        for bad in ["{", "[1,]", "[1 2]", "{\"a\" 1}", "{a:1}", "tru", "\"\\x\"", "\"", "01x]"] {
            let mut reader = Reader::new(bad.as_bytes());
            assert!(reader.skip().is_err() || reader.end().is_err(), "{bad}");
        }
    }

    #[test]
    fn depth_does_no_harm() {
        let deep = "[".repeat(1_000_000);
        assert!(skips(&deep).is_err());
        let closed = format!("{deep}{}", "]".repeat(1_000_000));
        assert_eq!(skips(&closed), Ok(2_000_000));
    }

    #[test]
    fn truncations_never_panic() {
        let text = r#"{"a":[1.5e-3,"x\u00e9\ud83d\ude00",{"b":[true,false,null,-Infinity]}]}"#;
        for end in 0..text.len() {
            assert!(skips(&text[..text.floor_char_boundary(end)]).is_err());
        }
    }
}
