//! Gathers the lines of the access log in memory and writes them together, some times a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;

use crate::log::{Level, Log, Record};

/// Bytes of lines that may wait; what comes beyond them is counted and lost.
const ROOM: usize = 4 << 20;

/// How long lines are gathered, so that not every request wakes the writer.
const GATHER: Duration = Duration::from_millis(100);

const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Standard output instead of a file.
const STDOUT: &str = "-";

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    shared: Arc<Shared>,
    /// What all fresh ids of this server begin with.
    boot: u32,
    ids: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Lines wait, or somebody waits for them to be written.
    filled: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    lost: u64,
    /// The writer has some that it has not written yet.
    writing: bool,
    hurry: bool,
    closed: bool,
}

impl Sink {
    pub(super) fn start(path: &Path, log: Log) -> io::Result<Self> {
        let target = Target::open(path)?;
        let mut boot = [0; 4];
        getrandom(&mut boot, GetRandomFlags::empty())?;
        let shared = Arc::new(Shared { waiting: Mutex::default(), filled: Condvar::new(), written: Condvar::new() });
        let writer = Writer { shared: Arc::clone(&shared), target, log, failing: false };
        thread::Builder::new().name("naiad-access".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, boot: u32::from_le_bytes(boot), ids: AtomicU64::new(0) })
    }

    pub(super) fn fresh_id(&self) -> String {
        format!("{:08x}-{:08x}", self.boot, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn write(&self, line: &impl Serialize) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        let mut waiting = self.shared.lock();
        if waiting.lines.len() + text.len() > ROOM {
            waiting.lost += 1;
            return;
        }
        let wakes = waiting.lines.is_empty() || waiting.lines.len() >= ROOM / 2;
        waiting.lines.extend_from_slice(&text);
        drop(waiting);
        if wakes {
            self.shared.filled.notify_one();
        }
    }

    pub(super) fn flush(&self) {
        let mut waiting = self.shared.lock();
        waiting.hurry = true;
        self.shared.filled.notify_one();
        let unwritten = |waiting: &mut Waiting| !waiting.lines.is_empty() || waiting.writing;
        let _ = self.shared.written.wait_timeout_while(waiting, FLUSH_LIMIT, unwritten);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    target: Target,
    log: Log,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::new();
        while let Some(lost) = self.gather(&mut lines) {
            let written = self.target.write(&lines);
            self.report(lost, &written);
            lines.clear();
            let mut waiting = self.shared.lock();
            (waiting.writing, waiting.hurry) = (false, false);
            drop(waiting);
            self.shared.written.notify_all();
        }
    }

    /// Waits for lines, then a little for more; answers how many were lost, and none at the end.
    fn gather(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let empty = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.closed;
        let waiting = self.shared.filled.wait_while(self.shared.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        let patient = |waiting: &mut Waiting| !waiting.hurry && !waiting.closed && waiting.lines.len() < ROOM / 2;
        let woken = self.shared.filled.wait_timeout_while(waiting, GATHER, patient);
        let (mut waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.lines, lines);
        waiting.writing = true;
        (!lines.is_empty()).then(|| std::mem::take(&mut waiting.lost))
    }

    /// Says once that lines are lost, and not again before it works.
    fn report(&mut self, lost: u64, written: &io::Result<()>) {
        if lost > 0 {
            let record =
                Record::new(Level::Warning, "access log lines were dropped because the file could not keep up");
            self.log.write(record.with("dropped", lost));
        }
        if let Err(fault) = written
            && !self.failing
        {
            self.log.say(Level::Error, format!("cannot write the access log: {fault}"));
        }
        self.failing = written.is_err();
    }
}

/// An open file, opened again where something else moved it away.
struct Target {
    path: PathBuf,
    /// None = standard output.
    file: Option<File>,
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        let file = if path == Path::new(STDOUT) { None } else { Some(append(path)?) };
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return io::stdout().write_all(lines) };
        let open = file.metadata()?;
        let is_there =
            std::fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (open.dev(), open.ino()));
        if !is_there {
            *file = append(&self.path)?;
        }
        file.write_all(lines)
    }
}

fn append(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|fault| io::Error::new(fault.kind(), format!("cannot write '{}': {fault}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::LogOptions;

    fn sink(path: &Path) -> Sink {
        Sink::start(path, Log::start(&LogOptions::default()).unwrap()).unwrap()
    }

    #[test]
    fn lines_follow_a_file_that_was_moved_away() {
        let folder = std::env::temp_dir().join(format!("naiad-access-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, old) = (folder.join("access.jsonl"), folder.join("access.jsonl.1"));
        let sink = sink(&path);
        sink.write(&1);
        sink.flush();
        std::fs::rename(&path, &old).unwrap();
        sink.write(&2);
        sink.flush();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&old).as_str(), read(&path).as_str()), ("1\n", "2\n"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let sink = sink(Path::new("/dev/null"));
        let line = "x".repeat(ROOM);
        sink.write(&line);
        assert_eq!(sink.shared.lock().lost, 1);
    }

    #[test]
    fn no_two_ids_are_equal() {
        let sink = sink(Path::new("/dev/null"));
        assert_ne!(sink.fresh_id(), sink.fresh_id());
    }
}
