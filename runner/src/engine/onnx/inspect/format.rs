//! Tells what a file is that is no ONNX model, from its first bytes.
//!
//! Only naming happens here; whether bytes are a model is decided by the walk. None of these signatures can begin a
//! model that ONNX Runtime would read as ONNX. One of them matters for safety: bytes marked `ORTM` would be read by ONNX
//! Runtime as its own FlatBuffers format, which no check of ours understands.

/// Signatures at a fixed offset.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (4, b"ORTM", "a model in ONNX Runtime's own format (.ort)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"\x7fELF", "an ELF program or library"),
    (0, b"MZ", "a Windows program or library"),
    (0, b"\xfe\xed\xfa\xce", "a Mach-O program or library"),
    (0, b"\xfe\xed\xfa\xcf", "a Mach-O program or library"),
    (0, b"\xce\xfa\xed\xfe", "a Mach-O program or library"),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O program or library"),
    (0, b"\xca\xfe\xba\xbe", "a Mach-O library or a Java class"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (as .h5 models are)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"PAR1", "a Parquet table"),
    (257, b"ustar\0", "a tar archive"),
    (257, b"ustar ", "a tar archive"),
];

/// How much of a file is looked at to call it text.
const TEXT_SAMPLE: usize = 1024;

/// A safetensors header is JSON behind its length; the format's own limit on that length.
const SAFETENSORS_HEADER: u64 = 100_000_000;

/// What these bytes are, in plain words, if they are a well-known something else than an ONNX model.
pub(super) fn recognise(bytes: &[u8]) -> Option<&'static str> {
    let signature = SIGNATURES
        .iter()
        .find(|(offset, magic, _)| bytes.get(*offset..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, name)) = signature {
        return Some(name);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(zip(bytes));
    }
    if matches!(bytes, [0x80, 2..=5, ..]) {
        return Some("a Python pickle (as joblib and older PyTorch files are)");
    }
    if let Some((length, [b'{', ..])) = bytes.split_at_checked(8)
        && safetensors(length)
    {
        return Some("a safetensors file");
    }
    text(bytes)
}

fn safetensors(length: &[u8]) -> bool {
    length.try_into().map(u64::from_le_bytes).is_ok_and(|length| (2..=SAFETENSORS_HEADER).contains(&length))
}

/// Many formats are zip archives; the first entry's name tells which.
fn zip(bytes: &[u8]) -> &'static str {
    let name = match bytes.get(26..30) {
        Some([low, high, _, _]) => bytes.get(30..30 + usize::from(u16::from_le_bytes([*low, *high]))),
        _ => None,
    };
    match name.unwrap_or_default() {
        name if name.ends_with(b".npy") => "a NumPy .npz archive",
        name if name.ends_with(b"/data.pkl") || name.starts_with(b"archive/") => "a PyTorch file (.pt)",
        b"metadata.json" => "a Keras model (.keras)",
        _ => "a zip archive",
    }
}

fn text(bytes: &[u8]) -> Option<&'static str> {
    let sample = bytes.get(..TEXT_SAMPLE).unwrap_or(bytes);
    let text = match std::str::from_utf8(sample) {
        Ok(text) => text,
        // A character that the sample's end cuts in two is no reason to call it binary.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(sample.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    // A model has control characters among its first bytes: the tags of ir_version, of a node's outputs, of a type.
    if text
        .chars()
        .any(|character| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\x0c'))
    {
        return None;
    }
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    Some(match text.as_bytes() {
        [] => "blank text",
        [b'<', ..] => "an XML or HTML document",
        [b'{' | b'[', ..] => "JSON text",
        _ if text.starts_with("version https://git-lfs") => {
            "a Git LFS pointer (fetch the file it stands for)"
        }
        _ if text.starts_with("---") => "YAML text",
        _ => "plain text",
    })
}
