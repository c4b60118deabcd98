//! The thirteen datatypes of the v2 protocol: names, codes and sizes.

/// The datatype of a tensor, named as on the v2 wire (`FP32`, `BYTES` …).
///
/// The discriminants are the numbers of `inference.DataType` in the model configuration message; they are also the
/// codes that travel to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool = 1,
    /// Unsigned, 8 bits.
    Uint8 = 2,
    /// Unsigned, 16 bits.
    Uint16 = 3,
    /// Unsigned, 32 bits.
    Uint32 = 4,
    /// Unsigned, 64 bits.
    Uint64 = 5,
    /// Signed, 8 bits.
    Int8 = 6,
    /// Signed, 16 bits.
    Int16 = 7,
    /// Signed, 32 bits.
    Int32 = 8,
    /// Signed, 64 bits.
    Int64 = 9,
    /// IEEE 754 binary16.
    Fp16 = 10,
    /// IEEE 754 binary32.
    Fp32 = 11,
    /// IEEE 754 binary64.
    Fp64 = 12,
    /// Elements of variable length: each a 4-byte little-endian length and its bytes.
    Bytes = 13,
    /// The upper 16 bits of an IEEE 754 binary32.
    Bf16 = 14,
}

impl DataType {
    /// Every datatype, in the order of the codes.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The name on the v2 wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    /// The datatype of a v2 name; `STRING` is not one (W20).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// The datatype of a code on the worker's wire.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| *datatype as u8 == code)
    }

    /// Bytes of one element; `None` for `BYTES`, whose elements vary.
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_read_back() {
        for datatype in DataType::ALL {
            assert_eq!(DataType::from_name(datatype.name()), Some(datatype));
            assert_eq!(DataType::from_code(datatype as u8), Some(datatype));
        }
        assert_eq!(DataType::from_name("STRING"), None);
        assert_eq!(DataType::from_code(0), None);
    }
}
