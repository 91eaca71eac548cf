//! Native models for the tests: compiled here, or built by `make native`.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// `y = x + k` in C, of the same inputs and outputs as `onnx::add`.
pub fn add(k: u32) -> Vec<u8> {
    let folder = tempfile::TempDir::new().expect("a folder");
    let library = folder.path().join("add.so");
    let root = root();
    let compiled = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-s"])
        .arg(format!("-DK={k}.0f"))
        .arg("-I")
        .arg(root.join("model-abi/include"))
        .arg("-o")
        .arg(&library)
        .arg(root.join("tests/native/add.c"))
        .status();
    assert!(compiled.expect("a C compiler").success());
    std::fs::read(library).expect("a library")
}

/// A library that `make native` built: `iris`, `spikes` or `hostile/<sin>`.
pub fn built(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("BATON_NATIVE").map_or_else(|| root().join("target/native"), PathBuf::from);
    let path = folder.join(name).with_extension("so");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{} ({error}): run `make native`", path.display()))
}
