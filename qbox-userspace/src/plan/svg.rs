//! A saga's graph as a drawing (SVG 1.1): a column for each rank, the trigger first, a box for each step, an arrow for
//! each `after`.
//!
//! A step stands one column behind the last of those that it comes after; in a column steps stand in the order of what leads to
//! them, so that few arrows cross. Takes time in proportion to steps and arrows.

use super::graph::{kind, short, trigger};
use crate::saga::{Kind, Plan};
use std::fmt::Write;

/// All lengths are in pixels.
const CHARACTER: usize = 8;
const LINE: usize = 18;
const PAD: usize = 12;
const GAP_X: usize = 70;
const GAP_Y: usize = 22;

struct Node {
    lines: Vec<String>,
    kind: Kind,
    rank: usize,
    /// The places of those that lead to it, the trigger being 0.
    from: Vec<usize>,
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// A drawing, from left to right.
#[must_use]
pub fn svg(plan: &Plan) -> String {
    let mut nodes = nodes(plan);
    let (width, height) = place(&mut nodes);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"monospace\" font-size=\"13\">\n<title>{}</title>\n<defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"8\" \
         refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n",
        escaped(&plan.name)
    );
    for node in &nodes {
        for from in node.from.iter().filter_map(|at| nodes.get(*at)) {
            let (x1, y1) = (from.x + from.width, from.y + from.height / 2);
            let (x2, y2) = (node.x, node.y + node.height / 2);
            let middle = usize::midpoint(x1, x2);
            // Writing to a String does not fail, here and below.
            let _ = writeln!(
                out,
                "<path d=\"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}\" fill=\"none\" stroke=\"black\" marker-end=\"url(#end)\"/>"
            );
        }
    }
    for node in &nodes {
        let (stroke, corner) = match node.kind {
            Kind::Compensatable => ("1", 6),
            Kind::Pivot => ("3", 0),
            Kind::Retriable => ("1\" stroke-dasharray=\"5 3", 6),
        };
        let Node {
            x, y, width, height, ..
        } = node;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{corner}\" fill=\"white\" stroke=\"black\" stroke-width=\"{stroke}\"/>"
        );
        for (line, number) in node.lines.iter().zip(1..) {
            let (x, y) = (x + PAD, y + PAD / 2 + number * LINE - 4);
            let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\">{}</text>", escaped(line));
        }
    }
    out.push_str("</svg>\n");
    out
}

fn nodes(plan: &Plan) -> Vec<Node> {
    let node = |lines: Vec<String>, kind, rank, from| {
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        Node {
            width: longest * CHARACTER + 2 * PAD,
            height: lines.len() * LINE + PAD,
            lines,
            kind,
            rank,
            from,
            x: 0,
            y: 0,
        }
    };
    let ranks = ranks(plan);
    let mut nodes = vec![node(
        vec![plan.name.clone(), trigger(plan)],
        Kind::Compensatable,
        0,
        Vec::new(),
    )];
    for (step, rank) in plan.steps.iter().zip(ranks) {
        let name = match kind(step) {
            Some(kind) => format!("{} ({kind})", step.name),
            None => step.name.clone(),
        };
        let from = match step.after.as_slice() {
            [] => vec![0],
            after => after.iter().map(|on| on.index() + 1).collect(),
        };
        nodes.push(node(vec![name, short(step)], step.kind, rank, from));
    }
    nodes
}

/// How many steps at most come before each, and the trigger. A checked plan has no cycle.
fn ranks(plan: &Plan) -> Vec<usize> {
    let mut ranks = vec![1; plan.steps.len()];
    let mut waits: Vec<usize> = plan.steps.iter().map(|step| step.after.len()).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); plan.steps.len()];
    for (at, step) in plan.steps.iter().enumerate() {
        for on in &step.after {
            if let Some(list) = followers.get_mut(on.index()) {
                list.push(at);
            }
        }
    }
    let mut ready: Vec<usize> = (0..waits.len()).filter(|at| waits.get(*at) == Some(&0)).collect();
    while let Some(done) = ready.pop() {
        let rank = ranks.get(done).map_or(1, |rank| rank + 1);
        for follower in followers.get(done).into_iter().flatten() {
            if let (Some(own), Some(left)) = (ranks.get_mut(*follower), waits.get_mut(*follower)) {
                *own = rank.max(*own);
                *left = left.saturating_sub(1);
                if *left == 0 {
                    ready.push(*follower);
                }
            }
        }
    }
    ranks
}

/// Gives every node its place; the drawing's width and height.
fn place(nodes: &mut [Node]) -> (usize, usize) {
    let last = nodes.iter().map(|node| node.rank).max().unwrap_or(0);
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); last + 1];
    for (at, node) in nodes.iter().enumerate() {
        if let Some(column) = columns.get_mut(node.rank) {
            column.push(at);
        }
    }
    let (mut x, mut height) = (PAD, 0);
    for column in &mut columns {
        // Those that lead here stand already: their mean is where a step would like to be.
        let wish = |at: &usize| {
            let from = nodes.get(*at).map_or(&[][..], |node| &node.from);
            let sum: usize = from
                .iter()
                .filter_map(|at| nodes.get(*at))
                .map(|node| node.y)
                .sum();
            (sum / from.len().max(1), *at)
        };
        column.sort_by_cached_key(wish);
        let mut y = PAD;
        let width = column
            .iter()
            .filter_map(|at| nodes.get(*at))
            .map(|node| node.width)
            .max();
        for at in column.iter() {
            if let Some(node) = nodes.get_mut(*at) {
                (node.x, node.y) = (x, y);
                y += node.height + GAP_Y;
            }
        }
        height = height.max(y);
        x += width.unwrap_or(0) + GAP_X;
    }
    (x - GAP_X + PAD, height - GAP_Y + PAD)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
