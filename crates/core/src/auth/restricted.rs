//! Triton's restricted API: categories of routes that ask for a header with a value, on top of the gate.

use serde::{Deserialize, Serialize};

use super::access::digest;
use crate::error::InferError;

/// What a route or RPC belongs to.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Live, ready, a model's ready.
    Health,
    /// Of the server and of models.
    Metadata,
    /// Infer and generate.
    Inference,
    /// System and CUDA.
    SharedMemory,
    /// A model's configuration.
    ModelConfig,
    /// Index, load, unload, dry runs.
    ModelRepository,
    /// Counts and times.
    Statistics,
    /// Trace settings.
    Trace,
    /// Log settings.
    Logging,
    /// Naiad's own; it has a scope of its own and no option names it.
    #[serde(skip_deserializing)]
    Admin,
}

/// The number of categories.
const CATEGORIES: usize = 10;

/// One group of categories, as it crosses from Python.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestrictedRow {
    /// What is restricted.
    pub categories: Vec<Category>,
    /// The header's name without the listener's prefix.
    pub key: String,
    /// BLAKE3 of its value, so that no dump shows the value (H3).
    pub digest: String,
}

#[derive(Clone, Debug)]
struct Needed {
    header: String,
    digest: blake3::Hash,
}

/// Which header each category needs.
#[derive(Clone, Debug, Default)]
pub struct Restricted {
    needed: [Option<Needed>; CATEGORIES],
}

impl Restricted {
    /// Rules whose headers are named `prefix` and the row's key.
    pub fn new(rows: &[RestrictedRow], prefix: &str) -> Result<Self, InferError> {
        let mut restricted = Self::default();
        for row in rows {
            let digest = digest(&row.digest)
                .map_err(|text| InferError::InvalidArgument(format!("restricted: 'digest': {text}")))?;
            let needed = Needed { header: format!("{prefix}{}", row.key).to_ascii_lowercase(), digest };
            for category in &row.categories {
                if restricted.needed[*category as usize].replace(needed.clone()).is_some() {
                    let text = format!("restricted: {category:?} is in more than one group");
                    return Err(InferError::InvalidArgument(text));
                }
            }
        }
        Ok(restricted)
    }

    /// Lets a request in, or names the header that it lacks. `values` gives those of a header in lower case.
    pub fn check<'a, V>(&self, category: Category, values: impl FnOnce(&str) -> V) -> Result<(), &str>
    where
        V: Iterator<Item = &'a [u8]>,
    {
        let Some(needed) = &self.needed[category as usize] else { return Ok(()) };
        let mut values = values(&needed.header);
        let first = values.next();
        // Hashes compare in constant time (A5); of two values nobody knows which one counts.
        let fits = first.is_some_and(|value| blake3::hash(value) == needed.digest) && values.next().is_none();
        if fits { Ok(()) } else { Err(&needed.header) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<RestrictedRow> {
        let digest = blake3::hash(b"value").to_hex().to_string();
        serde_json::from_str(&text.replace("DIGEST", &digest)).unwrap()
    }

    fn check<'a>(rules: &'a Restricted, category: Category, sent: &[&'static str]) -> Result<(), &'a str> {
        rules.check(category, |_| sent.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_category_asks_for_its_header() {
        let rows = rows(r#"[{"categories":["inference","shared-memory"],"key":"Admin-Key","digest":"DIGEST"}]"#);
        let rules = Restricted::new(&rows, "triton-grpc-protocol-").unwrap();
        let lacking = Err("triton-grpc-protocol-admin-key");
        assert_eq!(check(&rules, Category::Health, &[]), Ok(()));
        assert_eq!(check(&rules, Category::Inference, &["value"]), Ok(()));
        assert_eq!(check(&rules, Category::SharedMemory, &["other"]), lacking);
        assert_eq!(check(&rules, Category::Inference, &[]), lacking);
        assert_eq!(check(&rules, Category::Inference, &["value", "value"]), lacking);
    }

    #[test]
    fn a_category_is_in_one_group_at_most() {
        let row = r#"{"categories":["trace"],"key":"k","digest":"DIGEST"}"#;
        let error = Restricted::new(&rows(&format!("[{row},{row}]")), "").unwrap_err();
        assert!(error.to_string().contains("more than one group"), "{error}");
        assert!(serde_json::from_str::<Category>(r#""admin""#).is_err());
    }
}
