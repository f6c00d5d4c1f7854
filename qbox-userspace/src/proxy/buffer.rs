//! The bytes of one direction between being read and being passed on. Knows no protocol.
//!
//! ```text
//! start ............ scanned ............ end
//!   understood, to be     not looked at yet,
//!   written               or half a head
//! ```

use super::sock;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// Bytes at first: enough for any usual head, and small for a connection that idles.
const SMALL: usize = 16 << 10;
/// Bytes once a read has filled the small one: measured to be twice as fast for bodies as 16 KiB.
const LARGE: usize = 64 << 10;

/// A buffer that is allocated at the first byte, and reused for the connection's life.
#[derive(Debug)]
pub(super) struct Buffer {
    data: Vec<u8>,
    start: usize,
    scanned: usize,
    end: usize,
    max: usize,
    bulk: bool,
    marked: bool,
}

impl Buffer {
    /// Holds a head of `head_limit` bytes.
    pub(super) fn new(head_limit: usize) -> Self {
        // One byte over the limit tells "at the limit" from "over it".
        let max = LARGE.max(head_limit.saturating_add(1));
        Self {
            data: Vec::new(),
            start: 0,
            scanned: 0,
            end: 0,
            max,
            bulk: false,
            marked: false,
        }
    }

    /// What is read from now on may have urgent data in it.
    pub(super) fn marked(&mut self) {
        self.marked = true;
    }

    /// What is to be written.
    pub(super) fn pending(&self) -> &[u8] {
        self.data.get(self.start..self.scanned).unwrap_or_default()
    }

    /// What is not looked at yet.
    pub(super) fn fresh(&self) -> &[u8] {
        self.data.get(self.scanned..self.end).unwrap_or_default()
    }

    /// Holds nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next `count` fresh bytes are to be written.
    pub(super) fn scan(&mut self, count: usize) {
        self.scanned = self.scanned.saturating_add(count).min(self.end);
    }

    /// All of `pending` is written.
    pub(super) fn written(&mut self) {
        self.start = self.scanned;
        if self.start == self.end {
            (self.start, self.scanned, self.end) = (0, 0, 0);
        }
    }

    /// Drops the next `count` fresh bytes: they go elsewhere. Only while nothing is pending.
    pub(super) fn skip(&mut self, count: usize) {
        debug_assert!(self.pending().is_empty(), "pending bytes are written first");
        self.scan(count);
        self.written();
    }

    /// Moves the fresh bytes `from` so that they begin at `to`, and drops all fresh bytes before `to` (a rewritten
    /// request target). Only while nothing is pending. Ranges that don't fit change nothing.
    pub(super) fn pull_up(&mut self, from: Range<usize>, to: usize) {
        debug_assert!(self.pending().is_empty(), "pending bytes are written first");
        let base = self.scanned;
        let fits = from.start <= from.end && from.start <= to && to + from.len() <= self.end - base;
        if fits {
            self.data
                .copy_within(base + from.start..base + from.end, base + to);
            self.scanned = base + to;
            self.start = self.scanned;
        }
    }

    /// Writes `byte` at the fresh position `at`.
    pub(super) fn put(&mut self, at: usize, byte: u8) {
        if let Some(place) = self
            .data
            .get_mut(self.scanned..self.end)
            .and_then(|fresh| fresh.get_mut(at))
        {
            *place = byte;
        }
    }

    /// Reads once. `Ok(0)` is the peer's end.
    ///
    /// # Errors
    /// The socket's; `OutOfMemory` when the buffer is full of bytes that nobody took.
    pub(super) fn poll_fill(
        &mut self,
        stream: &TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // Wait first: a connection that has not spoken yet has no buffer.
        ready!(stream.poll_read_ready(context))?;
        self.make_room();
        let room = self.data.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let size = room.len();
        let count = ready!(sock::poll_read(stream, context, room, self.marked))?;
        self.end += count;
        self.bulk = count == size;
        Poll::Ready(Ok(count))
    }

    /// Gives a large buffer back: nothing is expected for a while.
    pub(super) fn rest(&mut self) {
        if self.is_empty() && self.data.len() > SMALL {
            self.data = Vec::new();
            self.bulk = false;
        }
    }

    fn make_room(&mut self) {
        if self.is_empty() {
            (self.start, self.scanned, self.end) = (0, 0, 0);
            if self.data.is_empty() {
                self.data = vec![0; SMALL];
            } else if self.bulk && self.data.len() < LARGE {
                self.data = vec![0; LARGE];
            }
        } else if self.end == self.data.len() {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                self.scanned -= self.start;
                self.end -= self.start;
                self.start = 0;
            } else if self.data.len() < self.max {
                let size = self.data.len().saturating_mul(2).clamp(LARGE, self.max);
                self.data.resize(size, 0);
            }
        }
    }
}

#[cfg(test)]
impl Buffer {
    /// How much memory it holds, bytes.
    pub(super) fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Puts bytes in as if they had been read.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.data.truncate(self.end);
        self.data.extend_from_slice(bytes);
        self.end = self.data.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_with_no_memory() {
        assert_eq!(Buffer::new(1 << 16).capacity(), 0);
    }

    #[test]
    fn gives_back_what_is_large_and_empty() {
        let mut buffer = Buffer::new(1 << 16);
        buffer.feed(&[b'x'; LARGE]);
        buffer.rest();
        assert!(buffer.capacity() >= LARGE, "it is in use");
        buffer.skip(LARGE);
        buffer.rest();
        assert_eq!(buffer.capacity(), 0);
        buffer.feed(b"small");
        buffer.skip(5);
        buffer.rest();
        assert!(buffer.capacity() > 0, "small ones stay");
    }

    #[test]
    fn moves_bytes_through_its_stations() {
        let mut buffer = Buffer::new(1024);
        buffer.feed(b"abcdef");
        assert_eq!((buffer.pending(), buffer.fresh()), (&b""[..], &b"abcdef"[..]));
        buffer.scan(2);
        assert_eq!((buffer.pending(), buffer.fresh()), (&b"ab"[..], &b"cdef"[..]));
        buffer.written();
        buffer.skip(1);
        assert_eq!(buffer.fresh(), b"def");
        buffer.skip(99);
        assert!(buffer.is_empty());
    }

    #[test]
    fn pulls_a_method_up_over_a_prefix() {
        let mut buffer = Buffer::new(1024);
        buffer.feed(b"GET http://h/x HTTP/1.1");
        buffer.pull_up(0..4, 8);
        assert_eq!(buffer.fresh(), b"GET /x HTTP/1.1");
        buffer.put(4, b'*');
        assert_eq!(buffer.fresh(), b"GET *x HTTP/1.1");
        buffer.pull_up(0..4, 90);
        assert_eq!(buffer.fresh(), b"GET *x HTTP/1.1");
    }
}
