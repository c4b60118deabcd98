//! Which model versions are published, which of them answers a name, and the repository index.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::error::InferError;
use crate::model::Model;
use crate::spec::IndexRow;

type Versions = BTreeMap<u64, Arc<Model>>;
type Published = HashMap<String, Versions>;

/// The published model versions; readers never wait.
#[derive(Debug, Default)]
pub struct Registry {
    published: ArcSwap<Published>,
    index: ArcSwap<Vec<IndexRow>>,
    /// Versions that serve no more and nobody has retired yet; off the request path.
    replaced: Mutex<HashMap<String, Vec<Arc<Model>>>>,
}

impl Registry {
    /// The model version that answers `name`, by policy where no version is named (W8).
    pub fn find(&self, name: &str, version: Option<u64>) -> Result<Arc<Model>, InferError> {
        let published = self.published.load();
        let versions = published.get(name);
        let found = match version {
            Some(version) => versions.and_then(|versions| versions.get(&version)),
            None => versions.and_then(default_version),
        };
        found.map(Arc::clone).ok_or_else(|| self.absent(name, version, versions.is_some()))
    }

    /// Whether the version has a live worker and its code says nothing else (W10).
    pub async fn ready(&self, name: &str, version: Option<u64>) -> Result<bool, InferError> {
        Ok(self.find(name, version)?.is_ready().await)
    }

    /// Why nothing answers `name`.
    fn absent(&self, name: &str, version: Option<u64>, published: bool) -> InferError {
        let index = self.index.load();
        let model = name.to_owned();
        let mut rows = index.iter().filter(|row| row.name == name && row.version.is_some()).peekable();
        if !published && rows.peek().is_none() {
            return InferError::ModelNotFound { model };
        }
        match version {
            None => InferError::NoVersion { model },
            Some(version) if rows.any(|row| row.version == Some(version) && row.state.is_some()) => {
                InferError::VersionNotReady { model, version }
            }
            Some(version) => InferError::VersionNotFound { model, version },
        }
    }

    /// Published versions of a model, ascending; empty if there are none.
    pub fn versions(&self, name: &str) -> Vec<u64> {
        self.published.load().get(name).map(|versions| versions.keys().copied().collect()).unwrap_or_default()
    }

    /// Every published version, by name and version.
    pub fn models(&self) -> Vec<Arc<Model>> {
        let published = self.published.load();
        let mut names: Vec<_> = published.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        names.into_iter().flat_map(|(_, versions)| versions.values().cloned()).collect()
    }

    /// Makes `model` the one that serves its name and version; what it replaces waits for [`Registry::take_replaced`].
    pub fn publish(&self, model: &Arc<Model>) {
        let spec = &model.spec;
        let before = self.published.rcu(|published| {
            let mut published = Published::clone(published);
            published.entry(spec.name.clone()).or_default().insert(spec.version, Arc::clone(model));
            published
        });
        if let Some(old) = before.get(&spec.name).and_then(|versions| versions.get(&spec.version)) {
            self.keep_replaced(&spec.name, Arc::clone(old));
        }
    }

    /// Puts `model` in the place of the version that it continues with the same scheduler: nothing is replaced.
    pub fn swap(&self, model: &Arc<Model>) {
        let spec = &model.spec;
        self.published.rcu(|published| {
            let mut published = Published::clone(published);
            if let Some(place) = published.get_mut(&spec.name).and_then(|versions| versions.get_mut(&spec.version)) {
                *place = Arc::clone(model);
            }
            published
        });
    }

    /// Takes a version out, which waits for [`Registry::take_replaced`]; false if it is not published.
    pub fn withdraw(&self, name: &str, version: u64) -> bool {
        let before = self.published.rcu(|published| {
            let mut published = Published::clone(published);
            if let Some(versions) = published.get_mut(name) {
                versions.remove(&version);
                if versions.is_empty() {
                    published.remove(name);
                }
            }
            published
        });
        let old = before.get(name).and_then(|versions| versions.get(&version));
        if let Some(old) = old {
            self.keep_replaced(name, Arc::clone(old));
        }
        old.is_some()
    }

    /// What `publish` replaced and `withdraw` took out under this name since the last call.
    pub fn take_replaced(&self, name: &str) -> Vec<Arc<Model>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).remove(name).unwrap_or_default()
    }

    fn keep_replaced(&self, name: &str, old: Arc<Model>) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.entry(name.to_owned()).or_default().push(old);
    }

    /// Tells the registry the repository index as Python last saw it.
    pub fn set_index(&self, rows: Vec<IndexRow>) {
        self.index.store(Arc::new(rows));
    }

    /// The repository index.
    pub fn index(&self) -> Arc<Vec<IndexRow>> {
        self.index.load_full()
    }
}

/// The newest version that says it answers by default, else the newest of all.
fn default_version(versions: &Versions) -> Option<&Arc<Model>> {
    let mut newest = versions.values().rev();
    newest.clone().find(|model| model.spec.default_version).or_else(|| newest.next())
}
