//! One element of `inputs`: its members in any order, its data from the JSON or from the binary tail (W14-W20, W27).

use naiad_tensor::DataType;

use super::data;
use super::reader::Reader;
use super::window::WindowParts;
use super::{Trouble, set_once, text, unsigned};
use crate::model::{dims_text, element_count, unknown_datatype};
use crate::request::InputTensor;
use crate::rope::Rope;
use crate::shared_memory::Window;
use crate::spec::ModelSpec;

/// Dims that a shape may have (B6).
const MAX_DIMS: usize = 64;

/// What reading inputs needs besides the text.
pub(super) struct Inputs<'m> {
    pub(super) model: &'m ModelSpec,
    /// W23, for each tensor that is expanded from JSON.
    pub(super) max_input_size: u64,
    /// Binary bytes that no input has taken yet.
    pub(super) tail: Rope,
}

/// An input while its object is read.
#[derive(Default)]
struct Partial<'a> {
    name: Option<String>,
    datatype: Option<String>,
    shape: Option<Vec<i64>>,
    /// Where `data` starts, if it stands before a member that it depends on.
    later: Option<Reader<'a>>,
    data: Option<Vec<u8>>,
    binary_size: Option<u64>,
    window: WindowParts,
}

impl Inputs<'_> {
    /// Reads the input that starts here; one in a region has no data yet.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(InputTensor, Option<Window>), Trouble> {
        let mut partial = Partial::default();
        if reader.peek() == b'{' {
            reader.object(|reader, member| partial.member(reader, member, self))?;
        } else {
            reader.skip()?;
        }
        self.finish(partial)
    }

    fn finish(&mut self, mut partial: Partial<'_>) -> Result<(InputTensor, Option<Window>), Trouble> {
        partial.check_sources()?;
        if let Some(mut later) = partial.later.take() {
            partial.data = Some(partial.read_data(&mut later, self)?);
        }
        let name = partial.name.ok_or_else(|| Trouble::missing("name"))?;
        let written = partial.datatype.ok_or_else(|| Trouble::missing("datatype"))?;
        let shape = partial.shape.ok_or_else(|| Trouble::missing("shape"))?;
        let Some(datatype) = DataType::from_name(&written) else {
            return Err(Trouble::Wrong(unknown_datatype(self.model, "", &name)));
        };
        let data = if let Some(data) = partial.data {
            Rope::from(data)
        } else {
            let data = self.take(&name, partial.binary_size.unwrap_or(0))?;
            if datatype == DataType::Bytes { data.joined() } else { data }
        };
        let window = partial.window.finish(&name)?;
        Ok((InputTensor { name, datatype, shape, data }, window))
    }

    /// The next `size` bytes of the binary tail, not copied (W27).
    fn take(&mut self, name: &str, size: u64) -> Result<Rope, Trouble> {
        let left = self.tail.len() as u64;
        if size > left {
            return Err(Trouble::text(format!(
                "unexpected size for input '{name}', expecting {} additional bytes for model '{}'",
                size - left,
                self.model.name
            )));
        }
        Ok(self.tail.split_to(size as usize))
    }
}

impl<'a> Partial<'a> {
    fn member(&mut self, reader: &mut Reader<'a>, member: &str, inputs: &Inputs<'_>) -> Result<(), Trouble> {
        match member {
            "name" => set_once(&mut self.name, member, text(reader, member)?),
            "datatype" => set_once(&mut self.datatype, member, text(reader, member)?),
            "shape" => set_once(&mut self.shape, member, shape(reader)?),
            "data" if self.data.is_some() || self.later.is_some() => Err(Trouble::twice(member)),
            "data" if self.name.is_some() && self.datatype.is_some() && self.shape.is_some() => {
                self.data = Some(self.read_data(reader, inputs)?);
                Ok(())
            }
            "data" => {
                self.later = Some(*reader);
                Ok(reader.skip()?)
            }
            "parameters" if reader.peek() == b'{' => self.parameters(reader),
            _ => Ok(reader.skip()?),
        }
    }

    fn parameters(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        reader.object(|reader, name| {
            let value = reader.scalar()?;
            match name {
                "binary_data_size" => set_once(&mut self.binary_size, name, unsigned(name, &value)?),
                _ => self.window.member(name, value),
            }
        })
    }

    /// W19.
    fn check_sources(&self) -> Result<(), Trouble> {
        let sources = [
            ("'data'", self.data.is_some() || self.later.is_some()),
            ("'binary_data_size'", self.binary_size.is_some()),
            ("'shared_memory_region'", self.window.is_set()),
        ];
        let set: Vec<&str> = sources.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
        let but = match set[..] {
            [_] => return Ok(()),
            [] => "no field is set".to_owned(),
            _ => format!("set {}", set.join(" ")),
        };
        Err(Trouble::text(format!(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', \
             'shared_memory_region' in 'parameters'. But {but}"
        )))
    }

    /// Reads `data`; what it depends on has been read or is missing.
    fn read_data(&self, reader: &mut Reader<'_>, inputs: &Inputs<'_>) -> Result<Vec<u8>, Trouble> {
        let name = self.name.as_deref().ok_or_else(|| Trouble::missing("name"))?;
        let datatype = self.datatype.as_deref().ok_or_else(|| Trouble::missing("datatype"))?;
        let shape = self.shape.as_deref().ok_or_else(|| Trouble::missing("shape"))?;
        let datatype =
            DataType::from_name(datatype).ok_or_else(|| Trouble::text(format!("invalid datatype for input {name}")))?;
        let expected = element_count(shape).ok_or_else(|| {
            Trouble::text(format!(
                "invalid shape for input '{name}': shape {} causes total element count to exceed maximum size of {}",
                dims_text(shape),
                i64::MAX
            ))
        })?;
        let size = datatype.size().unwrap_or(4) as u64;
        let bytes = expected.checked_mul(size).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| {
            Trouble::text(format!(
                "byte size overflow for input '{name}': shape {} of datatype {} exceeds maximum size of {} bytes",
                dims_text(shape),
                datatype.name(),
                i64::MAX
            ))
        })?;
        let limit = inputs.max_input_size;
        if bytes > limit {
            return Err(Trouble::text(format!(
                "JSON input '{name}' has a byte_size ({bytes} bytes) that exceeds the maximum allowed value of {limit} \
                 bytes. Use --http-max-input-size to increase the limit."
            )));
        }
        let (count, data) = data::read(reader, datatype, expected)?;
        if count < expected {
            return Err(Trouble::text("Failed to parse 'data' field: shape does not match true shape"));
        }
        Ok(data)
    }
}

/// Integers only, none negative (W15, B4).
fn shape(reader: &mut Reader<'_>) -> Result<Vec<i64>, Trouble> {
    if reader.peek() != b'[' {
        return Err(Trouble::text("Unable to parse 'shape': attempt to access JSON non-array as array"));
    }
    let mut dims = Vec::with_capacity(4);
    reader.array(|reader| {
        let dim = unsigned("shape", &reader.scalar()?)?;
        let dim = i64::try_from(dim).map_err(|_| {
            Trouble::text(format!("Unable to parse 'shape': dimension {dim} exceeds the maximum of {}", i64::MAX))
        })?;
        if dims.len() == MAX_DIMS {
            return Err(Trouble::text(format!("Unable to parse 'shape': more than {MAX_DIMS} dimensions")));
        }
        dims.push(dim);
        Ok(())
    })?;
    Ok(dims)
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
