//! Safe views over the tensors of one call.
//!
//! Everything is checked before the model sees it: datatypes, shapes against the signature and the bytes, alignment,
//! the lengths of texts. What a model puts is checked, too, so a mistake has a clear text.

use std::iter::FusedIterator;

use crate::datatype::Datatype;
use crate::error::Error;
use crate::layout::{Input, MAX_RANK, Output, STATUS_MORE, STATUS_OK};
use crate::signature::Spec;

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian, and are read where they lie");

/// Bytes before each element of BYTES that say how long it is.
const LENGTH_BYTES: usize = size_of::<u32>();

mod sealed {
    pub trait Sealed {}
}

/// Rust types that tensors are made of. Any bytes are a value of each, but of `bool`, whose bytes [`Inputs`] checks.
pub trait Element: sealed::Sealed + Copy + 'static {
    /// Which datatypes it reads and writes. FP16 and BF16 are their bits as `u16`; BOOL is `bool`, or `u8` of 0 and 1.
    const DATATYPES: &'static [Datatype];
}

macro_rules! elements {
    ($($element:ident: $($datatype:ident)*;)*) => {
        $(
            impl sealed::Sealed for $element {}
            impl Element for $element {
                const DATATYPES: &'static [Datatype] = &[$(Datatype::$datatype),*];
            }
        )*

        /// [`Inputs::get`] with the element's type as name.
        impl<'a> Inputs<'a> {
            $(
                #[doc = concat!("Shape and elements of an input of `", stringify!($element), "`; see [`Inputs::get`].")]
                ///
                /// # Errors
                /// As [`Inputs::get`].
                pub fn $element(&self, name: &str) -> Result<(&'a [i64], &'a [$element]), Error> {
                    self.get(name)
                }
            )*
        }
    };
}

elements! {
    bool: Bool;
    u8: Uint8 Bool;
    u16: Uint16 Fp16 Bf16;
    u32: Uint32;
    u64: Uint64;
    i8: Int8;
    i16: Int16;
    i32: Int32;
    i64: Int64;
    f32: Fp32;
    f64: Fp64;
}

/// What the model is asked.
#[derive(Debug)]
pub struct Inputs<'a> {
    tensors: Vec<Tensor<'a>>,
}

/// An input that was checked: `bytes` are `count` elements of the datatype.
#[derive(Debug)]
struct Tensor<'a> {
    spec: &'a Spec,
    shape: &'a [i64],
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Inputs<'a> {
    /// Checks the caller's inputs.
    ///
    /// # Errors
    /// Invalid input, if they are not what the signature says.
    ///
    /// # Safety
    /// `inputs` is null, or points to `count` inputs that are valid as [`Input`] says, and all stays unchanged for `'a`.
    pub(crate) unsafe fn new(inputs: *const Input, count: u32, specs: &'a [Spec]) -> Result<Self, Error> {
        let expected = specs.len();
        if count as usize != expected || (inputs.is_null() && count > 0) {
            return Err(Error::invalid_input(format!("the model has {expected} inputs, not {count}")));
        }
        let inputs: &[Input] = match count {
            0 => &[],
            // SAFETY: not null, and as the caller promises.
            count => unsafe { std::slice::from_raw_parts(inputs, count as usize) },
        };
        // SAFETY: as the caller promises.
        let check = |(spec, input)| unsafe { Tensor::new(spec, input) };
        Ok(Self { tensors: specs.iter().zip(inputs).map(check).collect::<Result<_, _>>()? })
    }

    /// Shape and elements of an input, in row-major order.
    ///
    /// # Errors
    /// A failure, if the model has no such input or it is of another datatype.
    pub fn get<T: Element>(&self, name: &str) -> Result<(&'a [i64], &'a [T]), Error> {
        let tensor = self.find(name)?;
        check_type(&format_args!("input {name:?}"), tensor.spec.datatype, T::DATATYPES)?;
        let values: &[T] = match tensor.count {
            0 => &[],
            // SAFETY: `Tensor::new` saw that the bytes are so many values, at an address for them.
            count => unsafe { std::slice::from_raw_parts(tensor.bytes.as_ptr().cast(), count) },
        };
        Ok((tensor.shape, values))
    }

    /// Shape and elements of an input of BYTES. Baton takes texts from JSON and bytes from gRPC, so they may be no
    /// UTF-8.
    ///
    /// # Errors
    /// A failure, if the model has no such input or it is of another datatype.
    pub fn text(&self, name: &str) -> Result<(&'a [i64], Texts<'a>), Error> {
        let tensor = self.find(name)?;
        check_type(&format_args!("input {name:?}"), tensor.spec.datatype, &[Datatype::Bytes])?;
        Ok((tensor.shape, Texts { rest: tensor.bytes, left: tensor.count }))
    }

    fn find(&self, name: &str) -> Result<&Tensor<'a>, Error> {
        let tensor = self.tensors.iter().find(|tensor| tensor.spec.name == name);
        tensor.ok_or_else(|| Error::failed(format!("the model's signature has no input {name:?}")))
    }
}

