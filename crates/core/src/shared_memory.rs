//! Client shared memory: the regions that clients registered, read and written through descriptors, never mapped (W73-W78).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustix::fs::{Mode, OFlags, open};

use crate::admission::Reservation;
use crate::engine::Engine;
use crate::error::InferError;
use crate::heavy::beside;
use crate::request::{InferRequest, InferResponse};

/// What every use of a region reads where regions are off (W73).
pub const DISABLED: &str =
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable.";

/// Where regions lie; a key is the name of a file here.
const FOLDER: &str = "/dev/shm";

/// Keys of Triton's own, which no client may name (W75).
const RESERVED: &str = "triton_python_backend_shm_region_";

/// Regions at a time, for each holds a descriptor.
const MOST_REGIONS: usize = 1024;

/// Bytes of a region's name.
const LONGEST_NAME: usize = 255;

/// What a client says of a region that it registers.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// The name that requests use.
    pub name: &'a str,
    /// The name of the shared memory, with or without slashes in front.
    pub key: &'a str,
    /// Where in it the region starts.
    pub offset: u64,
    /// How long it is.
    pub byte_size: u64,
}

/// A region that a client registered.
#[derive(Debug)]
pub struct Region {
    /// The key as the client wrote it.
    pub key: String,
    /// Where in the shared memory it starts.
    pub offset: u64,
    /// How long it is.
    pub byte_size: u64,
    name: String,
    file: File,
}

impl Region {
    /// Opens what the key names and checks that the region lies within it.
    fn open(wanted: Registration<'_>) -> Result<Self, InferError> {
        let Registration { name, key, offset, byte_size } = wanted;
        let path = format!("{FOLDER}/{}", file_name(name, key)?);
        let refused = || InferError::Internal(format!("Unable to open shared memory region: '{key}'"));
        // The file may be a client's link, or a pipe that nobody opened at its other end.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(open(path, flags, Mode::empty()).map_err(|_| refused())?);
        let status = file.metadata().map_err(|_| refused())?;
        if !status.is_file() {
            return Err(refused());
        }
        let end = offset.checked_add(byte_size).filter(|end| byte_size > 0 && *end <= status.len());
        if end.is_none() {
            let text = format!("failed to register shared memory region '{name}': invalid args");
            return Err(InferError::InvalidArgument(text));
        }
        Ok(Self { key: key.to_owned(), offset, byte_size, name: name.to_owned(), file })
    }

    fn ended(&self) -> InferError {
        let text = format!("shared memory region '{}' is shorter than it was when it was registered", self.name);
        InferError::InvalidArgument(text)
    }

    fn failed(&self, what: &str) -> InferError {
        InferError::Internal(format!("unable to {what} shared memory region '{}'", self.name))
    }
}

/// W75: the one rule that makes a file's name of a key.
fn file_name<'a>(name: &str, key: &'a str) -> Result<&'a str, InferError> {
    let file = key.trim_start_matches('/');
    let why = if file.is_empty() {
        "the key is empty".to_owned()
    } else if file.starts_with(RESERVED) {
        format!("the key contains the reserved prefix '{RESERVED}'")
    } else if file.contains(['/', '\0']) || file.contains("..") {
        "the key is no plain name".to_owned()
    } else {
        return Ok(file);
    };
    let text = format!("cannot register shared memory region '{name}' with key '{key}' as {why}");
    Err(InferError::InvalidArgument(text))
}

/// A part of a region as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The region's name.
    pub region: String,
    /// Where in the region it starts.
    pub offset: u64,
    /// How long it is.
    pub byte_size: u64,
}

impl Window {
    /// That of a tensor whose offset and byte size the client may have left out (W76).
    pub fn new(tensor: &str, region: String, offset: Option<u64>, byte_size: Option<u64>) -> Result<Self, InferError> {
        let Some(byte_size) = byte_size else {
            return Err(InferError::InvalidArgument(format!(
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor \
                 '{tensor}'"
            )));
        };
        Ok(Self { region, offset: offset.unwrap_or(0), byte_size })
    }
}

