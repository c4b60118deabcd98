//! Tensor bytes: datatypes, and the only hand-written `unsafe` of the project.

pub mod datatype;

pub use datatype::DataType;
