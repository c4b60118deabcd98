//! Tensor bytes: datatypes, and the only hand-written `unsafe` of the project.

pub mod datatype;
pub mod segment;
pub mod socket;

pub use datatype::DataType;
pub use segment::{OutOfSegment, Segment};
