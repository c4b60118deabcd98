//! The gate: who calls, and whether the matched route is theirs. Deny by default, one rule for every listener.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::Deserialize;

/// The text of every 401: one for all causes, so that a guess learns nothing.
pub const UNAUTHENTICATED: &str =
    "missing or invalid API key: send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'";

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Nothing.
    Public,
    /// Any valid key; the answer shows what the key may see.
    AnyKey,
    /// `infer` on the model that the route names.
    Infer,
    /// `manage`.
    Manage,
    /// `metrics`.
    Metrics,
    /// `admin`.
    Admin,
}

/// A scope that a key holds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Inference, metadata and statistics of named services.
    Infer,
    /// Load, unload and every service.
    Manage,
    /// The metrics listener.
    Metrics,
    /// Everything.
    Admin,
}

/// A full snapshot of who may do what, as the control plane pushes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
    /// Every key.
    #[serde(default)]
    pub keys: Vec<KeyRow>,
    /// Public name → weighted internal models.
    #[serde(default)]
    pub aliases: HashMap<String, Vec<AliasRow>>,
    /// Rules of single services.
    #[serde(default)]
    pub services: HashMap<String, ServiceRule>,
    /// Rate limits: come later, so none may be named.
    #[serde(default)]
    pub limits: NoLimits,
}

/// Refuses whatever it is given: limits that nobody enforces must not be accepted.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoLimits {}

/// One API key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRow {
    /// The eight characters after `nk_`.
    pub id: String,
    /// BLAKE3 of the whole key, hex.
    pub digest: String,
    /// What it may do.
    pub scopes: Vec<Grant>,
    /// Service names, or `*`.
    #[serde(default)]
    pub services: Vec<String>,
    /// Seconds since the epoch.
    #[serde(default)]
    pub expires: Option<u64>,
}

/// One target of an alias.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasRow {
    /// The internal model.
    pub model: String,
    /// Its share.
    pub weight: u32,
}

/// How a service is called.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRule {
    /// `key` or `public`.
    pub mode: Mode,
    /// A third header that may carry the key.
    #[serde(default)]
    pub header: Option<String>,
    /// Further authentication parameters: come later, so none may be named.
    #[serde(default)]
    pub parameters: [(); 0],
}

/// Whether a service asks for a key.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does.
    Key,
    /// It does not.
    Public,
}

#[derive(Debug)]
struct Key {
    digest: blake3::Hash,
    grants: Vec<Grant>,
    services: Vec<String>,
    expires: Option<u64>,
}

#[derive(Debug, Default)]
struct Access {
    keys: HashMap<String, Arc<Key>>,
    aliases: HashMap<String, Vec<(Arc<str>, u32)>>,
    /// Internal model → public name.
    public_names: HashMap<String, Arc<str>>,
    services: HashMap<String, ServiceRule>,
}

/// A model name of a URL after aliases.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the registry knows.
    pub model: Arc<str>,
    /// What the client says and reads: the service where an alias exists.
    pub public: Arc<str>,
}

/// Who calls.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody asked: keyless mode or a public route.
    Anyone,
    /// The holder of a key.
    Key(Arc<CallerKey>),
}

/// What a caller's key allows.
#[derive(Debug)]
pub struct CallerKey {
    /// The key's id.
    pub id: String,
    grants: Vec<Grant>,
    services: Vec<String>,
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No key, an invalid, expired or second one: 401.
    Unauthenticated,
    /// A valid key that may not do this: 403, with the text.
    Forbidden(String),
}

/// The keys that a request presents, in the order of its headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The one key, if all that were sent are equal.
    key: Option<&'a str>,
    conflict: bool,
}

impl<'a> Presented<'a> {
    /// Adds a key; a second different one spoils all.
    pub fn add(&mut self, key: &'a str) {
        match self.key {
            Some(seen) if seen != key => self.conflict = true,
            _ => self.key = Some(key),
        }
    }
}

impl Caller {
    /// Whether the caller may see this service in lists.
    pub fn sees(&self, service: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Key(key) => key.may_infer(service),
        }
    }

    /// Whether the caller may manage models.
    pub fn manages(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::Key(key) => key.holds(Grant::Manage),
        }
    }
}

impl CallerKey {
    fn holds(&self, grant: Grant) -> bool {
        self.grants
            .iter()
            .any(|held| *held == grant || *held == Grant::Admin || (*held == Grant::Manage && grant == Grant::Infer))
    }

    fn may_infer(&self, service: &str) -> bool {
        self.holds(Grant::Manage)
            || (self.holds(Grant::Infer) && self.services.iter().any(|named| named == "*" || named == service))
    }
}

/// The one gate of the server.
#[derive(Debug)]
pub struct Gate {
    access: ArcSwap<Access>,
    require_key: bool,
    bootstrap: Option<blake3::Hash>,
}

impl Gate {
    /// A gate that knows no keys yet but the bootstrap one.
    ///
    /// # Errors
    /// The digest is not 64 hex digits.
    pub fn new(require_key: bool, bootstrap: Option<&str>) -> Result<Self, String> {
        let bootstrap = bootstrap.map(|text| digest("bootstrap_key", text)).transpose()?;
        Ok(Self { access: ArcSwap::default(), require_key, bootstrap })
    }

