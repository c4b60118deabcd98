//! Which texts may be a model's name or version (C1, W47, W72).

use crate::error::InferError;

const LONGEST: usize = 255;

/// Wider than C1 where a folder of a Triton repository may be: letters of any script, and what cannot lead anywhere.
pub(crate) fn is_name(name: &str) -> bool {
    let inside = |letter: char| letter.is_alphanumeric() || "._-+@:,= ".contains(letter);
    name.len() <= LONGEST
        && name.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
        && name.chars().all(inside)
        && !name.contains("..")
}

/// W72, for every request that names a model.
pub(crate) fn refusal(name: &str) -> String {
    format!("invalid model name '{name}', model name must not contain path traversal characters")
}

/// W47: a version as a client writes it; Triton's largest is that of a signed number.
pub(crate) fn version(text: &str) -> Result<u64, InferError> {
    let wrong = match text.parse::<i64>() {
        Ok(version) if version >= 0 => return Ok(version.unsigned_abs()),
        Ok(_) => format!("invalid model version specified '{text}' , version should be an integral value > 0"),
        Err(_) => format!(
            "failed to get model version from specified version string '{text}' (details: stol), version should be an \
             integral value > 0"
        ),
    };
    Err(InferError::InvalidArgument(wrong))
}
