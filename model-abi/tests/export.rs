//! Exported models, called through their tables as Baton calls them. Runs under Miri, too.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says what is wrong by failing where it is")]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_model_abi::export::api;
use baton_model_abi::layout::*;
use baton_model_abi::{Datatype, Error, Inputs, Model, Outputs, Signature, export_model};

/// Does what its input `order` says.
struct Obedient;

impl Model for Obedient {
    fn create() -> Result<Self, Error> {
        Ok(Self)
    }

    fn signature(&self) -> Signature {
        Signature::new()
            .input("order", Datatype::Bytes, &[1])
            .input("x", Datatype::Fp32, &[-1, 2])
            .output("y", Datatype::Fp64, &[-1])
            .output("words", Datatype::Bytes, &[-1])
    }

    fn run(&self, inputs: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        let (_, mut order) = inputs.text("order")?;
        let order = str::from_utf8(order.next().expect("one order")).map_err(Error::invalid_input)?;
        let (shape, x) = inputs.f32("x")?;
        assert_eq!(shape.len(), 2);
        let sums: Vec<f64> = x.chunks(2).map(|row| row.iter().map(|value| f64::from(*value)).sum()).collect();
        let answer = |outputs: &mut Outputs<'_>| {
            outputs.put("y", &shape[..1], &sums)?;
            outputs.put_text("words", &[3], &["", "zwölf", order])
        };
        match order {
            "answer" => answer(outputs),
            "panic" => panic!("told to, with {} rows", sums.len()),
            "panic with a literal" => panic!("literally"),
            "panic with a number" => std::panic::panic_any(7),
            "panic with a bomb" => std::panic::panic_any(Bomb),
            "refuse" => Err(Error::invalid_input("no such row")),
            "fail" => Err(Error::failed("no luck")),
            "fail at length" => Err(Error::failed("ä".repeat(100))),
            "answer, then fail" => answer(outputs).and(Err(Error::failed("changed my mind"))),
            "answer twice" => {
                outputs.put_text(
                    "words",
                    &[1],
                    &["a first answer that is far longer than the second one is"],
                )?;
                answer(outputs)
            }
            "answer half" => outputs.put("y", &shape[..1], &sums),
            "read as f64" => inputs.f64("x").map(drop),
            "read as text" => inputs.text("x").map(drop),
            "read text as u8" => inputs.u8("order").map(drop),
            "read what is not there" => inputs.f32("z").map(drop),
            "put f32" => outputs.put("y", &[1], &[1.0f32]),
            "put what is not there" => outputs.put("z", &[1], &[1.0f32]),
            "put another shape" => outputs.put("y", &[1, 1], &[1.0f64]),
            "put too few values" => outputs.put("y", &[3], &[1.0f64]),
            "put a negative shape" => outputs.put("y", &[-1], &[1.0f64]),
            "put text as y" => outputs.put_text("y", &[1], &["1"]),
            other => Err(Error::invalid_input(format!("unknown order {other:?}"))),
        }
    }
}

export_model!(Obedient);

/// Panics again when the panic's value is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        // Without a size, as it is leaked on purpose and Miri would tell.
        std::panic::panic_any(());
    }
}

/// Bytes at an address that fits any tensor, and `shift` bytes behind it.
struct Buffer {
    blocks: Vec<Block>,
    shift: usize,
    length: usize,
}

#[derive(Clone)]
#[repr(C, align(64))]
struct Block([u8; 64]);

impl Buffer {
    fn new(bytes: &[u8], shift: usize) -> Self {
        let mut buffer = Self::zeroed(bytes.len(), shift);
        // SAFETY: the buffer has so many bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.data(), bytes.len()) };
        buffer
    }

    fn zeroed(length: usize, shift: usize) -> Self {
        Self { blocks: vec![Block([0; 64]); (length + shift).div_ceil(64)], shift, length }
    }

    fn data(&mut self) -> *mut u8 {
        self.blocks.as_mut_ptr().cast::<u8>().wrapping_add(self.shift)
    }

    fn bytes(&self) -> &[u8] {
        let all: Vec<&[u8; 64]> = self.blocks.iter().map(|block| &block.0).collect();
        let Some(first) = all.first() else { return &[] };
        // SAFETY: the blocks lie behind one another and are owned by `self`; `first` is only the address.
        let all =
            unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast::<u8>(), all.len() * first.len()) };
        &all[self.shift..self.shift + self.length]
    }
}

