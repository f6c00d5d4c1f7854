//! HPACK (RFC 7541): reads header blocks with the table that they build up, writes blocks that need none. Pure; a block
//! that can't be read is the end of its connection, since both ends' tables differ from then on.
//!
//! Our own, since the crates that decode HPACK are either not kept up or keep it to themselves (`h2`), and a relay asks
//! for two things that none tells: whether a block changed the table, and which fields are never to be indexed.

use super::huffman;
use super::table::STATIC;
use std::collections::VecDeque;

/// What an entry counts beside its bytes (RFC 7541, 4.1), and a field in a list (RFC 9113, 6.5.2).
const OVERHEAD: usize = 32;
/// Bytes of the table that an end may ask for at first.
pub(super) const TABLE: u32 = 4096;

/// A block that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A field's place in [`Fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    value: usize,
    end: usize,
    never: bool,
}

/// A block's fields in order, in one piece of memory that is used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    list: Vec<Span>,
    size: usize,
    over: bool,
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// May not be put into a table by anyone (RFC 7541, 6.2.3).
    pub(super) never: bool,
}

impl Fields {
    pub(super) fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.list.iter().map(|span| Field {
            name: self.bytes.get(span.start..span.value).unwrap_or_default(),
            value: self.bytes.get(span.value..span.end).unwrap_or_default(),
            never: span.never,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// There were more of them than the limit allows; these are the first.
    pub(super) fn over(&self) -> bool {
        self.over
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        (self.size, self.over) = (0, false);
    }

    /// Notes the field whose name and value are the last bytes.
    fn note(&mut self, span: Span, limit: usize) {
        self.size = self.size.saturating_add(span.end - span.start + OVERHEAD);
        self.over |= self.size > limit;
        if self.over {
            self.bytes.truncate(span.start);
        } else {
            self.list.push(span);
        }
    }
}

/// A table entry.
#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    name: usize,
}

/// One direction's reader.
#[derive(Debug)]
pub(super) struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    allowed: usize,
    changed: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max: TABLE as usize,
            allowed: TABLE as usize,
            changed: false,
        }
    }

    /// The other end allows a table of so many bytes. What it allowed before holds until it is known to have been heard,
    /// so the most of all counts.
    pub(super) fn allow(&mut self, bytes: u32) {
        self.allowed = self.allowed.max(bytes as usize);
    }

    /// Reads a block into `fields`, of which it keeps up to `limit` bytes. Says whether it changed the table.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub(super) fn read(
        &mut self,
        block: &[u8],
        limit: usize,
        fields: &mut Fields,
    ) -> Result<bool, Unreadable> {
        fields.clear();
        self.changed = false;
        let mut input = Input(block);
        let mut first = true;
        while let Some(&byte) = input.0.first() {
            if byte & 0xe0 == 0x20 {
                let size = input.integer(5)?;
                if !first || size > self.allowed {
                    return Err(Unreadable);
                }
                self.max = size;
                self.evict(0);
                self.changed = true;
                continue;
            }
            first = false;
            self.field(byte, &mut input, limit, fields)?;
        }
        Ok(self.changed)
    }

    fn field(
        &mut self,
        byte: u8,
        input: &mut Input<'_>,
        limit: usize,
        fields: &mut Fields,
    ) -> Result<(), Unreadable> {
        let out = &mut fields.bytes;
        let start = out.len();
        let (indexed, keep, never, prefix) = match byte {
            0x80.. => (true, false, false, 7),
            0x40.. => (false, true, false, 6),
            0x10.. => (false, false, true, 4),
            _ => (false, false, false, 4),
        };
        let index = input.integer(prefix)?;
        let mut value = start;
        if index > 0 {
            let (name, known) = self.entry(index).ok_or(Unreadable)?;
            out.extend_from_slice(name);
            value = out.len();
            if indexed {
                out.extend_from_slice(known);
            }
        } else if indexed {
            return Err(Unreadable);
        } else {
            input.string(out)?;
            value = value.max(out.len());
        }
        if !indexed {
            input.string(out)?;
        }
        if keep {
            let bytes = out.get(start..).unwrap_or_default();
            self.changed = true;
            let size = bytes.len() + OVERHEAD;
            self.evict(size);
            if size <= self.max {
                self.size += size;
                self.entries.push_front(Entry {
                    bytes: bytes.into(),
                    name: value - start,
                });
            }
        }
        let span = Span {
            start,
            value,
            end: out.len(),
            never,
        };
        fields.note(span, limit);
        Ok(())
    }

    fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match STATIC.get(index - 1) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => {
                let entry = self.entries.get(index - 1 - STATIC.len())?;
                entry.bytes.split_at_checked(entry.name)
            }
        }
    }

    /// Makes room for `more` bytes, as far as there is any (RFC 7541, 4.4).
    fn evict(&mut self, more: usize) {
        while self.size + more > self.max {
            let Some(entry) = self.entries.pop_back() else {
                return;
            };
            self.size -= entry.bytes.len() + OVERHEAD;
        }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*first)
    }

    /// RFC 7541, 5.1. Nothing that is counted here comes near 2^28.
    fn integer(&mut self, prefix: u32) -> Result<usize, Unreadable> {
        let mask = (1_usize << prefix) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    /// RFC 7541, 5.2.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let coded = self.0.first().is_some_and(|byte| byte & 0x80 != 0);
        let len = self.integer(7)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Unreadable)?;
        self.0 = rest;
        if !coded {
            out.extend_from_slice(bytes);
        } else if !huffman::decode(bytes, out) {
            return Err(Unreadable);
        }
        Ok(())
    }
}

