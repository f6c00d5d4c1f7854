//! The plans that are walked: every shape of a graph of up to four steps, and what its steps can be.
//!
//! They are saga files, read as any other, so that nothing is walked that nobody could write, and a violation shows a file.

use crate::config;
use crate::journal;
use crate::saga::{Plan, PlanHash};
use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::Arc;

/// The most steps of a plan.
pub(super) const MOST_STEPS: usize = 4;

/// One plan in one kind of world.
pub(super) struct Scene {
    /// Says all that makes it differ from the others.
    pub(super) name: String,
    /// The saga file.
    pub(super) text: String,
    pub(super) plan: Arc<Plan>,
    pub(super) hash: PlanHash,
    /// What a service is asked to do once it has undone it does no more: a copy of a transaction that comes later has no effect. A
    /// service without that has no memory, but its answer reaches Qbox however late.
    pub(super) fenced: bool,
}

/// What a step is, but for its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Make {
    Plain,
    Twice,
    Probed,
    ProbedTwice,
    NoUndo,
    TwoUndos,
    UndoOnce,
    Always,
    Skipped,
    Pivot,
    PivotTwice,
    PivotProbed,
    Retriable,
    RetriableProbed,
}

use Make::*;

impl Make {
    fn is_pivot(self) -> bool {
        matches!(self, Pivot | PivotTwice | PivotProbed)
    }

    fn word(self) -> &'static str {
        match self {
            Plain => "plain",
            Twice => "twice",
            Probed => "probed",
            ProbedTwice => "probed-twice",
            NoUndo => "no-undo",
            TwoUndos => "two-undos",
            UndoOnce => "undo-once",
            Always => "always",
            Skipped => "skipped",
            Pivot => "pivot",
            PivotTwice => "pivot-twice",
            PivotProbed => "pivot-probed",
            Retriable => "retriable",
            RetriableProbed => "retriable-probed",
        }
    }

    fn compensations(self) -> usize {
        match self {
            TwoUndos => 2,
            NoUndo | Pivot | PivotTwice | PivotProbed | Retriable | RetriableProbed => 0,
            _ => 1,
        }
    }

    fn write(self, at: usize, after: &[usize], text: &mut String) -> fmt::Result {
        let name = name(at);
        let url = format!("http://{name}/{name}s/7");
        writeln!(text, "\n[[step]]\nname = \"{name}\"")?;
        match self {
            Pivot | PivotTwice | PivotProbed => writeln!(text, "kind = \"pivot\"")?,
            Retriable | RetriableProbed => writeln!(text, "kind = \"retriable\"")?,
            _ => {}
        }
        if !after.is_empty() {
            let names: Vec<_> = after
                .iter()
                .map(|at| format!("\"{}\"", self::name(*at)))
                .collect();
            writeln!(text, "after = [{}]", names.join(", "))?;
        }
        writeln!(text, "request = {{ method = \"PUT\", url = \"{url}\" }}")?;
        match self {
            Twice | ProbedTwice | PivotTwice => writeln!(text, "retry = {{ attempts = 2 }}")?,
            Always => writeln!(text, "compensate_when = \"always\"")?,
            Skipped => writeln!(text, "when = [{{ value = \"no\", equals = \"yes\" }}]")?,
            _ => {}
        }
        if matches!(self, Probed | ProbedTwice | PivotProbed | RetriableProbed) {
            let probe = format!("{{ method = \"GET\", url = \"{url}\" }}");
            writeln!(text, "[step.probe]\nrequest = {probe}")?;
            if !self.is_pivot() {
                writeln!(text, "retry = {{ attempts = 2 }}")?;
            }
        }
        for n in 0..self.compensations() {
            let undo = format!("{{ method = \"DELETE\", url = \"{url}/{n}\" }}");
            writeln!(text, "[[step.compensate]]\nrequest = {undo}")?;
            if self == UndoOnce {
                writeln!(text, "retry = {{ attempts = 1 }}")?;
            }
        }
        Ok(())
    }
}

/// What a step may be before the pivot, or where there is none; the plain one is the first.
const FORWARD: [Make; 9] = [
    Plain,
    Twice,
    Probed,
    ProbedTwice,
    NoUndo,
    TwoUndos,
    UndoOnce,
    Always,
    Skipped,
];

/// The steps' names in their order.
pub(super) fn name(at: usize) -> &'static str {
    ["hotel", "flight", "car", "tour"].get(at).copied().unwrap_or("?")
}

/// For each step those that it comes after; all of them stand before it.
type Graph = Vec<Vec<usize>>;

