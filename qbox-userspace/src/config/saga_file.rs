//! A saga file: text to a checked [`Plan`], or to all that is wrong with it. The format is the project's saga file
//! reference; the defaults that it leaves open are filled in here and in `step`.

use super::diagnostic::{Code, Diagnostic, Related, SourceFile};
use super::expressions::{Context, StepFacts};
use super::graph::{self, KindAt, Wait};
use super::step::{self, StepAt};
use super::walk::{self, Sink, Table};
use super::{reply, trigger, warnings};
use crate::saga::{Derived, Durability, Mode, OnRecovery, Plan, StepId, Template, TriggerPattern};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The most steps that a saga can have. People's sagas have a dozen; the machine's work grows with the square.
const MOST_STEPS: usize = 256;
/// The longest name of a saga or a step: both travel in headers.
const LONGEST_NAME: usize = 64;

/// A saga that is fit to run, and where it says what other sagas are compared with.
#[derive(Clone, Debug)]
pub(super) struct SagaAt {
    pub(super) plan: Plan,
    pub(super) file: Arc<SourceFile>,
    /// The value of `name`.
    pub(super) name_span: Range<usize>,
    /// The value of `trigger.url`.
    pub(super) trigger_span: Range<usize>,
}

/// Reads the file. The saga is `None` if there is an error.
pub(super) fn saga(file: Arc<SourceFile>) -> (Option<SagaAt>, Vec<Diagnostic>) {
    let sink = Sink::new(file.clone());
    let read = walk::parse(&sink).and_then(|document| {
        // What is missing from the file as a whole is said of its first key: above it are comments.
        let keys = document.get_ref().iter().map(|(key, _)| key.span());
        let first = keys.min_by_key(|span| span.start).unwrap_or(0..0);
        let root = Table::new(&sink, document.get_ref(), first, "a saga file");
        saga_of(&sink, root)
    });
    let sound = !sink.has_errors();
    let saga = read
        .filter(|_| sound)
        .map(|(plan, name_span, trigger_span)| SagaAt {
            plan,
            file,
            name_span,
            trigger_span,
        });
    (saga, sink.into_found())
}

fn saga_of(sink: &Sink, root: Table<'_>) -> Option<(Plan, Range<usize>, Range<usize>)> {
    const SECOND: Duration = Duration::from_secs(1);
    let name_node = root.need("name", "name = \"book-trip\"");
    let name_span = name_node.as_ref().map_or(0..0, |n| n.span.clone());
    let name = name_node
        .and_then(|n| n.text())
        .filter(|text| check_name(sink, text, false));
    let order_node = root.get("order");
    let sequential = order_node
        .as_ref()
        .and_then(|n| n.choice(&[("parallel", false), ("sequential", true)]))
        .unwrap_or(false);
    let timeout_node = root.get("timeout");
    let timeout = timeout_node
        .and_then(|n| n.duration(Duration::from_millis(1)))
        .unwrap_or(60 * SECOND);
    let reply_timeout = root
        .get("reply_timeout")
        .and_then(|n| n.duration(Duration::ZERO))
        .unwrap_or(30 * SECOND);
    let modes = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let mode = root
        .get("mode")
        .and_then(|n| n.choice(&modes))
        .unwrap_or(Mode::Enforce);
    let recoveries = [
        ("compensate", OnRecovery::Compensate),
        ("resume", OnRecovery::Resume),
    ];
    let on_recovery = root
        .get("on_recovery")
        .and_then(|n| n.choice(&recoveries))
        .unwrap_or(OnRecovery::Compensate);
    let durability = root
        .get("durability")
        .and_then(|n| n.choice(&[("disk", Durability::Disk), ("none", Durability::None)]))
        .unwrap_or_default();

    let tables = step_tables(sink, &root);
    let context = Context::new(sink, step_names(sink, &tables));
    let lock = root.get("lock").and_then(|n| trigger::key(&context, &n));
    let trigger_node = root.need(
        "trigger",
        "[trigger]` and below it `url = \"http://HOST:PORT/PATH\"",
    );
    let trigger_span = trigger_node.as_ref().map_or(0..0, |n| {
        let url = n.value.as_table().and_then(|t| t.get("url"));
        url.map_or_else(|| n.span.clone(), |u| u.span())
    });
    let trigger = trigger_node.and_then(|n| trigger::trigger(&context, &n));
    let steps: Vec<StepAt> = tables
        .into_iter()
        .zip(0u16..)
        .map(|(table, at)| step::step(&context, table, StepId(at)))
        .collect();
    let (reply_success, reply_failure) = root
        .get("reply")
        .map_or((None, None), |n| reply::replies(&context, &n));
    root.finish();

    let chained = order(&context, sequential, order_node.as_ref().map(|n| &n.span), &steps);
    let graph = graph::graph(sink, &context.names, &chained, sequential);
    let kinds: Vec<KindAt> = steps
        .iter()
        .map(|s| KindAt {
            kind: s.kind,
            name_span: s.name_span.clone(),
            kind_span: s.kind_span.clone(),
        })
        .collect();
    graph::check_kinds(sink, &context.names, graph.as_ref(), &kinds);
    let facts: Vec<StepFacts> = steps
        .iter()
        .map(|s| StepFacts {
            has_probe: s.has_probe,
            has_when: s.has_when,
        })
        .collect();
    context.check(graph.as_ref(), &facts);
    // What is wrong may stand behind what only looks odd: errors are mended first.
    if let Some(graph) = graph.as_ref().filter(|_| !sink.has_errors()) {
        warnings::warn(sink, &steps, graph, timeout);
    }
    let plan = plan(
        (name?.value.to_owned(), trigger?, lock),
        (timeout, reply_timeout, mode, on_recovery),
        steps,
        &chained,
    )?;
    Some((
        Plan {
            durability,
            reply_success,
            reply_failure,
            ..plan
        },
        name_span,
        trigger_span,
    ))
}

