//! Is it a Python pickle, of any protocol?
//!
//! From protocol 2 on a pickle begins with 0x80 and the protocol's number, which no text does. Those without it are told by
//! running their operations (`pickletools` of CPython is the reference) on a stack of kinds of values. What runs code is a
//! call of something that was imported, and it has run when the call is reached, whatever follows; a program without one
//! harms nobody, and counts only if it is the whole file. What is no operation, or takes what the stack lacks, ends the
//! walk: most tables do so in their header.

/// Values on the stack that are not told apart any more: a table has none, and memory is bounded.
const MOST_VALUES: usize = 1 << 20;

/// What kind of pickle it is.
pub(super) fn found(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x80, 2..=5, ..] => Some("a Python pickle"),
        // An array of objects of NumPy's is a header and a pickle.
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            let header = bytes.get(..bytes.len().min(512)).unwrap_or(bytes);
            let objects =
                header.windows(2).any(|pair| pair == b"|O") || header.windows(3).any(|three| three == b"'O'");
            objects.then_some("a NumPy array of Python objects, which is a pickle")
        }
        _ => is_program(bytes).then_some("a Python pickle of protocol 0 or 1"),
    }
}

/// What a call needs to know of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Mark,
    /// Was imported, or may have been.
    Callable,
    Tuple,
    /// From the memo, or the answer of a call: anything.
    Any,
    Plain,
}

use Value::{Any, Callable, Mark, Plain, Tuple};

impl Value {
    fn may_be(self, wanted: Value) -> bool {
        self == wanted || self == Any
    }
}

/// The values of a program so far.
struct Stack(Vec<Value>);

impl Stack {
    fn pop(&mut self) -> Option<Value> {
        self.0.pop()
    }

    /// Takes this many values, none of them a mark.
    fn take(&mut self, count: usize) -> Option<()> {
        let rest = self.0.len().checked_sub(count)?;
        self.0.drain(rest..).all(|value| value != Mark).then_some(())
    }

    /// Takes all values above the last mark, and that; answers the lowest of them.
    fn take_to_mark(&mut self) -> Option<Option<Value>> {
        let mark = self.0.iter().rposition(|value| *value == Mark)?;
        let lowest = self.0.get(mark + 1).copied();
        self.0.truncate(mark);
        Some(lowest)
    }
}

/// How a program goes on.
enum Next {
    Push(Value),
    Nothing,
    /// Something that was imported is called.
    Call,
    End,
}

/// Does it call something that it has imported, or is it a whole program?
fn is_program(bytes: &[u8]) -> bool {
    let mut stack = Stack(Vec::new());
    let mut rest = bytes;
    while let Some((&operation, after)) = rest.split_first() {
        let Some(length) = argument(operation, after) else { return false };
        let Some(next) = after.get(length..) else { return false };
        match step(operation, &mut stack) {
            Some(Next::Push(value)) => stack.0.push(value),
            Some(Next::Nothing) => {}
            Some(Next::Call) => return true,
            Some(Next::End) => return next.is_empty(),
            None => return false,
        }
        if stack.0.len() > MOST_VALUES {
            return true;
        }
        rest = next;
    }
    false
}

