//! Which definitions' triggers a request could match. Their number hardly matters: a request is looked up, not held against
//! each of them.
//!
//! By its host and port first, so that a request to any other place costs one look-up. Of those that are left, triggers of one
//! *shape* (so many segments, literal in the same places, with a method or without, asking for the same header first) are in one table, by the
//! hash of what is literal in them. A request is looked up once in the table of each shape; what is found there is held against
//! the whole of it.

use super::Definition;
use crate::saga::{Mode, RequestHead, Segment, TriggerPattern, match_body, match_head};
use foldhash::HashMap;
use foldhash::fast::RandomState;
use percent_encoding::percent_decode_str;
use std::hash::{BuildHasher, Hasher};

/// Definitions by what their triggers say.
#[derive(Debug)]
pub struct Index {
    hasher: RandomState,
    /// Higher priority first; among equals the order given.
    definitions: Vec<Definition>,
    /// By the hash of host and port: a look-up needs no lower-case copy of the host. Two places with one hash share a
    /// list, which does no harm, since each pattern is held against the whole head.
    places: HashMap<u64, Vec<Table>>,
}

/// The triggers of one shape at one place.
#[derive(Debug)]
struct Table {
    shape: Shape,
    /// Places in `definitions`, by the hash of what is literal.
    found: HashMap<u64, Vec<usize>>,
}

/// What triggers must have in common to be told apart by their texts alone.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// For each segment of the path: whether it is literal.
    literal: Vec<bool>,
    /// Whether there is a method.
    method: bool,
    /// The header that is asked for first, in lower case.
    header: Option<String>,
}

impl Shape {
    fn of(trigger: &TriggerPattern) -> Self {
        let literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
        Self {
            literal: trigger.path.iter().map(literal).collect(),
            method: trigger.method.is_some(),
            header: trigger.headers.first().map(|(name, _)| name.to_ascii_lowercase()),
        }
    }
}

impl Index {
    /// An index of these.
    #[must_use]
    pub fn new(definitions: &[Definition]) -> Self {
        let hasher = RandomState::default();
        let mut definitions = definitions.to_vec();
        definitions.sort_by_key(|d| std::cmp::Reverse(d.plan.trigger.priority));
        let mut places: HashMap<u64, Vec<Table>> = HashMap::default();
        for (at, definition) in definitions.iter().enumerate() {
            let trigger = &definition.plan.trigger;
            let place = hash(&hasher, trigger.host.trim_matches(['[', ']']), trigger.port);
            let tables = places.entry(place).or_default();
            let shape = Shape::of(trigger);
            let texts = trigger.path.iter().filter_map(|segment| match segment {
                Segment::Literal(text) => Some(text.bytes()),
                Segment::Capture(_) => None,
            });
            let value = trigger
                .headers
                .first()
                .map(|(_, value)| value.as_bytes().trim_ascii());
            let key = key(&hasher, texts, trigger.method.as_deref(), value);
            let known = tables.iter().position(|table| table.shape == shape);
            let known = known.unwrap_or_else(|| {
                let found = HashMap::default();
                tables.push(Table { shape, found });
                tables.len() - 1
            });
            if let Some(table) = tables.get_mut(known) {
                table.found.entry(key).or_default().push(at);
            }
        }
        Self {
            hasher,
            definitions,
            places,
        }
    }

    /// Calls `each` with the place of every definition whose trigger's head matches, in no order; one can come twice.
    fn each<'a, I>(&self, head: &RequestHead<'a, I>, mut each: impl FnMut(usize, &Definition))
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let place = hash(&self.hasher, head.host(), head.port());
        let Some(tables) = self.places.get(&place) else {
            return;
        };
        let segments = head.segments();
        let count = segments.clone().count();
        for table in tables.iter().filter(|table| table.shape.literal.len() == count) {
            let shape = &table.shape;
            let method = shape.method.then(|| head.method());
            let mut look_up = |value: Option<&[u8]>| {
                let literal = segments
                    .clone()
                    .zip(&shape.literal)
                    .filter(|(_, literal)| **literal);
                let texts = literal.map(|(segment, _)| percent_decode_str(segment));
                let found = table.found.get(&key(&self.hasher, texts, method, value));
                for at in found.into_iter().flatten() {
                    let definition = self.definitions.get(*at);
                    if let Some(definition) = definition.filter(|d| match_head(&d.plan.trigger, head)) {
                        each(*at, definition);
                    }
                }
            };
            match &shape.header {
                // Of a header that is there several times one must match.
                Some(name) => head.values(name).for_each(|value| look_up(Some(value))),
                None => look_up(None),
            }
        }
    }

    /// Whether a trigger matches as far as the head goes; [`Mode::Observe`] if all that do only observe. Allocates
    /// nothing, but where a segment to be captured or a query is percent-encoded.
    pub fn could_match<'a, I>(&self, head: &RequestHead<'a, I>) -> Option<Mode>
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let mut mode = None;
        self.each(head, |_, definition| {
            if mode != Some(Mode::Enforce) {
                mode = Some(definition.plan.mode);
            }
        });
        mode
    }

    /// The definition that the whole request is a trigger of.
    pub fn find<'a, I>(&self, head: &RequestHead<'a, I>, body: &[u8]) -> Option<&Definition>
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let mut first: Option<usize> = None;
        self.each(head, |at, definition| {
            if first.is_none_or(|first| at < first) && match_body(&definition.plan.trigger, body) {
                first = Some(at);
            }
        });
        self.definitions.get(first?)
    }
}

