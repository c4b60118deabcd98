//! Generates the messages of the gRPC frontend and the descriptors that reflection serves; needs no protoc.

use std::error::Error;
use std::fs;
use std::path::Path;

use prost_build::Config;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;
use protox::Compiler;
use protox::prost_reflect::prost::Message;

/// Whatever is wrong ends the program.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Where the generated files lie, below `crates`.
pub const ROOM: &str = "core/src/grpc/gen";

/// The names of the generated files.
pub const FILES: [&str; 4] = ["inference.rs", "grpc.health.v1.rs", "grpc.reflection.v1.rs", "descriptors.binpb"];

const CONFIGURATION: &str = "model_config.proto";

/// Writes all files into `room`.
pub fn write(crates: &Path, room: &Path) -> Result<(), Fault> {
    let includes = [crates.join("core/proto"), crates.join("../naiad/config")];
    let mut compiler = Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(["grpc_service.proto", "health.proto", "reflection.proto"])?;
    let files = compiler.file_descriptor_set();
    fs::write(room.join(FILES[3]), files.encode_to_vec())?;
    Config::new().bytes(["."]).btree_map(["."]).out_dir(room).compile_fds(without_configuration(files))?;
    Ok(())
}

/// The core never looks into a model configuration: Python hands it over encoded, and on the wire an encoded message
/// in a message looks as bytes do.
fn without_configuration(mut files: FileDescriptorSet) -> FileDescriptorSet {
    files.file.retain(|file| file.name() != CONFIGURATION);
    for file in &mut files.file {
        file.dependency.retain(|name| name != CONFIGURATION);
        let fields = file.message_type.iter_mut().flat_map(|message| &mut message.field);
        for field in fields.filter(|field| field.type_name() == ".inference.ModelConfig") {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
    files
}
