//! What a tensor's shape, element type and data must agree on, wherever the tensor sits.

use super::super::*;
use super::build::*;
use super::{check_passes, look};

/// The model is refused for this tensor with a reason that contains `part`.
fn check_bad_tensor(case: &str, model: Proto, part: &str) {
    let error = look(model).err();
    let fits = matches!(&error, Some(InspectError::BadTensor { reason, .. }) if reason.contains(part));
    assert!(fits, "{case}: {error:?}");
}

#[test]
fn data_fill_the_shape_of_every_element_type() {
    // Element type, bytes that 5 elements take raw, field of typed data, entries there.
    let table: &[(i64, usize, u32, usize)] = &[
        (1, 20, 4, 5),
        (2, 5, 5, 5),
        (3, 5, 5, 5),
        (4, 10, 5, 5),
        (5, 10, 5, 5),
        (6, 20, 5, 5),
        (7, 40, 7, 5),
        (9, 5, 5, 5),
        (10, 10, 5, 5),
        (11, 40, 10, 5),
        (12, 20, 11, 5),
        (13, 40, 11, 5),
        (14, 40, 4, 10),
        (15, 80, 10, 10),
        (16, 10, 5, 5),
        (17, 5, 5, 5),
        (20, 5, 5, 5),
        (21, 3, 5, 3),
        (21, 3, 5, 1),
        (22, 3, 5, 3),
        (23, 3, 5, 3),
        (24, 5, 5, 5),
        (25, 2, 5, 2),
        (26, 2, 5, 1),
        (27, 4, 5, 5),
        (28, 4, 5, 5),
    ];
    let of = |element_type, raw: usize| {
        served(graph().initializer(tensor("w", element_type, &[5]).bytes(9, &vec![0; raw])))
    };
    let typed = |element_type, field: u32, entries: usize| {
        let tensor = tensor("w", element_type, &[5]);
        let width = match field {
            4 => 4,
            10 => 8,
            _ => 1,
        };
        served(graph().initializer(tensor.bytes(field, &vec![0; entries * width])))
    };
    for (element_type, raw, field, entries) in table {
        let case = format!("element type {element_type}");
        check_passes(&case, of(*element_type, *raw));
        check_bad_tensor(&case, of(*element_type, raw + 1), "bytes");
        check_bad_tensor(&case, of(*element_type, raw - 1), "bytes");
        check_passes(&case, typed(*element_type, *field, *entries));
        check_bad_tensor(&case, typed(*element_type, *field, entries + 5), "another number");
        check_bad_tensor(&case, typed(*element_type, *field, 0), "no data of its type");
    }
    check_passes("undefined, as for no default", served(graph().initializer(tensor("w", 0, &[]))));
    check_passes("a type of the future", served(graph().initializer(tensor("w", 99, &[5]).bytes(9, &[0]))));
}

#[test]
fn typed_data_count_packed_and_unpacked() {
    let long = tensor("w", INT64, &[3]).int(7, -1).bytes(7, &[0x80, 0x01, 0x05]);
    check_passes("varints", served(graph().initializer(long.clone())));
    check_bad_tensor("one more", served(graph().initializer(long.int(7, 0))), "another number (4)");
    let strings = tensor("w", STRING, &[2]).text(6, "a").text(6, "");
    check_passes("strings", served(graph().initializer(strings.clone())));
    check_bad_tensor("strings", served(graph().initializer(strings.text(6, "c"))), "another number (3)");
    check_bad_tensor(
        "raw strings",
        served(graph().initializer(tensor("w", STRING, &[1]).text(9, "a"))),
        "raw",
    );
    check_bad_tensor(
        "wrong field",
        served(graph().initializer(tensor("w", FLOAT, &[1]).int(5, 1))),
        "no data of its type",
    );
    let cut = tensor("w", FLOAT, &[1]).bytes(4, &[0; 5]);
    let error = look(served(graph().initializer(cut))).err();
    assert!(matches!(error, Some(InspectError::Malformed { where_: "initializer", .. })), "{error:?}");
}

#[test]
fn shapes_are_checked() {
    let of = |dims: &[i64]| served(graph().initializer(tensor("w", FLOAT, dims).bytes(9, &[0; 4])));
    check_passes("scalar", of(&[]));
    check_passes("all ones", of(&[1; 64]));
    check_bad_tensor("rank", of(&[1; 65]), "more than 64 dimensions");
    check_bad_tensor("negative", of(&[-1]), "negative");
    check_bad_tensor("two negatives", of(&[-1, -1]), "negative");
    check_bad_tensor("2^31 x 2^31", of(&[1 << 31, 1 << 31]), "more bytes than there can be");
    check_bad_tensor("2^32 x 2^32", of(&[1 << 32, 1 << 32]), "more elements than can be addressed");
    check_bad_tensor("more bytes than can be counted", of(&[1 << 62]), "more bytes than there can be");
    check_bad_tensor("beyond the file", of(&[1 << 30]), "takes 4294967296 bytes, it has 4");
    check_bad_tensor("no data", served(graph().initializer(tensor("w", FLOAT, &[2]))), "no data of its type");
    check_passes("no elements, no data", served(graph().initializer(tensor("w", FLOAT, &[3, 0]))));
    check_passes(
        "no elements, empty data",
        served(graph().initializer(tensor("w", FLOAT, &[0]).bytes(9, b""))),
    );
    check_bad_tensor("in a Constant", served(graph().node(constant(tensor("c", FLOAT, &[2])))), "no data");
    let packed = Proto::default().bytes(1, &[2, 3]).int(2, FLOAT).bytes(9, &[0; 24]);
    check_passes("packed dims", served(graph().initializer(packed)));
}

#[test]
fn sparse_tensors_are_checked_as_a_whole() {
    let of = |dims: &[i64]| served(graph().sparse_initializer(sparse(weight("s"), indices(), dims)));
    check_passes("one value", of(&[5]));
    check_bad_tensor("huge once dense", of(&[1 << 20, 1 << 20]), "takes more than 2147483648 bytes");
    check_bad_tensor("overflow", of(&[1 << 40, 1 << 40]), "more elements");
    check_bad_tensor("negative", of(&[-5]), "negative");
    let two = tensor("indices", INT64, &[1, 2]).bytes(7, &[0, 1]);
    check_passes(
        "coordinates",
        served(graph().sparse_initializer(sparse(weight("s"), two.clone(), &[2, 2]))),
    );
    check_bad_tensor(
        "too many",
        served(graph().sparse_initializer(sparse(weight("s"), two, &[4]))),
        "1 values and 2 indices",
    );
    let none = sparse(tensor("s", FLOAT, &[0]), tensor("i", INT64, &[0]), &[4]);
    check_passes("all zeros", served(graph().sparse_initializer(none)));
}
