//! YAML to a tree whose nodes know their places. Bounded: in depth, and in what aliases repeat.

use super::Findings;
use crate::config::Code;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::ops::Range;

/// A configuration of the original is six deep.
const DEEPEST: usize = 64;
/// So many nodes and bytes of text may be kept for aliases and come from them: each may name what names others, and so on.
const MOST_REPEATED: usize = 256 << 10;
/// So many values, keys and punctuation marks may be in a file; a configuration of the original has some hundred.
const MOST_EVENTS: usize = 100_000;

/// A value and its place, in bytes of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
    /// Its nodes and the bytes of their texts.
    weight: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `plain`: without quotes, so that `~` is null and `30` a number.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In order; the last of several equal keys counts.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Whether it is null (YAML 1.1's, as the original read it).
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value of a key, its own or one that `<<` merges in.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(pairs) = &self.value else {
            return None;
        };
        let of = |wanted: &str| {
            pairs
                .iter()
                .rev()
                .find(|(name, _)| name.is_text(wanted))
                .map(|(_, value)| value)
        };
        of(key).or_else(|| {
            let merged = of("<<")?;
            match &merged.value {
                Value::List(maps) => maps.iter().find_map(|map| map.get(key)),
                _ => merged.get(key),
            }
        })
    }

    fn is_text(&self, wanted: &str) -> bool {
        matches!(&self.value, Value::Scalar { text, .. } if text == wanted)
    }
}

/// A list or map that is not complete yet.
struct Open {
    from: usize,
    anchor: usize,
    items: Vec<Node>,
    map: bool,
}

impl Open {
    fn close(self, end: usize) -> Node {
        let weight = self.items.iter().map(|node| node.weight).sum::<usize>() + 1;
        let value = if self.map {
            let mut items = self.items.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        } else {
            Value::List(self.items)
        };
        Node {
            span: self.from..end.max(self.from),
            value,
            weight,
        }
    }
}

/// The documents of the file, without those that are empty. None: it is no YAML, and that was reported.
pub(super) fn documents(sink: &mut Findings) -> Option<Vec<Node>> {
    let file = std::sync::Arc::clone(&sink.file);
    // Places count characters; the byte where each begins, and the end.
    let starts: Vec<usize> = file
        .text
        .char_indices()
        .map(|(at, _)| at)
        .chain([file.text.len()])
        .collect();
    let byte = |at: usize| starts.get(at).copied().unwrap_or(file.text.len());
    let range = |span: Span| byte(span.start.index())..byte(span.end.index());
    let mut parser = Parser::new_from_str(&file.text);
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut documents = Vec::new();
    let mut repeated = 0_usize;
    let mut events = 0_usize;
    while let Some(next) = parser.next_event() {
        let (event, span) = match next {
            Ok(next) => next,
            Err(error) => {
                let at = byte(error.marker().index());
                let help = "the original's configuration is YAML: look at the line and the one above it";
                sink.error(Code::NotYaml, at..at, format!("not YAML: {}", error.info()), help);
                return None;
            }
        };
        events += 1;
        if events > MOST_EVENTS {
            let help = "split it: a configuration of the original has some hundred";
            let message = format!("more than {MOST_EVENTS} values");
            sink.error(Code::TooLarge, range(span), message, help);
            return None;
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = Node {
                    span: range(span),
                    weight: 1 + text.len(),
                    value: Value::Scalar {
                        text: text.into_owned(),
                        plain: style == ScalarStyle::Plain,
                    },
                };
                (node, anchor)
            }
            Event::Alias(of) => {
                let Some(node) = anchors.get(&of) else {
                    sink.error(
                        Code::NotYaml,
                        range(span),
                        "this alias names what holds it",
                        "write it out",
                    );
                    return None;
                };
                repeated = repeated.saturating_add(node.weight);
                let node = Node {
                    span: range(span),
                    ..node.clone()
                };
                (node, 0)
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() == DEEPEST {
                    sink.error(
                        Code::NotYaml,
                        range(span),
                        "nested too deeply",
                        "a configuration is six deep",
                    );
                    return None;
                }
                open.push(Open {
                    from: byte(span.start.index()),
                    anchor,
                    items: Vec::new(),
                    map: matches!(event, Event::MappingStart(..)),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(done) = open.pop() else { continue };
                let anchor = done.anchor;
                (done.close(byte(span.end.index())), anchor)
            }
            Event::DocumentStart(_) => {
                // An anchor is its document's own.
                anchors.clear();
                continue;
            }
            _ => continue,
        };
        if anchor != 0 && repeated <= MOST_REPEATED {
            repeated = repeated.saturating_add(node.weight);
            anchors.insert(anchor, node.clone());
        }
        if repeated > MOST_REPEATED {
            sink.error(
                Code::NotYaml,
                node.span,
                "anchors and aliases repeat more than 256 KiB",
                "write out what is meant",
            );
            return None;
        }
        match open.last_mut() {
            Some(above) => above.items.push(node),
            None if node.is_null() => {}
            None => documents.push(node),
        }
    }
    Some(documents)
}