/// One operation; `None` if the stack lacks what it takes.
fn step(operation: u8, stack: &mut Stack) -> Option<Next> {
    let calls = |is_call: bool| if is_call { Next::Call } else { Next::Push(Any) };
    Some(match operation {
        b'.' => {
            stack.take(1)?;
            Next::End
        }
        b'(' => Next::Push(Mark),
        b'0' => {
            stack.pop()?;
            Next::Nothing
        }
        b'1' => {
            stack.take_to_mark()?;
            Next::Nothing
        }
        b'2' => Next::Push(*stack.0.last()?),
        b')' => Next::Push(Tuple),
        b't' => {
            stack.take_to_mark()?;
            Next::Push(Tuple)
        }
        // Tuples of one, two, three values.
        0x85..=0x87 => {
            stack.take(usize::from(operation - 0x84))?;
            Next::Push(Tuple)
        }
        b'l' | b'd' | 0x91 => {
            stack.take_to_mark()?;
            Next::Push(Plain)
        }
        b'a' | b'b' => {
            stack.take(1)?;
            Next::Nothing
        }
        b's' => {
            stack.take(2)?;
            Next::Nothing
        }
        b'u' | b'e' | 0x90 => {
            stack.take_to_mark()?;
            Next::Nothing
        }
        b'p' | b'q' | b'r' | 0x94 => {
            stack.0.last()?;
            Next::Nothing
        }
        b'g' | b'h' | b'j' | b'P' | 0x97 => Next::Push(Any),
        b'Q' => {
            stack.take(1)?;
            Next::Push(Any)
        }
        // Imports: by name, by the two texts on the stack, by number.
        b'c' | 0x82..=0x84 => Next::Push(Callable),
        0x93 => {
            stack.take(2)?;
            Next::Push(Callable)
        }
        // Calls: with a tuple; with a tuple and a dict; with all above the mark; of a class that it names itself.
        b'R' | 0x81 => {
            let is_tuple = stack.pop()?.may_be(Tuple);
            calls(is_tuple && stack.pop()?.may_be(Callable))
        }
        0x92 => {
            stack.take(1)?;
            let is_tuple = stack.pop()?.may_be(Tuple);
            calls(is_tuple && stack.pop()?.may_be(Callable))
        }
        b'o' => calls(stack.take_to_mark()?.is_some_and(|lowest| lowest.may_be(Callable))),
        b'i' => {
            stack.take_to_mark()?;
            Next::Call
        }
        // The protocol's number, a frame, and a buffer made read-only.
        0x80 | 0x95 | 0x98 => Next::Nothing,
        _ => Next::Push(Plain),
    })
}

/// Bytes of an operation's argument; `None` if it is no operation, or the file ends. Python reads numbers more leniently
/// than it writes them, so any line is an argument.
fn argument(operation: u8, after: &[u8]) -> Option<usize> {
    let line = |from: usize| {
        let end = after.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        Some(from + end + 1)
    };
    let counted = |bytes: usize| {
        let length =
            after.get(..bytes)?.iter().rev().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        usize::try_from(length).ok()?.checked_add(bytes)
    };
    match operation {
        b'(' | b'.' | b'0' | b'1' | b'2' | b'N' | b'R' | b'Q' | b'a' | b'b' | b'd' | b'e' | b'l' | b'o'
        | b's' | b't' | b'u' | b')' | b']' | b'}' => Some(0),
        0x81 | 0x85..=0x89 | 0x8f..=0x94 | 0x97 | 0x98 => Some(0),
        b'I' | b'L' | b'F' | b'g' | b'p' | b'S' | b'V' | b'P' => line(0),
        b'c' | b'i' => {
            let module = line(0)?;
            let name = line(module)?;
            let is_path = |from: usize, to: usize| {
                let text = after.get(from..to).and_then(|text| std::str::from_utf8(text).ok());
                let is_word = |char: char| char == '_' || char == '.' || char.is_alphanumeric();
                text.is_some_and(|text| !text.is_empty() && text.chars().all(is_word))
            };
            (is_path(0, module - 1) && is_path(module, name - 1)).then_some(name)
        }
        b'K' | b'h' | b'q' | 0x80 | 0x82 => Some(1),
        b'M' | 0x83 => Some(2),
        b'J' | b'j' | b'r' | 0x84 => Some(4),
        b'G' | 0x95 => Some(8),
        b'U' | b'C' | 0x8a | 0x8c => counted(1),
        b'T' | b'X' | b'B' | 0x8b => counted(4),
        0x8d | 0x8e | 0x96 => counted(8),
        _ => None,
    }
}
