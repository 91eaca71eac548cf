//! The memory that server and worker share: a place for each side's message, and one for the tensors of each.
//!
//! It is a nameless file of fixed size, sealed so that neither side can shrink it under the other. Pages are taken as
//! they are touched and given back after large requests.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use baton_proto::worker::Placed;
use prost::Message;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::tensor::{Tensor, raw};

/// A message, behind its length.
const MESSAGE_BYTES: usize = 1 << 20;
const REQUEST_MESSAGE: Range<usize> = 0..MESSAGE_BYTES;
const ANSWER_MESSAGE: Range<usize> = MESSAGE_BYTES..2 * MESSAGE_BYTES;
/// What a dying worker still writes.
const LAST_WORDS: usize = 2 * MESSAGE_BYTES;
/// Tensors of a request, in all.
const REQUEST_DATA: Range<usize> = 3 << 20..259 << 20;
/// Tensors of an answer, in all.
const ANSWER_DATA: Range<usize> = 259 << 20..515 << 20;
const SIZE: usize = 515 << 20;
/// Tensors begin at multiples of this.
const ALIGN: usize = 64;
/// Data above this is given back to the system after use.
const KEPT: usize = 1 << 20;

/// Which way something goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Request,
    Answer,
}

impl Side {
    fn message(self) -> Range<usize> {
        match self {
            Self::Request => REQUEST_MESSAGE,
            Self::Answer => ANSWER_MESSAGE,
        }
    }

    fn data(self) -> Range<usize> {
        match self {
            Self::Request => REQUEST_DATA,
            Self::Answer => ANSWER_DATA,
        }
    }
}

/// The shared memory, mapped.
pub(super) struct Area {
    file: OwnedFd,
    base: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value; all access goes through its methods.
unsafe impl Send for Area {}

impl Area {
    /// A new one.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn create() -> std::io::Result<Self> {
        let file = rustix::fs::memfd_create("baton-worker", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, SIZE as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file)
    }

    /// Maps one that the other side made.
    ///
    /// # Errors
    /// Those of the system; a file of the wrong size.
    pub(super) fn map(file: OwnedFd) -> std::io::Result<Self> {
        if File::from(file.try_clone()?).metadata()?.len() != SIZE as u64 {
            return Err(std::io::Error::other("the shared memory has the wrong size"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice; the file cannot shrink, so no access faults.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("mapped at null"))?;
        Ok(Self { file, base })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Copies bytes into the area. The other side may write at the same time: no reference to it is ever made.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= SIZE);
        // SAFETY: callers check that the range lies in one of the places above, all inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(at), bytes.len()) };
    }

    fn read(&self, at: usize, count: usize) -> Vec<u8> {
        debug_assert!(at + count <= SIZE);
        let mut bytes = Vec::with_capacity(count);
        // SAFETY: callers check the range as for `write`; the vector has room for `count` bytes, all written here.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.as_ptr().add(at), bytes.as_mut_ptr(), count);
            bytes.set_len(count);
        }
        bytes
    }

    /// Puts a message in its place. `false` if it is too long.
    pub(super) fn put_message(&mut self, side: Side, message: &impl Message) -> bool {
        let bytes = message.encode_length_delimited_to_vec();
        let place = side.message();
        let fits = bytes.len() <= place.len();
        if fits {
            self.write(place.start, &bytes);
        }
        fits
    }

    /// Reads a message; `None` if there is none that can be read.
    pub(super) fn message<M: Message + Default>(&self, side: Side) -> Option<M> {
        let place = side.message();
        // A length has ten bytes at most; the message itself is copied once its length is known.
        let head = self.read(place.start, 10);
        let length = prost::decode_length_delimiter(head.as_slice()).ok()?;
        let whole = length.checked_add(prost::length_delimiter_len(length))?;
        (whole <= place.len())
            .then(|| M::decode_length_delimited(self.read(place.start, whole).as_slice()).ok())?
    }

    /// A copy of data of a side; `None` if it is not inside the side's place.
    pub(super) fn data(&self, side: Side, offset: u64, size: u64) -> Option<Vec<u8>> {
        let range = inside(side, offset, size)?;
        Some(self.read(range.start, range.len()))
    }

