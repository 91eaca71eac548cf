//! Generates the Rust types with `protox`, in pure Rust, so that no `protoc` is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=open_inference.proto");
    println!("cargo:rerun-if-changed=model_config.proto");
    let descriptors = protox::compile(["open_inference.proto"], ["."])?;
    tonic_prost_build::configure()
        // `bytes` fields share the received buffer: a tensor is not copied by decoding.
        .bytes(".")
        // Parameter maps hold a handful of entries; an ordered map is smaller and its output stable.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
