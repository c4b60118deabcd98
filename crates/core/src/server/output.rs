//! Turns a worker's output pipe into log records, a line each, without Python.

use std::io;
use std::os::fd::OwnedFd;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;

use crate::log::{Level, Log, Record};

/// A longer line is cut into several records.
const LONGEST_LINE: u64 = 16 << 10;
/// What the worker's own code puts before a level's letter and a line; no text begins with it by chance.
const MARK: char = '\u{1}';

/// Reads the pipe until the last writer closes it. Needs the runtime context.
pub fn pump(descriptor: OwnedFd, labels: Map<String, Value>, log: Log) -> io::Result<()> {
    let mut reader = BufReader::new(Receiver::from_owned_fd(descriptor)?);
    tokio::spawn(async move {
        let mut line = Vec::new();
        let mut levels = Levels::default();
        while (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await.is_ok_and(|size| size > 0) {
            let message = String::from_utf8_lossy(&line);
            let (level, message) = levels.of(message.trim_end());
            if !message.is_empty() {
                log.write(Record { fields: labels.clone(), ..Record::new(level, message) });
            }
            line.clear();
        }
    });
    Ok(())
}

/// Tells how grave the lines of one worker are.
#[derive(Debug, Default)]
struct Levels {
    /// Inside a traceback of Python.
    traceback: bool,
}

impl Levels {
    /// The level of the next line, and what it says.
    fn of<'a>(&mut self, line: &'a str) -> (Level, &'a str) {
        if let Some((level, text)) = marked(line) {
            return (level, text);
        }
        if self.traceback {
            // It ends with the first line that is not indented: the error itself.
            self.traceback = line.is_empty() || line.starts_with(' ');
            return (Level::Error, line);
        }
        self.traceback = line.trim_start().starts_with("Traceback (most recent call last)");
        (if self.traceback { Level::Error } else { spoken(line).unwrap_or(Level::Info) }, line)
    }
}

/// The level and the text of a line that the worker's own code has written.
fn marked(line: &str) -> Option<(Level, &str)> {
    let mut rest = line.strip_prefix(MARK)?.chars();
    let level = match rest.next()? {
        'E' => Level::Error,
        'W' => Level::Warning,
        'I' => Level::Info,
        'V' => Level::Verbose,
        _ => return None,
    };
    Some((level, rest.as_str()))
}

/// The level with which a line begins, as Python's `logging` and the frameworks write it; detail stays information, for
/// nobody expects a `print` to be dropped.
fn spoken(line: &str) -> Option<Level> {
    let line = line.strip_prefix('[').unwrap_or(line);
    let end = line.find(|letter: char| !letter.is_ascii_uppercase()).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let parted = rest.starts_with([':', ']', ' ', '\t']);
    match word {
        "CRITICAL" | "FATAL" | "ERROR" if parted => return Some(Level::Error),
        "WARNING" | "WARN" if parted => return Some(Level::Warning),
        _ => {}
    }
    if ["Exception in thread ", "Exception ignored in", "Fatal Python error: "].iter().any(|at| line.starts_with(at)) {
        return Some(Level::Error);
    }
    framework(word, rest).or_else(|| dated(line))
}

/// `W0925 12:00:00.1 1 a.cc:3]` of glog and torch, `W:onnxruntime:` of onnxruntime.
fn framework(letter: &str, rest: &str) -> Option<Level> {
    let digits = rest.len() > 4 && rest.bytes().take(4).all(|byte| byte.is_ascii_digit());
    if digits || rest.starts_with(":onnxruntime:") { graveness(letter) } else { None }
}

/// `2026-01-02 03:04:05.6: W tensorflow/…`
fn dated(line: &str) -> Option<Level> {
    let (time, rest) = line.split_once(": ").filter(|(time, _)| time.len() < 40)?;
    let (letter, _) = rest.split_once(' ')?;
    if time.starts_with(|first: char| first.is_ascii_digit()) { graveness(letter) } else { None }
}

fn graveness(letter: &str) -> Option<Level> {
    match letter {
        "E" | "F" => Some(Level::Error),
        "W" => Some(Level::Warning),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(lines: &[&str]) -> Vec<(Level, String)> {
        let mut levels = Levels::default();
        lines.iter().map(|line| levels.of(line)).map(|(level, text)| (level, text.to_owned())).collect()
    }

    #[test]
    fn the_workers_own_lines_carry_their_level() {
        let told = levels(&["\u{1}Ebad", "\u{1}Wodd", "\u{1}I", "\u{1}Vfine", "\u{1}Xwhat", "\u{1}", "plain"]);
        let (error, info) = (Level::Error, Level::Info);
        let expected = [
            (error, "bad"),
            (Level::Warning, "odd"),
            (info, ""),
            (Level::Verbose, "fine"),
            (info, "\u{1}Xwhat"),
            (info, "\u{1}"),
            (info, "plain"),
        ];
        assert_eq!(told, expected.map(|(level, text)| (level, text.to_owned())));
    }

    #[test]
    fn a_traceback_is_an_error_to_its_end() {
        let lines = [
            "before",
            "Traceback (most recent call last):",
            "  File \"m.py\", line 1, in f",
            "    1 / 0",
            "",
            "ZeroDivisionError: division by zero",
            "after",
        ];
        let told: Vec<_> = levels(&lines).into_iter().map(|(level, _)| level).collect();
        let (error, info) = (Level::Error, Level::Info);
        assert_eq!(told, [info, error, error, error, error, error, info]);
    }

    #[test]
    fn what_logging_and_frameworks_write_is_understood() {
        let told = [
            ("WARNING:root:odd", Some(Level::Warning)),
            ("ERROR: no", Some(Level::Error)),
            ("[ERROR] no", Some(Level::Error)),
            ("CRITICAL:a.b:no", Some(Level::Error)),
            ("W0925 12:00:00.000000 17 a.cc:3] odd", Some(Level::Warning)),
            ("[W1126 12:00:00.1 a.cpp:3] Warning: odd", Some(Level::Warning)),
            ("E0000 00:00:17.1 17 a.cc:3] no", Some(Level::Error)),
            ("[E:onnxruntime:, a.cc:3 f] no", Some(Level::Error)),
            ("2026-11-26 12:00:00.1: W tensorflow/core/a.cc:3] odd", Some(Level::Warning)),
            ("2026-11-26 12:00:00.1: I tensorflow/core/a.cc:3] fine", None),
            ("Exception in thread Thread-1 (f):", Some(Level::Error)),
            ("INFO:root:fine", None),
            ("DEBUG: detail", None),
            ("ERRORS are many", None),
            ("WARNINGS", None),
            ("", None),
            ("[", None),
            ("É: x", None),
        ];
        for (line, level) in told {
            assert_eq!(spoken(line), level, "{line}");
        }
    }
}