    /// Whether callers without a key are let in everywhere.
    pub fn is_keyless(&self) -> bool {
        !self.require_key
    }

    /// Replaces all that is known; answers the generation.
    ///
    /// # Errors
    /// A row is wrong; the message names it and nothing is replaced.
    pub fn set(&self, snapshot: Snapshot) -> Result<u64, String> {
        let generation = snapshot.generation;
        self.access.store(Arc::new(Access::new(snapshot)?));
        Ok(generation)
    }

    /// The model that answers `name`; a weighted alias is decided by `seed`.
    pub fn resolve(&self, name: &str, seed: u64) -> Resolved {
        let access = self.access.load();
        if let Some(targets) = access.aliases.get(name) {
            return Resolved { model: pick(targets, seed), public: Arc::from(name) };
        }
        let model: Arc<str> = Arc::from(name);
        Resolved { public: access.public_names.get(name).map_or_else(|| Arc::clone(&model), Arc::clone), model }
    }

    /// The public name of an internal model; its own where it has no alias.
    pub fn public_name(&self, model: &str) -> Option<Arc<str>> {
        self.access.load().public_names.get(model).map(Arc::clone)
    }

    /// The third header that may carry a key for this service.
    pub fn key_header(&self, service: &str) -> Option<String> {
        self.access.load().services.get(service)?.header.clone()
    }

    /// Decides whether a request that presents these keys may use a route of this scope, for this service.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, presented: Presented<'_>, scope: Scope, service: Option<&str>) -> Result<Caller, Refusal> {
        if scope == Scope::Public || !self.require_key {
            return Ok(Caller::Anyone);
        }
        let access = self.access.load();
        let public = service
            .filter(|_| scope == Scope::Infer)
            .and_then(|service| access.services.get(service))
            .is_some_and(|rule| rule.mode == Mode::Public);
        if public {
            return Ok(Caller::Anyone);
        }
        let key = self.identify(&access, presented).ok_or(Refusal::Unauthenticated)?;
        let allowed = match scope {
            Scope::Public | Scope::AnyKey => true,
            Scope::Infer => service.is_some_and(|service| key.may_infer(service)),
            Scope::Manage => key.holds(Grant::Manage),
            Scope::Metrics => key.holds(Grant::Metrics),
            Scope::Admin => key.holds(Grant::Admin),
        };
        if allowed {
            return Ok(Caller::Key(Arc::new(key)));
        }
        Err(Refusal::Forbidden(match (scope, service) {
            (Scope::Infer, Some(service)) => format!("this API key may not use '{service}'"),
            (scope, _) => format!("this API key lacks the scope '{}'", format!("{scope:?}").to_lowercase()),
        }))
    }

    fn identify(&self, access: &Access, presented: Presented<'_>) -> Option<CallerKey> {
        let text = presented.key.filter(|_| !presented.conflict)?;
        let hash = blake3::hash(text.as_bytes());
        // `Hash` compares in constant time (A5).
        if self.bootstrap.is_some_and(|bootstrap| bootstrap == hash) {
            return Some(CallerKey { id: "bootstrap".to_owned(), grants: vec![Grant::Admin], services: Vec::new() });
        }
        let id = text.strip_prefix("nk_")?.get(..8)?;
        let key = access.keys.get(id).filter(|key| key.digest == hash)?;
        if key.expires.is_some_and(|expires| expires <= now()) {
            return None;
        }
        Some(CallerKey { id: id.to_owned(), grants: key.grants.clone(), services: key.services.clone() })
    }
}

impl Access {
    fn new(snapshot: Snapshot) -> Result<Self, String> {
        let mut access = Self { services: snapshot.services, ..Self::default() };
        for row in snapshot.keys {
            let digest = digest(&format!("keys['{}'].digest", row.id), &row.digest)?;
            let key = Key { digest, grants: row.scopes, services: row.services, expires: row.expires };
            if access.keys.insert(row.id.clone(), Arc::new(key)).is_some() {
                return Err(format!("keys: id '{}' stands twice", row.id));
            }
        }
        for (public, rows) in snapshot.aliases {
            if rows.iter().all(|row| row.weight == 0) {
                return Err(format!("aliases['{public}']: expected a target with a weight above 0"));
            }
            let shown: Arc<str> = Arc::from(public.as_str());
            for row in &rows {
                access.public_names.insert(row.model.clone(), Arc::clone(&shown));
            }
            let targets = rows.into_iter().map(|row| (Arc::from(row.model), row.weight)).collect();
            access.aliases.insert(public, targets);
        }
        Ok(access)
    }
}

/// The target that `seed` falls on.
fn pick(targets: &[(Arc<str>, u32)], seed: u64) -> Arc<str> {
    let total: u64 = targets.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut at = seed % total.max(1);
    for (model, weight) in targets {
        let weight = u64::from(*weight);
        if at < weight {
            return Arc::clone(model);
        }
        at -= weight;
    }
    Arc::clone(&targets[0].0)
}

fn digest(whose: &str, text: &str) -> Result<blake3::Hash, String> {
    blake3::Hash::from_hex(text).map_err(|_| format!("{whose}: expected 64 hex digits"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
