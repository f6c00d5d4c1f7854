//! The order of a saga's steps: `after`, cycles, what is upstream of what, and where pivots and retriables may stand.

use super::diagnostic::{Code, Related};
use super::walk::{Sink, Text, nearest};
use crate::saga::{Kind, StepId};
use std::ops::Range;

/// Steps without a cycle.
pub(super) struct Graph {
    /// `order = "sequential"`.
    pub(super) sequential: bool,
    /// For each step, for each step: whether that one must be done before it.
    upstream: Vec<Vec<bool>>,
}

impl Graph {
    /// Whether `early` is done before `late` begins.
    pub(super) fn is_upstream(&self, early: StepId, late: StepId) -> bool {
        self.upstream
            .get(late.index())
            .and_then(|row| row.get(early.index()))
            .copied()
            .unwrap_or(false)
    }
}

/// One name in an `after`.
pub(super) struct Wait {
    pub(super) on: StepId,
    pub(super) span: Range<usize>,
}

/// Resolves the names of an `after`.
pub(super) fn waits(sink: &Sink, names: &[String], after: &[Text<'_>]) -> Vec<Wait> {
    let mut waits: Vec<Wait> = Vec::new();
    for text in after {
        let span = text.span.clone();
        let found = names
            .iter()
            .position(|n| n == text.value)
            .and_then(|at| u16::try_from(at).ok())
            .map(StepId);
        match found {
            Some(on) if waits.iter().any(|w| w.on == on) => {
                let message = format!("`after` names `{}` twice", text.value);
                sink.warning(Code::NoEffect, span, message, "", "take one of them out");
            }
            Some(on) => waits.push(Wait { on, span }),
            None => unknown_step(sink, names, text),
        }
    }
    waits
}

/// Reports a name that no step has.
pub(super) fn unknown_step(sink: &Sink, names: &[String], text: &Text<'_>) {
    let known: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|n| !n.is_empty())
        .collect();
    let message = format!("there is no step named `{}`", text.value);
    if nearest(text.value, &known).is_none() && known.len() > 12 {
        sink.error(
            Code::UnknownStep,
            text.span.clone(),
            message,
            "",
            "name one of the steps of this file",
        );
        return;
    }
    sink.unknown(
        Code::UnknownStep,
        text.span.clone(),
        message,
        text.value,
        &known,
        |w| format!("\"{w}\""),
    );
}

/// Orders the steps; `None`, and a finding for each circle, where some wait for one another.
pub(super) fn graph(sink: &Sink, names: &[String], waits: &[Vec<Wait>], sequential: bool) -> Option<Graph> {
    let count = waits.len();
    let mut search = Search {
        sink,
        names,
        waits,
        state: vec![State::New; count],
        path: Vec::new(),
        order: Vec::new(),
        sound: true,
    };
    for step in 0..count {
        search.visit(step);
    }
    if !search.sound {
        return None;
    }
    let mut upstream = vec![vec![false; count]; count];
    for late in search.order {
        let mut row = vec![false; count];
        for wait in waits.get(late).into_iter().flatten() {
            if let Some(cell) = row.get_mut(wait.on.index()) {
                *cell = true;
            }
            for (cell, above) in row
                .iter_mut()
                .zip(upstream.get(wait.on.index()).into_iter().flatten())
            {
                *cell |= *above;
            }
        }
        if let Some(place) = upstream.get_mut(late) {
            *place = row;
        }
    }
    Some(Graph { sequential, upstream })
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

/// A search in depth. Its depth is at most the number of steps, which is bounded (see `saga_file`).
struct Search<'a> {
    sink: &'a Sink,
    names: &'a [String],
    waits: &'a [Vec<Wait>],
    state: Vec<State>,
    path: Vec<usize>,
    order: Vec<usize>,
    sound: bool,
}