impl<'a> Tensor<'a> {
    /// # Safety
    /// `input.data` is null, or points to `input.size` bytes that stay unchanged for `'a`.
    unsafe fn new(spec: &'a Spec, input: &'a Input) -> Result<Self, Error> {
        let refuse = |reason: String| Err(Error::invalid_input(format!("input {:?} {reason}", spec.name)));
        if input.datatype != spec.datatype.number() {
            let got = datatype_name(input.datatype);
            return refuse(format!("has to be {}, and is {got}", spec.datatype));
        }
        let shape = input.shape.get(..input.rank as usize);
        let Some(shape) = shape.filter(|shape| spec.takes(shape)) else {
            return match shape {
                Some(shape) => refuse(format!("has to have the shape {:?}, and has {shape:?}", spec.shape)),
                None => refuse(format!("has {} dimensions, {MAX_RANK} is the most", input.rank)),
            };
        };
        let size = usize::try_from(input.size).ok().filter(|size| *size <= isize::MAX as usize);
        let (Some(count), Some(size)) = (element_count(shape), size) else {
            return refuse(format!("has the impossible shape {shape:?} or size {}", input.size));
        };
        if size > 0 && input.data.is_null() {
            return refuse(format!("has {size} bytes, and no address"));
        }
        let bytes: &[u8] = match size {
            0 => &[],
            // SAFETY: not null, of a size that can be, and else as the caller promises.
            size => unsafe { std::slice::from_raw_parts(input.data, size) },
        };
        let is_whole = match spec.datatype.width() {
            Some(width) => count.checked_mul(width) == Some(size),
            None => are_texts(bytes, count),
        };
        if !is_whole {
            return refuse(format!("has {size} bytes, which are not those of the shape {shape:?}"));
        }
        if size > 0 && !is_aligned(input.data, spec.datatype) {
            return refuse("is not aligned".to_owned());
        }
        if spec.datatype == Datatype::Bool && !are_bools(bytes) {
            return refuse("has a BOOL that is neither 0 nor 1".to_owned());
        }
        Ok(Self { spec, shape, count, bytes })
    }
}

/// Elements of an input of BYTES.
#[derive(Debug, Clone)]
pub struct Texts<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (text, rest) = split_text(self.rest)?;
        self.rest = rest;
        Some(text)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Texts<'_> {}
impl FusedIterator for Texts<'_> {}

/// Where the model answers.
#[derive(Debug)]
pub struct Outputs<'a> {
    specs: &'a [Spec],
    outputs: &'a mut [Output],
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    /// Put, but the caller's buffer is too small; `size` says what is needed.
    TooLarge,
    Written,
}