fn shape_of(dims: &[i64]) -> [i64; MAX_RANK] {
    let mut shape = [0; MAX_RANK];
    shape[..dims.len()].copy_from_slice(dims);
    shape
}

struct Given {
    datatype: Datatype,
    shape: Vec<i64>,
    data: Buffer,
}

impl Given {
    fn new(datatype: Datatype, shape: &[i64], bytes: &[u8]) -> Self {
        Self { datatype, shape: shape.to_vec(), data: Buffer::new(bytes, 0) }
    }

    fn f32(shape: &[i64], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(Datatype::Fp32, shape, &bytes)
    }

    fn text(texts: &[&str]) -> Self {
        Self::new(Datatype::Bytes, &[texts.len() as i64], &text_bytes(texts))
    }
}

fn text_bytes(texts: &[&str]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).expect("short").to_le_bytes();
    texts.iter().flat_map(|text| [&length(text)[..], text.as_bytes()].concat()).collect()
}

/// A created model.
struct Caller {
    api: &'static Api,
    model: *mut c_void,
    text_capacity: usize,
}

/// What came back: status, outputs as (shape, size, bytes that are there), the text that is there and its whole size.
struct Answer {
    status: i32,
    outputs: Vec<(Vec<i64>, u64, Vec<u8>)>,
    text: String,
    text_size: u64,
}

impl Caller {
    fn new(api: &'static Api) -> Self {
        let (status, model, text) = create(api);
        assert_eq!((status, text.as_str()), (STATUS_OK, ""));
        Self { api, model, text_capacity: 200 }
    }

    fn describe(&self, capacity: usize) -> (i32, String, u64) {
        let describe = self.api.describe.expect("there");
        // SAFETY: the model is alive.
        with_text(capacity, |text| unsafe { describe(self.model, text) })
    }

    fn run(&self, inputs: &mut [Given], capacities: &[(Datatype, usize)]) -> Answer {
        let raw: Vec<Input> = inputs
            .iter_mut()
            .map(|given| Input {
                datatype: given.datatype.number(),
                rank: u32::try_from(given.shape.len()).expect("few"),
                shape: shape_of(&given.shape),
                data: given.data.data(),
                size: given.data.length as u64,
            })
            .collect();
        self.run_raw(&raw, capacities)
    }

    fn run_raw(&self, inputs: &[Input], capacities: &[(Datatype, usize)]) -> Answer {
        let mut buffers: Vec<Buffer> =
            capacities.iter().map(|(_, capacity)| Buffer::zeroed(*capacity, 0)).collect();
        let mut outputs: Vec<Output> = capacities
            .iter()
            .zip(&mut buffers)
            .map(|((datatype, capacity), buffer)| Output {
                datatype: datatype.number(),
                rank: 99,
                shape: [-1; MAX_RANK],
                data: buffer.data(),
                capacity: *capacity as u64,
                size: 99,
            })
            .collect();
        let run = self.api.run.expect("there");
        let (status, text, text_size) = with_text(self.text_capacity, |text| {
            let count = |count: usize| u32::try_from(count).expect("few");
            let (outputs, output_count) = (outputs.as_mut_ptr(), count(outputs.len()));
            // SAFETY: the model is alive, and everything else of this call.
            unsafe { run(self.model, inputs.as_ptr(), count(inputs.len()), outputs, output_count, text) }
        });
        let outputs = outputs.iter().zip(&buffers).map(|(output, buffer)| {
            let there = usize::try_from(output.size).expect("small").min(buffer.length);
            let shape = output.shape.get(..output.rank as usize).unwrap_or_default();
            (shape.to_vec(), output.size, buffer.bytes()[..there].to_vec())
        });
        Answer { status, outputs: outputs.collect(), text, text_size }
    }

    /// Runs [`Obedient`] with room for its answer.
    fn order(&self, order: &str) -> Answer {
        let x = Given::f32(&[2, 2], &[1.0, 2.0, 3.0, 4.5]);
        self.run(&mut [Given::text(&[order]), x], &ROOM)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: the model's last call.
        unsafe { self.api.destroy.expect("there")(self.model) };
    }
}

const ROOM: [(Datatype, usize); 2] = [(Datatype::Fp64, 64), (Datatype::Bytes, 64)];

