//! Answers that are known already: one store for all models, bounded by bytes, the least recently used leave first.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blake3::Hasher;
use bytes::Bytes;

use crate::model::Model;
use crate::request::{InferRequest, InferResponse, OutputTensor, Parameter, Parameters, Timing};
use crate::spec::ModelSpec;
use crate::statistics::{Statistics, monotonic_ns};

/// What an entry takes beside its tensors, parameters and names.
const ENTRY: u64 = 256;

type Key = [u8; 32];

/// The store. Without bytes it keeps nothing and asks nothing.
pub struct Cache {
    limit: u64,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    /// Keys by when they were used last.
    by_use: BTreeMap<u64, Key>,
    clock: u64,
    bytes: u64,
}

struct Entry {
    used: u64,
    bytes: u64,
    /// Part of the key by its address, which nothing else can have while the entry lives.
    _model: Arc<ModelSpec>,
    version: u64,
    parameters: Arc<Parameters>,
    outputs: Vec<OutputTensor>,
}

/// What the store says of a request.
#[derive(Debug)]
pub enum Lookup {
    /// The model does not ask for it.
    Off,
    /// Its answer.
    Hit(InferResponse),
    /// Unknown: the answer may be kept.
    Miss(Miss),
}

/// A request whose answer may be kept.
#[derive(Debug)]
pub struct Miss {
    key: Key,
    /// How long looking took.
    ns: u64,
    model: Arc<ModelSpec>,
    statistics: Arc<Statistics>,
}

impl Cache {
    /// A store of at most `limit` bytes; 0 = none.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, entries: Mutex::default() })
    }

    /// Whether answers of this model are kept: there is a cache, and the model asks for it.
    pub fn serves(&self, model: &ModelSpec) -> bool {
        self.limit > 0 && model.response_cache
    }

    /// Looks a request up where its model asks for it.
    pub fn look(&self, model: &Model, request: &InferRequest) -> Lookup {
        if !self.serves(&model.spec) {
            return Lookup::Off;
        }
        let start = monotonic_ns();
        let key = key(&model.spec, request);
        let found = self.lock().find(&key, request);
        let ns = monotonic_ns().saturating_sub(start);
        match found {
            Some(response) => {
                model.statistics.cache_hit(start, ns);
                Lookup::Hit(response)
            }
            None => Lookup::Miss(Miss {
                key,
                ns,
                model: Arc::clone(&model.spec),
                statistics: Arc::clone(&model.statistics),
            }),
        }
    }

    /// Keeps a good answer.
    pub fn keep(&self, miss: Miss, response: &InferResponse) {
        let start = monotonic_ns();
        let entry = Entry::of(miss.model, response);
        if entry.bytes <= self.limit {
            self.lock().insert(miss.key, entry, self.limit);
        }
        miss.statistics.cache_miss(miss.ns + monotonic_ns().saturating_sub(start));
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cache").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Entries {
    fn find(&mut self, key: &Key, request: &InferRequest) -> Option<InferResponse> {
        let entry = self.by_key.get_mut(key)?;
        self.by_use.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.by_use.insert(self.clock, *key);
        Some(InferResponse {
            model: Arc::clone(&request.model),
            version: entry.version,
            id: request.id.clone(),
            parameters: Arc::clone(&entry.parameters),
            outputs: entry.outputs.clone(),
            timing: Timing::default(),
        })
    }

    fn insert(&mut self, key: Key, mut entry: Entry, limit: u64) {
        self.remove(&key);
        while self.bytes + entry.bytes > limit {
            let Some(oldest) = self.by_use.first_key_value().map(|(_, key)| *key) else { break };
            self.remove(&oldest);
        }
        self.clock += 1;
        entry.used = self.clock;
        self.bytes += entry.bytes;
        self.by_use.insert(entry.used, key);
        self.by_key.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.by_key.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

impl Entry {
    fn of(model: Arc<ModelSpec>, response: &InferResponse) -> Self {
        // Copied: lent bytes would hold their arena, a part of a batch all of it.
        let copy =
            |output: &OutputTensor| OutputTensor { data: Bytes::copy_from_slice(&output.data), ..output.clone() };
        let outputs: Vec<_> = response.outputs.iter().map(copy).collect();
        let tensors = outputs.iter().map(|output| output.data.len() + output.shape.len() * 8 + 64).sum::<usize>();
        let text = |value: &Parameter| if let Parameter::String(text) = value { text.len() } else { 0 };
        let parameters = response.parameters.iter().map(|(name, value)| name.len() + text(value) + 64).sum::<usize>();
        let bytes = ENTRY + (tensors + parameters) as u64;
        let parameters = Arc::clone(&response.parameters);
        Self { used: 0, bytes, _model: model, version: response.version, parameters, outputs }
    }
}

/// Everything on which an answer may depend: this load of the model, its inputs in full, the outputs that are asked for
/// and the client's own parameters. Id, priority and timeout change no answer.
fn key(model: &Arc<ModelSpec>, request: &InferRequest) -> Key {
    let mut hasher = Hasher::new();
    hasher.update(&(Arc::as_ptr(model).addr() as u64).to_le_bytes());
    let mut inputs: Vec<_> = request.inputs.iter().collect();
    inputs.sort_by(|one, other| one.name.cmp(&other.name));
    number(&mut hasher, inputs.len());
    for input in inputs {
        bytes(&mut hasher, input.name.as_bytes());
        hasher.update(&[input.datatype as u8]);
        number(&mut hasher, input.shape.len());
        for dim in &input.shape {
            hasher.update(&dim.to_le_bytes());
        }
        number(&mut hasher, input.data.len());
        for piece in input.data.pieces() {
            hasher.update(piece);
        }
    }
    let mut outputs: Vec<_> = request.outputs.iter().collect();
    outputs.sort();
    number(&mut hasher, outputs.len());
    for name in &outputs {
        bytes(&mut hasher, name.as_bytes());
    }
    let mut parameters: Vec<_> = request.parameters.iter().collect();
    parameters.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, value) in parameters {
        bytes(&mut hasher, name.as_bytes());
        let (kind, value): (u8, &[u8]) = match value {
            Parameter::Bool(value) => (0, &[u8::from(*value)]),
            Parameter::Int(value) => (1, &value.to_le_bytes()),
            Parameter::Uint(value) => (2, &value.to_le_bytes()),
            Parameter::Double(value) => (3, &value.to_bits().to_le_bytes()),
            Parameter::String(value) => (4, value.as_bytes()),
        };
        hasher.update(&[kind]);
        bytes(&mut hasher, value);
    }
    *hasher.finalize().as_bytes()
}

fn number(hasher: &mut Hasher, number: usize) {
    hasher.update(&(number as u64).to_le_bytes());
}

/// With their length in front, so that no two lists of texts read the same.
fn bytes(hasher: &mut Hasher, bytes: &[u8]) {
    number(hasher, bytes.len());
    hasher.update(bytes);
}