/// The tensors of a request that lie in regions.
#[derive(Debug, Default)]
pub struct Windows {
    /// Inputs by their position in the request.
    pub inputs: Vec<(usize, Window)>,
    /// Outputs by name.
    pub outputs: Vec<(String, Window)>,
}

/// A window that was found; its region stays open for as long as this lives (W78).
#[derive(Clone, Debug)]
struct Place {
    region: Arc<Region>,
    /// Where in the file it starts.
    start: u64,
    byte_size: u64,
}

impl Place {
    /// W76: within the region, whatever the numbers are.
    fn of(region: &Arc<Region>, window: &Window) -> Result<Self, InferError> {
        let refuse = |what: &str| {
            let text = format!("Invalid {what} for shared memory region: '{}'", region.name);
            Err(InferError::InvalidArgument(text))
        };
        if window.offset >= region.byte_size {
            return refuse("offset");
        }
        if window.byte_size > region.byte_size - window.offset {
            return refuse("offset + byte size");
        }
        let start = region.offset + window.offset;
        Ok(Self { region: Arc::clone(region), start, byte_size: window.byte_size })
    }

    fn read(&self, reservation: Reservation) -> Result<Bytes, InferError> {
        let mut data = vec![0; self.byte_size as usize];
        self.region.file.read_exact_at(&mut data, self.start).map_err(|fault| match fault.kind() {
            ErrorKind::UnexpectedEof => self.region.ended(),
            _ => self.region.failed("read"),
        })?;
        Ok(Bytes::from_owner(Held { data, _reservation: reservation }))
    }

    /// W76: too small is a failure of the request, and leaves the region as it was.
    fn check_room(&self, output: &str, needed: usize) -> Result<(), InferError> {
        if needed as u64 <= self.byte_size {
            return Ok(());
        }
        Err(InferError::Internal(format!(
            "shared memory size specified with the request for output '{output}' ({} bytes) should be at least {needed} \
             bytes to hold the results",
            self.byte_size
        )))
    }

    fn write(&self, data: &[u8]) -> Result<(), InferError> {
        let region = &self.region;
        let length = region.file.metadata().map_err(|_| region.failed("write"))?.len();
        // A write behind the end would make the file grow.
        if self.start + data.len() as u64 > length {
            return Err(region.ended());
        }
        region.file.write_all_at(data, self.start).map_err(|_| region.failed("write"))
    }
}

/// Bytes of an input that count against the budget for as long as they are held.
struct Held {
    data: Vec<u8>,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Where the outputs of a request go.
#[derive(Debug, Default)]
pub struct Outlets(Vec<(String, Place)>);

impl Outlets {
    /// Moves the outputs that belong into regions there; what is left of them in the response has no data.
    pub fn fill(&self, response: &mut InferResponse) -> Result<(), InferError> {
        let mut filled = Vec::with_capacity(self.0.len());
        for (name, place) in &self.0 {
            if let Some(output) = response.outputs.iter_mut().find(|output| *output.name == **name) {
                place.check_room(name, output.data.len())?;
                filled.push((place, std::mem::take(&mut output.data)));
            }
        }
        let size = filled.iter().map(|(_, data)| data.len()).sum();
        beside(size, || filled.iter().try_for_each(|(place, data)| place.write(data)))
    }
}

/// The regions by name; readers never wait.
#[derive(Debug)]
pub struct Regions {
    allowed: bool,
    /// Bytes that a request may have in regions.
    limit: u64,
    by_name: ArcSwap<BTreeMap<String, Arc<Region>>>,
}

impl Regions {
    /// None yet; requests may have `limit` bytes of inputs in regions, where regions are allowed at all.
    pub fn new(allowed: bool, limit: u64) -> Self {
        Self { allowed, limit, by_name: ArcSwap::default() }
    }

