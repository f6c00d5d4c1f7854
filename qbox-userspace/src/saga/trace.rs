//! The trace that a saga belongs to (W3C Trace Context): its trigger's, or one of its own; and which span of it is whose.
//!
//! All ids are drawn from the saga's seed, so that a saga that a restart takes up goes on in the same trace, under the same spans.
//! Knows nothing of who collects spans. No errors: a `traceparent` that can't be read is none.

use super::event::Direction;
use super::id::{Digits, StepId};
use super::message::Headers;
use super::retry::Chance;

/// Where a saga stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// `trace-id`, never zero.
    pub id: u128,
    /// `trace-flags`, as they came.
    pub flags: u8,
    /// The caller's span, where the trigger named one.
    pub parent: Option<u64>,
    /// The saga's own, never zero.
    pub span: u64,
}

/// Set in [`Trace::flags`]: the caller may have recorded its part, and so should who comes after.
const SAMPLED: u8 = 1;

impl Trace {
    pub(super) fn new(trigger: &Headers, seed: u64) -> Self {
        let chance = Chance::of_saga(seed);
        let span = chance.number(3).max(1);
        match of(trigger) {
            Some((id, parent, flags)) => Self {
                id,
                flags,
                parent: Some(parent),
                span,
            },
            // A trace of the saga's own, so that its messages can be found together.
            None => Self {
                id: u128::from(chance.number(1)) << 64 | u128::from(chance.number(2).max(1)),
                flags: SAMPLED,
                parent: None,
                span,
            },
        }
    }

    /// As a saga that had ended goes on in it: under a span of its own, below the first.
    pub(super) fn again(self, seed: u64) -> Self {
        Self {
            parent: Some(self.span),
            span: Chance::of_saga(seed).number(4).max(1),
            ..self
        }
    }

    /// Whether its spans are to be recorded: what the caller decided, and always where there is none.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// `traceparent` for whoever is called from `span` (W3C Trace Context, 3.2).
    pub(super) fn parent_of(&self, span: u64) -> String {
        let (id, span) = (Digits::<32>::of(self.id), Digits::<16>::of(span.into()));
        let flags = Digits::<2>::of(self.flags.into());
        ["00-", id.as_str(), "-", span.as_str(), "-", flags.as_str()].concat()
    }
}

/// The span of one attempt.
pub(super) fn span_of(seed: u64, step: StepId, direction: Direction, attempt: u32) -> u64 {
    Chance::of_attempt(seed, step, direction, attempt)
        .number(1)
        .max(1)
}

/// What the one `traceparent` among them says: trace, span and flags (W3C Trace Context, 3.2).
fn of(headers: &Headers) -> Option<(u128, u64, u8)> {
    let mut values = headers
        .0
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let (Some((_, value)), None) = (values.next(), values.next()) else {
        return None;
    };
    let mut fields = std::str::from_utf8(value).ok()?.trim().split('-');
    let hex = |field: &&str, length: usize| {
        field.len() == length && field.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let version = fields.next().filter(|f| hex(f, 2) && *f != "ff")?;
    let trace = fields.next().filter(|f| hex(f, 32))?;
    let span = fields.next().filter(|f| hex(f, 16))?;
    let flags = fields.next().filter(|f| hex(f, 2))?;
    // A later version may have more fields; this one may not.
    if version == "00" && fields.next().is_some() {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    Some((trace, span, u8::from_str_radix(flags, 16).ok()?))
}

/// What vendors keep beside the trace, as it came (W3C Trace Context, 3.3); nothing where there is no trace.
pub(super) fn state(headers: &Headers) -> impl Iterator<Item = &(smol_str::SmolStr, bytes::Bytes)> {
    let any = of(headers).is_some();
    let state = |name: &str| name.eq_ignore_ascii_case("tracestate");
    headers.0.iter().filter(move |(name, _)| any && state(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_are_the_seeds_and_the_callers() {
        let mut headers = Headers::default();
        let own = Trace::new(&headers, 7);
        assert!((own.parent, own.is_sampled(), own.id != 0) == (None, true, true));
        assert_eq!(own, Trace::new(&headers, 7));
        assert_ne!(own.id, Trace::new(&headers, 8).id);
        headers.push(
            "TraceParent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        );
        let callers = Trace::new(&headers, 7);
        assert_eq!(callers.id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(callers.parent, Some(0xb7ad_6b71_6920_3331));
        assert_eq!(
            (callers.span, callers.is_sampled()),
            (own.span, false),
            "the caller records nothing"
        );
        let again = callers.again(7);
        assert_eq!((again.id, again.parent), (callers.id, Some(callers.span)));
        assert_ne!(again.span, callers.span);
    }
}
