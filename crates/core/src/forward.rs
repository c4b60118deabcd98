//! Header forwarding: headers whose names fit a pattern become request parameters, for HTTP and gRPC alike.

use regex::{Regex, RegexBuilder};

use crate::error::InferError;
use crate::request::{InferRequest, Parameter};

/// Bytes that a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// Parameters with a meaning of their own.
const RESERVED: [&str; 7] =
    ["sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"];

/// Which headers become parameters.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    pattern: Option<Regex>,
}

impl Forward {
    /// Forwards headers in whose name `pattern` is found; an empty one forwards none. Case counts only after `(?-i)`.
    pub fn new(pattern: &str) -> Result<Self, InferError> {
        if pattern.is_empty() {
            return Ok(Self::default());
        }
        // Linear in the length of the name, whatever the pattern.
        let pattern = RegexBuilder::new(pattern).case_insensitive(true).size_limit(PATTERN_BYTES).build();
        let pattern = pattern.map_err(|fault| InferError::InvalidArgument(format!("header forward pattern: {fault}")));
        Ok(Self { pattern: Some(pattern?) })
    }

    /// Whether any header may be forwarded.
    pub fn is_on(&self) -> bool {
        self.pattern.is_some()
    }

    /// Adds the headers that fit to the request. A parameter of the same name gives way: a proxy that sets a header
    /// relies on it.
    pub fn apply<'a>(
        &self,
        request: &mut InferRequest,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), InferError> {
        let Some(pattern) = &self.pattern else { return Ok(()) };
        let mut forwarded = Vec::new();
        for (name, value) in headers.filter(|(name, _)| pattern.is_match(name)) {
            if name.starts_with("triton_") || RESERVED.contains(&name) {
                let text = format!("Header '{name}' is reserved for Triton usage and cannot be forwarded.");
                return Err(InferError::InvalidArgument(text));
            }
            forwarded.push((name.to_owned(), Parameter::String(String::from_utf8_lossy(value).into_owned())));
        }
        request.parameters.retain(|(name, _)| !forwarded.iter().any(|(other, _)| other == name));
        request.parameters.append(&mut forwarded);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(pattern: &str, headers: &[(&str, &str)]) -> Result<Vec<(String, Parameter)>, String> {
        let mut request = InferRequest {
            model: "m".into(),
            version: None,
            id: String::new(),
            parameters: vec![("my_header".to_owned(), Parameter::Int(1)), ("own".to_owned(), Parameter::Bool(true))],
            timeout_us: 0,
            deadline: None,
            priority: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            reserved: 0,
            traceparent: None,
        };
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        Forward::new(pattern).unwrap().apply(&mut request, headers).map_err(|error| error.to_string())?;
        Ok(request.parameters)
    }

    #[test]
    fn names_that_fit_become_parameters() {
        let headers = [("my_header", "a \"b\""), ("x-my_header-2", "c"), ("other", "d")];
        let own = ("own".to_owned(), Parameter::Bool(true));
        let text = |name: &str, value: &str| (name.to_owned(), Parameter::String(value.to_owned()));
        let both = vec![own, text("my_header", "a \"b\""), text("x-my_header-2", "c")];
        assert_eq!(forwarded("MY_header", &headers).unwrap(), both);
        assert_eq!(forwarded("(?-i)MY_header", &headers).unwrap().len(), 2);
        assert_eq!(forwarded("^my_header$", &headers).unwrap().len(), 2);
        assert_eq!(forwarded("", &headers).unwrap().len(), 2);
    }

    #[test]
    fn reserved_names_are_refused() {
        let text = |name: &str| format!("Header '{name}' is reserved for Triton usage and cannot be forwarded.");
        for name in ["sequence_id", "timeout", "triton_x", "binary_data_output", "headers"] {
            assert_eq!(forwarded(".*", &[(name, "1")]).unwrap_err(), text(name));
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        for pattern in ["(", "(?<name", "a{1000}{1000}{1000}", r"(a)\1"] {
            assert!(Forward::new(pattern).unwrap_err().to_string().starts_with("header forward pattern"), "{pattern}");
        }
    }
}
