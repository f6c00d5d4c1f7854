//! Expressions in a saga file: read in their place, then, once the order of the steps is known, checked for whether
//! their value can be there at all. The grammar is the saga room's; here are the places and the order.

use super::diagnostic::Code;
use super::graph::Graph;
use super::walk::{Sink, Text, nearest};
use crate::saga::{Expr, ExprError, MessagePart, Place, Scope, Source, StepId, Template};
use std::cell::RefCell;
use std::ops::Range;

/// What every reader of a saga file needs.
pub(super) struct Context<'a> {
    pub(super) sink: &'a Sink,
    /// The steps' names, in order.
    pub(super) names: Vec<String>,
    /// The captures of the trigger's path; `None` while its URL is not known, or can't be read.
    pub(super) captures: RefCell<Option<Vec<String>>>,
    uses: RefCell<Vec<Use>>,
}

/// One expression, in its place, to be checked against the order of the steps.
struct Use {
    expr: Expr,
    place: Place,
    span: Range<usize>,
    /// The compensation says `needs_response`, or this is a condition: having no value is provided for.
    may_lack: bool,
}

/// What the order check has to know of a step.
pub(super) struct StepFacts {
    pub(super) has_probe: bool,
    pub(super) has_when: bool,
}

impl<'a> Context<'a> {
    pub(super) fn new(sink: &'a Sink, names: Vec<String>) -> Self {
        Self {
            sink,
            names,
            captures: RefCell::default(),
            uses: RefCell::default(),
        }
    }

    /// Reads a text with expressions. All its bad ones are reported, not the first alone.
    pub(super) fn template(&self, text: &Text<'_>, place: Place) -> Option<Template> {
        let scope = Scope {
            steps: &self.names,
            place,
        };
        let template = Template::parse(text.value, &scope)
            .inspect_err(|error| self.bad_expression(text, 0, error))
            .ok();
        let Some(template) = template else {
            let mut from = 0;
            // What follows the `}` of a bad expression is a text of its own; each turn is shorter than the last.
            while !self.sink.is_full()
                && let Some(rest) = text.value.get(from..)
                && let Err(error) = Template::parse(rest, &scope)
            {
                if from > 0 {
                    self.bad_expression(text, from, &error);
                }
                let Some(end) = rest.get(error.range.start..).and_then(|bad| bad.find('}')) else {
                    break;
                };
                from += error.range.start + end + 1;
            }
            return None;
        };
        // Where each expression stands: its text occurs at or after the end of the one before.
        let mut from = 0;
        for expr in template.exprs() {
            let at = text
                .value
                .get(from..)
                .and_then(|rest| rest.find(&expr.text))
                .map_or(from, |n| from + n);
            from = at + expr.text.len();
            self.uses.borrow_mut().push(Use {
                expr: expr.clone(),
                place,
                span: text.at(at..from),
                may_lack: false,
            });
        }
        Some(template)
    }

    /// `from` is where the parsed part of the text begins.
    fn bad_expression(&self, text: &Text<'_>, from: usize, error: &ExprError) {
        let help = error.suggestion.clone().unwrap_or_else(|| {
            "an expression is ${SOURCE.PART.KEY:DEFAULT}, as ${trigger.json.guest} or ${trigger.query.page:1}".to_owned()
        });
        let span = text.at(from + error.range.start..from + error.range.end);
        let message = format!("bad expression: {}", error.message);
        self.sink.error(Code::Expression, span, message, "", help);
    }

    /// Where the uses that come from now on begin; for [`Context::may_lack_from`].
    pub(super) fn mark(&self) -> usize {
        self.uses.borrow().len()
    }

    /// Says of all uses since `mark` that they may lack the step's own response. Whether there was such a one.
    pub(super) fn may_lack_from(&self, mark: usize) -> bool {
        let mut uses = self.uses.borrow_mut();
        let mut any = false;
        for one in uses.iter_mut().skip(mark) {
            one.may_lack = true;
            any |= matches!((&one.expr.source, one.place),
                (Source::Response(step, _), Place::Compensation(own)) if *step == own);
        }
        any
    }

    /// Checks every expression that was read. `graph` is `None` when the order itself is wrong.
    pub(super) fn check(&self, graph: Option<&Graph>, steps: &[StepFacts]) {
        for one in self.uses.borrow().iter() {
            if self.sink.is_full() {
                return;
            }
            match &one.expr.source {
                Source::Trigger(MessagePart::Path(name)) => self.check_capture(one, name),
                Source::Request(step, _) => self.check_order(one, *step, graph, steps),
                Source::Response(step, _) => {
                    self.check_order(one, *step, graph, steps);
                    self.check_lost(one, *step, steps);
                }
                Source::SagaFailedStep | Source::SagaOutcome => self.check_failed(one),
                _ => {}
            }
        }
    }

