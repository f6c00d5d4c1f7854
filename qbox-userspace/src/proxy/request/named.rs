//! Explicit mode's requests: each names its own place, so the upstream connection follows them from place to place.
//! Errors end as [`RequestEnd`].

use super::super::Handler;
use super::super::connection::{State, Target, Upstream};
use super::super::explicit::{Authority, Route};
use super::super::head;
use super::scan::Scan;
use super::{RequestEnd, RequestSide};

impl<H: Handler> RequestSide<'_, H> {
    /// Passes the request whose head is next; or says what must come first.
    pub(super) fn admit_named(&mut self, mut request: Box<head::Request>) -> Option<Scan> {
        if request.connect {
            return Some(Scan::Refuse(
                501,
                "no CONNECT here: only plain http requests are passed on".to_owned(),
            ));
        }
        let Some(route) = &request.route else {
            return Some(Scan::Refuse(400, "the request names no place".to_owned()));
        };
        if self.authority.as_ref() != Some(&route.authority) {
            let authority = route.authority.clone();
            self.parked = Some(request);
            return Some(Scan::Connect(authority));
        }
        if route.prefix > 0 {
            if !self.buffer.pending().is_empty() {
                self.parked = Some(request);
                return Some(Scan::Flush);
            }
            request.len = self.take_prefix_off(route, request.len);
        }
        self.admit(&request);
        None
    }

    /// Turns `GET http://host/path` into `GET /path`, in place. Says how long the head is then.
    fn take_prefix_off(&mut self, route: &Route, len: usize) -> usize {
        let fresh = self.buffer.fresh();
        let start = fresh
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        let Some(space) = fresh.iter().position(|byte| *byte == b' ') else {
            return len;
        };
        let gone = route.prefix - usize::from(route.root.is_some());
        if let Some(root) = route.root {
            self.buffer.put(space + gone + 1, root);
        }
        let to = start + gone;
        self.buffer.pull_up(start..space + 1, to);
        len.saturating_sub(to)
    }

    /// Leaves the present upstream for another, once it owes no response.
    pub(super) async fn connect(&mut self, authority: Authority) -> Result<(), RequestEnd> {
        let target = Target::Named(authority.clone());
        let over = |state: &State| state.opaque || state.lost || state.closing;
        self.link
            .until_client(|state| (over(state) || state.awaited.is_empty()).then_some(()))
            .await?;
        let gone = self.link.update(|state| {
            if over(state) {
                return false;
            }
            state.redial = matches!(state.upstream, Upstream::Ready(_));
            state.upstream = Upstream::Wanted(target);
            true
        });
        if !gone {
            return Err(RequestEnd::Stopped);
        }
        self.upstream = None;
        match self.upstream().await? {
            Ok(_) => {
                self.authority = Some(authority);
                Ok(())
            }
            Err(failure) => Err(self.unreachable(&failure).await),
        }
    }

    /// Makes sure that the upstream connection goes where the request does.
    pub(super) async fn route(&mut self, route: Option<&Route>) -> Result<(), RequestEnd> {
        match route {
            Some(route) if self.authority.as_ref() != Some(&route.authority) => {
                self.connect(route.authority.clone()).await
            }
            _ => Ok(()),
        }
    }
}
