//! HTTP/2 with prior knowledge (RFC 9113, 3.3), relayed frame by frame; a stream whose request the
//! [`Handler`] takes is read and answered here.
//!
//! This file moves bytes between the two sockets and the [`Relay`], which knows no socket; all in the connection's one
//! task. Errors end as [`End`].

mod client;
mod frame;
mod head;
mod hpack;
mod huffman;
mod own;
mod relay;
mod responses;
mod stream;
mod table;
mod upstream;

pub(super) use frame::PREFACE;
pub(super) use upstream::begins_http2;

use super::buffer::Buffer;
use super::connection::Failure;
use super::inner::{Inner, Phase};
use super::reply::problem;
use super::response::PATIENCE;
use super::{Handled, Handler, Origin, sock};
use client::Above;
use frame::{Code, Error};
use relay::{Limits, Relay, Took, Whither};
use responses::Responses;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

/// How many of the longest bodies that a trigger may have one connection may have under way.
const BODIES: usize = 16;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Each side's FIN was passed on.
    Finished,
    /// GOAWAY was the last word, and all before it is done.
    Left,
    /// The client has said what makes no sense, and was told so.
    Refused,
    /// The client broke the connection.
    ClientBroke,
    /// The upstream broke the connection.
    UpstreamBroke,
    /// The drain's deadline.
    Aborted,
}

/// What a connection has come to when it turns out to be HTTP/2.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    pub(super) client: &'a TcpStream,
    /// The service, or why there is none.
    pub(super) upstream: Result<Arc<TcpStream>, Failure>,
    /// What the client has said: the preface at least.
    pub(super) from_client: Buffer,
    /// When.
    pub(super) came: Instant,
    /// What the service has.
    pub(super) from_upstream: Buffer,
}

/// What a client that asks an explicit port for HTTP/2 is told (RFC 9113, 7): there each request names its own place, and
/// one connection could not pass them all.
pub(super) fn http_1_1_required() -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, frame::kind::SETTINGS, 0, 0, &[]);
    let what = "this port takes requests of HTTP/1.1";
    frame::goaway(&mut out, 0, Code::Http11Required, what);
    out
}

/// Serves the connection to its end.
pub(super) async fn run<H: Handler>(inner: &Inner<H>, open: u64, from: &Origin, begun: Begun<'_>) -> End {
    inner.counters.http2.add();
    let settings = &inner.settings;
    let limits = Limits {
        head: settings.head,
        streams: settings.streams,
        bodies: BODIES,
        wait: settings.head_timeout,
        settle: settings.detect_timeout,
    };
    let (upstream, failure) = match begun.upstream {
        Ok(upstream) => (Some(upstream), None),
        Err(failure) => (None, Some(failure)),
    };
    let (answer, answers) = mpsc::channel(64);
    let mut session = Session {
        inner,
        left: &from.left,
        open,
        watched: None,
        whither: Whither {
            via: from.via.clone(),
            destination: from.destination,
        },
        lonely: failure
            .is_some()
            .then(|| Instant::now() + settings.detect_timeout),
        relay: Relay::new(
            &inner.counters,
            limits,
            failure,
            Responses::new(inner.handler.listens(from.destination)),
        ),
        client: Side {
            stream: begun.client,
            buffer: begun.from_client,
            held: false,
            ended: false,
            finished: false,
            breaks: None,
        },
        upstream: upstream.as_deref().map(|stream| Side {
            stream,
            buffer: begun.from_upstream,
            held: false,
            ended: false,
            finished: false,
            breaks: None,
        }),
        upstream_broke: false,
        patience: None,
        came: begun.came,
        passing: 0,
        deaf: false,
        refused: false,
        timer: None,
        answer,
        answers,
    };
    session.client.buffer.skip(PREFACE.len());
    let end = poll_fn(|context| session.poll(context)).await;
    tracing::debug!(peer = %from.peer, ?end, "HTTP/2 connection ended");
    end
}

/// One socket.
struct Side<'a> {
    stream: &'a TcpStream,
    buffer: Buffer,
    /// What it has said waits for something else.
    held: bool,
    /// It will say no more.
    ended: bool,
    /// It was told that nothing more will come.
    finished: bool,
    /// Is ready when it breaks the connection; made when nobody reads from it.
    breaks: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

struct Session<'a, H> {
    inner: &'a Inner<H>,
    left: &'a AtomicBool,
    open: u64,
    watched: Option<Waker>,
    whither: Whither,
    /// There is no service: when the client is told so if it asks for nothing.
    lonely: Option<Instant>,
    relay: Relay<'a>,
    client: Side<'a>,
    upstream: Option<Side<'a>>,
    upstream_broke: bool,
    /// The service has broken the connection: until when the client may take nothing of what it had sent.
    patience: Option<Instant>,
    /// When the oldest of the heads was read that wait to be written to the service, and how many do.
    came: Instant,
    passing: u32,
    /// The service takes no more bytes.
    deaf: bool,
    refused: bool,
    timer: Option<Pin<Box<Sleep>>>,
    answer: mpsc::Sender<(u32, Handled)>,
    answers: mpsc::Receiver<(u32, Handled)>,
}

