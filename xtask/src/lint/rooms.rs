//! The rooms of qbox-userspace: who may name whom (design.md's arrows), and what the pure saga room may not name at all.

use super::Finding;
use super::source::{Named, Token, paths};
use std::path::{Component, Path};

/// Each room and those it may use, all of them, also those that it reaches through another. `app` knows every room.
const ARROWS: [(&str, &[&str]); 25] = [
    ("main", &["app", "cli", "allocations"]),
    ("app", &[]), // everything; see `may_use`
    ("cli", &["app", "admin", "plan", "import", "config", "saga"]),
    (
        "admin",
        &[
            "runner",
            "observe",
            "telemetry",
            "plan",
            "journal",
            "saga",
            "config",
            "durations",
            "allocations",
        ],
    ),
    (
        "gateway",
        &[
            "proxy", "runner", "observe", "plan", "journal", "saga", "upstream", "netns", "config",
        ],
    ),
    (
        "runner",
        &[
            "journal",
            "saga",
            "upstream",
            "telemetry",
            "keys",
            "netns",
            "config",
            "durations",
        ],
    ),
    ("telemetry", &["upstream", "netns", "config"]),
    ("journal", &["saga", "config", "durations", "workers"]),
    (
        "proxy",
        &["intercept", "upstream", "outbox", "netns", "config", "durations"],
    ),
    ("intercept", &["netns", "config", "causes"]),
    // It says what interception asks: its policy.
    ("kubernetes", &["intercept", "netns", "config", "causes"]),
    ("upstream", &["netns", "config", "workers", "outbox"]),
    ("observe", &["plan", "config", "saga"]),
    ("plan", &["config", "saga"]),
    ("import", &["config", "saga", "plan"]),
    ("config", &["saga", "keys"]),
    ("saga", &[]),
    ("keys", &[]),
    ("netns", &[]),
    ("durations", &[]),
    ("causes", &[]),
    ("allocations", &[]),
    ("workers", &["outbox"]),
    ("outbox", &[]),
    // Tests alone.
    ("sim", &["saga", "config", "journal"]),
];

/// Paths that the saga room may not name: a clock, I/O, threads, an async runtime, randomness. A path is refused when
/// it begins with one of these. A test sees to it that every crate that
/// qbox-userspace depends on is here, but for those that are data, text and numbers.
const IMPURE: &[&str] = &[
    "annotate_snippets",
    "anyhow",
    "arc_swap",
    "aya",
    "aya_log",
    "axum",
    "chacha20poly1305",
    "clap",
    "clap_complete",
    "clap_mangen",
    "criterion",
    "flate2",
    "foldhash",
    "futures",
    "getrandom",
    "h2",
    "http",
    "http_body_util",
    "httpdate",
    "crc32fast",
    "futures_util",
    "hyper",
    "hyper_util",
    "io_uring",
    "k8s_openapi",
    "kube",
    "libc",
    "libmimalloc_sys",
    "memchr",
    "mio",
    "opentelemetry_proto",
    "postcard",
    "prometheus_client",
    "prost",
    "qbox_common",
    "rand",
    "rcgen",
    "rmp_serde",
    "rusqlite",
    "rustix",
    "saphyr_parser",
    "rustls",
    "rustls_native_certs",
    "sha2",
    "socket2",
    "tempfile",
    "tokio",
    "tokio_rustls",
    "toml",
    "tracing",
    "tracing_subscriber",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::fs",
    "std::io",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
];

/// Names that are a clock or randomness wherever they come from (`uuid` has both).
const IMPURE_NAMES: [&str; 5] = ["now_v7", "now_v6", "now_v1", "new_v4", "SystemTime"];

/// Addresses are data, not I/O.
const ADDRESSES: [&str; 7] = [
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "AddrParseError",
];

/// All findings of one file; `path` is relative to qbox-userspace/src.
pub(super) fn check(path: &Path, tokens: &[Token]) -> Vec<Finding> {
    let Some(place) = Place::of(path) else {
        return Vec::new();
    };
    let named = paths(tokens);
    let mut findings = Vec::new();
    for path in &named {
        if let Some(room) = place.room_of(path)
            && !may_use(&place.room, room)
        {
            let what = format!(
                "`{}` may not use `{room}`: the arrows of the rooms run one way",
                place.room
            );
            findings.push(Finding {
                line: path.line,
                what,
            });
        }
    }
    if place.room == "saga" {
        findings.extend(impure(tokens, &named));
    }
    findings
}