/// Calls with a text buffer: the status, what is in the buffer, and the size that was claimed.
fn with_text(capacity: usize, call: impl FnOnce(*mut Text) -> i32) -> (i32, String, u64) {
    let mut buffer = vec![0; capacity];
    let mut text = Text { data: buffer.as_mut_ptr(), capacity: capacity as u64, size: 0 };
    let status = call(&mut text);
    let size = text.size;
    buffer.truncate(usize::try_from(size).expect("small"));
    (status, String::from_utf8(buffer).expect("UTF-8 to the end"), size)
}

fn create(api: &Api) -> (i32, *mut c_void, String) {
    let mut model = ptr::null_mut();
    // SAFETY: places for both.
    let (status, text, _) = with_text(200, |text| unsafe { api.create.expect("there")(&mut model, text) });
    (status, model, text)
}

/// The table of a model.
fn table<M: Model>() -> &'static Api {
    const { &api::<M>() }
}

#[test]
fn the_exported_table_is_complete() {
    assert_eq!((baton_model.abi_version, baton_model.size, baton_model.features), (1, 48, CONCURRENT));
    assert!(baton_model.create.is_some() && baton_model.describe.is_some());
    assert!(baton_model.run.is_some() && baton_model.destroy.is_some());
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn the_note_is_in_the_binary() {
    use object::{Object, ObjectSection};

    let binary = std::fs::read(std::env::current_exe().expect("a path")).expect("readable");
    let file = object::File::parse(&*binary).expect("an object");
    let section = file.section_by_name(NOTE_SECTION).expect("a note");
    assert_eq!(section.kind(), object::SectionKind::Note);
    let bytes = section.data().expect("its bytes");
    assert_eq!(bytes.len(), size_of::<Note>());
    let build = concat!("baton-model-abi ", env!("CARGO_PKG_VERSION"), "\0");
    assert!(bytes[24..].starts_with(build.as_bytes()), "{bytes:?}");
}

#[test]
fn a_good_run_answers() {
    let model = Caller::new(&baton_model);
    let answer = model.order("answer");
    assert_eq!((answer.status, answer.text.as_str()), (STATUS_OK, ""));
    let sums = [3.0f64.to_le_bytes(), 7.5f64.to_le_bytes()].concat();
    let words = text_bytes(&["", "zwölf", "answer"]);
    assert_eq!(answer.outputs, [(vec![2], 16, sums), (vec![3], words.len() as u64, words)]);
}

#[test]
fn threads_share_a_model() {
    struct Shared(Caller);
    // SAFETY: the table says CONCURRENT.
    unsafe impl Sync for Shared {}
    let shared = Shared(Caller::new(&baton_model));
    let shared = &shared;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || assert_eq!(shared.0.order("answer").status, STATUS_OK));
        }
    });
}

#[test]
fn errors_and_panics_come_back_as_status_and_text() {
    let model = Caller::new(&baton_model);
    for (order, status, text) in [
        ("refuse", STATUS_INVALID_INPUT, "no such row"),
        ("dance", STATUS_INVALID_INPUT, "unknown order \"dance\""),
        ("fail", STATUS_FAILED, "no luck"),
        ("answer, then fail", STATUS_FAILED, "changed my mind"),
        ("answer half", STATUS_FAILED, "the model did not put its output \"words\""),
        ("panic", STATUS_PANIC, "told to, with 2 rows"),
        ("panic with a literal", STATUS_PANIC, "literally"),
        ("panic with a number", STATUS_PANIC, "(a value that is no text)"),
        ("panic with a bomb", STATUS_PANIC, "(a value that is no text)"),
        ("read as f64", STATUS_FAILED, "input \"x\" is FP32, and the model treats it as FP64"),
        ("read as text", STATUS_FAILED, "input \"x\" is FP32, and the model treats it as BYTES"),
        (
            "read text as u8",
            STATUS_FAILED,
            "input \"order\" is BYTES, and the model treats it as UINT8 or BOOL",
        ),
        ("read what is not there", STATUS_FAILED, "the model's signature has no input \"z\""),
        ("put f32", STATUS_FAILED, "output \"y\" is FP64, and the model treats it as FP32"),
        ("put what is not there", STATUS_FAILED, "the model's signature has no output \"z\""),
        (
            "put another shape",
            STATUS_FAILED,
            "output \"y\" has to have the shape [-1], and was put with [1, 1]",
        ),
        ("put too few values", STATUS_FAILED, "output \"y\" was put with the shape [3] and 1 values"),
        ("put a negative shape", STATUS_FAILED, "output \"y\" was put with the shape [-1] and 1 values"),
        ("put text as y", STATUS_FAILED, "output \"y\" is FP64, and the model treats it as BYTES"),
    ] {
        let answer = model.order(order);
        assert_eq!((answer.status, answer.text.as_str()), (status, text), "{order}");
        assert_eq!(model.order("answer").status, STATUS_OK, "after {order}");
    }
    // The last answer counts.
    let twice = model.order("answer twice");
    assert_eq!((twice.status, &twice.outputs[1].2), (STATUS_OK, &text_bytes(&["", "zwölf", "answer twice"])));
}

