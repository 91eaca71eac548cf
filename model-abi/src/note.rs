//! The ELF note, made at compile time.

use crate::layout::{ABI_VERSION, NOTE_OWNER, NOTE_TYPE, Note};

/// Bytes of text that fit; one more ends it.
const LONGEST: usize = 59;

/// The note of a library with this name and version, cut to 59 bytes at the end of a character.
pub const fn note(text: &str) -> Note {
    let bytes = text.as_bytes();
    let mut length = bytes.len();
    if length > LONGEST {
        length = LONGEST;
        while length > 0 && !text.is_char_boundary(length) {
            length -= 1;
        }
    }
    let mut build = [0; LONGEST + 1];
    let mut index = 0;
    while index < length {
        build[index] = bytes[index];
        index += 1;
    }
    Note {
        owner_size: 6,
        description_size: 64,
        kind: NOTE_TYPE,
        owner: NOTE_OWNER,
        abi_version: ABI_VERSION,
        build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_or_cut_at_a_character() {
        let check = |text: &str, expected: &str| {
            let build = note(text).build;
            assert_eq!(&build[..expected.len()], expected.as_bytes(), "{text:?}");
            assert!(build[expected.len()..].iter().all(|byte| *byte == 0), "{text:?}");
        };
        check("", "");
        check("spikes 1.0.0", "spikes 1.0.0");
        let long = "0123456789".repeat(6);
        check(&long[..59], &long[..59]);
        check(&long, &long[..59]);
        let umlauts = "ä".repeat(40);
        check(&umlauts, &umlauts[..58]);
    }
}