impl<H: Handler> Session<'_, H> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        if !self
            .watched
            .as_ref()
            .is_some_and(|w| w.will_wake(context.waker()))
        {
            self.inner.set_waker(self.open, context.waker());
            self.watched = Some(context.waker().clone());
        }
        loop {
            match self.inner.phase_of(self.left) {
                Phase::Running => {}
                Phase::Draining => self.relay.leave(Instant::now()),
                Phase::Aborting => return Poll::Ready(End::Aborted),
            }
            let mut moved = self.handled(context);
            moved |= self.frames();
            self.hand_over();
            moved |= self.relay.pump();
            moved |= self.on_time(context);
            match self.write(context) {
                Ok(wrote) => moved |= wrote,
                Err(end) => return Poll::Ready(end),
            }
            if let Some(end) = self.over() {
                return Poll::Ready(end);
            }
            match self.read(context) {
                Ok(read) => moved |= read,
                Err(end) => return Poll::Ready(end),
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Answers of the handler's.
    fn handled(&mut self, context: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some((id, handled))) = self.answers.poll_recv(context) {
            self.relay.handled(id, handled);
            any = true;
        }
        any
    }

    /// Gives the handler what was read for it, each in a task of its own: the client going away ends this connection, not
    /// what the handler has begun.
    fn hand_over(&mut self) {
        for (id, taken) in self.relay.taken() {
            let handler = Arc::clone(&self.inner.handler);
            let answer = self.answer.clone();
            tokio::spawn(async move {
                let handled = tokio::spawn(async move { handler.handle(taken).await }).await;
                let handled = handled.unwrap_or_else(|error| {
                    tracing::error!(%error, "the handler of a taken request failed");
                    Handled::Reply(problem(500, "the request's handler failed"))
                });
                // The connection may be over.
                let _ = answer.send((id, handled)).await;
            });
        }
    }

    /// Takes frames from both buffers.
    fn frames(&mut self) -> bool {
        let mut moved = false;
        if !self.refused {
            let handler = &self.inner.handler;
            let above = Above {
                inspect: &|head: super::Head<'_>| handler.inspect(head),
                whither: &self.whither,
                now: Instant::now(),
            };
            match self.relay.client(self.client.buffer.fresh(), &above) {
                Ok(took) => moved |= self.client.took(took),
                Err(error) => self.refuse(error),
            }
            self.passing += std::mem::take(&mut self.relay.passing);
        }
        if let Some(upstream) = &mut self.upstream {
            match self.relay.upstream(upstream.buffer.fresh()) {
                Ok(took) => moved |= upstream.took(took),
                Err(error) => {
                    tracing::debug!(%error, "the service's HTTP/2 can't be followed");
                    self.inner.counters.errors.response.add();
                    sock::reset_on_close(upstream.stream);
                    self.lose(&error.to_string());
                    moved = true;
                }
            }
        }
        moved
    }

    fn refuse(&mut self, error: Error) {
        tracing::debug!(%error, "refused");
        if error.code != Code::EnhanceYourCalm {
            self.inner.counters.errors.malformed.add();
        }
        self.refused = true;
        self.relay.refuse(error);
    }

    /// The service is gone.
    fn lose(&mut self, cause: &str) {
        self.upstream = None;
        self.relay.lose(Failure {
            status: 502,
            cause: cause.into(),
        });
    }

    fn on_time(&mut self, context: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let mut moved = false;
        if self
            .lonely
            .is_some_and(|by| by <= now || self.relay.turned_away())
        {
            self.lonely = None;
            self.relay.leave(now);
            moved = true;
        }
        if self.relay.due_hello().is_some_and(|due| due <= now) {
            tracing::debug!("the service does not begin with HTTP/2");
            self.inner.counters.errors.upstream.add();
            if let Some(upstream) = &self.upstream {
                sock::reset_on_close(upstream.stream);
            }
            self.lose("the service has accepted the connection and said nothing");
            moved = true;
        }
        if self.relay.due().is_some_and(|due| due <= now) {
            self.relay.tick(now);
            moved = true;
        }
        self.patience = match self.upstream_broke && self.upstream.is_some() {
            true => self.patience.or(Some(now + PATIENCE)),
            false => None,
        };
        let due = self.relay.due().into_iter().chain(self.lonely);
        let Some(due) = due.chain(self.patience).min() else {
            self.timer = None;
            return moved;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(context).is_ready() || moved
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved =
            flush(self.client.stream, context, &mut self.relay.down.bytes).map_err(|()| End::ClientBroke)?;
        if moved {
            self.patience = None; // it takes something
        }
        let Some(up) = &mut self.relay.up else {
            return Ok(moved);
        };
        if self.deaf {
            up.bytes.clear();
        } else if let Some(upstream) = &self.upstream {
            match flush(upstream.stream, context, &mut up.bytes) {
                Ok(wrote) => {
                    moved |= wrote;
                    if up.bytes.is_empty() {
                        let took = self.came.elapsed();
                        (0..std::mem::take(&mut self.passing))
                            .for_each(|_| self.inner.counters.relay.add(took));
                    }
                }
                // What it still has to say goes to the client first.
                Err(()) => {
                    self.deaf = true;
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// Whether the connection is over. Each side's FIN is passed on once all before it is written.
    fn over(&mut self) -> Option<End> {
        if self.patience.is_some_and(|until| until <= Instant::now()) {
            return Some(End::UpstreamBroke);
        }
        if !self.relay.down.bytes.is_empty() {
            return None;
        }
        if self.refused {
            return Some(End::Refused);
        }
        let written = self.relay.up.as_ref().is_none_or(|up| up.bytes.is_empty());
        if self.relay.has_left() && written {
            return Some(End::Left);
        }
        let Some(upstream) = &mut self.upstream else {
            let over = self.client.ended && !self.relay.owes();
            return over.then_some(End::Finished);
        };
        if upstream.ended && self.upstream_broke {
            return Some(End::UpstreamBroke);
        }
        if upstream.ended && !self.client.finished {
            self.client.finished = true;
            sock::finish(self.client.stream);
        }
        if self.client.ended && !upstream.finished && written {
            upstream.finished = true;
            sock::finish(upstream.stream);
        }
        (self.client.finished && upstream.finished).then_some(End::Finished)
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        if !self.client.ended && !self.client.held && !self.refused {
            match self.client.buffer.poll_fill(self.client.stream, context) {
                Poll::Ready(Ok(0)) => {
                    (self.client.ended, moved) = (true, true);
                    self.relay.client_ended();
                }
                Poll::Ready(Ok(_)) => {
                    moved = true;
                    if self.passing == 0 {
                        self.came = Instant::now();
                    }
                }
                Poll::Ready(Err(_)) => return Err(End::ClientBroke),
                Poll::Pending => {}
            }
        } else if self.client.breaks(context) {
            return Err(End::ClientBroke);
        }
        let Some(upstream) = &mut self.upstream else {
            return Ok(moved);
        };
        if upstream.ended {
            return Ok(moved);
        }
        if upstream.held {
            // What it had sent can still be read, and is once the client takes it.
            let breaks = !self.upstream_broke && upstream.breaks(context);
            self.upstream_broke |= breaks;
            return Ok(moved | breaks);
        }
        match upstream.buffer.poll_fill(upstream.stream, context) {
            Poll::Ready(Ok(count)) if count > 0 => return Ok(true),
            Poll::Ready(end) => {
                upstream.ended = true;
                self.upstream_broke |= end.is_err();
            }
            Poll::Pending => return Ok(moved),
        }
        self.relay.upstream_rest(upstream.buffer.fresh());
        if self.relay.owes() && !self.relay.raw {
            self.inner.counters.errors.upstream.add();
            self.lose("the service has closed the connection");
        }
        Ok(true)
    }
}

impl Side<'_> {
    fn took(&mut self, took: Took) -> bool {
        let count = match took {
            Took::All(count) | Took::Held(count) => count,
        };
        self.held = matches!(took, Took::Held(_));
        self.buffer.skip(count);
        count > 0
    }

    /// Whether it has broken the connection. A read says so, too.
    fn breaks(&mut self, context: &mut Context<'_>) -> bool {
        let stream = self.stream;
        let breaks = (self.breaks).get_or_insert_with(|| Box::pin(sock::broken(stream)));
        breaks.as_mut().poll(context).is_ready()
    }
}

/// Writes as much as the socket takes.
fn flush(stream: &TcpStream, context: &mut Context<'_>, bytes: &mut Vec<u8>) -> Result<bool, ()> {
    let mut written = 0;
    let done = loop {
        let left = bytes.get(written..).unwrap_or_default();
        if left.is_empty() {
            break Ok(());
        }
        match sock::poll_write(stream, context, left) {
            Poll::Ready(Ok(count)) => written += count,
            Poll::Ready(Err(_)) => break Err(()),
            Poll::Pending => break Ok(()),
        }
    };
    bytes.drain(..written.min(bytes.len()));
    // A connection that idles keeps no large buffer.
    if bytes.is_empty() && bytes.capacity() > relay::HIGH / 4 {
        *bytes = Vec::new();
    }
    done.map(|()| written > 0)
}
