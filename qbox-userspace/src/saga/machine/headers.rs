//! The headers that Qbox gives its requests.
//!
//! Where a saga file gives a header of these names Qbox's own value stands (`qbox check` refuses such a file), but for the
//! `Idempotency-Key` of a trigger that is forwarded: its caller's key stays.

use crate::saga::event::Direction;
use crate::saga::id::SagaId;
use crate::saga::message::{Headers, Trigger};
use crate::saga::trace::{self, Trace};
use bytes::Bytes;
use smol_str::SmolStr;

/// Whose request it is.
pub(super) struct Stamp<'a> {
    pub(super) saga: SagaId,
    pub(super) step: &'a str,
    pub(super) direction: Direction,
    /// How often the step had to be compensated again.
    pub(super) round: u32,
    pub(super) trigger: &'a Trigger,
    /// The trigger's.
    pub(super) trace: Trace,
    /// This attempt's.
    pub(super) span: u64,
}

impl Stamp<'_> {
    /// Puts Qbox's fields at the end, in place of any of the same names.
    pub(super) fn put(&self, headers: &mut Headers, keeps_key: bool) {
        let mut set = |name: &'static str, value: Bytes| {
            headers.remove(name);
            headers.push(SmolStr::new_static(name), value);
        };
        let saga = self.saga.to_string();
        let key = self.key(&saga);
        set("X-Qbox-TransactionID", saga.into());
        set(
            "X-Qbox-Message-Type",
            Bytes::from_static(self.message_type().as_bytes()),
        );
        set("X-Qbox-Step", self.step.to_owned().into());
        set("X-Qbox-Depth", depth(self.trigger.depth));
        set("traceparent", self.trace.parent_of(self.span).into());
        if self.trace.parent.is_some() {
            // What a vendor keeps beside the trace goes with it.
            headers.remove("tracestate");
            for (name, value) in trace::state(&self.trigger.request.headers) {
                headers.push(name.clone(), value.clone());
            }
        }
        match key {
            Some(_) if keeps_key && headers.get("idempotency-key").is_some() => {}
            Some(key) => {
                headers.remove("Idempotency-Key");
                headers.push(SmolStr::new_static("Idempotency-Key"), key);
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
    fn key(&self, saga: &str) -> Option<String> {
        let step = self.step;
        match (self.direction, self.round) {
            (Direction::Transaction, _) => Some(["\"", saga, "/", step, "\""].concat()),
            (Direction::Probe | Direction::Child(_), _) => None,
            (Direction::Compensation(n), 0) => Some(format!("\"{saga}/{step}/undo/{n}\"")),
            (Direction::Compensation(n), round) => Some(format!("\"{saga}/{step}/undo/{n}/{round}\"")),
        }
    }
}

/// That of a saga below one of this depth.
fn depth(above: u8) -> Bytes {
    match above {
        0 => Bytes::from_static(b"1"),
        above => above.saturating_add(1).to_string().into(),
    }
}
