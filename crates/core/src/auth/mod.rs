//! The gate: decides on the matched route, before any body is read, whether a caller may go on.

pub mod access;
pub mod restricted;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Guard};
use serde::Serialize;

use crate::error::InferError;
use access::{Access, Key, KeyScope};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Nothing.
    Public,
    /// Any valid key; the answer shows what the key may see.
    AnyKey,
    /// `infer` for the model that the route names.
    Infer,
    /// `metrics`.
    Metrics,
    /// `manage`.
    Manage,
    /// `admin`.
    Admin,
}

/// What a request shows of its caller: the values of the headers that carry a key.
#[derive(Clone, Copy, Debug, Default)]
pub enum Credentials<'a> {
    /// No key.
    #[default]
    None,
    /// One key, however often.
    Key(&'a str),
    /// Different keys, or something that is none.
    Wrong,
}

impl<'a> Credentials<'a> {
    /// Reads every `Authorization` and `X-API-Key` value; `None` = not text.
    pub fn of(
        authorization: impl Iterator<Item = Option<&'a str>>,
        api_key: impl Iterator<Item = Option<&'a str>>,
    ) -> Self {
        let mut found = Self::None;
        for key in authorization.map(|value| value.and_then(bearer)).chain(api_key) {
            found = match (found, key) {
                (Self::None, Some(key)) => Self::Key(key),
                (Self::Key(one), Some(other)) if one == other => Self::Key(one),
                _ => return Self::Wrong,
            };
        }
        found
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// What a caller without a key reads.
pub const NO_KEY: &str = "missing or invalid API key: send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'";

/// Why the gate stays shut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No key or none that is valid.
    Unauthorized,
    /// A valid key that may not do this; the text says what it lacks.
    Forbidden(String),
}

/// Who got in.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A server without keys lets everybody in.
    Keyless,
    /// A public route or service.
    Anonymous,
    /// The key that was given at start.
    Bootstrap,
    /// A key of the snapshot.
    Key(Arc<Key>),
}

impl Caller {
    /// What metrics and logs call them by: the id of their key, or a word that is no id.
    pub fn key_id(&self) -> &str {
        match self {
            Self::Keyless | Self::Anonymous => "none",
            Self::Bootstrap => "bootstrap",
            Self::Key(key) => &key.id,
        }
    }

    /// Whether internal model names are theirs to see.
    pub fn manages(&self) -> bool {
        match self {
            Self::Keyless | Self::Bootstrap => true,
            Self::Anonymous => false,
            Self::Key(key) => key.has(&[KeyScope::Admin, KeyScope::Manage]),
        }
    }

    /// Whether lists show them this service.
    pub fn sees(&self, service: &str) -> bool {
        self.manages() || matches!(self, Self::Key(key) if key.has(&[KeyScope::Infer]) && key.names(service))
    }

    /// Whether they proved to be allowed to manage, not only were let in for want of keys.
    pub fn has_managing_key(&self) -> bool {
        self.manages() && !matches!(self, Self::Keyless)
    }
}

/// The one gate of every listener.
#[derive(Debug)]
pub struct Gate {
    access: ArcSwap<Access>,
    bootstrap: Option<blake3::Hash>,
    require_key: bool,
}

impl Gate {
    /// A gate without a snapshot: with `require_key` it lets in the bootstrap key only.
    pub fn new(require_key: bool, bootstrap: Option<&str>) -> Result<Self, InferError> {
        let bootstrap = bootstrap.map(access::digest).transpose();
        let bootstrap =
            bootstrap.map_err(|text| InferError::InvalidArgument(format!("CoreOptions: 'bootstrap_key': {text}")))?;
        Ok(Self { access: ArcSwap::default(), bootstrap, require_key })
    }

    /// Takes a full snapshot.
    pub fn set(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    /// The current snapshot.
    pub fn access(&self) -> Guard<Arc<Access>> {
        self.access.load()
    }

    /// Lets a caller in or says why not. `service` is the name in the route, before aliases are resolved.
    pub fn check(&self, credentials: Credentials<'_>, scope: Scope, service: Option<&str>) -> Result<Caller, Refusal> {
        if scope == Scope::Public {
            return Ok(Caller::Anonymous);
        }
        let access = self.access.load();
        if !self.require_key && self.bootstrap.is_none() && !access.has_keys() {
            return Ok(Caller::Keyless);
        }
        let caller = self.identify(credentials, &access);
        if scope == Scope::Infer && service.is_some_and(|service| access.is_public(service)) {
            return Ok(caller.unwrap_or(Caller::Anonymous));
        }
        let caller = caller.ok_or(Refusal::Unauthorized)?;
        if let Caller::Key(key) = &caller {
            may(key, scope, service)?;
        }
        Ok(caller)
    }

    /// Turns away who may not call in any case, before a message says which model it is about; [`Gate::check`] decides
    /// then.
    pub fn check_early(&self, credentials: Credentials<'_>, scope: Scope) -> Result<(), Refusal> {
        if scope == Scope::Infer && self.access.load().has_public_services() {
            return Ok(());
        }
        self.check(credentials, scope, None).map(drop)
    }

    fn identify(&self, credentials: Credentials<'_>, access: &Access) -> Option<Caller> {
        let Credentials::Key(text) = credentials else { return None };
        let digest = blake3::hash(text.as_bytes());
        // `Hash` compares in constant time (A5).
        if self.bootstrap.is_some_and(|bootstrap| bootstrap == digest) {
            return Some(Caller::Bootstrap);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        access.find(text, &digest, now).map(|key| Caller::Key(Arc::clone(key)))
    }
}

/// Whether the key is good for the route and for the model that it names (A6).
fn may(key: &Key, scope: Scope, service: Option<&str>) -> Result<(), Refusal> {
    use KeyScope::{Admin, Infer, Manage, Metrics};
    let needed = match scope {
        Scope::Public | Scope::AnyKey => return Ok(()),
        Scope::Infer | Scope::Manage if key.has(&[Admin, Manage]) => return Ok(()),
        Scope::Infer if key.has(&[Infer]) => {
            return match service {
                Some(service) if !key.names(service) => {
                    Err(Refusal::Forbidden(format!("the API key is not valid for model '{service}'")))
                }
                _ => Ok(()),
            };
        }
        Scope::Metrics if key.has(&[Admin, Metrics]) => return Ok(()),
        Scope::Admin if key.has(&[Admin]) => return Ok(()),
        Scope::Infer => "infer",
        Scope::Metrics => "metrics",
        Scope::Manage => "manage",
        Scope::Admin => "admin",
    };
    Err(Refusal::Forbidden(format!("the API key lacks the scope '{needed}'")))
}

#[cfg(test)]
mod tests;
