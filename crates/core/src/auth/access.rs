//! The access snapshot: who may call what, and which model answers a public name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::InferError;

const ID_LENGTH: usize = 8;

/// The snapshot as it crosses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    generation: u64,
    #[serde(default)]
    keys: Vec<KeyRow>,
    #[serde(default)]
    aliases: BTreeMap<String, Vec<TargetRow>>,
    #[serde(default)]
    services: BTreeMap<String, ServiceRow>,
    #[serde(default)]
    limits: BTreeMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    id: String,
    digest: String,
    scopes: Vec<KeyScope>,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    expires: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetRow {
    model: String,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceRow {
    mode: Mode,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    parameters: Vec<Box<RawValue>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Key,
    Public,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum KeyScope {
    /// Everything.
    Admin,
    /// Load, unload and infer, on all services.
    Manage,
    /// Infer on the key's services.
    Infer,
    /// Read metrics.
    Metrics,
}

/// One API key, known by its digest only.
#[derive(Debug)]
pub struct Key {
    /// The public part.
    pub id: String,
    /// BLAKE3 of the whole key; comparing two takes constant time (A5).
    pub digest: blake3::Hash,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// Which services an `infer` key may call.
    pub services: HashSet<String>,
    /// Seconds since the epoch from which it is worth nothing.
    pub expires: Option<u64>,
}

impl Key {
    /// Whether it carries one of these scopes.
    pub fn has(&self, scopes: &[KeyScope]) -> bool {
        self.scopes.iter().any(|scope| scopes.contains(scope))
    }

    /// Whether it names this service or all.
    pub fn names(&self, service: &str) -> bool {
        self.services.contains("*") || self.services.contains(service)
    }
}

/// The models behind a public name, by weight.
#[derive(Debug)]
struct Alias {
    targets: Vec<(Arc<str>, u32)>,
    total: u32,
    turn: AtomicU64,
}

impl Alias {
    fn pick(&self) -> &Arc<str> {
        let (first, _) = &self.targets[0];
        if self.targets.len() == 1 {
            return first;
        }
        // Multiples of the golden ratio fall evenly, so that short runs keep the weights too.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mut point = ((turn * u64::from(self.total)) >> 32) as u32;
        for (model, weight) in &self.targets {
            if point < *weight {
                return model;
            }
            point -= weight;
        }
        first
    }
}

/// One snapshot, ready for lookups.
#[derive(Debug, Default)]
pub struct Access {
    /// Which one this is.
    pub generation: u64,
    keys: HashMap<String, Arc<Key>>,
    aliases: HashMap<String, Alias>,
    public_names: HashMap<String, String>,
    public_services: HashSet<String>,
}

impl Access {
    /// Reads a snapshot; the message names the row that is wrong.
    pub fn from_json(document: &[u8]) -> Result<Self, InferError> {
        let document: Document = crate::options::parse("access snapshot", document)?;
        if let Some(name) = document.limits.keys().next() {
            return Err(fault(format!("'limits': '{name}' is not known; this server has no limits by service yet")));
        }
        let mut access = Self { generation: document.generation, ..Self::default() };
        for row in document.keys {
            let key = key(row)?;
            if access.keys.insert(key.id.clone(), Arc::new(key)).is_some() {
                return Err(fault("'keys': the same id stands there twice"));
            }
        }
        for (name, targets) in document.aliases {
            access.add_alias(name, targets)?;
        }
        for (name, service) in document.services {
            if service.header.is_some() || !service.parameters.is_empty() {
                let text = "'header' and 'parameters' are not enforced yet, so the snapshot is refused";
                return Err(fault(format!("service '{name}': {text}")));
            }
            if service.mode == Mode::Public {
                access.public_services.insert(name);
            }
        }
        Ok(access)
    }

    fn add_alias(&mut self, name: String, rows: Vec<TargetRow>) -> Result<(), InferError> {
        let rows: Vec<_> = rows.into_iter().filter(|row| row.weight > 0).collect();
        let total = rows.iter().try_fold(0_u32, |sum, row| sum.checked_add(row.weight));
        let Some(total) = total.filter(|total| *total > 0) else {
            return Err(fault(format!("alias '{name}': expected weights that add to more than 0 and less than 2^32")));
        };
        let targets = rows.iter().map(|row| (Arc::from(row.model.as_str()), row.weight)).collect();
        self.public_names.extend(rows.into_iter().map(|row| (row.model, name.clone())));
        self.aliases.insert(name, Alias { targets, total, turn: AtomicU64::new(0) });
        Ok(())
    }

    /// Whether there is a key at all.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The key of that text if it is one, whatever it may do; an expired one is none.
    pub fn find(&self, text: &str, digest: &blake3::Hash, now: u64) -> Option<&Arc<Key>> {
        let id = text.strip_prefix("nk_")?.get(..ID_LENGTH)?;
        let key = self.keys.get(id)?;
        // `Hash` compares in constant time.
        (key.digest == *digest && key.expires.is_none_or(|expires| now < expires)).then_some(key)
    }

    /// Whether `infer` routes of this service need no key.
    pub fn is_public(&self, service: &str) -> bool {
        self.public_services.contains(service)
    }

    /// Whether there is a service that needs no key.
    pub fn has_public_services(&self) -> bool {
        !self.public_services.is_empty()
    }

    /// The model that answers a public name; `None` where the name is a model's own.
    pub fn resolve(&self, name: &str) -> Option<Arc<str>> {
        if self.aliases.is_empty() {
            return None;
        }
        self.aliases.get(name).map(|alias| Arc::clone(alias.pick()))
    }

    /// Every model behind a public name.
    pub fn targets(&self, name: &str) -> Vec<Arc<str>> {
        let alias = self.aliases.get(name);
        alias.map(|alias| alias.targets.iter().map(|(model, _)| Arc::clone(model)).collect()).unwrap_or_default()
    }

    /// Public names by model name.
    pub fn public_names(&self) -> &HashMap<String, String> {
        &self.public_names
    }
}

fn key(row: KeyRow) -> Result<Key, InferError> {
    if row.id.len() != ID_LENGTH || !row.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(fault(format!("key '{}': expected an id of {ID_LENGTH} letters and digits", row.id)));
    }
    let digest = digest(&row.digest).map_err(|text| fault(format!("key '{}': 'digest': {text}", row.id)))?;
    let services = row.services.into_iter().collect();
    Ok(Key { id: row.id, digest, scopes: row.scopes, services, expires: row.expires })
}

/// Reads a digest; the message does not repeat it, for it might be the key itself.
pub fn digest(hex: &str) -> Result<blake3::Hash, String> {
    blake3::Hash::from_hex(hex).map_err(|_| "expected 64 hexadecimal digits of BLAKE3".to_owned())
}

fn fault(text: impl AsRef<str>) -> InferError {
    InferError::InvalidArgument(format!("access snapshot: {}", text.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_hold_over_short_runs() {
        let document =
            br#"{"generation":1,"aliases":{"m":[{"model":"m.v1","weight":90},{"model":"m.v2","weight":10}]}}"#;
        let access = Access::from_json(document).unwrap();
        let new = (0..1000).filter(|_| access.resolve("m").unwrap().as_ref() == "m.v2").count();
        assert!((95..=105).contains(&new), "{new}");
        assert!(access.resolve("m.v1").is_none());
    }

    #[test]
    fn what_is_not_enforced_is_refused() {
        for (document, expected) in [
            (r#"{"generation":1,"limits":{"m":1}}"#, "'limits'"),
            (r#"{"generation":1,"services":{"m":{"mode":"key","header":"X-Team"}}}"#, "service 'm'"),
            (r#"{"generation":1,"aliases":{"m":[]}}"#, "alias 'm'"),
            (r#"{"generation":1,"keys":[{"id":"x","digest":"","scopes":[]}]}"#, "key 'x'"),
            (r#"{"generation":1,"wat":1}"#, "unknown field `wat`"),
        ] {
            let text = Access::from_json(document.as_bytes()).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