fn may_use(from: &str, to: &str) -> bool {
    from == to || from == "app" || from == "lib" || arrows(from).is_some_and(|rooms| rooms.contains(&to))
}

fn arrows(room: &str) -> Option<&'static [&'static str]> {
    ARROWS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, rooms)| *rooms)
}

/// Where a file stands in the module tree.
struct Place {
    room: String,
    /// How many `super` lead to the crate's root.
    depth: usize,
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let mut words: Vec<String> = path
            .with_extension("")
            .components()
            .filter_map(|part| match part {
                Component::Normal(word) => Some(word.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect();
        if words.len() > 1 && words.last().is_some_and(|word| word == "mod") {
            words.pop();
        }
        let room = words.first()?.clone();
        Some(Self {
            room,
            depth: words.len(),
        })
    }

    /// The room that a path leads to, if it goes through the crate's root.
    fn room_of<'a>(&self, path: &'a Named) -> Option<&'a str> {
        let climbs = path.words.iter().take_while(|word| *word == "super").count();
        let at = match path.words.first()?.as_str() {
            "crate" => 1,
            // The binary names the library.
            "qbox" if self.room == "main" => 1,
            "super" if climbs >= self.depth => climbs,
            _ => return None,
        };
        let room = path.words.get(at)?.as_str();
        arrows(room).map(|_| room)
    }
}