/// Every graph of `steps` steps, one of each that differ in their steps' names alone.
fn graphs(steps: usize) -> Vec<Graph> {
    let pairs: Vec<(usize, usize)> = (0..steps)
        .flat_map(|to| (0..to).map(move |from| (from, to)))
        .collect();
    let mut known = BTreeSet::new();
    let mut graphs = Vec::new();
    for bits in 0..1_u32 << pairs.len() {
        let edges: Vec<_> = (0..pairs.len())
            .filter(|n| bits & (1 << n) != 0)
            .map(|n| pairs[n])
            .collect();
        let renamed = orders(steps).into_iter().map(|order| {
            let mut edges: Vec<_> = edges.iter().map(|(a, b)| (order[*a], order[*b])).collect();
            edges.sort_unstable();
            edges
        });
        if known.insert(renamed.min()) {
            let before = |to| edges.iter().filter(move |edge| edge.1 == to).map(|edge| edge.0);
            graphs.push((0..steps).map(|to| before(to).collect()).collect());
        }
    }
    graphs
}

fn orders(of: usize) -> Vec<Vec<usize>> {
    let Some(last) = of.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let shorter = orders(last);
    let places = 0..of;
    let longer = places.flat_map(|place| {
        shorter.iter().map(move |order| {
            let mut order = order.clone();
            order.insert(place, last);
            order
        })
    });
    longer.collect()
}

fn comes_after(graph: &Graph, later: usize, earlier: usize) -> bool {
    let after = &graph[later];
    after
        .iter()
        .any(|at| *at == earlier || comes_after(graph, *at, earlier))
}

/// What the steps of a graph may be: all plain; each one special; two and two of a kind; a pivot at each place, with what
/// stands behind it.
fn makes(graph: &Graph) -> Vec<Vec<Make>> {
    let steps = graph.len();
    let plain = vec![Plain; steps];
    let mut makes = vec![plain.clone()];
    for at in 0..steps {
        for special in &FORWARD[1..] {
            makes.push(plain.clone());
            makes.last_mut().unwrap()[at] = *special;
        }
    }
    if steps > 1 {
        for all in [Twice, Probed, ProbedTwice, UndoOnce] {
            makes.push(vec![all; steps]);
        }
    }
    for pivot in 0..steps {
        for (kind, behind) in [
            (Pivot, Retriable),
            (PivotTwice, Retriable),
            (PivotProbed, RetriableProbed),
        ] {
            let make = |at| match at {
                _ if at == pivot => kind,
                _ if comes_after(graph, at, pivot) => behind,
                _ => Plain,
            };
            makes.push((0..steps).map(make).collect());
        }
    }
    makes
}

/// A scene that is not read yet.
pub(super) struct Draft {
    graph: Graph,
    makes: Vec<Make>,
    resume: bool,
    hasty: bool,
    unfenced: bool,
}

/// All scenes of plans of that many steps, the plainest first.
pub(super) fn scenes(steps: usize) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for graph in graphs(steps) {
        for makes in makes(&graph) {
            for world in 0..8_u8 {
                drafts.push(Draft {
                    graph: graph.clone(),
                    makes: makes.clone(),
                    resume: world & 1 != 0,
                    hasty: world & 2 != 0,
                    unfenced: world & 4 != 0,
                });
            }
        }
    }
    drafts.sort_by_key(Draft::special);
    drafts
}

impl Draft {
    /// How far it is from the plainest one of its graph: what differs in its steps and around them.
    pub(super) fn special(&self) -> usize {
        let steps = self.makes.iter().filter(|make| **make != Plain).count();
        let around = [self.resume, self.hasty, self.unfenced];
        steps + around.iter().filter(|is| **is).count()
    }

    /// Says all that makes it differ from the others.
    pub(super) fn name(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        for (make, after) in self.makes.iter().zip(&self.graph) {
            let after: String = after.iter().map(|at| format!("<{at}")).collect();
            words.push(format!("{}{after}", make.word()));
        }
        let around = [
            (self.resume, "resume"),
            (self.hasty, "hasty"),
            (self.unfenced, "unfenced"),
        ];
        words.extend(around.iter().filter(|is| is.0).map(|is| is.1.to_owned()));
        words.join(",")
    }

    /// Read as any saga file.
    pub(super) fn scene(&self) -> Scene {
        let mut text = String::from("name = \"book-trip\"\n");
        if self.resume {
            text.push_str("on_recovery = \"resume\"\n");
        }
        if self.hasty {
            text.push_str("timeout = \"1ms\"\nreply_timeout = \"0s\"\n");
        }
        text.push_str("\n[trigger]\nmethod = \"POST\"\nurl = \"http://trips/trips/{trip}\"\n");
        for (at, (make, after)) in self.makes.iter().zip(&self.graph).enumerate() {
            make.write(at, after, &mut text).unwrap();
        }
        let plan = match config::load_saga(&text, "walk.toml") {
            Ok((plan, _warnings)) => plan,
            Err(findings) => panic!("{}", findings.iter().map(|f| f.render(false)).collect::<String>()),
        };
        Scene {
            name: self.name(),
            text,
            hash: journal::plan_hash(&plan).unwrap(),
            plan: Arc::new(plan),
            fenced: !self.unfenced,
        }
    }
}

#[test]
fn every_graph_is_there_once() {
    // The number of directed graphs without cycles on n unnamed nodes: OEIS A003087.
    assert_eq!([1, 2, 3, 4].map(|steps| graphs(steps).len()), [1, 2, 6, 31]);
}