#[test]
fn a_text_that_does_not_fit_is_cut_at_a_character() {
    let mut model = Caller::new(&baton_model);
    for (capacity, expected) in [(0, ""), (1, " "), (2, "ä"), (3, "ä "), (8, "ääää")] {
        model.text_capacity = capacity;
        let answer = model.order("fail at length");
        assert_eq!(answer.status, STATUS_FAILED);
        assert_eq!((answer.text.as_str(), answer.text_size), (expected, 200), "{capacity}");
    }
}

#[test]
fn a_small_buffer_gets_the_size_that_is_needed() {
    let model = Caller::new(&baton_model);
    let run = |capacities: [usize; 2]| {
        let [y, words] = capacities;
        let x = Given::f32(&[2, 2], &[1.0; 4]);
        let room = [(Datatype::Fp64, y), (Datatype::Bytes, words)];
        let answer = model.run(&mut [Given::text(&["answer"]), x], &room);
        let sizes: Vec<u64> = answer.outputs.iter().map(|(_, size, _)| *size).collect();
        (answer.status, sizes)
    };
    let sizes = vec![16, 4 + (4 + 6) + (4 + 6)];
    for (capacities, status) in [
        ([0, 0], STATUS_MORE),
        ([15, 24], STATUS_MORE),
        ([16, 23], STATUS_MORE),
        ([16, 24], STATUS_OK),
        ([100, 100], STATUS_OK),
    ] {
        assert_eq!(run(capacities), (status, sizes.clone()), "{capacities:?}");
    }
}

#[test]
fn a_description_that_does_not_fit_says_its_size() {
    let model = Caller::new(&baton_model);
    let (status, _, size) = model.describe(10_000);
    assert_eq!(status, STATUS_OK);
    let size = usize::try_from(size).expect("small");
    for capacity in [0, 1, size - 1] {
        let (status, _, needed) = model.describe(capacity);
        assert_eq!((status, needed), (STATUS_MORE, size as u64), "{capacity}");
    }
    let (status, json, _) = model.describe(size);
    assert_eq!(status, STATUS_OK);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["inputs"][1]["shape"], serde_json::json!([-1, 2]));
    assert_eq!(json["outputs"][1]["datatype"], "BYTES");
}

#[test]
fn inputs_that_are_not_the_described_ones_are_refused() {
    let model = Caller::new(&baton_model);
    let order = || Given::text(&["answer"]);
    let values = |count: usize| Given::f32(&[1, 2], &vec![0.0; count]);
    let unaligned = Given { datatype: Datatype::Fp32, shape: vec![1, 2], data: Buffer::new(&[0; 8], 1) };
    let huge = Given::f32(&[i64::MAX / 2, 2], &[0.0; 2]);
    let texts = |bytes: &[u8]| Given::new(Datatype::Bytes, &[1], bytes);
    for (mut inputs, text) in [
        (vec![order()], "the model has 2 inputs, not 1"),
        (
            vec![order(), Given::new(Datatype::Fp64, &[1, 2], &[0; 16])],
            "input \"x\" has to be FP32, and is FP64",
        ),
        (
            vec![order(), Given::f32(&[2], &[0.0; 2])],
            "input \"x\" has to have the shape [-1, 2], and has [2]",
        ),
        (
            vec![order(), Given::f32(&[1, 3], &[0.0; 3])],
            "input \"x\" has to have the shape [-1, 2], and has [1, 3]",
        ),
        (vec![order(), values(3)], "input \"x\" has 12 bytes, which are not those of the shape [1, 2]"),
        (vec![order(), values(0)], "input \"x\" has 0 bytes, which are not those of the shape [1, 2]"),
        (vec![order(), unaligned], "input \"x\" is not aligned"),
        (
            vec![order(), huge],
            "input \"x\" has 8 bytes, which are not those of the shape [4611686018427387903, 2]",
        ),
        (vec![order(), Given::f32(&[-1, 2], &[])], "input \"x\" has the impossible shape [-1, 2] or size 0"),
        (vec![texts(&[]), values(2)], "input \"order\" has 0 bytes, which are not those of the shape [1]"),
        (
            vec![texts(&[2, 0, 0, 0, 65]), values(2)],
            "input \"order\" has 5 bytes, which are not those of the shape [1]",
        ),
        (
            vec![texts(&[0, 0, 0, 0, 65]), values(2)],
            "input \"order\" has 5 bytes, which are not those of the shape [1]",
        ),
    ] {
        let answer = model.run(&mut inputs, &ROOM);
        assert_eq!((answer.status, answer.text.as_str()), (STATUS_INVALID_INPUT, text));
    }
}

