//! The rooms of qbox-userspace: who may name whom (design.md's arrows), and what the pure saga room may not name at all.

use super::Finding;
use super::source::{Named, Token, paths};
use std::path::{Component, Path};

/// Each room and those it may use, all of them, also those that it reaches through another. `app` knows every room.
const ARROWS: [(&str, &[&str]); 13] = [
    ("main", &["app", "cli"]),
    ("app", &[]), // everything; see `may_use`
    ("cli", &["app", "admin", "config", "saga"]),
    ("admin", &["runner", "journal", "saga", "config"]),
    (
        "gateway",
        &[
            "proxy", "runner", "journal", "saga", "upstream", "netns", "config",
        ],
    ),
    ("runner", &["journal", "saga", "upstream", "netns", "config"]),
    ("journal", &["saga", "config"]),
    ("proxy", &["intercept", "upstream", "netns", "config"]),
    ("intercept", &["netns", "config"]),
    ("upstream", &["netns", "config"]),
    ("config", &["saga"]),
    ("saga", &[]),
    ("netns", &[]),
];

/// Paths that the saga room may not name: a clock, I/O, threads, an async runtime, randomness. A path is refused when
/// it begins with one of these.
const IMPURE: [&str; 20] = [
    "tokio",
    "hyper",
    "hyper_util",
    "axum",
    "rustix",
    "socket2",
    "aya",
    "rand",
    "getrandom",
    "futures",
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

#[cfg(test)]
mod tests {
    use super::super::source::tokens;
    use super::check;
    use std::path::Path;

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
            "use serde::{Deserialize, Serialize};",
        ] {
            assert_eq!(findings("saga/machine.rs", text), [0; 0], "{text}");
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
