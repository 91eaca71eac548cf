//! What a ZIP archive holds, from its local headers and central directory, without unpacking it: it is refused in any
//! case, but a pickle in it (a PyTorch checkpoint is one) is told as what it is.

/// Entries that are looked at.
const MOST_ENTRIES: usize = 10_000;
const MOST_RATIO: u64 = 200;
const HARMLESS: u64 = 256 << 20;
/// A central directory's header.
const ENTRY: &[u8] = b"PK\x01\x02";

pub(super) enum Seen {
    Pickle(String),
    Bomb(String),
    /// What it is.
    Other(&'static str),
}

pub(super) fn look(bytes: &[u8]) -> Seen {
    let mut what = "a ZIP archive";
    let (mut packed, mut unpacked) = (0_u64, 0_u64);
    let mut at = 0;
    let mut entries = 0;
    // Directory entries are looked for by their signature rather than by the end record, which a hostile file may set
    // at will.
    while entries < MOST_ENTRIES
        && let Some(found) = bytes.get(at..).and_then(|rest| find(rest, ENTRY))
    {
        at += found;
        let Some(entry) = Entry::read(bytes, at) else { break };
        entries += 1;
        at += ENTRY.len();
        packed = packed.saturating_add(entry.packed);
        unpacked = unpacked.saturating_add(entry.unpacked);
        let name = entry.name.to_ascii_lowercase();
        let file = name.rsplit('/').next().unwrap_or(&name);
        if [".pkl", ".pickle", ".joblib"].iter().any(|ending| file.ends_with(ending))
            || entry.start(bytes).is_some_and(|start| super::pickle::found(&start).is_some())
        {
            return Seen::Pickle(entry.name);
        }
        what = match file {
            "[content_types].xml" | "workbook.xml" => "an Office document (.xlsx, .docx)",
            "mimetype" => "an OpenDocument file (.ods)",
            _ if file.ends_with(".npy") => "a NumPy archive (.npz)",
            _ => what,
        };
    }
    if unpacked > HARMLESS && unpacked / packed.max(1) > MOST_RATIO {
        return Seen::Bomb(format!("a ZIP archive of {packed} bytes that says it unpacks to {unpacked}"));
    }
    Seen::Other(what)
}

struct Entry {
    name: String,
    method: u16,
    packed: u64,
    unpacked: u64,
    local: usize,
}

impl Entry {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let header = bytes.get(at..at + 46)?;
        let short = |from: usize| {
            header.get(from..from + 2).and_then(|two| two.try_into().ok()).map(u16::from_le_bytes)
        };
        let long = |from: usize| {
            header.get(from..from + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes)
        };
        let length = usize::from(short(28)?);
        let name = bytes.get(at + 46..at + 46 + length)?;
        Some(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            method: short(10)?,
            packed: long(20)?.into(),
            unpacked: long(24)?.into(),
            local: long(42)? as usize,
        })
    }

    /// The first bytes of its content.
    fn start(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        use std::io::Read as _;
        let header = bytes.get(self.local..self.local.checked_add(30)?)?;
        let length = |from: usize| {
            header.get(from..from + 2)?.try_into().ok().map(u16::from_le_bytes).map(usize::from)
        };
        let from = self.local + 30 + length(26)? + length(28)?;
        let content = bytes.get(from..)?;
        let mut start = Vec::new();
        match self.method {
            0 => start.extend(content.iter().take((self.packed as usize).min(4096))),
            8 => {
                flate2::read::DeflateDecoder::new(content).take(4096).read_to_end(&mut start).ok()?;
            }
            _ => return None,
        }
        Some(start)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