impl<'a> Outputs<'a> {
    /// Checks the caller's buffers.
    ///
    /// # Errors
    /// A failure, if they are not those of the signature.
    ///
    /// # Safety
    /// `outputs` is null, or points to `count` outputs that are valid as [`Output`] says, and nobody else touches them
    /// for `'a`.
    pub(crate) unsafe fn new(outputs: *mut Output, count: u32, specs: &'a [Spec]) -> Result<Self, Error> {
        let expected = specs.len();
        if count as usize != expected || (outputs.is_null() && count > 0) {
            return Err(Error::failed(format!("the model has {expected} outputs, not {count}")));
        }
        let outputs: &mut [Output] = match count {
            0 => &mut [],
            // SAFETY: not null, and as the caller promises.
            count => unsafe { std::slice::from_raw_parts_mut(outputs, count as usize) },
        };
        for (spec, output) in specs.iter().zip(&mut *outputs) {
            let refuse = |reason| Err(Error::failed(format!("the caller's output {:?} {reason}", spec.name)));
            if output.datatype != spec.datatype.number() {
                let got = datatype_name(output.datatype);
                return refuse(format!("has to be {}, and is {got}", spec.datatype));
            }
            if output.capacity > 0 && (output.data.is_null() || !is_aligned(output.data, spec.datatype)) {
                return refuse("has no address, or one that is not aligned".to_owned());
            }
            output.rank = 0;
            output.size = 0;
        }
        Ok(Self { specs, outputs, states: vec![State::Missing; expected] })
    }

    /// Writes an output: its elements in row-major order. What was put before under this name is replaced.
    ///
    /// # Errors
    /// A failure, if the model has no such output, or datatype or shape are not those of the signature, or the shape is
    /// not that of the values.
    pub fn put<T: Element>(&mut self, name: &str, shape: &[i64], values: &[T]) -> Result<(), Error> {
        let (index, spec) = self.find(name, T::DATATYPES)?;
        check_put(spec, shape, values.len())?;
        // SAFETY: an element has no padding, so all its bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        if spec.datatype == Datatype::Bool && !are_bools(bytes) {
            return Err(Error::failed(format!("output {name:?} has a BOOL that is neither 0 nor 1")));
        }
        self.write(index, shape, bytes.len(), [bytes]);
        Ok(())
    }

    /// Writes an output of BYTES. What was put before under this name is replaced.
    ///
    /// # Errors
    /// A failure, as [`Outputs::put`], or if a text has 4 GiB.
    pub fn put_text(&mut self, name: &str, shape: &[i64], texts: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        let (index, spec) = self.find(name, &[Datatype::Bytes])?;
        check_put(spec, shape, texts.len())?;
        // Asked once: what a second `as_ref` would give, nobody promises.
        let texts: Vec<&[u8]> = texts.iter().map(AsRef::as_ref).collect();
        let lengths: Option<Vec<[u8; LENGTH_BYTES]>> =
            texts.iter().map(|text| Some(u32::try_from(text.len()).ok()?.to_le_bytes())).collect();
        let size = texts.iter().try_fold(0usize, |size, text| size.checked_add(text.len() + LENGTH_BYTES));
        let (Some(lengths), Some(size)) = (lengths, size) else {
            return Err(Error::failed(format!("output {name:?} has a text of 4 GiB or more")));
        };
        self.write(
            index,
            shape,
            size,
            lengths.iter().map(<[u8; 4]>::as_slice).zip(texts).flat_map(<[_; 2]>::from),
        );
        Ok(())
    }

    fn find(&self, name: &str, datatypes: &[Datatype]) -> Result<(usize, &'a Spec), Error> {
        let found = self.specs.iter().enumerate().find(|(_, spec)| spec.name == name);
        let (index, spec) =
            found.ok_or_else(|| Error::failed(format!("the model's signature has no output {name:?}")))?;
        check_type(&format_args!("output {name:?}"), spec.datatype, datatypes)?;
        Ok((index, spec))
    }

    /// Writes parts that have `size` bytes together, if they fit.
    fn write<'p>(
        &mut self,
        index: usize,
        shape: &[i64],
        size: usize,
        parts: impl IntoIterator<Item = &'p [u8]>,
    ) {
        let (Some(output), Some(state)) = (self.outputs.get_mut(index), self.states.get_mut(index)) else {
            return;
        };
        output.rank = shape.len() as u32;
        for (to, from) in output.shape.iter_mut().zip(shape) {
            *to = *from;
        }
        output.size = size as u64;
        if output.size > output.capacity {
            *state = State::TooLarge;
            return;
        }
        *state = State::Written;
        let mut end = 0;
        for part in parts {
            // SAFETY: the parts end at `size`, which fits; no model can have a reference to the caller's buffer.
            unsafe { output.data.wrapping_add(end).copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            end += part.len();
        }
    }

    /// The status of a run that returned without an error.
    ///
    /// # Errors
    /// A failure, if an output was not put.
    pub(crate) fn finish(self) -> Result<i32, Error> {
        let missing = self.specs.iter().zip(&self.states).find(|(_, state)| **state == State::Missing);
        if let Some((spec, _)) = missing {
            return Err(Error::failed(format!("the model did not put its output {:?}", spec.name)));
        }
        Ok(if self.states.contains(&State::TooLarge) { STATUS_MORE } else { STATUS_OK })
    }
}

