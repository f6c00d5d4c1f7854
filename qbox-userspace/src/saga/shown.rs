//! Messages and directions as people are shown them, in a saga's history and in what it would have done. What is secret is taken out
//! before (see `secrets`). No errors: what is no text is shown as far as it is one.

use super::event::Direction;
use super::message::Headers;
use bytes::Bytes;
use smol_str::SmolStr;

/// How many bytes of a body are shown.
pub const EXCERPT: usize = 512;

/// How a body begins (`None`: there is none), and its length in bytes where that is not all of it.
#[must_use]
pub fn excerpt(body: &Bytes) -> (Option<String>, Option<usize>) {
    let shown = body.get(..EXCERPT).unwrap_or(body);
    let text = (!body.is_empty()).then(|| String::from_utf8_lossy(shown).into_owned());
    (text, (shown.len() < body.len()).then_some(body.len()))
}

impl Headers {
    /// The fields as text.
    #[must_use]
    pub fn texts(&self) -> Vec<(String, String)> {
        let text = |(name, value): &(SmolStr, Bytes)| {
            (name.to_string(), String::from_utf8_lossy(value).into_owned())
        };
        self.0.iter().map(text).collect()
    }
}

impl Direction {
    /// Its word, and which of the step's compensations it is, from 1.
    #[must_use]
    pub fn told(self) -> (&'static str, Option<u32>) {
        match self {
            Self::Transaction => ("transaction", None),
            Self::Probe => ("probe", None),
            Self::Compensation(n) => ("compensation", Some(u32::from(n) + 1)),
            Self::Child(_) => ("child", None),
        }
    }
}