/// The hash of a path's literal segments, decoded, and of a method and a header's value.
fn key<T>(
    hasher: &RandomState,
    texts: impl Iterator<Item = T>,
    method: Option<&str>,
    value: Option<&[u8]>,
) -> u64
where
    T: Iterator<Item = u8>,
{
    let mut state = hasher.build_hasher();
    for text in texts {
        text.for_each(|byte| state.write_u8(byte));
        // No text has it inside: it is no byte of UTF-8, and another one only costs a comparison.
        state.write_u8(0xff);
    }
    state.write(method.unwrap_or_default().as_bytes());
    state.write_u8(0xff);
    state.write(value.unwrap_or_default());
    state.finish()
}

/// Without case, as hosts compare (RFC 9110, 4.2.3).
fn hash(hasher: &RandomState, host: &str, port: u16) -> u64 {
    let mut state = hasher.build_hasher();
    for byte in host.bytes() {
        state.write_u8(byte.to_ascii_lowercase());
    }
    state.write_u16(port);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_saga;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn definition(number: usize, trigger: &str) -> Definition {
        let text = format!(
            "name = \"s{number}\"\n[trigger]\n{trigger}\n[[step]]\nname = \"one\"\nrequest = {{ method = \"GET\", url = \"http://b/\" }}\n"
        );
        Definition::new(Arc::new(load_saga(&text, "a.toml").unwrap().0)).unwrap()
    }

    fn trigger() -> impl Strategy<Value = String> {
        let url = prop::sample::select(vec![
            "http://a/x/1",
            "http://A:80/{y}/1",
            "http://a/x/{id}",
            "http://a/%78/",
            "http://b/x/1",
            "http://a/",
        ]);
        let method = prop::sample::select(vec!["", "method = \"PUT\"\n", "method = \"POST\"\n"]);
        let headers = prop::sample::select(vec![
            "",
            "headers = { x-a = \"1\" }\n",
            "headers = { X-A = \"2\", x-b = \"1\" }\n",
        ]);
        let body = prop::sample::select(vec!["", "body = \"x\"\n", "json = { a = 1 }\n"]);
        (url, method, headers, body, -1..2_i32).prop_map(|(url, method, headers, body, priority)| {
            format!("url = \"{url}\"\n{method}{headers}{body}priority = {priority}")
        })
    }

    proptest! {
        /// The index finds what holding every trigger against the request finds, and the same first one.
        #[test]
        fn it_finds_what_a_look_at_each_finds(
            triggers in prop::collection::vec(trigger(), 0..12),
            path in prop::sample::select(vec!["/x/1", "/x/%31", "/y/1", "/x/", "/x", "/", "http://a/x/1"]),
            host in prop::sample::select(vec!["a", "A:80", "b", "a:81"]),
            method in prop::sample::select(vec!["PUT", "POST"]),
            values in prop::collection::vec(prop::sample::select(vec!["1", " 2 ", "3"]), 0..3),
            body in prop::sample::select(vec!["x", "{\"a\":1}", ""]),
        ) {
            let definitions: Vec<_> = triggers.iter().enumerate().map(|(number, text)| definition(number, text)).collect();
            let mut fields = vec![("Host", host.as_bytes()), ("x-b", b"1")];
            fields.extend(values.iter().map(|value| ("X-a", value.as_bytes())));
            let head = RequestHead::new(method, path, fields.iter().copied()).unwrap();
            let index = Index::new(&definitions);
            let mut sorted: Vec<_> = definitions.iter().collect();
            sorted.sort_by_key(|d| std::cmp::Reverse(d.plan.trigger.priority));
            let mut matching = sorted.iter().filter(|d| match_head(&d.plan.trigger, &head));
            prop_assert_eq!(index.could_match(&head).is_some(), matching.clone().next().is_some());
            let expected = matching.find(|d| match_body(&d.plan.trigger, body.as_bytes())).map(|d| d.plan.name.clone());
            prop_assert_eq!(index.find(&head, body.as_bytes()).map(|d| d.plan.name.clone()), expected);
        }
    }
}