fn check_put(spec: &Spec, shape: &[i64], values: usize) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::failed(format!("output {:?} {reason}", spec.name)));
    if shape.len() > MAX_RANK {
        return refuse(format!("has {} dimensions, {MAX_RANK} is the most", shape.len()));
    }
    if !spec.takes(shape) {
        return refuse(format!("has to have the shape {:?}, and was put with {shape:?}", spec.shape));
    }
    if element_count(shape) != Some(values) {
        return refuse(format!("was put with the shape {shape:?} and {values} values"));
    }
    Ok(())
}

fn check_type(what: &std::fmt::Arguments<'_>, is: Datatype, wanted: &[Datatype]) -> Result<(), Error> {
    if wanted.contains(&is) {
        return Ok(());
    }
    let wanted = wanted.iter().map(|datatype| datatype.name()).collect::<Vec<_>>().join(" or ");
    Err(Error::failed(format!("{what} is {is}, and the model treats it as {wanted}")))
}

fn datatype_name(number: u32) -> String {
    Datatype::from_number(number)
        .map_or_else(|| format!("the unknown {number}"), |datatype| datatype.to_string())
}

/// Elements of a shape; `None` if a dimension is negative or they cannot be counted.
fn element_count(shape: &[i64]) -> Option<usize> {
    let sizes = shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>()?;
    if sizes.contains(&0) {
        return Some(0);
    }
    sizes.into_iter().try_fold(1usize, usize::checked_mul)
}

fn is_aligned(data: *const u8, datatype: Datatype) -> bool {
    data.addr().is_multiple_of(datatype.width().unwrap_or(1))
}

fn are_bools(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte <= 1)
}

/// The first text, and what is behind it.
fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Are these bytes so many texts, and nothing else?
fn are_texts(mut bytes: &[u8], count: usize) -> bool {
    for _ in 0..count {
        match split_text(bytes) {
            Some((_, rest)) => bytes = rest,
            None => return false,
        }
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_counted_without_overflow() {
        for (shape, expected) in [
            (&[][..], Some(1)),
            (&[3, 4], Some(12)),
            (&[i64::MAX, 0, i64::MAX], Some(0)),
            (&[i64::MAX, 3], None),
            (&[0, -1], None),
        ] {
            assert_eq!(element_count(shape), expected, "{shape:?}");
        }
    }

    #[test]
    fn texts_have_to_fill_their_bytes() {
        for (bytes, count, expected) in [
            (&[][..], 0, true),
            (&[0, 0, 0, 0], 1, true),
            (&[1, 0, 0, 0, b'a', 0, 0, 0, 0], 2, true),
            (&[1, 0, 0, 0, b'a'], 2, false),
            (&[1, 0, 0, 0, b'a'], 0, false),
            (&[2, 0, 0, 0, b'a'], 1, false),
            (&[255, 255, 255, 255, b'a'], 1, false),
            (&[0, 0, 0], 1, false),
            (&[], 1, false),
        ] {
            assert_eq!(are_texts(bytes, count), expected, "{bytes:?}");
        }
    }
}
