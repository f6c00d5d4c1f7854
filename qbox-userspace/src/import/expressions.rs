//! The original's interpolations as this Qbox's expressions.
//!
//! The original replaced what its patterns found and left everything else as it stood, so what looks like an expression and is
//! none is literal text. A value that was missing was the default, or the empty text: so each expression here has a default.

/// Where a text stood in the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// A transaction's request: `parent` was the matched request.
    Transaction,
    /// A compensation's request: `parent` was the transaction.
    Undo,
    /// What a transaction's answer was compared with: `parent` was the transaction itself.
    Answer,
    /// What a compensation's answer was compared with: `parent` was the compensation.
    UndoAnswer,
    /// `onAllSucceeded`, `onAnyFailed`: `parent` was an empty request.
    Reply,
}

/// A text of the original's in this Qbox's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Converted {
    pub(super) text: String,
    /// What no saga file can say.
    pub(super) unsayable: Option<String>,
    /// An expression that never had a value, and is its default now.
    pub(super) dead: Vec<String>,
    /// An expression has the empty text as its default.
    pub(super) empties: bool,
}

/// One interpolation, taken apart.
struct Found<'t> {
    whole: &'t str,
    of: Of,
    /// `headers.NAME` or `body`.
    part: String,
    default: &'t str,
}

enum Of {
    Root,
    Parent,
    ParentResponse,
    Request(usize),
    Response(usize),
}

/// Converts a text that stands at `site`; `steps` are the names of the saga's steps.
pub(super) fn convert(text: &str, site: Site, steps: &[String]) -> Converted {
    let mut out = Converted::default();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        out.text.push_str(before);
        let Some(found) = interpolation(from) else {
            // As it stood.
            out.text.push_str("$${");
            rest = from.get(2..).unwrap_or_default();
            continue;
        };
        rest = from.get(found.whole.len()..).unwrap_or_default();
        put(&mut out, &found, site, steps);
    }
    out.text.push_str(rest);
    out
}

fn put(out: &mut Converted, found: &Found<'_>, site: Site, steps: &[String]) {
    let source = match (&found.of, site) {
        (Of::Root, _) | (Of::Parent, Site::Transaction) => Some("trigger".to_owned()),
        (Of::Parent, Site::Undo | Site::Answer) => Some("parent".to_owned()),
        (Of::ParentResponse, Site::Undo) => Some("parent.response".to_owned()),
        (Of::Request(n), Site::Reply) => steps.get(*n).map(|step| format!("steps.{step}.request")),
        (Of::Response(n), Site::Reply) => steps.get(*n).map(|step| format!("steps.{step}.response")),
        (Of::Parent, Site::UndoAnswer) => {
            let what = format!(
                "`{}` compares a compensation's answer with its own request",
                found.whole
            );
            out.unsayable.get_or_insert(what);
            return;
        }
        (Of::ParentResponse, Site::Answer | Site::UndoAnswer) => {
            let what = format!("`{}` compares an answer with itself", found.whole);
            out.unsayable.get_or_insert(what);
            return;
        }
        // No such message at this time: the default.
        (Of::Parent | Of::ParentResponse, Site::Reply)
        | (Of::ParentResponse, Site::Transaction)
        | (Of::Request(_) | Of::Response(_), _) => None,
    };
    match source {
        Some(source) => {
            if out.text.ends_with('$') {
                let what = format!("a `$` stands right before `{}`", found.whole);
                out.unsayable.get_or_insert(what);
            }
            out.empties |= found.default.is_empty();
            out.text
                .push_str(&format!("${{{source}.{}:{}}}", found.part, found.default));
        }
        None => {
            out.dead.push(found.whole.to_owned());
            out.text.push_str(&found.default.replace("${", "$${"));
        }
    }
}

