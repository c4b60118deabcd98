//! One JSON lines file a model, rotated before it grows without end.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const ROTATE_AT: u64 = 16 << 20;
const KEPT: u32 = 3;
const OPEN_AT_MOST: usize = 64;

struct Open {
    file: File,
    size: u64,
}

/// The files of one folder.
pub struct ModelFiles {
    dir: PathBuf,
    rotate_at: u64,
    open: HashMap<String, Open>,
}

impl ModelFiles {
    /// Makes the folder if it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(|fault| super::named(dir, &fault))?;
        Ok(Self { dir: dir.to_owned(), rotate_at: ROTATE_AT, open: HashMap::new() })
    }

    /// Appends a line to the file of `name`; a name that is no file name is left out.
    pub fn append(&mut self, name: &str, line: &str) -> io::Result<()> {
        if name.is_empty() || name.starts_with('.') || name.len() > 200 || name.contains(['/', '\\', '\0']) {
            return Ok(());
        }
        if self.open.get(name).is_some_and(|open| open.size + line.len() as u64 > self.rotate_at) {
            self.open.remove(name);
            self.rotate(name);
        }
        if !self.open.contains_key(name) {
            // Few models log at the same time; closing all is simpler than knowing the idlest.
            if self.open.len() >= OPEN_AT_MOST {
                self.open.clear();
            }
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path(name, 0))?;
            let size = file.metadata()?.len();
            self.open.insert(name.to_owned(), Open { file, size });
        }
        if let Some(open) = self.open.get_mut(name) {
            open.file.write_all(line.as_bytes())?;
            open.size += line.len() as u64;
        }
        Ok(())
    }

    fn path(&self, name: &str, age: u32) -> PathBuf {
        let suffix = if age == 0 { String::new() } else { format!(".{age}") };
        self.dir.join(format!("{name}.jsonl{suffix}"))
    }

    /// A file that cannot be moved is written on.
    fn rotate(&self, name: &str) {
        for age in (0..KEPT).rev() {
            let _ = fs::rename(self.path(name, age), self.path(name, age + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_kept_and_the_oldest_goes() {
        let dir = std::env::temp_dir().join(format!("naiad-files-{}", std::process::id()));
        let mut files = ModelFiles::open(&dir).unwrap();
        files.rotate_at = 8;
        for line in ["1111\n", "2222\n", "3333\n", "4444\n", "5555\n"] {
            files.append("m", line).unwrap();
        }
        files.append("../m", "6666\n").unwrap();
        let read = |age| fs::read_to_string(files.path("m", age)).unwrap_or_default();
        assert_eq!([read(0), read(1), read(3), read(4)], ["5555\n", "4444\n", "2222\n", ""]);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
        fs::remove_dir_all(&dir).unwrap();
    }
}
