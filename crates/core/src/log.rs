//! The log: one bounded channel, one writing thread, readable or JSON lines, and one file a model.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::options::{LogFormat, LogLevels, LogOptions};

/// Records that may wait for the writer.
const BACKLOG: usize = 8_192;
/// A model's file is rotated at this size; this many old ones are kept.
const ROTATE_BYTES: u64 = 16 << 20;
const ROTATE_KEEP: u32 = 3;

/// How grave a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `--log-verbose`.
    Verbose,
    /// What happens normally.
    Info,
    /// What somebody should look at.
    Warning,
    /// What failed.
    Error,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Verbose => "verbose",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Verbose => 'V',
            Self::Info => 'I',
            Self::Warning => 'W',
            Self::Error => 'E',
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "debug" | "verbose" => Self::Verbose,
            "warning" => Self::Warning,
            "error" | "critical" => Self::Error,
            _ => Self::Info,
        }
    }

    fn is_on(self, levels: LogLevels) -> bool {
        match self {
            Self::Verbose => levels.verbose > 0,
            Self::Info => levels.info,
            Self::Warning => levels.warning,
            Self::Error => levels.error,
        }
    }
}

/// One record. `fields` may hold `model`, which picks the model's own file.
#[derive(Debug)]
pub struct Record {
    /// How grave.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// Key-values beside it.
    pub fields: Map<String, Value>,
}

enum Message {
    Record(SystemTime, Record),
    Stop,
}

/// The handle that everybody holds; writing never blocks.
#[derive(Clone, Debug)]
pub struct Logger {
    sender: SyncSender<Message>,
    levels: LogLevels,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Message")
    }
}

impl Logger {
    /// Writes a record unless its level is off; counts it as dropped where the writer lags.
    pub fn write(&self, record: Record) {
        if !record.level.is_on(self.levels) {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Record(SystemTime::now(), record)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A record without fields.
    pub fn say(&self, level: Level, message: impl Into<String>) {
        self.write(Record { level, message: message.into(), fields: Map::new() });
    }

    /// A record of Python: `{"level","message",…}`.
    ///
    /// # Errors
    /// It is no such object.
    pub fn write_json(&self, text: &[u8]) -> Result<(), String> {
        let mut fields: Map<String, Value> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let mut take = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Ok(text),
            other => Err(format!("log record: expected a string '{name}', got {other:?}")),
        };
        let (level, message) = (Level::from_name(&take("level")?), take("message")?);
        self.write(Record { level, message, fields });
        Ok(())
    }

    /// Ends the writer after what is queued.
    pub fn stop(&self) {
        // A blocking send: at the end every record counts.
        let _ = self.sender.send(Message::Stop);
    }
}

/// Opens the sinks and starts the writer.
///
/// # Errors
/// A file or folder cannot be opened; the message names it.
pub fn start(options: &LogOptions) -> io::Result<(Logger, JoinHandle<()>)> {
    let sink: Box<dyn Write + Send> = match &options.file {
        None => Box::new(io::stderr()),
        Some(path) => Box::new(append(path)?),
    };
    if let Some(dir) = &options.dir {
        std::fs::create_dir_all(dir).map_err(|error| named(dir, &error))?;
    }
    let (sender, receiver) = sync_channel(BACKLOG);
    let dropped = Arc::new(AtomicU64::new(0));
    let writer = Writer {
        sink,
        format: options.format,
        dir: options.dir.clone(),
        files: HashMap::new(),
        dropped: dropped.clone(),
    };
    let thread = std::thread::Builder::new().name("naiad-log".to_owned()).spawn(move || writer.run(&receiver))?;
    Ok((Logger { sender, levels: options.level, dropped }, thread))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write '{}': {error}", path.display()))
}

struct Writer {
    sink: Box<dyn Write + Send>,
    format: LogFormat,
    dir: Option<PathBuf>,
    files: HashMap<String, (File, u64)>,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        while let Ok(Message::Record(time, record)) = receiver.recv() {
            self.put(time, &record);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let message = format!("the log lagged: {dropped} records were dropped");
                self.put(time, &Record { level: Level::Warning, message, fields: Map::new() });
            }
        }
        let _ = self.sink.flush();
    }

    /// Errors of a sink are ignored on purpose: a log that cannot be written must not end the server.
    fn put(&mut self, time: SystemTime, record: &Record) {
        let line = match self.format {
            LogFormat::Json => json_line(time, record),
            LogFormat::Default => text_line(&triton_stamp(time, record.level), record),
            LogFormat::Iso8601 => text_line(&format!("{} {}", iso(time, false), record.level.letter()), record),
        };
        let _ = self.sink.write_all(line.as_bytes());
        if let Some(Value::String(model)) = record.fields.get("model") {
            let _ = self.put_model(&model.clone(), &json_line(time, record));
        }
    }

    fn put_model(&mut self, model: &str, line: &str) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        if model.is_empty() || model.starts_with('.') || model.contains(['/', '\\', '\0']) {
            return Ok(());
        }
        let path = dir.join(format!("{model}.jsonl"));
        if !self.files.contains_key(model) {
            let file = append(&path)?;
            let size = file.metadata()?.len();
            self.files.insert(model.to_owned(), (file, size));
        }
        let (file, size) = self.files.get_mut(model).expect("it was put there just now");
        file.write_all(line.as_bytes())?;
        *size += line.len() as u64;
        if *size >= ROTATE_BYTES {
            self.files.remove(model);
            for number in (1..ROTATE_KEEP).rev() {
                let _ = std::fs::rename(numbered(&path, number), numbered(&path, number + 1));
            }
            std::fs::rename(&path, numbered(&path, 1))?;
        }
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("jsonl.{number}"))
}

