//! A request that the handler takes, or looks at: read whole, handed over, answered; or, if it was no trigger after all,
//! passed on as the very bytes that came. Errors end as [`RequestEnd`].

use super::super::connection::{Awaited, State, Target, Upstream};
use super::super::explicit::Route;
use super::super::framing::Body;
use super::super::head;
use super::super::inner::Phase as Life;
use super::super::reply::{self, CONTINUE, Terms};
use super::super::{Handled, Handler, Listener, Reply, Taken, Verdict, sock};
use super::scan::Phase;
use super::{RequestEnd, RequestSide};
use crate::outbox::Tells;
use crate::upstream::Slices;
use bytes::Bytes;
use smol_str::SmolStr;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::timeout;

/// A chunked body may come in small chunks: so many times the bytes that it stands for are kept, no more.
const CHUNK_OVERHEAD: usize = 8;

/// A request, read as far as it may be.
struct Whole {
    /// Head and body as they came.
    raw: Bytes,
    /// What of the body is not read.
    left: Body,
    /// The body, its chunks taken off.
    body: Bytes,
    /// We have sent `100 Continue`.
    continued: bool,
}

impl<H: Handler> RequestSide<'_, H> {
    /// Serves the request whose head is next. Nothing is pending in the buffer.
    pub(super) async fn take(&mut self, request: head::Request, max_body: usize) -> Result<(), RequestEnd> {
        let only_looked_at = matches!(request.verdict, Verdict::Look { .. });
        if !self.claim().await? {
            let (opaque, lost) = self.link.peek(|state| (state.opaque, state.lost));
            if opaque {
                return Ok(()); // its bytes are copied
            }
            if only_looked_at && lost {
                let unread = self.read_head(&request);
                return self.pass_unseen(&request, &unread).await;
            }
            // Nobody would get its answer, so it does not begin.
            return Err(self.unclaimed());
        }
        if request.coded && only_looked_at {
            let unread = self.read_head(&request);
            return self.pass_unseen(&request, &unread).await;
        }
        if request.coded {
            let message = "a request body with a transfer coding beside chunked can't be read";
            return Err(self.refuse(501, message).await);
        }
        if self.upstream.is_none() && !only_looked_at {
            self.link.update(State::shelve);
        }
        let whole = self.read_whole(&request, max_body).await?;
        if !whole.left.is_done() || whole.body.len() > max_body {
            return self.pass_unseen(&request, &whole).await;
        }
        let raw = whole.raw.get(..request.len).unwrap_or_default();
        let values = Slices::of(raw);
        let parsed = head::with_request(raw, |head| Taken {
            method: head.method.to_owned(),
            target: head.target.to_owned(),
            headers: (head.headers.iter())
                .map(|field| (SmolStr::new(field.name), values.get(field.value)))
                .collect(),
            body: whole.body.clone(),
            via: self.link.from.via.clone(),
            destination: self.link.from.destination,
            http2: false,
        });
        let Some(taken) = parsed else {
            return Err(self.refuse(400, "malformed request head").await);
        };
        let handler = Arc::clone(&self.link.inner.handler);
        let mut handling = Box::pin(async move { handler.handle(taken).await });
        let handled = tokio::select! {
            biased;
            handled = &mut handling => handled,
            () = sock::broken(self.link.client) => {
                // The client going away ends this connection, not what the handler has begun.
                tokio::spawn(handling);
                return Err(RequestEnd::ClientBroke);
            }
        };
        match handled {
            Handled::Reply(answer) => self.answer(&request, &answer).await,
            Handled::Pass(listener) => self.pass_whole(&request, &whole, listener).await,
        }
    }

    /// The head alone.
    fn read_head(&mut self, request: &head::Request) -> Whole {
        let raw = Bytes::copy_from_slice(self.buffer.fresh().get(..request.len).unwrap_or_default());
        self.buffer.skip(request.len);
        Whole {
            raw,
            left: request.body,
            body: Bytes::new(),
            continued: false,
        }
    }

    /// Head and body. Only of a request that is merely looked at some may be left.
    async fn read_whole(&mut self, request: &head::Request, max_body: usize) -> Result<Whole, RequestEnd> {
        let only_looked_at = matches!(request.verdict, Verdict::Look { .. });
        match request.body {
            Body::Length(length) if length > max_body as u64 && only_looked_at => {
                return Ok(self.read_head(request));
            }
            Body::Length(length) if length > max_body as u64 => return Err(self.too_long(max_body).await),
            _ => {}
        }
        let chunked = matches!(request.body, Body::Chunked(_));
        let most = max_body.saturating_mul(CHUNK_OVERHEAD).saturating_add(64 << 10);
        let mut raw = self
            .buffer
            .fresh()
            .get(..request.len)
            .unwrap_or_default()
            .to_vec();
        let mut decoded = Vec::new();
        self.buffer.skip(request.len);
        let mut left = request.body;
        let mut continued = false;
        loop {
            let fresh = self.buffer.fresh();
            let advanced = left.advance(fresh, |data| {
                if chunked {
                    decoded.extend_from_slice(data);
                }
            });
            let Ok(count) = advanced else {
                self.link.inner.counters.errors.malformed.add();
                return Err(self.refuse(400, "malformed chunked body").await);
            };
            raw.extend_from_slice(fresh.get(..count).unwrap_or_default());
            self.buffer.skip(count);
            let too_long = decoded.len() > max_body || (chunked && raw.len() - request.len > most);
            if too_long && !only_looked_at {
                return Err(self.too_long(max_body).await);
            }
            if too_long || left.is_done() {
                break;
            }
            // Not asked for when bytes are here already (RFC 9110, 10.1.1).
            if request.expects && !continued && raw.len() == request.len {
                continued = true;
                if sock::write_all(self.link.client, CONTINUE).await.is_err() {
                    return Err(RequestEnd::ClientBroke);
                }
            }
            let limit = self.link.inner.settings.head_timeout;
            match timeout(limit, self.read_bytes()).await {
                Ok(Ok(0)) | Err(_) if only_looked_at => break,
                // Half a request: nothing was sent anywhere, and nobody waits for an answer.
                Ok(Ok(0) | Err(_)) => return Err(RequestEnd::ClientBroke),
                Ok(Ok(_)) => {}
                Err(_) => return Err(self.refuse(408, "the request's body did not come in time").await),
            }
        }
        let raw = Bytes::from(raw);
        let body = if chunked {
            Bytes::from(decoded)
        } else {
            raw.slice(request.len.min(raw.len())..)
        };
        Ok(Whole {
            raw,
            left,
            body,
            continued,
        })
    }

    async fn too_long(&mut self, max_body: usize) -> RequestEnd {
        self.link.inner.counters.errors.body_too_large.add();
        self.refuse(
            413,
            &format!("the body of a request that starts a saga is over {max_body} bytes"),
        )
        .await
    }

    async fn answer(&mut self, request: &head::Request, answer: &Reply) -> Result<(), RequestEnd> {
        self.link.inner.counters.taken.add();
        let upstream_gone = self.link.peek(|state| state.upstream_ended || state.failed());
        let close = !request.keep || upstream_gone || self.link.phase() != Life::Running;
        let terms = Terms {
            head: request.head,
            http10: request.http10,
            close,
        };
        let bytes = Bytes::from(reply::serialize(answer, terms, SystemTime::now()));
        if self.hand_out(&bytes).await.is_err() {
            return Err(RequestEnd::ClientBroke);
        }
        if close {
            return Err(RequestEnd::Answered { broken: false });
        }
        self.link.update(|state| state.taking = false);
        self.next();
        Ok(())
    }

    /// To the client, with what else the worker has to send.
    #[allow(unsafe_code)]
    async fn hand_out(&mut self, bytes: &Bytes) -> io::Result<()> {
        let place = self.outgoing.get_or_insert_default();
        // SAFETY: the client's socket is lent to the request side, which has what is put.
        let put = unsafe { place.put(self.link.client, [bytes, &Bytes::new()], Tells::Always) };
        let sent = match put {
            Some(put) => put.await?,
            None => 0,
        };
        sock::write_all(self.link.client, bytes.get(sent..).unwrap_or_default()).await
    }

    /// Passes on what the handler was to look at, and could not be shown.
    async fn pass_unseen(&mut self, request: &head::Request, whole: &Whole) -> Result<(), RequestEnd> {
        self.link.inner.counters.unseen.add();
        self.pass_whole(request, whole, None).await
    }

    /// Has another connection made where the service has ended this one, or has said what nobody asked for, while the request
    /// was held: nothing of that was sent, and its answer is yet to come.
    fn renew(&mut self) {
        let Some(upstream) = self.link.peek(|state| state.ready()) else {
            return;
        };
        let target = match (self.link.from.destination, &self.authority) {
            (Some(address), _) => Target::Address(address),
            (None, Some(authority)) => Target::Named(authority.clone()),
            (None, None) => return,
        };
        let renewed = self.link.update(|state| {
            let stale = state.upstream_ended || state.unasked || !sock::is_silent(&upstream);
            if stale {
                (state.redial, state.upstream) = (true, Upstream::Wanted(target));
            }
            stale
        });
        if renewed {
            self.upstream = None;
        }
    }

    /// Passes on what was read, and then what is left as it comes.
    async fn pass_whole(
        &mut self,
        request: &head::Request,
        whole: &Whole,
        listener: Option<Listener>,
    ) -> Result<(), RequestEnd> {
        if request.route.is_some() {
            self.route(request.route.as_ref()).await?;
        }
        self.renew();
        let upstream = match self.upstream().await? {
            Ok(upstream) => upstream,
            Err(failure) => return Err(self.unreachable(&failure).await),
        };
        let mut awaited = Awaited::to(request, whole.continued);
        awaited.listener = listener;
        self.link.await_response(awaited);
        self.link.update(|state| state.taking = false);
        for part in origin_form(&whole.raw, request.route.as_ref()) {
            self.send(&upstream, part).await?;
        }
        self.link.inner.counters.passed.add();
        self.after(request);
        self.phase = Phase::Body(whole.left);
        Ok(())
    }
}

