//! The saga room: what a saga is, and what happens next. Pure.
//!
//! Nothing here knows a clock, a socket, a file, a thread or an async runtime: time comes in as a [`Timestamp`], chance as
//! a seed, and the world's answers as [`Input`]s; what is to be done goes out as [`Command`]s. `cargo xtask lint`
//! refuses a change that breaks this.
//!
//! The way through the room:
//!
//! ```text
//! Plan (from the saga file) ─┐
//! Trigger ───────────────────┴─> Saga::begin ─> events ─> apply ─> commands ─┐
//!                 events <─ Saga::decide <─ Input (an outcome, a timer) <────┘   (the runner carries the commands out)
//! ```
//!
//! An [`Event`] is the journal's record. State changes where an event is applied and nowhere else, so that a restart, which
//! folds the journal's events, and normal running are one path.

mod derived;
mod event;
mod expr;
mod expr_parse;
mod fill;
#[cfg(test)]
mod fixture;
mod http_date;
mod id;
mod io;
mod machine;
mod matcher;
mod message;
mod octets;
mod plan;
mod reply;
mod retry;
mod sample;
mod secrets;
mod shown;
mod trace;
mod values;

pub use derived::Derived;
pub use event::{AttemptEnd, Class, Direction, Event, Hidden, SCHEMA};
pub use expr::{Expr, ExprError, FieldPath, MessagePart, Place, Scope, Source, Template};
pub use fill::key;
pub use id::{PlanHash, SagaId, StepId, Timestamp};
pub use io::{Call, Command, Input, Operator, OperatorAction, Outcome, Timer};
pub use machine::{ReplayError, Saga, SagaState, StepState, StepView, UndoState};
pub use matcher::{RequestHead, match_body, match_head, trigger};
pub use message::{Headers, Parent, Request, Response, Trigger};
pub use plan::{
    BodyTemplate, CompensateWhen, Compensation, Condition, Durability, JsonTemplate, Kind, Mode, OnRecovery,
    Plan, Probe, ReplyPlan, ReplyTemplate, RequestPlan, RequestTemplate, ResponseMatch, RetryOn, RetryPolicy,
    Scheme, Segment, StatusSet, Step, Test, TriggerPattern, UrlTemplate,
};
pub use reply::Reply;
pub use sample::sample_trigger;
pub use secrets::{Apart, MARK, Needs, Secrets, whole};
pub use shown::{EXCERPT, excerpt};
pub use trace::Trace;