fn impure(tokens: &[Token], named: &[Named]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in named {
        let whole = path.words.join("::").replacen("core::", "std::", 1);
        let address = whole.starts_with("std::net::")
            && path
                .words
                .get(2)
                .is_some_and(|word| ADDRESSES.contains(&word.as_str()));
        let refused = IMPURE.iter().any(|start| {
            whole
                .strip_prefix(start)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        // `use std::time::{self}` or `std::time::*` would let a clock in under another name.
        let whole_module = ["std::time::self", "std::time::*", "std::*", "std::self"]
            .contains(&whole.as_str())
            || whole == "std::time";
        if (refused && !address) || whole_module {
            let what = format!("the saga room is pure: no clock, I/O, threads or randomness (`{whole}`)");
            findings.push(Finding {
                line: path.line,
                what,
            });
        }
    }
    for (at, token) in tokens.iter().enumerate() {
        let word = token.text.as_str();
        // `use tokio;`, `use std as s;`, `extern crate tokio;` let a whole crate in, under any name.
        let next = tokens.get(at + 1).map(|token| token.text.as_str());
        let whole = matches!(next, Some(";" | "as" | "," | "}"));
        let brought = tokens
            .get(..at)
            .and_then(<[Token]>::last)
            .is_some_and(|token| matches!(token.text.as_str(), "use" | "crate" | "::" | "{" | ","));
        let renamed_std = matches!(word, "std" | "core") && next == Some("as");
        if whole && brought && (IMPURE.contains(&word) && in_use(tokens, at) || renamed_std) {
            let what = format!("the saga room is pure: `{word}` is not for it");
            findings.push(Finding {
                line: token.line,
                what,
            });
        }
        let before = at
            .checked_sub(1)
            .and_then(|at| tokens.get(at))
            .map(|token| token.text.as_str());
        let asynchronous = word == "async" || (word == "await" && before == Some("."));
        if asynchronous || IMPURE_NAMES.contains(&word) {
            let what = format!("the saga room is pure: no async code, no clock, no randomness (`{word}`)");
            if !findings.iter().any(|finding| finding.line == token.line) {
                findings.push(Finding {
                    line: token.line,
                    what,
                });
            }
        }
    }
    findings
}

/// Whether the statement that the token stands in is a `use` or an `extern crate`.
fn in_use(tokens: &[Token], at: usize) -> bool {
    let before = tokens.get(..at).unwrap_or_default();
    let mut statement = before.iter().rev().take_while(|token| token.text != ";");
    statement.any(|token| matches!(token.text.as_str(), "use" | "extern"))
}

#[cfg(test)]
mod tests {
    use super::super::source::tokens;
    use super::{IMPURE, check};
    use std::path::Path;

    /// The crates that the saga room may name: data, text and numbers.
    const PURE_CRATES: [&str; 12] = [
        "aho_corasick",
        "base64",
        "bytes",
        "httparse",
        "percent_encoding",
        "proptest",
        "serde",
        "serde_json",
        "smol_str",
        "strsim",
        "thiserror",
        "uuid",
    ];

    fn findings(path: &str, text: &str) -> Vec<usize> {
        check(Path::new(path), &tokens(text))
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn the_saga_room_is_kept_pure() {
        for text in [
            "use tokio::time::sleep;",
            "use tokio;",
            "use tokio as t;",
            "use ::tokio::spawn;",
            "extern crate tokio;",
            "use std as s;",
            "use std::time as t;",
            "use std::{time as t};",
            "use tracing::info;",
            "#[tokio::test] fn f() {}",
            "fn f() { tokio::spawn(x); }",
            "use hyper::Request;",
            "use std::time::{Duration, Instant};",
            "use std::time::SystemTime;",
            "use std::{fmt, time::Instant};",
            "use std::time;",
            "use std::time::{self, Duration};",
            "use std::time::*;",
            "use std::fs;",
            "use std::io::Read;",
            "use std::net::TcpStream;",
            "use std::net::{IpAddr, UdpSocket};",
            "use std::thread;",
            "fn f() { std::thread::spawn(g); }",
            "async fn f() {}",
            "fn f() { x.await; }",
            "use rand::Rng;",
            "fn f() { rand::random() }",
            "fn f() { uuid::Uuid::now_v7() }",
        ] {
            assert_eq!(findings("saga/machine.rs", text), [1], "{text}");
            assert_eq!(findings("saga/deep/er.rs", text), [1], "{text}");
            assert_eq!(findings("runner.rs", text), [0; 0], "{text}");
        }
        for text in [
            "use std::time::Duration;",
            "use std::net::{IpAddr, SocketAddr};",
            "// tokio::spawn, async, .await",
            "let tokio = \"std::fs\";",
            "use super::operand::rand_like;",
            "fn f(rand: u8, http: u8) -> u8 { g(rand, http) }",
            "use super::{bytes, http_like};",
            "use serde::{Deserialize, Serialize};",
        ] {
            assert_eq!(findings("saga/machine.rs", text), [0; 0], "{text}");
        }
    }

    #[test]
    fn every_dependency_is_known_to_be_pure_or_not() {
        let manifest = include_str!("../../../qbox-userspace/Cargo.toml");
        let mut sections = manifest.split("\n[");
        let listed = sections.by_ref().filter(|section| {
            section.starts_with("dependencies]") || section.starts_with("dev-dependencies]")
        });
        let names: Vec<String> = listed
            .flat_map(|section| section.lines().skip(1))
            .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
            .collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let name = name.as_str();
            assert!(IMPURE.contains(&name) != PURE_CRATES.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_arrows_run_one_way() {
        for (path, text) in [
            ("saga/plan.rs", "use crate::runner::Runner;"),
            ("saga/mod.rs", "use super::runner;"),
            ("saga/plan.rs", "use super::super::journal::Store;"),
            ("proxy/http.rs", "use crate::saga::Plan;"),
            ("proxy/http.rs", "use crate::{netns::NetNs, gateway};"),
            ("runner/mod.rs", "use crate::proxy::Head;"),
            ("journal.rs", "fn f() -> crate::runner::X {}"),
            ("upstream/dial.rs", "use crate::intercept;"),
            ("netns.rs", "use crate::upstream::dial;"),
            ("main.rs", "use qbox::runner::Runner;"),
        ] {
            assert_eq!(findings(path, text), [1], "{path}: {text}");
        }
        for (path, text) in [
            ("saga/plan.rs", "use super::id::StepId;"),
            ("saga/plan.rs", "use crate::saga::id::StepId;"),
            ("proxy/relay/mod.rs", "use super::super::upstream;"),
            ("proxy/relay/mod.rs", "use crate::{netns::NetNs, upstream::Via};"),
            (
                "gateway.rs",
                "use crate::{proxy::Handler, runner::Runner, saga::Plan};",
            ),
            ("app.rs", "use crate::{intercept, saga, runner};"),
            ("lib.rs", "pub use crate::saga::Plan;"),
            ("main.rs", "fn main() { qbox::app::main() }"),
            ("proxy/mod.rs", "mod tests { use super::handler; }"),
        ] {
            assert_eq!(findings(path, text), [0; 0], "{path}: {text}");
        }
    }
}