/// The message as an origin server wants it: without the `http://authority` of an absolute-form target.
fn origin_form<'a>(raw: &'a [u8], route: Option<&Route>) -> [&'a [u8]; 3] {
    let (Some(route), Some(space)) = (route, raw.iter().position(|byte| *byte == b' ')) else {
        return [raw, b"", b""];
    };
    let root: &[u8] = match route.root {
        Some(b'*') => b"*",
        Some(_) => b"/",
        None => b"",
    };
    let target = space + 1;
    let method = raw.get(..target).unwrap_or_default();
    [method, root, raw.get(target + route.prefix..).unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::explicit::Authority;

    #[test]
    fn takes_the_authority_off() {
        let authority = Authority {
            host: "a".to_owned(),
            port: 80,
        };
        let route = |prefix, root| Route {
            authority: authority.clone(),
            prefix,
            root,
        };
        let raw = b"GET http://a?x HTTP/1.1\r\n";
        assert_eq!(
            origin_form(raw, Some(&route(8, Some(b'/')))).concat(),
            b"GET /?x HTTP/1.1\r\n"
        );
        assert_eq!(
            origin_form(b"GET /x HTTP/1.1", Some(&route(0, None))).concat(),
            b"GET /x HTTP/1.1"
        );
        assert_eq!(origin_form(raw, None).concat(), raw);
    }
}
