//! Writes what is generated from the `.proto` files: `cargo run -p naiad-codegen`.

use std::env;
use std::path::Path;

use naiad_codegen::{Fault, ROOM, write};

fn main() -> Result<(), Fault> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    write(&crates, &crates.join(ROOM))
}
