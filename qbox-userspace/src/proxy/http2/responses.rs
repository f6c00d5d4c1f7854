//! The statuses of the service's responses, for whoever listens. Blocks of fields are looked into and pass as they came.
//!
//! A status may stand in the table that all blocks before it have built up (RFC 7541, 2.3.2), so that each of them has to be
//! read where one is to be heard. On a connection where nobody was expected to listen none is, and of a response that somebody
//! listens to all the same the status is known if its block tells it by itself. No errors: what can't be read is
//! [`Heard::Unreadable`].

use super::super::Heard;
use super::hpack::{Decoder, Fields};

/// Bytes of a block's fields that are kept: the status comes first (RFC 9113, 8.3).
const KEPT: usize = 256;
/// The largest table that is followed.
const TABLE: u32 = 64 << 10;

/// One connection's responses.
#[derive(Debug)]
pub(super) struct Responses {
    /// What all blocks so far have built up; `None`: they were not read.
    table: Option<Decoder>,
    fields: Fields,
}

impl Responses {
    /// `followed`: each block is read.
    pub(super) fn new(followed: bool) -> Self {
        Self {
            table: followed.then(Decoder::new),
            fields: Fields::default(),
        }
    }

    /// The client allows the service a table of so many bytes.
    pub(super) fn allow(&mut self, bytes: u32) {
        if bytes > TABLE {
            self.table = None;
        } else if let Some(table) = &mut self.table {
            table.allow(bytes);
        }
    }

    /// Reads a block of any kind, as far as that is needed. Says what is heard if it is `awaited`; `None` of an interim
    /// response (RFC 9110, 15.2).
    pub(super) fn read(&mut self, block: &[u8], awaited: bool) -> Option<Heard> {
        let read = match &mut self.table {
            Some(table) => table.read(block, KEPT, &mut self.fields).is_ok(),
            None if !awaited => return None,
            None => {
                let mut alone = Decoder::new();
                alone.allow(TABLE);
                // What comes before that which it can't read is there all the same.
                let _ = alone.read(block, KEPT, &mut self.fields);
                true
            }
        };
        if !read {
            self.table = None;
        }
        if !awaited {
            return None;
        }
        let first = self.fields.iter().next();
        let status = first.filter(|field| field.name == b":status");
        let status = status.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
        match status {
            Some(100..200) => None,
            Some(status) => Some(Heard::Status(status)),
            None => Some(Heard::Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Literals with and without a place in the table, and what refers to it (RFC 7541, 6).
    const OK: &[u8] = &[0x88];
    const CREATED_KEPT: &[u8] = &[0x48, 3, b'2', b'0', b'1'];
    const CREATED_AGAIN: &[u8] = &[0xbe];
    const EARLY_HINTS: &[u8] = &[0x08, 3, b'1', b'0', b'3'];

    #[test]
    fn a_status_may_stand_in_the_table() {
        let mut followed = Responses::new(true);
        assert_eq!(followed.read(CREATED_KEPT, false), None, "nobody listens");
        assert_eq!(followed.read(EARLY_HINTS, true), None, "there is more to come");
        assert_eq!(followed.read(CREATED_AGAIN, true), Some(Heard::Status(201)));
        assert_eq!(followed.read(OK, true), Some(Heard::Status(200)));
    }

    #[test]
    fn without_the_blocks_before_a_status_is_known_if_it_stands_there() {
        let mut alone = Responses::new(false);
        assert_eq!(alone.read(CREATED_KEPT, true), Some(Heard::Status(201)));
        assert_eq!(alone.read(CREATED_AGAIN, true), Some(Heard::Unreadable));
        assert_eq!(alone.read(OK, true), Some(Heard::Status(200)));
        // What follows the status may well be in the table.
        assert_eq!(alone.read(&[0x89, 0xbe, 0xbf], true), Some(Heard::Status(204)));
    }

    #[test]
    fn a_block_that_makes_no_sense_ends_the_following() {
        let mut followed = Responses::new(true);
        assert_eq!(followed.read(&[0xbe], true), Some(Heard::Unreadable));
        assert_eq!(followed.read(OK, true), Some(Heard::Status(200)));
        let mut large = Responses::new(true);
        large.allow(1 << 20);
        assert_eq!(large.read(CREATED_KEPT, false), None);
        assert_eq!(large.read(CREATED_AGAIN, true), Some(Heard::Unreadable));
    }
}
