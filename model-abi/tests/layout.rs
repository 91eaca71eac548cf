//! The binary interface, pinned: a number here changes with `ABI_VERSION` only, or is added at the end.

use std::mem::{align_of, offset_of, size_of};

use baton_model_abi::layout::*;

#[test]
fn sizes_and_offsets_are_those_of_version_1() {
    assert_eq!(ABI_VERSION, 1);
    let check = |name: &str, got: &[usize], pinned: &[usize]| assert_eq!(got, pinned, "{name}");
    check(
        "Api",
        &[
            size_of::<Api>(),
            align_of::<Api>(),
            offset_of!(Api, abi_version),
            offset_of!(Api, size),
            offset_of!(Api, features),
            offset_of!(Api, create),
            offset_of!(Api, describe),
            offset_of!(Api, run),
            offset_of!(Api, destroy),
        ],
        &[48, 8, 0, 4, 8, 16, 24, 32, 40],
    );
    check(
        "Text",
        &[
            size_of::<Text>(),
            align_of::<Text>(),
            offset_of!(Text, data),
            offset_of!(Text, capacity),
            offset_of!(Text, size),
        ],
        &[24, 8, 0, 8, 16],
    );
    check(
        "Input",
        &[
            size_of::<Input>(),
            align_of::<Input>(),
            offset_of!(Input, datatype),
            offset_of!(Input, rank),
            offset_of!(Input, shape),
            offset_of!(Input, data),
            offset_of!(Input, size),
        ],
        &[152, 8, 0, 4, 8, 136, 144],
    );
    check(
        "Output",
        &[
            size_of::<Output>(),
            align_of::<Output>(),
            offset_of!(Output, datatype),
            offset_of!(Output, rank),
            offset_of!(Output, shape),
            offset_of!(Output, data),
            offset_of!(Output, capacity),
            offset_of!(Output, size),
        ],
        &[160, 8, 0, 4, 8, 136, 144, 152],
    );
    check(
        "Note",
        &[
            size_of::<Note>(),
            align_of::<Note>(),
            offset_of!(Note, owner_size),
            offset_of!(Note, description_size),
            offset_of!(Note, kind),
            offset_of!(Note, owner),
            offset_of!(Note, abi_version),
            offset_of!(Note, build),
        ],
        &[84, 4, 0, 4, 8, 12, 20, 24],
    );
}

#[test]
fn numbers_are_those_of_version_1() {
    assert_eq!([STATUS_OK, STATUS_MORE, STATUS_INVALID_INPUT, STATUS_FAILED, STATUS_PANIC], [0, 1, 2, 3, 4]);
    assert_eq!((CONCURRENT, MAX_RANK, NOTE_TYPE), (1, 16, 1));
    assert_eq!((SYMBOL, NOTE_SECTION, &NOTE_OWNER), ("baton_model", ".note.baton", b"Baton\0\0\0"));
}

#[test]
fn the_note_says_its_own_sizes() {
    let note = baton_model_abi::note::note("spikes 1.0.0");
    // A note is its header of 12 bytes, the owner and the description, each filled up to 4 bytes.
    assert_eq!(note.owner_size as usize, b"Baton\0".len());
    assert_eq!(offset_of!(Note, abi_version), 12 + (note.owner_size as usize).next_multiple_of(4));
    assert_eq!(offset_of!(Note, abi_version) + note.description_size as usize, size_of::<Note>());
    assert_eq!((note.kind, note.abi_version), (NOTE_TYPE, ABI_VERSION));
}
