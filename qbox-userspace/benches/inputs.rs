//! `cargo xtask bench inputs`: what 1 MiB of the worst input costs the saga file's parser, an expression, the importer and the matcher. Status 0
//! only if each takes less than 100 ms, diagnostics and their pictures included, and grows no faster than the input.
//!
//! The inputs are what is known to make such programs slow: much of one thing, deep in itself, or wrong in every line.

use anyhow::{Context, Result, ensure};
use qbox::config::{Diagnostic, SourceFile, load_saga};
use qbox::gateway::{Definition, Index};
use qbox::import::import;
use qbox::saga::{Place, RequestHead, Scope, StepId, Template};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What Qbox reads of a file at most, less what stands around the inputs.
const WHOLE: usize = (1 << 20) - 1024;
const LIMIT: Duration = Duration::from_millis(100);
/// From a quarter to the whole: 4 is linear, 16 is quadratic.
const GROWTH: f64 = 11.0;
/// Below this, growth is not asked for: what an input costs there is mostly not the input.
const NOTHING: Duration = Duration::from_millis(5);
const TRIES: usize = 5;

const SAGA: &str = "name = \"s\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://a/b\"\n";
const STEP: &str = "[[step]]\nname = \"hotel\"\nrequest = { method = \"PUT\", url = \"http://hotel/x\" }\n";

/// One thing again and again, numbered, up to so many bytes.
fn many(bytes: usize, mut one: impl FnMut(&mut String, usize)) -> String {
    let mut text = String::with_capacity(bytes + 256);
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        one(&mut text, number);
    }
    text
}

/// So many opening words, and as many closing ones.
fn nested(bytes: usize, open: &str, within: &str, close: &str) -> String {
    let depth = bytes / (open.len() + close.len());
    format!("{}{within}{}", open.repeat(depth), close.repeat(depth))
}

fn numbered(bytes: usize, before: &str, between: &str) -> String {
    many(bytes, |text, number| {
        // A `String` takes all that is written to it.
        let _ = write!(text, "{before}{number}{between}");
    })
}