    /// The data itself, for the worker's requests: the server does not change them while the worker has its turn.
    ///
    /// # Safety
    /// The bytes must not be used any more when the next request may come, or the area is unmapped.
    pub(super) unsafe fn borrow_request(&self, offset: u64, size: u64) -> Option<&'static [u8]> {
        let range = inside(Side::Request, offset, size)?;
        // SAFETY: inside the mapping; the caller keeps to the time.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) })
    }

    /// A place to put tensors one behind the other.
    pub(super) fn fill(&mut self, side: Side) -> Fill<'_> {
        Fill { area: self, side, used: 0 }
    }

    /// Gives back what large tensors took.
    pub(super) fn release(&self, side: Side, used: usize) {
        let place = side.data();
        if used > KEPT {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (start, length) = ((place.start + KEPT) as u64, (place.len() - KEPT) as u64);
            if let Err(error) = rustix::fs::fallocate(&self.file, flags, start, length) {
                tracing::debug!("shared memory is not given back: {error}");
            }
        }
    }

    /// Where a dying worker writes: eight bytes.
    pub(super) fn last_words(&self) -> NonNull<u64> {
        // SAFETY: inside the mapping, and aligned to a page.
        unsafe { self.base.add(LAST_WORDS).cast() }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; nothing borrows it any more.
        if let Err(error) = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), SIZE) } {
            tracing::warn!("cannot unmap shared memory: {error}");
        }
    }
}

fn inside(side: Side, offset: u64, size: u64) -> Option<Range<usize>> {
    let place = side.data();
    let (offset, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
    let end = offset.checked_add(size)?;
    (end <= place.len()).then(|| place.start + offset..place.start + end)
}

/// Puts tensors into a side's place.
pub(super) struct Fill<'a> {
    area: &'a mut Area,
    side: Side,
    used: usize,
}

impl Fill<'_> {
    /// The offset of the bytes; `None` if there is no room for them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<u64> {
        let place = self.side.data();
        let start = self.used.next_multiple_of(ALIGN);
        let end = start.checked_add(bytes.len()).filter(|end| *end <= place.len())?;
        self.area.write(place.start + start, bytes);
        self.used = end;
        Some(start as u64)
    }

    /// Puts a tensor's elements; `None` if there is no room for them.
    pub(super) fn put_tensor(&mut self, tensor: &Tensor) -> Option<Placed> {
        let bytes = raw::encode(tensor);
        let offset = self.put(&bytes)?;
        let (datatype, shape) = (tensor.dtype().name().to_owned(), tensor.shape().to_vec());
        Some(Placed { datatype, shape, offset, size: bytes.len() as u64 })
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use baton_proto::worker::{Failed, Response, response};

    use super::*;

    #[test]
    fn messages_and_tensors_arrive() {
        let mut server = Area::create().expect("memory");
        let mut worker = Area::map(server.file.try_clone().expect("a descriptor")).expect("a mapping");
        let message = Response {
            number: 1,
            result: Some(response::Result::Failed(Failed { code: "X".to_owned(), text: "why".to_owned() })),
        };
        assert!(worker.put_message(Side::Answer, &message));
        assert_eq!(server.message::<Response>(Side::Answer), Some(message));
        let mut fill = server.fill(Side::Request);
        assert_eq!((fill.put(b"abc"), fill.put(b"defg")), (Some(0), Some(64)));
        assert_eq!(worker.data(Side::Request, 64, 4).as_deref(), Some(&b"defg"[..]));
        let large = vec![7; 3 << 20];
        let mut fill = server.fill(Side::Request);
        assert_eq!(fill.put(&large), Some(0));
        let used = fill.used();
        server.release(Side::Request, used);
        assert_eq!(worker.data(Side::Request, 2 << 20, 1).as_deref(), Some(&b"\0"[..]), "given back");
    }

    #[test]
    fn nothing_outside_is_read() {
        let mut area = Area::create().expect("memory");
        for (offset, size) in
            [(0, 1 << 60), (u64::MAX, 1), (u64::MAX, u64::MAX), (256 << 20, 1), (1, 256 << 20)]
        {
            assert_eq!(area.data(Side::Answer, offset, size), None);
        }
        assert!(area.data(Side::Answer, (256 << 20) - 1, 1).is_some());
        for length in [
            [0xff; 10],
            [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0],
            [5, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        ] {
            area.write(ANSWER_MESSAGE.start, &length);
            assert_eq!(area.message::<Response>(Side::Answer), None);
        }
        assert_eq!(area.fill(Side::Answer).put(&vec![0; (256 << 20) + 1]), None);
    }
}
