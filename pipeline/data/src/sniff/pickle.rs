//! Is it a Python pickle, of any protocol?
//!
//! From protocol 2 on a pickle begins with 0x80 and the protocol's number, which no text does. Protocols 0 and 1 have no
//! signature; their operations are followed (`pickletools` of CPython is the reference) until the one that ends a pickle.
//! What is no operation ends the walk: a line feed is none, which tells every table apart after its first line.

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
        _ => old_protocol(bytes).then_some("a Python pickle of protocol 0 or 1"),
    }
}

/// Walks over operations; true if they are a whole program.
fn old_protocol(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut operations = 0_usize;
    // Calls something: such a program is dangerous whatever follows its end.
    let mut calls = false;
    while let Some((&operation, after)) = rest.split_first() {
        let Some(length) = argument(operation, after) else { return false };
        if operation == b'.' {
            return operations > 0 && (after.is_empty() || calls);
        }
        calls |= matches!(operation, b'R' | b'i' | b'o' | b'b' | b'\x81');
        operations += 1;
        let Some(next) = after.get(length..) else { return false };
        rest = next;
    }
    false
}

/// Bytes of an operation's argument; `None` if it is no operation, or the argument none of its.
fn argument(operation: u8, after: &[u8]) -> Option<usize> {
    let line = |is: fn(&str) -> bool| -> Option<usize> {
        let end = after.iter().position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(after.get(..end)?).ok()?;
        is(text).then_some(end + 1)
    };
    let is_integer = |text: &str| text.parse::<i128>().is_ok();
    match operation {
        b'(' | b'.' | b'0' | b'1' | b'2' | b'N' | b'R' | b'Q' | b'a' | b'b' | b'd' | b'e' | b'l' | b'o'
        | b's' | b't' | b'u' | b')' | b']' | b'}' => Some(0),
        b'\x81' | b'\x85'..=b'\x89' => Some(0),
        b'I' => line(is_integer),
        b'L' => line(|text| text.trim_end_matches('L').parse::<i128>().is_ok()),
        b'F' => line(|text| text.parse::<f64>().is_ok()),
        b'g' | b'p' => line(is_integer),
        b'S' => line(|text| {
            let quote = text.chars().next();
            matches!(quote, Some('\'' | '"')) && text.len() > 1 && text.chars().last() == quote
        }),
        b'V' | b'P' => line(|_| true),
        b'c' | b'i' => {
            let is_path = |text: &str| {
                let is_word = |char: char| char == '_' || char == '.' || char.is_alphanumeric();
                !text.is_empty() && text.chars().all(is_word)
            };
            let first = line(is_path)?;
            let rest = after.get(first..)?;
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            is_path(std::str::from_utf8(rest.get(..end)?).ok()?).then_some(first + end + 1)
        }
        b'K' | b'h' | b'q' => Some(1),
        b'M' => Some(2),
        b'J' | b'j' | b'r' => Some(4),
        b'G' => Some(8),
        b'U' => Some(1 + usize::from(*after.first()?)),
        b'T' | b'X' => {
            let length = u32::from_le_bytes(after.get(..4)?.try_into().ok()?) as usize;
            length.checked_add(4)
        }
        _ => None,
    }
}
