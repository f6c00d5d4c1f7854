//! The headers that Qbox gives its requests.
//!
//! Where a saga file gives a header of these names Qbox's own value stands (`qbox check` refuses such a file), but for the
//! `Idempotency-Key` of a trigger that is forwarded: its caller's key stays.

use crate::saga::event::Direction;
use crate::saga::id::SagaId;
use crate::saga::message::{Headers, Trigger};
use crate::saga::retry::Chance;

/// Whose request it is.
pub(super) struct Stamp<'a> {
    pub(super) saga: SagaId,
    pub(super) step: &'a str,
    pub(super) direction: Direction,
    /// How often the step had to be compensated again.
    pub(super) round: u32,
    pub(super) trigger: &'a Trigger,
    /// This attempt's.
    pub(super) chance: Chance,
    /// The saga's.
    pub(super) saga_chance: Chance,
}

impl Stamp<'_> {
    /// Puts Qbox's fields at the end, in place of any of the same names.
    pub(super) fn put(&self, headers: &mut Headers, keeps_key: bool) {
        let mut set = |name: &str, value: String| {
            headers.remove(name);
            headers.push(name, value);
        };
        set("X-Qbox-TransactionID", self.saga.to_string());
        set("X-Qbox-Message-Type", self.message_type().to_owned());
        set("X-Qbox-Step", self.step.to_owned());
        set("X-Qbox-Depth", self.trigger.depth.saturating_add(1).to_string());
        let context = TraceContext::of(&self.trigger.request.headers);
        set("traceparent", self.traceparent(context.as_ref()));
        if context.is_some() {
            // What a vendor keeps beside the trace goes with it (W3C Trace Context, 3.3).
            headers.remove("tracestate");
            let state = self.trigger.request.headers.0.iter();
            for (name, value) in state.filter(|(name, _)| name.eq_ignore_ascii_case("tracestate")) {
                headers.push(name.clone(), value.clone());
            }
        }
        match self.key() {
            Some(_) if keeps_key && headers.get("idempotency-key").is_some() => {}
            Some(key) => {
                headers.remove("Idempotency-Key");
                headers.push("Idempotency-Key", key);
            }
            None => headers.remove("Idempotency-Key"),
        }
    }

    fn message_type(&self) -> &'static str {
        match self.direction {
            Direction::Transaction => "TRANSACTION",
            Direction::Probe => "PROBE",
            Direction::Compensation(_) | Direction::Child(_) => "COMPENSATION",
        }
    }

    /// A structured string (RFC 8941, 3.3.3), the same over all attempts. A step that must be compensated again gets another: the
    /// same one would be answered from a service's memory. A probe has none, for that same reason: each must be looked at anew.
    fn key(&self) -> Option<String> {
        let (saga, step) = (self.saga, self.step);
        match (self.direction, self.round) {
            (Direction::Transaction, _) => Some(format!("\"{saga}/{step}\"")),
            (Direction::Probe | Direction::Child(_), _) => None,
            (Direction::Compensation(n), 0) => Some(format!("\"{saga}/{step}/undo/{n}\"")),
            (Direction::Compensation(n), round) => Some(format!("\"{saga}/{step}/undo/{n}/{round}\"")),
        }
    }

    fn traceparent(&self, context: Option<&TraceContext>) -> String {
        let span = self.chance.number(1).max(1);
        match context {
            Some(TraceContext { trace, flags }) => format!("00-{trace}-{span:016x}-{flags}"),
            // A trace of the saga's own, so that its messages can be found together.
            None => {
                let (high, low) = (self.saga_chance.number(1), self.saga_chance.number(2).max(1));
                format!("00-{high:016x}{low:016x}-{span:016x}-01")
            }
        }
    }
}

/// What a `traceparent` says (W3C Trace Context, 3.2).
struct TraceContext {
    trace: String,
    flags: String,
}

impl TraceContext {
    fn of(headers: &Headers) -> Option<Self> {
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
        let not_zero = |field: &&str| field.bytes().any(|b| b != b'0');
        let version = fields.next().filter(|f| hex(f, 2) && *f != "ff")?;
        let trace = fields.next().filter(|f| hex(f, 32)).filter(not_zero)?;
        fields.next().filter(|f| hex(f, 16)).filter(not_zero)?;
        let flags = fields.next().filter(|f| hex(f, 2))?;
        // A later version may have more fields; this one may not.
        if version == "00" && fields.next().is_some() {
            return None;
        }
        let (trace, flags) = (trace.to_owned(), flags.to_owned());
        Some(Self { trace, flags })
    }
}
