//! What is checked in is what the `.proto` files give.

use std::path::Path;
use std::{fs, process};

use naiad_codegen::{FILES, ROOM, write};

#[test]
fn the_generated_files_are_up_to_date() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let fresh = std::env::temp_dir().join(format!("naiad-codegen-{}", process::id()));
    fs::create_dir(&fresh).unwrap();
    write(&crates, &fresh).unwrap();
    for name in FILES {
        let same = fs::read(fresh.join(name)).unwrap() == fs::read(crates.join(ROOM).join(name)).unwrap();
        assert!(same, "{name} is old: cargo run -p naiad-codegen");
    }
    fs::remove_dir_all(&fresh).unwrap();
}
