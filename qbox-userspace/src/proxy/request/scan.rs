//! What the client's bytes are, as far as they have come. Reads the buffer, notes the responses that become due; writes
//! and waits for nothing. What comes of it is a [`Scan`]; there are no errors beside those it names.

use super::super::connection::Awaited;
use super::super::detect::{Detected, detect};
use super::super::explicit::Authority;
use super::super::framing::Body;
use super::super::head::{self, End, Refused};
use super::super::{Handler, Verdict};
use super::RequestSide;

/// What comes next in the client's bytes.
#[derive(Debug)]
pub(super) enum Phase {
    /// The first line.
    Detect,
    /// A head; no empty line before this fresh byte.
    Head {
        /// Bytes that need no second look.
        searched: usize,
    },
    /// A body.
    Body(Body),
}

/// What the scan of the buffer came to.
pub(super) enum Scan {
    /// More bytes are needed.
    More,
    /// What is pending goes first.
    Flush,
    /// As many responses are awaited as may be.
    Room,
    /// What follows an upgrade or CONNECT depends on its response.
    Stall,
    /// The handler takes the request whose head is next.
    Take(Box<head::Request>, usize),
    /// A request for another place.
    Connect(Authority),
    /// A request that Qbox would answer, behind one that said it is the connection's last.
    Beyond,
    /// An answer of our own, and the end.
    Refuse(u16, String),
    /// No HTTP.
    Foreign,
    /// HTTP/2.
    Http2,
    /// Bytes are only copied from here on.
    Opaque,
    /// A body that makes no sense.
    Malformed,
}

impl<H: Handler> RequestSide<'_, H> {
    /// Understands as much of the buffer as it can. Allocates nothing for a request that passes.
    pub(super) fn scan(&mut self) -> Scan {
        loop {
            match &mut self.phase {
                Phase::Detect => match detect(self.buffer.fresh()) {
                    Detected::Http1 => self.next(),
                    _ if self.link.peek(|state| state.opaque) => return Scan::Opaque,
                    Detected::Foreign => return Scan::Foreign,
                    Detected::Http2 => return Scan::Http2,
                    // As far as it goes a request's line, which is refused as a head of that length is.
                    Detected::Undecided if self.buffer.fresh().len() > self.link.inner.settings.head => {
                        self.next();
                    }
                    Detected::Undecided => return Scan::More,
                },
                Phase::Body(body) => {
                    match body.advance(self.buffer.fresh(), |_| {}) {
                        Ok(count) => self.buffer.scan(count),
                        Err(_) => return Scan::Malformed,
                    }
                    if !body.is_done() {
                        return Scan::More;
                    }
                    self.next();
                }
                Phase::Head { searched } => {
                    let searched = *searched;
                    if let Some(scan) = self.head(searched) {
                        return scan;
                    }
                }
            }
        }
    }

    /// A head is next: `None` once it is understood and passes.
    fn head(&mut self, searched: usize) -> Option<Scan> {
        if self.stalled {
            return Some(Scan::Stall);
        }
        let most = self.link.inner.settings.pipeline;
        let (opaque, full) = self
            .link
            .peek(|state| (state.opaque, state.awaited.len() >= most));
        if opaque {
            return Some(Scan::Opaque);
        }
        if full {
            return Some(Scan::Room);
        }
        let request = match self.parked.take() {
            Some(request) => request,
            None => match self.parse(searched) {
                Err(Scan::Refuse(..)) if self.last => return Some(Scan::Beyond),
                Err(scan) => return Some(scan),
                Ok(request) => match request.verdict {
                    Verdict::Take { .. } if self.last => return Some(Scan::Beyond),
                    Verdict::Take { max_body } | Verdict::Look { max_body } if !request.connect => {
                        return Some(Scan::Take(Box::new(request), max_body));
                    }
                    _ if self.explicit() => Box::new(request),
                    _ => {
                        self.admit(&request);
                        return None;
                    }
                },
            },
        };
        self.admit_named(request)
    }

    /// Reads the next head, and asks the handler about it.
    fn parse(&mut self, searched: usize) -> Result<head::Request, Scan> {
        let inner = self.link.inner;
        let errors = &inner.counters.errors;
        let limit = inner.settings.head;
        let fresh = self.buffer.fresh();
        let end = match head::end(fresh, searched) {
            End::At(end) if end <= limit => end,
            End::NotBefore(searched) if fresh.len() <= limit => {
                self.phase = Phase::Head { searched };
                return Err(Scan::More);
            }
            End::At(_) | End::NotBefore(_) => {
                errors.head_too_large.add();
                // RFC 9112, 3, and RFC 6585, 5: is it the target that is too long?
                let (status, what) = match head::has_line(fresh.get(..limit).unwrap_or(fresh)) {
                    true => (431, "head"),
                    false => (414, "first line"),
                };
                return Err(Scan::Refuse(
                    status,
                    format!("the request's {what} is over {limit} bytes"),
                ));
            }
        };
        let head = fresh.get(..end).unwrap_or_default();
        head::request(head, self.explicit(), |head| inner.handler.inspect(head)).map_err(|refused| {
            let (status, counter) = match refused {
                Refused::Fields => (431, &errors.head_too_large),
                Refused::Malformed(_) => (400, &errors.malformed),
            };
            counter.add();
            Scan::Refuse(status, refused.to_string())
        })
    }

    /// Passes the request whose head is next.
    pub(super) fn admit(&mut self, request: &head::Request) {
        self.link.inner.counters.passed.add();
        self.passes = true;
        self.link.await_response(Awaited::to(request, false));
        self.buffer.scan(request.len);
        self.after(request);
        self.phase = Phase::Body(request.body);
    }

    /// What a request that is passed means for those that follow it.
    pub(super) fn after(&mut self, request: &head::Request) {
        self.stalled = request.upgrade || request.connect;
        self.last |= !request.keep;
    }

    /// A head comes next.
    pub(super) fn next(&mut self) {
        self.late = None;
        self.phase = Phase::Head { searched: 0 };
    }
}
