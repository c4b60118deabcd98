//! What the `parameters` of an input or output say of a region (W76).

use super::reader::Scalar;
use super::{Trouble, set_once, unsigned};
use crate::shared_memory::Window;

/// The three parameters while they are read.
#[derive(Debug, Default)]
pub(super) struct WindowParts {
    region: Option<String>,
    offset: Option<u64>,
    byte_size: Option<u64>,
}

impl WindowParts {
    /// Takes a parameter if it is one of the three.
    pub(super) fn member(&mut self, name: &str, value: Scalar<'_>) -> Result<(), Trouble> {
        match (name, value) {
            ("shared_memory_region", Scalar::String(region)) => set_once(&mut self.region, name, region.into_owned()),
            ("shared_memory_region", _) => {
                Err(Trouble::text(format!("Unable to parse '{name}': attempt to access JSON non-string as string")))
            }
            ("shared_memory_offset", value) => set_once(&mut self.offset, name, unsigned(name, &value)?),
            ("shared_memory_byte_size", value) => set_once(&mut self.byte_size, name, unsigned(name, &value)?),
            _ => Ok(()),
        }
    }

    /// Whether the tensor lies in a region.
    pub(super) fn is_set(&self) -> bool {
        self.region.is_some()
    }

    /// The window of tensor `name`; none if it lies in no region.
    pub(super) fn finish(self, name: &str) -> Result<Option<Window>, Trouble> {
        let Self { region, offset, byte_size } = self;
        region.map(|region| Window::new(name, region, offset, byte_size)).transpose().map_err(Trouble::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::Reader;
    use super::*;
    use crate::error::InferError;

    fn read(parameters: &str) -> Result<Option<Window>, String> {
        let mut parts = WindowParts::default();
        let mut reader = Reader::new(parameters.as_bytes());
        let read = reader.object(|reader, name| parts.member(name, reader.scalar()?));
        read.and_then(|()| parts.finish("T")).map_err(|trouble| InferError::from(trouble).to_string())
    }

    #[test]
    fn w76_a_window_is_a_region_an_offset_and_a_size() {
        let window = |offset| Some(Window { region: "r".to_owned(), offset, byte_size: 8 });
        let size = r#""shared_memory_byte_size":8"#;
        assert_eq!(read(&format!(r#"{{{size},"shared_memory_region":"r"}}"#)), Ok(window(0)));
        let far = format!(r#"{{"shared_memory_region":"r",{size},"shared_memory_offset":9223372036854775807}}"#);
        assert_eq!(read(&far), Ok(window(i64::MAX as u64)));
        assert_eq!(read(&format!("{{{size}}}")), Ok(None));
        for (parameters, text) in [
            (
                r#"{"shared_memory_region":"r"}"#,
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'T'",
            ),
            (
                r#"{"shared_memory_region":5}"#,
                "Unable to parse 'shared_memory_region': attempt to access JSON non-string as string",
            ),
            (
                r#"{"shared_memory_offset":-1}"#,
                "Unable to parse 'shared_memory_offset': attempt to access JSON non-unsigned-integer as unsigned-integer",
            ),
            (
                r#"{"shared_memory_region":"r","shared_memory_region":"s"}"#,
                "Unable to parse 'shared_memory_region': the object has more than one member 'shared_memory_region'",
            ),
        ] {
            assert_eq!(read(parameters).unwrap_err(), text);
        }
    }
}
