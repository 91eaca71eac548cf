//! Generates the Rust types with `protox`, in pure Rust, so that no `protoc` is needed on the machine.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=open_inference.proto");
    println!("cargo:rerun-if-changed=model_config.proto");
    println!("cargo:rerun-if-changed=worker.proto");
    let descriptors = protox::compile(["open_inference.proto"], ["."])?;
    // For reflection.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // `bytes` fields share the received buffer: a tensor is not copied by decoding.
        .bytes(".")
        // Parameter maps hold a handful of entries; an ordered map is smaller and its output stable.
        .btree_map(".")
        .compile_fds(descriptors)?;
    tonic_prost_build::configure().compile_fds(protox::compile(["worker.proto"], ["."])?)?;
    Ok(())
}