#[test]
fn an_empty_input_needs_no_address() {
    let model = Caller::new(&baton_model);
    let mut order = Buffer::new(&text_bytes(&["answer"]), 0);
    let order = Input {
        datatype: Datatype::Bytes.number(),
        rank: 1,
        shape: shape_of(&[1]),
        data: order.data(),
        size: order.length as u64,
    };
    let x = |rank, data, size| Input {
        datatype: Datatype::Fp32.number(),
        rank,
        shape: shape_of(&[0, 2]),
        data,
        size,
    };
    let answer = model.run_raw(&[order.clone(), x(2, ptr::null(), 0)], &ROOM);
    assert_eq!(answer.status, STATUS_OK, "{}", answer.text);
    assert_eq!(answer.outputs[0], (vec![0], 0, vec![]));
    // An odd address is none that is read.
    let answer = model.run_raw(&[order.clone(), x(2, ptr::without_provenance(3), 0)], &ROOM);
    assert_eq!(answer.status, STATUS_OK, "{}", answer.text);
    let answer = model.run_raw(&[order.clone(), x(2, ptr::null(), 8)], &ROOM);
    assert_eq!(
        (answer.status, &*answer.text),
        (STATUS_INVALID_INPUT, "input \"x\" has 8 bytes, and no address")
    );
    let answer = model.run_raw(&[order, x(17, ptr::null(), 0)], &ROOM);
    assert_eq!(
        (answer.status, &*answer.text),
        (STATUS_INVALID_INPUT, "input \"x\" has 17 dimensions, 16 is the most")
    );
}

#[test]
fn outputs_that_are_not_the_described_ones_fail() {
    let model = Caller::new(&baton_model);
    let inputs = || [Given::text(&["answer"]), Given::f32(&[1, 2], &[0.0; 2])];
    let answer = model.run(&mut inputs(), &ROOM[..1]);
    assert_eq!((answer.status, &*answer.text), (STATUS_FAILED, "the model has 2 outputs, not 1"));
    let answer = model.run(&mut inputs(), &[ROOM[1], ROOM[1]]);
    assert_eq!(
        (answer.status, &*answer.text),
        (STATUS_FAILED, "the caller's output \"y\" has to be FP64, and is BYTES")
    );
}

#[test]
fn null_pointers_of_the_caller_are_survived() {
    let Api {
        create: Some(create), describe: Some(describe), run: Some(run), destroy: Some(destroy), ..
    } = baton_model
    else {
        panic!("a function is missing")
    };
    let (null, no_text) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: survived, as `export` says.
    unsafe {
        assert_eq!(create(ptr::null_mut(), no_text), STATUS_FAILED);
        assert_eq!(describe(null, no_text), STATUS_FAILED);
        assert_eq!(run(null, ptr::null(), 0, ptr::null_mut(), 0, no_text), STATUS_FAILED);
        destroy(null);
    }
    let model = Caller::new(&baton_model);
    let mut nowhere = Text { data: ptr::null_mut(), capacity: 100, size: 0 };
    // SAFETY: as above; the model is alive.
    unsafe {
        assert_eq!(describe(model.model, no_text), STATUS_FAILED);
        assert_eq!(describe(model.model, &mut nowhere), STATUS_MORE);
        assert_eq!(run(model.model, ptr::null(), 2, ptr::null_mut(), 2, &mut nowhere), STATUS_INVALID_INPUT);
        assert!(nowhere.size > 0);
    }
}

/// One output of each type; answers with its inputs.
struct Echo;

const ECHOED: [Datatype; 14] = Datatype::ALL;

impl Model for Echo {
    fn create() -> Result<Self, Error> {
        Ok(Self)
    }

