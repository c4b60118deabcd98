//! Log records: a bounded queue from anywhere, one thread that writes them.

mod files;
mod format;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::options::{LogFormat, LogLevels, LogOptions};
use files::ModelFiles;
pub(crate) use format::stamp_of;

const QUEUE: usize = 8192;
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How grave a record is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What went wrong.
    #[serde(alias = "critical")]
    Error,
    /// What may go wrong.
    Warning,
    /// What happens.
    Info,
    /// Detail.
    #[serde(alias = "debug")]
    Verbose,
}

/// One record: a level, a constant message and what it is about.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// How grave.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// `model`, `version` and whatever else belongs to it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
    /// When; now if left out.
    #[serde(skip, default = "SystemTime::now")]
    pub time: SystemTime,
}

impl Record {
    /// A record of now without fields.
    pub fn new(level: Level, message: impl Into<String>) -> Self {
        Self { level, message: message.into(), fields: Map::new(), time: SystemTime::now() }
    }

    /// The same record with one more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

enum Entry {
    Record(Record),
    Flush(SyncSender<()>),
}

/// Public names by model name; the files and records speak the public ones.
pub type PublicNames = HashMap<String, String>;

/// What can be changed while the log is open.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which records are written.
    pub levels: LogLevels,
    /// How a line looks.
    pub format: LogFormat,
}

#[derive(Debug)]
struct Shared {
    settings: ArcSwap<Settings>,
    dropped: AtomicU64,
    /// The same, never set back.
    lost: AtomicU64,
    names: ArcSwap<PublicNames>,
}

/// The way to the log; cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Entry>,
    shared: Arc<Shared>,
}

impl Log {
    /// Opens the sinks and starts the writer.
    pub fn start(options: &LogOptions) -> io::Result<Self> {
        let main: Box<dyn Write + Send> = match &options.file {
            Some(path) => Box::new(append(path)?),
            None => Box::new(Stderr),
        };
        Self::with_sink(options, main)
    }

    fn with_sink(options: &LogOptions, main: Box<dyn Write + Send>) -> io::Result<Self> {
        let (queue, entries) = sync_channel(QUEUE);
        let settings = ArcSwap::from_pointee(Settings { levels: options.level, format: options.format });
        let shared = Arc::new(Shared {
            settings,
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            names: ArcSwap::default(),
        });
        let files = options.dir.as_ref().map(|dir| ModelFiles::open(dir)).transpose()?;
        let writer = Writer { main, files, shared: Arc::clone(&shared) };
        thread::Builder::new().name("naiad-log".to_owned()).spawn(move || writer.run(&entries))?;
        Ok(Self { queue, shared })
    }

    /// Whether records of this level are written.
    pub fn takes(&self, level: Level) -> bool {
        let levels = self.shared.settings.load().levels;
        match level {
            Level::Error => levels.error,
            Level::Warning => levels.warning,
            Level::Info => levels.info,
            Level::Verbose => levels.verbose > 0,
        }
    }

    /// Queues a record; counts it where the queue is full.
    pub fn write(&self, record: Record) {
        if self.takes(record.level) && self.queue.try_send(Entry::Record(record)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that the queue could not take so far.
    pub fn dropped(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// What is written and how.
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings.load_full()
    }

    /// Changes what is written and how, for records that are written from now on.
    pub fn set(&self, settings: Settings) {
        self.shared.settings.store(Arc::new(settings));
    }

    /// Queues a record without fields.
    pub fn say(&self, level: Level, message: impl Into<String>) {
        self.write(Record::new(level, message));
    }

    /// Says under which public name a model is known.
    pub fn set_public_names(&self, names: PublicNames) {
        self.shared.names.store(Arc::new(names));
    }

    /// Waits until all that is queued is written, but no longer than a stuck sink deserves.
    pub fn flush(&self) {
        let (sender, written) = sync_channel(1);
        if self.queue.try_send(Entry::Flush(sender)).is_ok() {
            let _ = written.recv_timeout(FLUSH_LIMIT);
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|fault| named(path, &fault))
}

/// The fault with the path that it is about.
fn named(path: &Path, fault: &io::Error) -> io::Error {
    io::Error::new(fault.kind(), format!("cannot write '{}': {fault}", path.display()))
}

/// Standard error without a panic when it is gone.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

struct Writer {
    main: Box<dyn Write + Send>,
    files: Option<ModelFiles>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, entries: &Receiver<Entry>) {
        while let Ok(entry) = entries.recv() {
            match entry {
                Entry::Record(record) => self.record(record),
                Entry::Flush(done) => {
                    self.report_drops();
                    let _ = self.main.flush();
                    let _ = done.send(());
                }
            }
        }
    }

    /// A sink that fails loses the line: there is nowhere left to say so.
    fn record(&mut self, mut record: Record) {
        self.report_drops();
        let names = self.shared.names.load();
        let model = record.fields.get("model").and_then(Value::as_str);
        let public = model.map(|model| names.get(model).map_or(model, String::as_str).to_owned());
        if let Some(name) = &public {
            record.fields.insert("model".to_owned(), Value::from(name.as_str()));
        }
        let line = format::line(self.shared.settings.load().format, &record);
        let _ = self.main.write_all(line.as_bytes());
        if let (Some(files), Some(name)) = (&mut self.files, public) {
            let _ = files.append(&name, &format::line(LogFormat::Json, &record));
        }
    }

    fn report_drops(&mut self) {
        let dropped = self.shared.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let record = Record::new(Level::Warning, "log records were dropped because the log could not keep up");
            let line = format::line(self.shared.settings.load().format, &record.with("dropped", dropped));
            let _ = self.main.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_forged_line_stays_one_line() {
        let memory = Memory::default();
        let options = LogOptions { format: LogFormat::Json, ..LogOptions::default() };
        let log = Log::with_sink(&options, Box::new(memory.clone())).unwrap();
        log.write(Record::new(Level::Info, "loading").with("model", "m\n{\"level\":\"info\"}\u{9b}2J"));
        log.say(Level::Verbose, "not taken");
        log.flush();
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#"m\n{\"level\":\"info\"}\u009b2J"#), "{text}");
    }

    #[test]
    fn a_stuck_sink_blocks_nobody() {
        struct Stuck(SyncSender<()>, Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                let _ = self.1.recv();
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (entered, inside) = sync_channel(1);
        let (_stuck, gate) = sync_channel(1);
        let log = Log::with_sink(&LogOptions::default(), Box::new(Stuck(entered, gate))).unwrap();
        log.say(Level::Info, "line");
        // Before it writes the writer takes the count of dropped lines.
        inside.recv().unwrap();
        for _ in 0..QUEUE + 10 {
            log.say(Level::Info, "line");
        }
        assert_eq!(log.shared.dropped.load(Ordering::Relaxed), 10);
    }
}
