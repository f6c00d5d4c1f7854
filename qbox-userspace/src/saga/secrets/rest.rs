//! Messages as a journal keeps them: secrets that a restart needs apart from the rest, all others left out.

use super::needs::{Needs, Parts};
use super::{MARK, Secrets};
use crate::saga::event::{AttemptEnd, Direction, Event, Hidden};
use crate::saga::message::{Headers, Request};
use crate::saga::octets;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// The secrets of one message that are needed.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// With their places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(usize, Octets)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Octets>,
    /// Others are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    not_all: bool,
}

#[derive(Serialize, Deserialize)]
struct Octets(#[serde(with = "octets")] Bytes);

/// A message's parts that may hold secrets.
struct Message<'a> {
    /// A request's.
    url: Option<&'a mut String>,
    headers: &'a mut Headers,
    body: &'a mut Bytes,
    hidden: &'a mut Option<Hidden>,
}

fn message(event: &mut Event) -> Option<Message<'_>> {
    match event {
        Event::Began { trigger, hidden, .. } => {
            let Request {
                url, headers, body, ..
            } = &mut trigger.request;
            let url = Some(url);
            Some(Message {
                url,
                headers,
                body,
                hidden,
            })
        }
        Event::Ended {
            end: AttemptEnd::Answered(response),
            hidden,
            ..
        } => Some(Message {
            url: None,
            headers: &mut response.headers,
            body: &mut response.body,
            hidden,
        }),
        _ => None,
    }
}

/// An event without its secrets, and those that are needed.
#[derive(Debug)]
pub struct Apart {
    /// To be recorded. Its `hidden` says that something is left out.
    pub event: Event,
    /// To be sealed, and opened for [`whole`].
    pub needed: Option<Vec<u8>>,
}

impl Secrets {
    /// Takes the secrets out of an event. `None`: there are none in it.
    #[must_use]
    pub fn apart(&self, needs: &Needs, event: &Event) -> Option<Apart> {
        let nothing = Parts::default();
        let (parts, url, headers, body) = match event {
            Event::Began { trigger, .. } => {
                let request = &trigger.request;
                (
                    &needs.trigger,
                    Some(&request.url),
                    &request.headers,
                    &request.body,
                )
            }
            Event::Ended {
                step,
                direction,
                end: AttemptEnd::Answered(response),
                ..
            } => {
                let parts = match direction {
                    Direction::Transaction | Direction::Probe => needs.answers.get(step.index()),
                    // Nobody reads it again.
                    Direction::Compensation(_) | Direction::Child(_) => None,
                };
                (parts.unwrap_or(&nothing), None, &response.headers, &response.body)
            }
            _ => return None,
        };
        let without_url = url.and_then(|url| match self.url(url) {
            Cow::Owned(hidden) => Some(hidden),
            Cow::Borrowed(_) => None,
        });
        let without_body = self.hidden_body(headers, body);
        let any_header = headers.0.iter().any(|(name, _)| self.is_header(name));
        if without_url.is_none() && without_body.is_none() && !any_header {
            return None;
        }
        let mut event = event.clone();
        let message = message(&mut event)?;
        let mut kept = Kept::default();
        if let (Some(url), Some(without)) = (message.url, without_url) {
            let needed = parts.whole || parts.url || parts.query.iter().any(|name| self.is_query(name));
            let url = std::mem::replace(url, without);
            match needed {
                true => kept.url = Some(url),
                false => kept.not_all = true,
            }
        }
        if let Some(without) = without_body {
            let needed = parts.whole || parts.body || is_read(parts, message.body, &without);
            let body = std::mem::replace(message.body, without);
            match needed {
                true => kept.body = Some(Octets(body)),
                false => kept.not_all = true,
            }
        }
        for (place, (name, value)) in message.headers.0.iter_mut().enumerate() {
            if !self.is_header(name) {
                continue;
            }
            let value = std::mem::replace(value, Bytes::from_static(MARK.as_bytes()));
            match parts.whole || parts.headers.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                true => kept.headers.push((place, Octets(value))),
                false => kept.not_all = true,
            }
        }
        *message.hidden = Some(Hidden::default());
        let any = kept.url.is_some() || kept.body.is_some() || !kept.headers.is_empty();
        // Names and bytes can always be written.
        let needed = any.then(|| serde_json::to_vec(&kept).ok()).flatten();
        Some(Apart { event, needed })
    }
}

/// Whether a field that is needed is another one in the body that is left.
fn is_read(parts: &Parts, body: &[u8], left: &[u8]) -> bool {
    if parts.fields.is_empty() {
        return false;
    }
    let (Ok(body), left) = (
        serde_json::from_slice::<Value>(body),
        serde_json::from_slice::<Value>(left).unwrap_or_default(),
    ) else {
        return false;
    };
    parts
        .fields
        .iter()
        .any(|path| path.find(&body) != path.find(&left))
}

/// Puts the secrets that were needed into their places again.
///
/// # Errors
/// They are not this event's.
pub fn whole(event: &mut Event, needed: &[u8]) -> Result<(), String> {
    let kept: Kept = serde_json::from_slice(needed).map_err(|error| error.to_string())?;
    let Some(message) = message(event) else {
        return Err("this event has no message".to_owned());
    };
    for (place, Octets(value)) in kept.headers {
        match message.headers.0.get_mut(place) {
            Some((_, field)) => *field = value,
            None => return Err("it has no such field".to_owned()),
        }
    }
    if let Some(Octets(body)) = kept.body {
        *message.body = body;
    }
    if let (Some(url), Some(kept)) = (message.url, kept.url) {
        *url = kept;
    }
    if !kept.not_all {
        *message.hidden = None;
    }
    Ok(())
}
