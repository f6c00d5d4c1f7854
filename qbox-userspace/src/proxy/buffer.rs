//! The bytes of one direction between being read and being passed on. Knows no protocol. Memory is lent by the thread for as long
//! as there are bytes: a connection that waits has none, and those that don't share what is warm in the processor's cache.
//!
//! ```text
//! start ............ scanned ............ end
//!   understood, to be     not looked at yet,
//!   written               or half a head
//! ```

use super::sock;
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// Bytes for what is half said when no more comes: enough for any usual head.
const SMALL: usize = 16 << 10;
/// Bytes of what a read may bring: measured to be twice as fast for bodies as 16 KiB.
const LARGE: usize = 64 << 10;
/// How many that nobody needs for now a thread keeps.
const SPARES: usize = 8;

thread_local! {
    static SPARE: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

/// A thread that ends has none to spare.
fn lend() -> Vec<u8> {
    let spare = SPARE.try_with(|spare| {
        let mut all = spare.take();
        let one = all.pop();
        spare.set(all);
        one
    });
    spare.ok().flatten().unwrap_or_else(|| vec![0; LARGE])
}

fn give_back(data: Vec<u8>) {
    let _ = SPARE.try_with(|spare| {
        let mut all = spare.take();
        if data.len() == LARGE && all.len() < SPARES {
            all.push(data);
        }
        spare.set(all);
    });
}

/// A buffer that has memory while it holds something.
#[derive(Debug)]
pub(super) struct Buffer {
    data: Vec<u8>,
    start: usize,
    scanned: usize,
    end: usize,
    max: usize,
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
        let filled = self.poll_read(stream, context);
        if filled.is_pending() {
            self.rest();
        }
        filled
    }

    fn poll_read(&mut self, stream: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Wait first: what has come decides whether memory is needed.
        ready!(stream.poll_read_ready(context))?;
        self.make_room();
        let room = self.data.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let count = ready!(sock::poll_read(stream, context, room, self.marked))?;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Gives memory back that isn't needed while no more comes.
    fn rest(&mut self) {
        if self.is_empty() {
            (self.start, self.scanned, self.end) = (0, 0, 0);
            give_back(std::mem::take(&mut self.data));
            return;
        }
        let held = self.end - self.start;
        if held >= SMALL || self.data.len() <= SMALL {
            return;
        }
        let mut least = vec![0; SMALL];
        let bytes = self.data.get(self.start..self.end).unwrap_or_default();
        if let Some(place) = least.get_mut(..held) {
            place.copy_from_slice(bytes);
        }
        self.scanned -= self.start;
        (self.start, self.end) = (0, held);
        give_back(std::mem::replace(&mut self.data, least));
    }

    fn make_room(&mut self) {
        if self.is_empty() {
            (self.start, self.scanned, self.end) = (0, 0, 0);
            if self.data.len() < LARGE {
                self.data = lend();
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
    fn what_waits_has_as_much_memory_as_it_needs() {
        let mut buffer = Buffer::new(1 << 16);
        buffer.make_room();
        assert_eq!(buffer.data.len(), LARGE);
        let lent = buffer.data.as_ptr();
        buffer.end = LARGE;
        buffer.rest();
        assert_eq!(buffer.data.len(), LARGE, "it is in use");
        buffer.data[LARGE - 5..].copy_from_slice(b"hello");
        buffer.skip(LARGE - 5);
        buffer.scan(1);
        buffer.rest();
        assert_eq!((buffer.pending(), buffer.fresh()), (&b"h"[..], &b"ello"[..]));
        assert_eq!(buffer.data.len(), SMALL);
        buffer.written();
        buffer.skip(4);
        buffer.rest();
        assert_eq!(buffer.capacity(), 0);
        // What was given back is lent again.
        let mut other = Buffer::new(1 << 16);
        other.make_room();
        assert_eq!(other.data.as_ptr(), lent);
        other.rest();
        assert_eq!(other.capacity(), 0);
        for _ in 0..2 * SPARES {
            give_back(vec![0; LARGE]);
        }
        assert_eq!(SPARE.take().len(), SPARES);
    }

    #[test]
    fn what_does_not_fit_gets_more_room() {
        let mut buffer = Buffer::new(100_000);
        buffer.make_room();
        buffer.end = SMALL - 1;
        buffer.rest();
        assert_eq!(buffer.data.len(), SMALL);
        buffer.end = SMALL;
        buffer.make_room();
        assert_eq!(buffer.data.len(), LARGE);
        buffer.end = LARGE;
        buffer.make_room();
        assert_eq!(buffer.data.len(), 100_001);
        buffer.end = 100_001;
        buffer.make_room();
        assert_eq!(buffer.data.len(), 100_001);
        buffer.rest();
        assert_eq!(buffer.end, 100_001);
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