fn json_line(time: SystemTime, record: &Record) -> String {
    let mut object = Map::with_capacity(record.fields.len() + 3);
    object.insert("time".to_owned(), iso(time, true).into());
    object.insert("level".to_owned(), record.level.name().into());
    object.insert("message".to_owned(), record.message.as_str().into());
    for (name, value) in &record.fields {
        object.insert(name.clone(), value.clone());
    }
    // serde_json escapes control characters, so a name cannot start a second line (H2).
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    line
}

fn text_line(stamp: &str, record: &Record) -> String {
    let mut line = format!("{stamp} {}", escaped(&record.message));
    for (name, value) in &record.fields {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        line.push_str(&escaped(&value.to_string()));
    }
    line.push('\n');
    line
}

/// Control characters in their escaped form (H2).
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// `I1122 14:24:01.987651 17437 naiad]`.
fn triton_stamp(time: SystemTime, level: Level) -> String {
    let moment = Moment::of(time);
    format!(
        "{}{:02}{:02} {:02}:{:02}:{:02}.{:06} {} naiad]",
        level.letter(),
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.micros,
        std::process::id()
    )
}

fn iso(time: SystemTime, fraction: bool) -> String {
    let m = Moment::of(time);
    let part = if fraction { format!(".{:03}", m.micros / 1000) } else { String::new() };
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{part}Z", m.year, m.month, m.day, m.hour, m.minute, m.second)
}

/// A moment in UTC.
struct Moment {
    year: i64,
    month: u32,
    day: u32,
    hour: u64,
    minute: u64,
    second: u64,
    micros: u32,
}

impl Moment {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil((seconds / 86_400) as i64);
        Self {
            year,
            month,
            day,
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: since.subsec_micros(),
        }
    }
}

/// Days since 1970-01-01 as a date of the Gregorian calendar (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_781), (2026, 11, 24));
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let record = Record { level: Level::Info, message: "a\n{\"level\":\"info\"}".to_owned(), fields: Map::new() };
        assert_eq!(json_line(UNIX_EPOCH, &record).matches('\n').count(), 1);
        assert_eq!(text_line("x", &record).matches('\n').count(), 1);
    }
}