    fn signature(&self) -> Signature {
        let add = |signature: Signature, datatype: Datatype| {
            signature.input(datatype.name(), datatype, &[-1]).output(datatype.name(), datatype, &[-1])
        };
        ECHOED.into_iter().fold(Signature::new(), add)
    }

    fn run(&self, inputs: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        macro_rules! echo {
            ($($name:literal $element:ident)*) => {
                $(
                    let (shape, values) = inputs.$element($name)?;
                    outputs.put($name, shape, values)?;
                )*
            };
        }
        echo! {
            "BOOL" u8 "BOOL" bool "UINT8" u8 "UINT16" u16 "UINT32" u32 "UINT64" u64 "INT8" i8 "INT16" i16 "INT32" i32
            "INT64" i64 "FP16" u16 "FP32" f32 "FP64" f64 "BF16" u16
        }
        let (shape, texts) = inputs.text("BYTES")?;
        assert_eq!(texts.len(), 2);
        outputs.put_text("BYTES", shape, &texts.collect::<Vec<_>>())
    }
}

#[test]
fn every_datatype_goes_in_and_comes_out() {
    let model = Caller::new(table::<Echo>());
    let bytes = |datatype: Datatype| match (datatype, datatype.width()) {
        (Datatype::Bool, _) => vec![1, 0],
        (_, Some(width)) => (1..=2 * width as u8).collect(),
        (_, None) => [&[2, 0, 0, 0, 0xff, 0][..], &[0; 4]].concat(),
    };
    let inputs = || ECHOED.map(|datatype| Given::new(datatype, &[2], &bytes(datatype)));
    let answer = model.run(&mut inputs(), &ECHOED.map(|datatype| (datatype, 16)));
    assert_eq!(answer.status, STATUS_OK, "{}", answer.text);
    for (datatype, (shape, _, got)) in ECHOED.into_iter().zip(answer.outputs) {
        assert_eq!((shape, got), (vec![2], bytes(datatype)), "{datatype}");
    }
    let mut inputs = inputs();
    inputs[0] = Given::new(Datatype::Bool, &[2], &[2, 0]);
    let answer = model.run(&mut inputs, &ECHOED.map(|datatype| (datatype, 16)));
    assert_eq!(
        (answer.status, &*answer.text),
        (STATUS_INVALID_INPUT, "input \"BOOL\" has a BOOL that is neither 0 nor 1")
    );
}

/// Panics or fails in the call that `AT` numbers: 0 create, 1 create with an error, 2 describe, 3 drop.
struct Unlucky<const AT: u8>(Box<u8>);

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl<const AT: u8> Model for Unlucky<AT> {
    fn create() -> Result<Self, Error> {
        let kept = Self(Box::new(AT));
        match AT {
            0 => panic!("in create"),
            1 => Err(Error::invalid_input("no vocabulary")),
            _ => Ok(kept),
        }
    }

    fn signature(&self) -> Signature {
        assert!(AT != 2, "in describe");
        Signature::new().output("y", Datatype::Bool, &[])
    }

    fn run(&self, _: &Inputs<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        outputs.put("y", &[], &[*self.0])
    }
}

impl<const AT: u8> Drop for Unlucky<AT> {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        assert!(AT != 3, "in drop");
    }
}

#[test]
fn a_model_may_panic_or_fail_anywhere() {
    let (status, model, text) = create(table::<Unlucky<0>>());
    assert_eq!((status, model, &*text), (STATUS_PANIC, ptr::null_mut(), "in create"));
    let (status, model, text) = create(table::<Unlucky<1>>());
    assert_eq!((status, model, &*text), (STATUS_FAILED, ptr::null_mut(), "no vocabulary"));
    // What `create` had begun is gone.
    assert_eq!(DROPPED.load(Ordering::Relaxed), 2);

    let model = Caller::new(table::<Unlucky<2>>());
    let (status, text, _) = model.describe(100);
    assert_eq!((status, &*text), (STATUS_PANIC, "in describe"));
    assert_eq!(model.run(&mut [], &[(Datatype::Bool, 1)]).status, STATUS_PANIC);
    drop(model);
    assert_eq!(DROPPED.load(Ordering::Relaxed), 3);

    let model = Caller::new(table::<Unlucky<3>>());
    let answer = model.run(&mut [], &[(Datatype::Bool, 1)]);
    assert_eq!(
        (answer.status, &*answer.text),
        (STATUS_FAILED, "output \"y\" has a BOOL that is neither 0 nor 1")
    );
    drop(model);
    assert_eq!(DROPPED.load(Ordering::Relaxed), 4);
}