type Make = fn(usize) -> String;
/// Whose input it is, each with what it is of, and what reads it.
type Reader = (&'static str, &'static [(&'static str, Make)], fn(&str));

/// As saga files.
const FILES: &[(&str, Make)] = &[
    ("steps", |bytes| {
        let steps = many(bytes, |text, number| {
            let _ = write!(
                text,
                "[[step]]\nname = \"s{number}\"\nrequest = {{ method = \"PUT\", url = \"http://h/x\" }}\n"
            );
        });
        format!("{SAGA}{steps}")
    }),
    ("steps, each after the one before", |bytes| {
        let steps = many(bytes, |text, number| {
            let after = match number.checked_sub(1) {
                Some(before) => format!("after = [\"s{before}\"]\n"),
                None => String::new(),
            };
            let _ = write!(
                text,
                "[[step]]\nname = \"s{number}\"\n{after}request = {{ method = \"PUT\", url = \"http://h/x\" }}\n"
            );
        });
        format!("{SAGA}{steps}")
    }),
    ("a step after many that are not there", |bytes| {
        let names = numbered(bytes, "\"hotel", "\", ");
        format!(
            "{SAGA}{STEP}[[step]]\nname = \"b\"\nafter = [{names}]\nrequest = {{ method = \"PUT\", url = \"http://h/x\" }}\n"
        )
    }),
    ("unknown keys", |bytes| {
        format!("{}{SAGA}{STEP}", numbered(bytes, "nam", " = 1\n"))
    }),
    ("unknown keys of a step", |bytes| {
        format!("{SAGA}{STEP}{}", numbered(bytes, "retr", " = 1\n"))
    }),
    ("keys given twice", |bytes| {
        format!("{}{SAGA}{STEP}", "name = 1\n".repeat(bytes / 9))
    }),
    ("headers", |bytes| {
        format!(
            "{SAGA}[trigger.headers]\n{}{STEP}",
            numbered(bytes, "x-", " = \"a\"\n")
        )
    }),
    ("headers that are none", |bytes| {
        format!(
            "{SAGA}[trigger.headers]\n{}{STEP}",
            numbered(bytes, "\"x ", "\" = \"a\"\n")
        )
    }),
    ("a dotted key", |bytes| {
        format!("{SAGA}{}a = 1\n{STEP}", "a.".repeat(bytes / 2))
    }),
    ("arrays in arrays", |bytes| {
        format!("{SAGA}after = {}\n{STEP}", nested(bytes, "[", "", "]"))
    }),
    ("tables in tables", |bytes| {
        format!("{SAGA}json = {}\n{STEP}", nested(bytes, "{a=", "1", "}"))
    }),
    ("open brackets", |bytes| {
        format!("{SAGA}json = {}", "[".repeat(bytes))
    }),
    ("sections in sections", |bytes| {
        format!("{SAGA}{STEP}{}", numbered(bytes, "[trigger.json.a", "]\n"))
    }),
    ("a long string", |bytes| {
        format!("{SAGA}body = \"{}\"\n{STEP}", "a".repeat(bytes))
    }),
    ("escapes", |bytes| {
        format!("{SAGA}body = \"{}\"\n{STEP}", "\\u0061".repeat(bytes / 6))
    }),
    ("a string without an end", |bytes| {
        format!("{SAGA}body = \"{}", "a".repeat(bytes))
    }),
    ("comments", |bytes| {
        format!("{}{SAGA}{STEP}", "# a\n".repeat(bytes / 4))
    }),
    ("empty lines", |bytes| {
        format!("{}{SAGA}{STEP}", "\n".repeat(bytes))
    }),
    ("no TOML", |bytes| "?\n".repeat(bytes / 2)),
    ("a URL", |bytes| {
        format!(
            "name = \"s\"\n[trigger]\nurl = \"http://a/{}\"\n{STEP}",
            "b/".repeat(bytes / 2)
        )
    }),
    ("a URL's captures", |bytes| {
        format!(
            "name = \"s\"\n[trigger]\nurl = \"http://a/{}\"\n{STEP}",
            numbered(bytes, "{c", "}/")
        )
    }),
    ("a URL's expressions, each wrong", |bytes| {
        let url = numbered(bytes, "${steps.hotl.", "}/");
        format!(
            "{SAGA}[[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"http://hotel/{url}\" }}\n"
        )
    }),
    ("a body's expressions", |bytes| {
        let body = numbered(bytes, "${trigger.json.a", "}");
        format!(
            "{SAGA}[[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"http://hotel/\", body = \"{body}\" }}\n"
        )
    }),
    ("one body, many wrong expressions", |bytes| {
        let body = "${x}".repeat(bytes / 4);
        format!(
            "{SAGA}[[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"http://hotel/\", body = \"{body}\" }}\n"
        )
    }),
    ("many messages, each wrong", |bytes| {
        let steps = many(bytes, |text, number| {
            let _ = write!(
                text,
                "[[step]]\nname = \"s{number}\"\nrequest = {{ method = \"PUT\", url = \"${{x}}\" }}\n"
            );
        });
        format!("{SAGA}{steps}")
    }),
    ("compensations", |bytes| {
        let more = "[[step.compensate]]\nrequest = { method = \"PUT\", url = \"http://h/x\" }\n";
        format!("{SAGA}{STEP}{}", more.repeat(bytes / more.len()))
    }),
];

/// As templates in a request.
const TEMPLATES: &[(&str, Make)] = &[
    ("text", |bytes| "a".repeat(bytes)),
    ("dollars", |bytes| "$".repeat(bytes)),
    ("open expressions", |bytes| "${".repeat(bytes / 2)),
    ("expressions", |bytes| "${trigger.json.a}".repeat(bytes / 17)),
    ("a path", |bytes| {
        format!("${{trigger.json{}}}", ".a".repeat(bytes / 2))
    }),
    ("indexes", |bytes| {
        format!("${{trigger.json{}}}", "[0]".repeat(bytes / 3))
    }),
    ("parentheses", |bytes| {
        format!("${{{}}}", nested(bytes, "(", "1", ")"))
    }),
    ("alternatives", |bytes| {
        format!("${{trigger.json.a{}}}", " ?? 1".repeat(bytes / 5))
    }),
    ("calls", |bytes| format!("${{{}}}", nested(bytes, "f(", "1", ")"))),
    ("a string without an end", |bytes| {
        format!("${{\"{}", "a".repeat(bytes))
    }),
    ("spaces", |bytes| format!("${{{}}}", " ".repeat(bytes))),
];

/// As the original's YAML.
const ORIGINALS: &[(&str, Make)] = &[
    ("documents", |bytes| "---\n".repeat(bytes / 4)),
    ("sequences in sequences", |bytes| nested(bytes, "[", "", "]")),
    ("maps in maps", |bytes| nested(bytes, "{a: ", "1", "}")),
    ("dashes", |bytes| "- ".repeat(bytes / 2)),
    ("deeper and deeper", |bytes| {
        // Indented by one more each: n lines are n²/2 bytes.
        let mut text = String::new();
        let mut depth = 0;
        while text.len() < bytes {
            let _ = writeln!(text, "{}a:", " ".repeat(depth));
            depth += 1;
        }
        text
    }),
    ("anchors of anchors", |bytes| {
        let mut text = String::from("a0: &a0 [x, x]\n");
        for number in 1.. {
            if text.len() >= bytes {
                break;
            }
            let before = number - 1;
            let _ = writeln!(text, "a{number}: &a{number} [*a{before}, *a{before}]");
        }
        text
    }),
    ("keys", |bytes| numbered(bytes, "k", ": 1\n")),
    ("a text", |bytes| format!("a: |\n{}", " a\n".repeat(bytes / 3))),
    ("a quote without an end", |bytes| {
        format!("a: \"{}", "a".repeat(bytes))
    }),
    ("no YAML", |bytes| ": : :\n".repeat(bytes / 6)),
    ("transactions", |bytes| {
        let one = "  - method: PUT\n    url: http://a/b\n";
        format!(
            "matchRequest:\n  method: POST\n  url: http://a/b\ntransactions:\n{}",
            one.repeat(bytes / one.len())
        )
    }),
];

fn pictures(found: &[Diagnostic]) {
    for finding in found {
        black_box(finding.render(false));
    }
}

fn read_file(text: &str) {
    match load_saga(text, "bench.toml") {
        Ok((plan, warned)) => {
            pictures(&warned);
            black_box(plan);
        }
        Err(found) => pictures(&found),
    }
}

fn read_template(text: &str) {
    let steps = ["hotel".to_owned()];
    let place = Place::Request(StepId(0));
    drop(black_box(Template::parse(text, &Scope { steps: &steps, place })));
}

fn read_original(text: &str) {
    let file = SourceFile {
        name: "bench.yaml".to_owned(),
        text: text.to_owned(),
    };
    match import(&Arc::new(file)) {
        Ok(sagas) => drop(black_box(sagas)),
        Err(found) => pictures(&found),
    }
}

/// The quickest of some tries.
fn quickest(mut work: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let begun = Instant::now();
        work();
        best = best.min(begun.elapsed());
        // What is far too slow isn't waited for again.
        if best > 4 * LIMIT {
            break;
        }
    }
    best
}

/// What was measured, and what of it is too much.
#[derive(Default)]
struct Table {
    bad: Vec<String>,
}

impl Table {
    fn row(&mut self, whose: &str, what: &str, mut cost: impl FnMut(usize) -> Duration) {
        let (quarter, whole) = (cost(WHOLE / 4), cost(WHOLE));
        let growth = whole.as_secs_f64() / quarter.as_secs_f64().max(1e-9);
        println!("{whose:<12}{what:<40}{whole:>12.1?}{growth:>8.1}");
        if whole >= LIMIT || (whole > NOTHING && growth > GROWTH) {
            self.bad.push(format!("{whose}, {what}"));
        }
    }
}

/// Requests, to sagas of which each asks for more than a head can tell.
fn matching(table: &mut Table) -> Result<()> {
    let text = "name = \"s\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://a/{b}/{c}\"\njson = { kind.of = \"book\" }\n\
                [[step]]\nname = \"a\"\nrequest = { method = \"GET\", url = \"http://b/\" }\n";
    let read = load_saga(text, "bench.toml").map_err(|found| anyhow::anyhow!("{found:?}"))?;
    let index = Index::new(&[Definition::new(Arc::new(read.0))?]);
    let find = |target: &str, fields: &[(&str, &[u8])], body: &[u8]| {
        let all = [("Host", "a".as_bytes())]
            .into_iter()
            .chain(fields.iter().copied());
        if let Some(head) = RequestHead::new("POST", target, all) {
            black_box(index.could_match(&head).is_some());
            black_box(index.find(&head, body).is_some());
        }
    };
    for (what, make) in [
        ("a path", (|bytes| "/b".repeat(bytes / 2)) as Make),
        ("a path's escapes", |bytes| {
            format!("/{}/c", "%41".repeat(bytes / 3))
        }),
        ("slashes", |bytes| "/".repeat(bytes)),
        ("a query", |bytes| format!("/b/c?{}", "a=b&".repeat(bytes / 4))),
    ] {
        table.row("request", what, |bytes| {
            let target = make(bytes);
            quickest(|| find(&target, &[], b"{}"))
        });
    }
    table.row("request", "headers", |bytes| {
        let names: Vec<String> = (0..bytes / 8).map(|number| format!("x-{number}")).collect();
        let fields: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), b"a".as_slice()))
            .collect();
        quickest(|| find("/b/c", &fields, b"{}"))
    });
    for (what, make) in [
        (
            "a body's arrays in arrays",
            (|bytes| nested(bytes, "[", "", "]")) as Make,
        ),
        ("a body's objects in objects", |bytes| {
            nested(bytes, "{\"kind\":", "1", "}")
        }),
        ("a body's members", |bytes| {
            format!("{{{}\"kind\":1}}", numbered(bytes, "\"k", "\":1,"))
        }),
        ("a body's members, all the same", |bytes| {
            format!("{{{}\"kind\":1}}", "\"kind\":1,".repeat(bytes / 9))
        }),
        ("a body's number", |bytes| {
            format!("{{\"kind\":{}}}", "1".repeat(bytes))
        }),
        ("a body's string", |bytes| {
            format!("{{\"kind\":\"{}\"}}", "\\u0061".repeat(bytes / 6))
        }),
    ] {
        table.row("request", what, |bytes| {
            let body = make(bytes);
            quickest(|| find("/b/c", &[], body.as_bytes()))
        });
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut table = Table::default();
    println!("{:<12}{:<40}{:>12}{:>8}", "1 MiB", "of", "takes", "×4 is");
    let readers: [Reader; 3] = [
        ("saga file", FILES, read_file),
        ("expression", TEMPLATES, read_template),
        ("original", ORIGINALS, read_original),
    ];
    for (whose, inputs, read) in readers {
        for (what, make) in inputs {
            table.row(whose, what, |bytes| {
                let text = make(bytes);
                quickest(|| read(&text))
            });
        }
    }
    matching(&mut table).context("the saga to match")?;
    ensure!(
        table.bad.is_empty(),
        "100 ms or more, or faster than the input grows:\n  {}",
        table.bad.join("\n  ")
    );
    Ok(())
}
