//! Regions over real files in shared memory, and a budget that they must keep to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use naiad_tensor::DataType;

use super::*;
use crate::engine::EngineOptions;
use crate::error::Code;
use crate::request::{InputTensor, OutputTensor, Timing};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A file in shared memory that goes with the test.
struct Shm {
    key: String,
    path: PathBuf,
}

impl Shm {
    fn free() -> Self {
        let key = format!("naiad-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(FOLDER).join(&key);
        Self { key, path }
    }

    fn new(bytes: &[u8]) -> Self {
        let made = Self::free();
        fs::write(&made.path, bytes).unwrap();
        made
    }

    fn read(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn cut(&self, length: u64) {
        OpenOptions::new().write(true).open(&self.path).unwrap().set_len(length).unwrap();
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn regions() -> Regions {
    Regions::new(true, 1 << 30)
}

fn engine(request_bytes: u64) -> Arc<Engine> {
    Engine::new(EngineOptions { byte_budget: 2 * request_bytes, cache_byte_size: 0, busy_poll_us: 0 })
}

fn register(regions: &Regions, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<(), InferError> {
    regions.register(Registration { name, key, offset, byte_size })
}

fn window(offset: u64, byte_size: u64) -> Window {
    Window { region: "r".to_owned(), offset, byte_size }
}

fn request() -> InferRequest {
    InferRequest {
        model: "m".into(),
        version: None,
        id: String::new(),
        parameters: Vec::new(),
        timeout_us: 0,
        deadline: None,
        priority: 0,
        inputs: vec![InputTensor {
            name: "x".to_owned(),
            datatype: DataType::Uint8,
            shape: vec![4],
            data: Bytes::new().into(),
        }],
        outputs: Vec::new(),
        reserved: 0,
        traceparent: None,
    }
}

fn response(data: &'static [u8]) -> InferResponse {
    let output = |name: &str| OutputTensor {
        name: name.into(),
        datatype: DataType::Uint8,
        shape: vec![data.len() as i64],
        data: Bytes::from_static(data),
    };
    InferResponse {
        model: "m".into(),
        version: 1,
        id: String::new(),
        parameters: Arc::default(),
        outputs: vec![output("y"), output("z")],
        timing: Timing::default(),
    }
}

fn input(regions: &Regions, window: Window) -> Result<Vec<u8>, InferError> {
    let windows = Windows { inputs: vec![(0, window)], outputs: Vec::new() };
    let mut request = request();
    regions.lend(&windows, &mut request, &engine(1 << 20))?;
    assert_eq!(request.reserved, request.inputs[0].data.len() as u64);
    Ok(request.inputs[0].data.to_vec())
}

fn outlet(regions: &Regions, window: Window) -> Result<Outlets, InferError> {
    let windows = Windows { inputs: Vec::new(), outputs: vec![("y".to_owned(), window)] };
    regions.lend(&windows, &mut request(), &engine(1 << 20))
}

fn told<T: std::fmt::Debug>(outcome: Result<T, InferError>) -> (Code, String) {
    let error = outcome.unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn w73_nothing_works_where_regions_are_off() {
    let off = Regions::new(false, 1 << 30);
    assert_eq!(told(off.check_allowed()), (Code::Unsupported, DISABLED.to_owned()));
    assert_eq!(told(input(&off, window(0, 4))), (Code::Unsupported, DISABLED.to_owned()));
    let mut request = request();
    off.lend(&Windows::default(), &mut request, &engine(1)).unwrap();
}

#[test]
fn w74_a_region_lies_within_its_file_and_its_name_is_free() {
    let (shm, regions) = (Shm::new(b"0123456789"), regions());
    let key = format!("///{}", shm.key);
    register(&regions, "r", &key, 2, 8).unwrap();
    let all = regions.all();
    assert_eq!((&*all["r"].key, all["r"].offset, all["r"].byte_size), (&*key, 2, 8));
    let taken = (Code::AlreadyExists, "shared memory region 'r' already in manager".to_owned());
    assert_eq!(told(register(&regions, "r", &key, 0, 1)), taken);
    for (offset, byte_size) in
        [(3, 8), (0, 11), (0, 0), (1 << 62, 1), (i64::MAX as u64, 8), (u64::MAX, 1), (1, u64::MAX)]
    {
        let invalid = (Code::InvalidArg, "failed to register shared memory region 's': invalid args".to_owned());
        assert_eq!(told(register(&regions, "s", &shm.key, offset, byte_size)), invalid, "{offset} {byte_size}");
    }
    let absent = (Code::Internal, "Unable to open shared memory region: '/naiad-not-there'".to_owned());
    assert_eq!(told(register(&regions, "s", "/naiad-not-there", 0, 1)), absent);
    for name in ["", &"n".repeat(256)] {
        assert_eq!(register(&regions, name, &shm.key, 0, 1).unwrap_err().code(), Code::InvalidArg);
    }
    regions.unregister(Some("unknown"));
    regions.unregister(None);
    assert!(regions.all().is_empty());
}

#[test]
fn w75_a_key_is_a_plain_name() {
    let regions = regions();
    let refusal = |key: &str, why: &str| format!("cannot register shared memory region 'r' with key '{key}' as {why}");
    for key in ["", "/", "///"] {
        assert_eq!(told(register(&regions, "r", key, 0, 1)).1, refusal(key, "the key is empty"));
    }
    for key in ["triton_python_backend_shm_region_1", "//triton_python_backend_shm_region_"] {
        let why = "the key contains the reserved prefix 'triton_python_backend_shm_region_'";
        assert_eq!(told(register(&regions, "r", key, 0, 1)), (Code::InvalidArg, refusal(key, why)));
    }
    for key in ["..", "/../etc/passwd", "a/b", "a/../b", "/a/", "a\0b"] {
        assert_eq!(told(register(&regions, "r", key, 0, 1)).1, refusal(key, "the key is no plain name"));
    }
}

#[test]
fn what_is_no_file_of_its_own_is_not_opened() {
    let (regions, target) = (regions(), Shm::new(b"0123"));
    let link = Shm::free();
    symlink(&target.path, &link.path).unwrap();
    let pipe = Shm::free();
    rustix::fs::mknodat(rustix::fs::CWD, &pipe.path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    for key in [&link.key, &pipe.key, "."] {
        let refused = (Code::Internal, format!("Unable to open shared memory region: '{key}'"));
        assert_eq!(told(register(&regions, "r", key, 0, 1)), refused);
    }
}

#[test]
fn w76_a_window_lies_within_its_region() {
    let (shm, regions) = (Shm::new(b"0123456789"), regions());
    register(&regions, "r", &shm.key, 2, 6).unwrap();
    assert_eq!(input(&regions, window(1, 4)).unwrap(), b"3456");
    assert_eq!(input(&regions, window(0, 0)).unwrap(), b"");
    for offset in [6, 7, i64::MAX as u64, u64::MAX] {
        let refused = (Code::InvalidArg, "Invalid offset for shared memory region: 'r'".to_owned());
        assert_eq!(told(input(&regions, window(offset, 1))), refused);
        assert_eq!(told(outlet(&regions, window(offset, 1))), refused);
    }
    for (offset, byte_size) in [(5, 2), (0, 7), (0, u64::MAX), (1, u64::MAX)] {
        let refused = (Code::InvalidArg, "Invalid offset + byte size for shared memory region: 'r'".to_owned());
        assert_eq!(told(input(&regions, window(offset, byte_size))), refused);
    }
    let unknown = Window { region: "nope".to_owned(), ..window(0, 1) };
    let absent = (Code::NotFound, "Unable to find shared memory region: 'nope'".to_owned());
    assert_eq!(told(input(&regions, unknown)), absent);
}

#[test]
fn w76_an_output_that_does_not_fit_leaves_its_region_alone() {
    let (shm, regions) = (Shm::new(b"0123456789"), regions());
    register(&regions, "r", &shm.key, 0, 10).unwrap();
    let mut answer = response(b"abcd");
    outlet(&regions, window(2, 6)).unwrap().fill(&mut answer).unwrap();
    assert_eq!(shm.read(), b"01abcd6789");
    assert_eq!((&answer.outputs[0].data[..], &answer.outputs[1].data[..]), (&b""[..], &b"abcd"[..]));
    let text = "shared memory size specified with the request for output 'y' (3 bytes) should be at least 4 bytes to \
                hold the results";
    let refused = outlet(&regions, window(0, 3)).unwrap().fill(&mut response(b"wxyz"));
    assert_eq!(told(refused), (Code::Internal, text.to_owned()));
    assert_eq!(shm.read(), b"01abcd6789");
}

#[test]
fn w78_a_region_in_use_outlives_its_name() {
    let (shm, regions) = (Shm::new(b"0123"), regions());
    register(&regions, "r", &shm.key, 0, 4).unwrap();
    let outlets = outlet(&regions, window(0, 4)).unwrap();
    let region = Arc::downgrade(&regions.all()["r"]);
    regions.unregister(Some("r"));
    assert!(regions.all().is_empty() && input(&regions, window(0, 4)).is_err());
    outlets.fill(&mut response(b"abcd")).unwrap();
    assert_eq!(shm.read(), b"abcd");
    drop(outlets);
    assert!(region.upgrade().is_none(), "its descriptor closes with its last request");
}

#[test]
fn a_file_that_was_cut_is_an_error_and_does_not_grow_again() {
    let (shm, regions) = (Shm::new(&[7; 8192]), regions());
    register(&regions, "r", &shm.key, 0, 8192).unwrap();
    let outlets = outlet(&regions, window(4000, 4192)).unwrap();
    shm.cut(4096);
    assert_eq!(input(&regions, window(0, 4096)).unwrap(), [7; 4096]);
    let short = "shared memory region 'r' is shorter than it was when it was registered";
    assert_eq!(told(input(&regions, window(0, 8192))), (Code::InvalidArg, short.to_owned()));
    let data: &'static [u8] = &[1; 97];
    assert_eq!(told(outlets.fill(&mut response(data))), (Code::InvalidArg, short.to_owned()));
    assert_eq!(shm.read(), [7; 4096]);
}

#[test]
fn bytes_are_taken_from_the_budget_before_they_are_read() {
    let (shm, regions) = (Shm::new(&[0; 4096]), Regions::new(true, 8192));
    register(&regions, "r", &shm.key, 0, 4096).unwrap();
    let engine = engine(6000);
    let windows = |count| Windows { inputs: vec![(0, window(0, 4096)); count], outputs: Vec::new() };
    let mut first = request();
    regions.lend(&windows(1), &mut first, &engine).unwrap();
    assert_eq!((first.reserved, engine.request_bytes()), (4096, (4096, 6000)));
    let full =
        "request of 4096 bytes exceeds the byte budget for queued and running requests: 4096 of 6000 bytes in use";
    let refused = regions.lend(&windows(1), &mut request(), &engine);
    assert_eq!(told(refused), (Code::Unavailable, full.to_owned()));
    let refused = told(regions.lend(&windows(3), &mut request(), &engine));
    assert!(refused.0 == Code::InvalidArg && refused.1.starts_with("inputs of 12288 bytes"), "{refused:?}");
    drop(first);
    assert_eq!(engine.request_bytes().0, 0);
}

#[test]
fn regions_are_bounded() {
    let (shm, regions) = (Shm::new(b"0"), regions());
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    for number in 0..MOST_REGIONS {
        register(&regions, &number.to_string(), &shm.key, 0, 1).unwrap();
    }
    let refused = told(register(&regions, "more", &shm.key, 0, 1));
    assert_eq!(refused, (Code::Unavailable, "1024 shared memory regions are registered already".to_owned()));
}