/// Tells the reader to drop its table and to keep none (RFC 7541, 6.3): for a block from which on only [`put`] writes.
pub(super) fn put_no_table(out: &mut Vec<u8>) {
    put_size(out, 0);
}

/// Tells the reader how large its table is from now on.
pub(super) fn put_size(out: &mut Vec<u8>, bytes: usize) {
    integer(out, 0x20, 5, bytes);
}

/// Writes a field that leaves the reader's table as it is.
pub(super) fn put(out: &mut Vec<u8>, field: Field<'_>) {
    let same_name = |entry: &(&str, &str)| entry.0.as_bytes() == field.name;
    let whole = STATIC
        .iter()
        .position(|entry| same_name(entry) && entry.1.as_bytes() == field.value);
    if let (Some(index), false) = (whole, field.never) {
        integer(out, 0x80, 7, index + 1);
        return;
    }
    let kind = if field.never { 0x10 } else { 0 };
    match STATIC.iter().position(same_name) {
        Some(index) => integer(out, kind, 4, index + 1),
        None => {
            out.push(kind);
            string(out, field.name);
        }
    }
    string(out, field.value);
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    integer(out, 0, 7, bytes.len());
    out.extend_from_slice(bytes);
}

fn integer(out: &mut Vec<u8>, kind: u8, prefix: u32, value: usize) {
    let mask = (1_usize << prefix) - 1;
    if value < mask {
        out.push(kind | value as u8);
        return;
    }
    out.push(kind | mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, Unreadable> {
        let mut fields = Fields::default();
        decoder.read(block, 1 << 16, &mut fields)?;
        let lines: Vec<_> = fields
            .iter()
            .map(|field| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                format!("{}: {}", text(field.name), text(field.value))
            })
            .collect();
        Ok(lines.join("\n"))
    }

    /// RFC 7541, C.4: three requests on one connection, with Huffman codes.
    #[test]
    fn requests_that_build_a_table() {
        let mut decoder = Decoder::new();
        for (block, text) in [
            (
                &b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
                ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com",
            ),
            (
                b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
                ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache",
            ),
            (
                b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
                ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n\
                 custom-key: custom-value",
            ),
        ] {
            assert_eq!(read(&mut decoder, block).as_deref(), Ok(text));
        }
        assert_eq!(decoder.size, 164);
    }

    #[test]
    fn what_is_written_is_read_and_leaves_no_trace() {
        let long = "v".repeat(300);
        let mut block = Vec::new();
        put_no_table(&mut block);
        for (name, value, never) in [
            (":method", "GET", false),
            (":path", "/x", false),
            ("x-own", long.as_str(), false),
            ("authorization", "secret", true),
            (":status", "200", true),
        ] {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            put(&mut block, Field { name, value, never });
        }
        let mut decoder = Decoder::new();
        let mut fields = Fields::default();
        assert_eq!(decoder.read(&block, 1 << 16, &mut fields), Ok(true));
        let never: Vec<_> = fields.iter().map(|field| field.never).collect();
        assert_eq!(never, [false, false, false, true, true]);
        assert_eq!((decoder.size, decoder.max), (0, 0));
        assert_eq!(
            read(&mut decoder, &block[1..]).unwrap(),
            format!(":method: GET\n:path: /x\nx-own: {long}\nauthorization: secret\n:status: 200")
        );
    }

    #[test]
    fn an_entry_is_dropped_for_another_and_none_is_kept_that_does_not_fit() {
        let mut decoder = Decoder::new();
        // 60 bytes: room for one entry of a byte each.
        assert!(read(&mut decoder, b"\x3f\x1d\x40\x01a\x01b\x40\x01c\x01d").is_ok());
        assert_eq!(read(&mut decoder, b"\xbe").as_deref(), Ok("c: d"));
        assert_eq!(read(&mut decoder, b"\xbf"), Err(Unreadable));
        let mut long = b"\x40\x01e\x28".to_vec();
        long.extend_from_slice(&[b'f'; 40]);
        assert!(read(&mut decoder, &long).is_ok());
        assert_eq!((decoder.entries.len(), decoder.size), (0, 0));
    }

    #[test]
    fn what_is_no_block() {
        for block in [
            &b"\x80"[..],
            b"\xbe",
            b"\x40",
            b"\x40\x05abc",
            b"\x41\x8c\xf1",
            b"\x82\x20",
            b"\x3f\xff\xff\xff\xff\xff\xff\x01",
            b"\x3f\xe2\x1f",
            b"\xff",
        ] {
            assert_eq!(read(&mut Decoder::new(), block), Err(Unreadable), "{block:?}");
        }
        let mut larger = Decoder::new();
        larger.allow(8192);
        assert_eq!(read(&mut larger, b"\x3f\xe2\x1f").as_deref(), Ok(""));
    }

    #[test]
    fn a_list_that_is_too_long_is_read_to_its_end() {
        let mut decoder = Decoder::new();
        let mut block = Vec::new();
        for _ in 0..100 {
            block.extend_from_slice(b"\x40\x01a\x01b");
        }
        block.extend_from_slice(b"\x40\x01y\x01z");
        let mut fields = Fields::default();
        assert_eq!(decoder.read(&block, 100, &mut fields), Ok(true));
        assert!(fields.over() && fields.len() == 2);
        assert_eq!(read(&mut decoder, b"\xbe").as_deref(), Ok("y: z"));
    }
}