    /// A saga that goes forward has no failed step and no outcome.
    fn check_failed(&self, one: &Use) {
        if !matches!(one.place, Place::Request(_)) || one.may_lack || one.expr.default.is_some() {
            return;
        }
        let message = format!(
            "`{}` has no value before the saga has failed or ended",
            one.expr.text
        );
        let help = "it can stand in a compensation and in [reply]; here take it out, or give a default `${…:DEFAULT}`";
        self.sink.error(
            Code::ExpressionOrder,
            one.span.clone(),
            message,
            "not there in time",
            help,
        );
    }

    fn check_capture(&self, one: &Use, name: &str) {
        let captures = self.captures.borrow();
        // A URL that can't be read has its own finding, and may well have this capture.
        let Some(captures) = captures.as_ref() else { return };
        if captures.iter().any(|c| c == name) {
            return;
        }
        let known: Vec<&str> = captures.iter().map(String::as_str).collect();
        let help = match (nearest(name, &known), known.as_slice()) {
            (Some(meant), _) => format!("did you mean `${{trigger.path.{meant}}}`?"),
            (None, []) => format!("put `{{{name}}}` into the path of the trigger's `url`"),
            (None, known) => format!("the trigger's `url` captures {}", super::walk::list(known)),
        };
        let message = format!("the trigger's `url` captures nothing named `{name}`");
        self.sink.error(
            Code::UnknownCapture,
            one.span.clone(),
            message,
            "never has a value",
            help,
        );
    }

    /// A step's message must be there before the one that speaks of it is made.
    fn check_order(&self, one: &Use, step: StepId, graph: Option<&Graph>, steps: &[StepFacts]) {
        let (own, undoing) = match one.place {
            Place::Request(own) => (own, false),
            Place::Match(own) | Place::Probe(own) => (own, false),
            Place::Compensation(own) => (own, true),
            Place::Trigger | Place::Reply => return,
        };
        let Some(graph) = graph else { return };
        if own != step && !graph.is_upstream(step, own) && !(undoing && one.expr.default.is_some()) {
            let (name, of) = (self.name(own), self.name(step));
            let message = format!(
                "`{name}` does not come after `{of}`, so `{}` can have no value yet",
                one.expr.text
            );
            let help = match (graph.is_upstream(own, step), undoing, graph.sequential) {
                (true, _, _) => {
                    format!("`{of}` comes after `{name}`: take the value from an earlier step or the trigger")
                }
                (false, true, _) => {
                    format!("write `after = [\"{of}\"]` in `{name}`, or give a default: `${{…:DEFAULT}}`")
                }
                (false, false, true) => format!("put `{of}` before `{name}` in the file"),
                (false, false, false) => format!("write `after = [\"{of}\"]` in `{name}`"),
            };
            self.sink.error(
                Code::ExpressionOrder,
                one.span.clone(),
                message,
                "not there in time",
                help,
            );
            return;
        }
        // A condition asks whether there is a value: to have none is one of its answers.
        let asked = one.may_lack && matches!(one.place, Place::Request(_));
        let skippable = own != step && !asked && steps.get(step.index()).is_some_and(|s| s.has_when);
        if skippable && one.expr.default.is_none() {
            let of = self.name(step);
            let message = format!(
                "`{}` has no value when `{of}` is skipped by its `when`",
                one.expr.text
            );
            let help = "give a default: `${…:DEFAULT}`; without one the request is refused before it is sent";
            self.sink
                .warning(Code::MaybeSkipped, one.span.clone(), message, "", help);
        }
    }

    /// An answer that never came has no fields.
    fn check_lost(&self, one: &Use, step: StepId, steps: &[StepFacts]) {
        let (own, what) = match one.place {
            Place::Compensation(own) => (own, "compensation"),
            Place::Probe(own) => (own, "probe"),
            _ => return,
        };
        let settled = what == "compensation" && steps.get(own.index()).is_some_and(|s| s.has_probe);
        if own != step || one.expr.default.is_some() || one.may_lack || settled {
            return;
        }
        let name = self.name(own);
        let message = format!("the {what} of `{name}` needs the response of `{name}`, which can be lost");
        let help = if what == "compensation" {
            "identify the transaction by something the request has (the trigger, `saga.id`), give a default \
             `${…:DEFAULT}`, add a [step.probe], or write `needs_response = true` and settle such a saga by hand"
        } else {
            "ask by something the request has (the trigger, `saga.id`), or give a default `${…:DEFAULT}`"
        };
        self.sink.error(
            Code::LostResponse,
            one.span.clone(),
            message,
            "no value after a time-out",
            help,
        );
    }

    pub(super) fn name(&self, step: StepId) -> &str {
        self.names.get(step.index()).map_or("?", String::as_str)
    }
}