impl Search<'_> {
    fn visit(&mut self, step: usize) {
        if self.state.get(step) != Some(&State::New) {
            return;
        }
        self.set(step, State::Open);
        self.path.push(step);
        for wait in self.waits.get(step).into_iter().flatten() {
            let on = wait.on.index();
            match self.state.get(on) {
                Some(State::Open) => self.circle(on, &wait.span),
                Some(State::New) => self.visit(on),
                _ => {}
            }
        }
        self.path.pop();
        self.set(step, State::Done);
        self.order.push(step);
    }

    fn set(&mut self, step: usize, state: State) {
        if let Some(place) = self.state.get_mut(step) {
            *place = state;
        }
    }

    /// The path from `first` to its end, and back to `first`.
    fn circle(&mut self, first: usize, span: &Range<usize>) {
        self.sound = false;
        let from = self.path.iter().position(|s| *s == first).unwrap_or_default();
        let named: Vec<&str> = self
            .path
            .iter()
            .skip(from)
            .chain([&first])
            .map(|s| self.names.get(*s).map_or("?", String::as_str))
            .collect();
        let message = match named.as_slice() {
            [own, _] => format!("`{own}` waits for itself: {own} → {own}"),
            _ => format!("these steps wait for one another: {}", named.join(" → ")),
        };
        let help = "take one of these names out of its `after`, so that some step can begin";
        self.sink
            .error(Code::Cycle, span.clone(), message, "closes the circle", help);
    }
}

/// What [`check_kinds`] has to know of a step.
pub(super) struct KindAt {
    pub(super) kind: Kind,
    /// The step's name.
    pub(super) name_span: Range<usize>,
    /// The value of `kind`.
    pub(super) kind_span: Range<usize>,
}

/// At most one pivot; a retriable step only after it; nothing that must be undone beside or after it.
pub(super) fn check_kinds(sink: &Sink, names: &[String], graph: Option<&Graph>, steps: &[KindAt]) {
    let ids = || (0..=u16::MAX).map(StepId).zip(steps);
    let mut pivots = ids().filter(|(_, s)| s.kind == Kind::Pivot);
    let pivot = pivots.next();
    for (_, second) in pivots {
        let mut finding = sink.draft(
            Code::TwoPivots,
            second.kind_span.clone(),
            "a saga has one pivot, and this is a second",
        );
        finding.label = "second pivot".to_owned();
        finding.help =
            "keep one pivot, the last step that may be refused; what follows it is `retriable`".to_owned();
        if let Some((_, first)) = pivot {
            let (file, span) = (sink.file.clone(), first.kind_span.clone());
            finding.related.push(Related {
                file,
                span,
                label: "the first one".to_owned(),
            });
        }
        sink.report(finding);
    }
    let Some(graph) = graph else { return };
    for (id, step) in ids() {
        let name = names.get(id.index()).map_or("?", String::as_str);
        let behind = pivot.is_some_and(|(at, _)| graph.is_upstream(at, id));
        match step.kind {
            Kind::Retriable if !behind => {
                let message = format!("`{name}` is retriable, and no pivot comes before it");
                let help = match pivot {
                    Some((at, _)) => {
                        let of = names.get(at.index()).map_or("?", String::as_str);
                        format!("write `after = [\"{of}\"]`, the pivot, or make it \"compensatable\"")
                    }
                    None => "make an earlier step the pivot, or this one \"compensatable\"".to_owned(),
                };
                sink.error(
                    Code::RetriableBeforePivot,
                    step.kind_span.clone(),
                    message,
                    "never undone",
                    help,
                );
            }
            Kind::Compensatable if pivot.is_some_and(|(at, _)| !graph.is_upstream(id, at)) => {
                let message = format!(
                    "`{name}` can fail when the pivot is already applied: the saga could neither go on nor back"
                );
                let help = if behind {
                    "make it \"retriable\", or put it before the pivot with the pivot's `after`"
                } else {
                    "name it in the pivot's `after`"
                };
                sink.warning(Code::AfterPivot, step.name_span.clone(), message, "", help);
            }
            _ => {}
        }
    }
}