fn plan(
    (name, trigger, lock): (String, TriggerPattern, Option<Template>),
    (timeout, reply_timeout, mode, on_recovery): (Duration, Duration, Mode, OnRecovery),
    steps: Vec<StepAt>,
    chained: &[Vec<Wait>],
) -> Option<Plan> {
    let steps = steps.into_iter().zip(chained).map(|(at, waits)| {
        let mut step = at.step?;
        step.after = waits.iter().map(|w| w.on).collect();
        Some(step)
    });
    Some(Plan {
        name,
        timeout,
        reply_timeout,
        mode,
        on_recovery,
        durability: Durability::default(),
        lock,
        trigger,
        steps: steps.collect::<Option<_>>()?,
        reply_success: None,
        reply_failure: None,
        derived: Derived::default(),
    })
}

/// The tables of `[[step]]`.
fn step_tables<'a>(sink: &'a Sink, root: &Table<'a>) -> Vec<Table<'a>> {
    let Some(node) = root.need("step", "[[step]]` and below it its `name` and `request") else {
        return Vec::new();
    };
    if matches!(node.value, toml::de::DeValue::Table(_)) {
        node.wrong_type(
            "a list",
            "write [[step]], with two brackets: there can be several",
        );
        return Vec::new();
    }
    let nodes = node.list("[[step]]").unwrap_or_default();
    if nodes.is_empty() && node.value.is_array() {
        let help = "write a [[step]] with a `name` and a `request`";
        sink.error(Code::Empty, node.span.clone(), "this saga has no step", "", help);
    }
    if let Some(extra) = nodes.get(MOST_STEPS) {
        let message = format!(
            "a saga has at most {MOST_STEPS} steps, and this one has {}",
            nodes.len()
        );
        sink.error(
            Code::OutOfRange,
            extra.span.clone(),
            message,
            "",
            "split it: a step can be a saga of its own",
        );
    }
    nodes
        .iter()
        .take(MOST_STEPS)
        .filter_map(|n| n.table("this step"))
        .collect()
}

/// The steps' names; an empty one stands for one that is missing or wrong.
fn step_names(sink: &Sink, tables: &[Table<'_>]) -> Vec<String> {
    let mut seen: Vec<(&str, Range<usize>)> = Vec::new();
    let mut names = Vec::new();
    for table in tables {
        let text = table.need("name", "name = \"hotel\"").and_then(|n| n.text());
        let text = text.filter(|text| check_name(sink, text, true));
        names.push(text.as_ref().map(|t| t.value.to_owned()).unwrap_or_default());
        let Some(text) = text else { continue };
        match seen.iter().find(|(name, _)| *name == text.value) {
            Some((name, first)) => {
                let message = format!("two steps are named `{name}`");
                let mut finding = sink.draft(Code::DuplicateStep, text.span.clone(), message);
                finding.help = "give each step a name of its own".to_owned();
                finding.related.push(Related {
                    file: sink.file.clone(),
                    span: first.clone(),
                    label: "the first one".to_owned(),
                });
                sink.report(finding);
            }
            None => seen.push((text.value, text.span.clone())),
        }
    }
    names
}

/// A saga's name: `[a-z0-9-]`. A step's also has capitals and `_`.
fn check_name(sink: &Sink, text: &walk::Text<'_>, step: bool) -> bool {
    let fits = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || b == b'-'
            || (step && (b.is_ascii_uppercase() || b == b'_'))
    };
    let name = text.value;
    if !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(fits) {
        return true;
    }
    let (message, help) = match (name, step) {
        ("", _) => ("a name is empty".to_owned(), "write one".to_owned()),
        _ if name.len() > LONGEST_NAME => (
            format!("a name is longer than {LONGEST_NAME} characters"),
            "shorten it".to_owned(),
        ),
        (_, true) => (
            format!("{name:?} is not a step's name"),
            "use letters, digits, `-` and `_`".to_owned(),
        ),
        (_, false) => (
            format!("{name:?} is not a saga's name"),
            "use small letters, digits and `-`: [a-z0-9-]".to_owned(),
        ),
    };
    sink.error(Code::Name, text.span.clone(), message, "", help);
    false
}

/// What each step waits for: its `after`, or in a sequential saga the step before it.
fn order(
    context: &Context<'_>,
    sequential: bool,
    order: Option<&Range<usize>>,
    steps: &[StepAt],
) -> Vec<Vec<Wait>> {
    let sink = context.sink;
    let mut chained = Vec::new();
    for (step, at) in steps.iter().zip(0u16..) {
        if let (true, Some(span)) = (sequential, &step.after) {
            let message = "a sequential saga takes no `after`: its steps run in the order of the file";
            let mut finding = sink.draft(Code::SequentialAfter, span.clone(), message);
            finding.help = "take `after` out, or `order = \"sequential\"`".to_owned();
            finding.related.extend(order.cloned().map(|span| Related {
                file: sink.file.clone(),
                span,
                label: "the order is set here".to_owned(),
            }));
            sink.report(finding);
        }
        chained.push(match (sequential, at.checked_sub(1)) {
            (true, Some(before)) => vec![Wait {
                on: StepId(before),
                span: step.name_span.clone(),
            }],
            (true, None) => Vec::new(),
            (false, _) => step
                .waits
                .iter()
                .map(|w| Wait {
                    on: w.on,
                    span: w.span.clone(),
                })
                .collect(),
        });
    }
    chained
}