    /// W73.
    pub fn check_allowed(&self) -> Result<(), InferError> {
        if self.allowed { Ok(()) } else { Err(InferError::Unsupported(DISABLED.to_owned())) }
    }

    /// Every region by name.
    pub fn all(&self) -> Arc<BTreeMap<String, Arc<Region>>> {
        self.by_name.load_full()
    }

    /// Opens a region under a name that is free (W74, W75).
    pub fn register(&self, wanted: Registration<'_>) -> Result<(), InferError> {
        let name = wanted.name;
        if name.is_empty() || name.len() > LONGEST_NAME {
            let text = format!("the name of a shared memory region has 1 to {LONGEST_NAME} bytes, got {}", name.len());
            return Err(InferError::InvalidArgument(text));
        }
        Self::check_free(&self.all(), name)?;
        let region = Arc::new(Region::open(wanted)?);
        let before = self.by_name.rcu(|regions| {
            let mut regions = BTreeMap::clone(regions);
            if regions.len() < MOST_REGIONS {
                regions.entry(name.to_owned()).or_insert_with(|| Arc::clone(&region));
            }
            regions
        });
        Self::check_free(&before, name)
    }

    fn check_free(regions: &BTreeMap<String, Arc<Region>>, name: &str) -> Result<(), InferError> {
        if regions.contains_key(name) {
            let text = format!("shared memory region '{name}' already in manager");
            return Err(InferError::AlreadyExists(text));
        }
        if regions.len() >= MOST_REGIONS {
            let text = format!("{MOST_REGIONS} shared memory regions are registered already");
            return Err(InferError::Unavailable(text));
        }
        Ok(())
    }

    /// Forgets a region, or all; the requests that use it run to their end (W78).
    pub fn unregister(&self, name: Option<&str>) {
        match name {
            None => self.by_name.store(Arc::default()),
            Some(name) => drop(self.by_name.rcu(|regions| {
                let mut regions = BTreeMap::clone(regions);
                regions.remove(name);
                regions
            })),
        }
    }

    /// Fills the inputs of a request that lie in regions; their bytes are taken from the budget before they are read.
    /// The answer says where the outputs go.
    pub fn lend(&self, windows: &Windows, request: &mut InferRequest, engine: &Engine) -> Result<Outlets, InferError> {
        if windows.inputs.is_empty() && windows.outputs.is_empty() {
            return Ok(Outlets::default());
        }
        self.check_allowed()?;
        let mut inputs = Vec::with_capacity(windows.inputs.len());
        for (at, window) in &windows.inputs {
            inputs.push((*at, self.find(window)?));
        }
        let mut outlets = Outlets(Vec::with_capacity(windows.outputs.len()));
        for (name, window) in &windows.outputs {
            outlets.0.push((name.clone(), self.find(window)?));
        }
        let bytes = inputs.iter().fold(0u64, |sum, (_, place)| sum.saturating_add(place.byte_size));
        if bytes > self.limit {
            return Err(InferError::InvalidArgument(format!(
                "inputs of {bytes} bytes in shared memory exceed the maximum allowed value of {} bytes. Use \
                 --http-max-binary-size to increase the limit.",
                self.limit
            )));
        }
        beside(bytes as usize, || {
            for (at, place) in inputs {
                let reservation = engine.reserve(place.byte_size)?;
                request.inputs[at].data = place.read(reservation)?.into();
            }
            request.reserved = bytes;
            Ok(outlets)
        })
    }

    fn find(&self, window: &Window) -> Result<Place, InferError> {
        let regions = self.by_name.load();
        let region = regions
            .get(&window.region)
            .ok_or_else(|| InferError::NotFound(format!("Unable to find shared memory region: '{}'", window.region)))?;
        Place::of(region, window)
    }
}

#[cfg(test)]
#[path = "shared_memory_tests.rs"]
mod tests;
