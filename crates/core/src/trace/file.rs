//! Traces in files as Triton writes them: JSON arrays that are whole after every trace.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::Trace;
use super::tensor;
use super::writer::Loss;
use crate::error::InferError;

const EMPTY: &[u8] = b"[\n]";

/// One file.
#[derive(Debug)]
struct Array {
    file: File,
    /// Where the next trace begins.
    end: u64,
    traces: u32,
}

impl Array {
    fn create(path: &Path) -> io::Result<Self> {
        // Tensors are nobody else's business.
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(EMPTY)?;
        Ok(Self { file, end: 1, traces: 0 })
    }

    /// A trace that does not fit leaves the array as it was.
    fn push(&mut self, trace: &Trace) -> io::Result<()> {
        match self.write(trace) {
            Ok(end) => {
                self.end = end;
                self.traces += 1;
                Ok(())
            }
            Err(fault) => {
                let _ = self.file.set_len(self.end);
                let _ = self.file.seek(SeekFrom::Start(self.end)).and_then(|_| self.file.write_all(b"\n]"));
                Err(fault)
            }
        }
    }

    fn write(&mut self, trace: &Trace) -> io::Result<u64> {
        self.file.seek(SeekFrom::Start(self.end))?;
        let mut out = BufWriter::with_capacity(1 << 16, &self.file);
        out.write_all(if self.traces == 0 { b"\n" } else { b",\n" })?;
        elements(&mut out, trace)?;
        let end = out.stream_position()?;
        out.write_all(b"\n]")?;
        out.flush()?;
        Ok(end)
    }
}

/// The elements of one trace.
fn elements(out: &mut impl Write, trace: &Trace) -> io::Result<()> {
    let id = trace.id;
    let model = serde_json::to_string(&*trace.model)?;
    write!(out, r#"{{"id":{id},"model_name":{model},"model_version":{}"#, trace.version)?;
    if !trace.request_id.is_empty() {
        write!(out, r#","request_id":{}"#, serde_json::to_string(&trace.request_id)?)?;
    }
    out.write_all(b"}")?;
    for (event, ns) in trace.events.iter().filter(|_| trace.level.timestamps) {
        write!(out, ",\n{{\"id\":{id},\"timestamps\":[{{\"name\":\"{}\",\"ns\":{ns}}}]}}", event.name())?;
    }
    for found in &trace.tensors {
        write!(out, ",\n{{\"id\":{id},\"activity\":\"{}\",\"tensor\":", found.activity)?;
        tensor::write(out, found)?;
        out.write_all(b"}")?;
    }
    Ok(())
}

/// All files of a server: `F`, or `F.0`, `F.1`, … where only so many traces belong into one.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    whole: Option<Array>,
    /// Those that are not full yet, by whose traces they hold.
    parts: HashMap<Arc<str>, Array>,
    next: u32,
}

impl Files {
    /// Opens the first one, so that a path that can not be written is known at the start.
    pub fn open(path: &Path, log_frequency: u32) -> Result<Self, InferError> {
        let mut files = Self { path: path.to_owned(), whole: None, parts: HashMap::new(), next: 0 };
        files.file(&Arc::default(), log_frequency).map_err(|fault| InferError::Unavailable(fault.to_string()))?;
        Ok(files)
    }

    /// The file that a trace belongs into.
    fn file(&mut self, group: &Arc<str>, log_frequency: u32) -> io::Result<&mut Array> {
        let named = |path: &Path, fault: &io::Error| {
            io::Error::new(fault.kind(), format!("cannot write the trace file '{}': {fault}", path.display()))
        };
        if log_frequency == 0 {
            let open = match self.whole.take() {
                Some(open) => open,
                None => Array::create(&self.path).map_err(|fault| named(&self.path, &fault))?,
            };
            return Ok(self.whole.insert(open));
        }
        match self.parts.entry(Arc::clone(group)) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let mut path = self.path.clone().into_os_string();
                path.push(format!(".{}", self.next));
                let open = Array::create(path.as_ref()).map_err(|fault| named(path.as_ref(), &fault))?;
                self.next += 1;
                Ok(place.insert(open))
            }
        }
    }

    /// Writes a trace; a file that is full by then is closed.
    pub fn write(&mut self, trace: &Trace) -> Result<(), Loss> {
        let written = self.file(&trace.group, trace.log_frequency).and_then(|file| {
            file.push(trace)?;
            Ok(file.traces)
        });
        let traces = written.map_err(|fault| Loss { traces: 1, reason: fault.to_string() })?;
        if trace.log_frequency > 0 && traces >= trace.log_frequency {
            self.parts.remove(&trace.group);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::super::record::Event;
    use super::super::settings::Level;
    use super::*;

    fn trace(id: u64, group: &str, log_frequency: u32) -> Trace {
        let level = Level { timestamps: true, tensors: false };
        let events = vec![(Event::RequestStart, id), (Event::RequestEnd, id + 1)];
        let (group, model) = (Arc::from(group), Arc::from("m\"\n"));
        Trace { id, level, events, group, model, log_frequency, version: 2, ..Trace::default() }
    }

    fn ids(path: &Path) -> Vec<u64> {
        let elements: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let heads = elements.iter().filter(|element| element.get("model_name").is_some());
        heads.map(|head| head["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn a_file_is_whole_after_every_trace() {
        let path = std::env::temp_dir().join(format!("naiad-trace-{}", std::process::id()));
        let mut files = Files::open(&path, 0).unwrap();
        assert!(ids(&path).is_empty());
        for id in 1..=3 {
            files.write(&trace(id, "", 0)).unwrap();
            assert_eq!(ids(&path), (1..=id).collect::<Vec<_>>());
        }
        // Full parts are closed, and groups do not mix.
        for (id, group) in [(4, ""), (5, "own"), (6, ""), (7, "")] {
            files.write(&trace(id, group, 2)).unwrap();
        }
        let part = |number: u32| path.with_extension(number.to_string());
        assert_eq!([ids(&part(0)), ids(&part(1)), ids(&part(2))], [vec![4, 6], vec![5], vec![7]]);
        for path in [path.clone(), part(0), part(1), part(2)] {
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_full_disk_leaves_the_array_whole() {
        let mut array = Array { file: OpenOptions::new().write(true).open("/dev/full").unwrap(), end: 1, traces: 0 };
        assert_eq!(array.push(&trace(1, "", 0)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((array.end, array.traces), (1, 0));
    }
}
