//! Which texts may be a model's name (C1, W72).

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