/// The interpolation that `text`, which begins with `${`, begins with.
fn interpolation(text: &str) -> Option<Found<'_>> {
    // `.` of the original's patterns was no line break, and the first brace ended them.
    let length = text.find(['}', '\n'])?;
    let inner = text
        .get(2..length)
        .filter(|_| text.get(length..=length) == Some("}"))?;
    let (of, rest) = source(inner)?;
    let (part, rest) = if let Some(rest) = word(rest, "headers.") {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            .unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        (!name.is_empty()).then(|| (format!("headers.{name}"), rest))?
    } else {
        ("body".to_owned(), word(rest, "body")?)
    };
    Some(Found {
        whole: text.get(..=length)?,
        of,
        part,
        default: rest.strip_prefix(':').unwrap_or(rest),
    })
}

/// The message that it is of, and what follows.
fn source(inner: &str) -> Option<(Of, &str)> {
    if let Some(rest) = word(inner, "root.") {
        return Some((Of::Root, rest));
    }
    if let Some(rest) = word(inner, "parent.response.") {
        return Some((Of::ParentResponse, rest));
    }
    if let Some(rest) = word(inner, "parent.") {
        return Some((Of::Parent, rest));
    }
    let rest = word(inner, "transaction[")?;
    let (digits, rest) = rest.split_once("].")?;
    let number = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty();
    // A number that can't be counted is of no transaction.
    let number = number.then(|| digits.parse().unwrap_or(usize::MAX))?;
    if let Some(rest) = word(rest, "request.") {
        return Some((Of::Request(number), rest));
    }
    Some((Of::Response(number), word(rest, "response.")?))
}

/// What follows a word, in whatever case it is.
fn word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, site: Site) -> Converted {
        convert(text, site, &["ratings".to_owned(), "details".to_owned()])
    }

    #[test]
    fn each_source_is_named_as_it_is_here() {
        for (text, site, expected) in [
            (
                "a ${root.headers.Product-Id} b",
                Site::Transaction,
                "a ${trigger.headers.Product-Id:} b",
            ),
            ("${ROOT.Body:x}", Site::Undo, "${trigger.body:x}"),
            (
                "${parent.headers.A:1}",
                Site::Transaction,
                "${trigger.headers.A:1}",
            ),
            ("${parent.headers.A}", Site::Undo, "${parent.headers.A:}"),
            ("${parent.response.body}", Site::Undo, "${parent.response.body:}"),
            ("${parent.body}", Site::Answer, "${parent.body:}"),
            (
                "${transaction[1].response.body}",
                Site::Reply,
                "${steps.details.response.body:}",
            ),
            (
                "${transaction[0].request.headers.X}",
                Site::Reply,
                "${steps.ratings.request.headers.X:}",
            ),
            // What the patterns let pass without a colon was a default too.
            ("${root.headers.A b}", Site::Undo, "${trigger.headers.A: b}"),
        ] {
            let found = one(text, site);
            assert_eq!((found.text.as_str(), found.unsayable), (expected, None), "{text}");
        }
    }

    #[test]
    fn what_never_had_a_value_is_its_default() {
        for (text, site, expected) in [
            ("${transaction[2].response.body:none}", Site::Reply, "none"),
            ("${transaction[0].response.body:x}", Site::Transaction, "x"),
            ("${parent.response.body:x}", Site::Transaction, "x"),
            ("${parent.headers.A}", Site::Reply, ""),
        ] {
            let found = one(text, site);
            assert_eq!((found.text.as_str(), found.dead.len()), (expected, 1), "{text}");
        }
    }

    #[test]
    fn what_is_no_interpolation_is_literal() {
        for text in [
            "${x}",
            "${root}",
            "${root.headers.}",
            "${root.body",
            "${transaction[a].response.body}",
            "${root.body:a\nb}",
        ] {
            assert_eq!(one(text, Site::Reply).text, text.replace("${", "$${"), "{text}");
        }
        assert_eq!(one("$ {} } $", Site::Reply).text, "$ {} } $");
    }

    #[test]
    fn what_can_not_be_said_is_told() {
        for (text, site) in [
            ("${parent.body}", Site::UndoAnswer),
            ("${parent.response.body}", Site::Answer),
            ("$${root.body}", Site::Transaction),
        ] {
            assert!(one(text, site).unsayable.is_some(), "{text}");
        }
    }
}
