//! The bytes of inference messages: typed or raw tensors in, raw tensors out (W40-W44).

mod contents;
mod decode;
mod encode;

pub use decode::{ResponseForm, decode};
pub use encode::{Encoded, encode};
