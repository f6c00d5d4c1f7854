//! The config room: files to a checked [`Config`] and checked [`Plan`]s, or to findings.
//!
//! A file is walked whole, so that one run names all that is wrong with it, each with its line, its column, a stable
//! code and how to mend it. Nothing here knows running state: what comes out is plain data. Errors are [`Report`]s
//! and lists of [`Diagnostic`]s, never a panic, whatever the bytes.

mod answers;
mod check;
#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod constructs_tests;
mod diagnostic;
mod expressions;
mod graph;
mod kubernetes;
mod message;
mod overlap;
mod print;
mod qbox_toml;
mod read;
mod reply;
mod retry;
mod saga_file;
#[cfg(test)]
mod saga_tests;
mod schema;
mod service;
mod step;
mod trigger;
mod units;
mod url;
mod walk;
mod warnings;

pub use answers::{Answer, load_answers};
pub use check::{check_paths, load, load_saga_file};
pub use diagnostic::{Code, Diagnostic, Related, Report, Severity, SourceFile};
pub use kubernetes::{Kubernetes, Selector, Unlisted};
pub use print::{Comment, Spot, print_saga};
pub use qbox_toml::{
    Admin, Capture, CaptureMode, Config, Explicit, Journal, Limits, Log, LogFormat, Pass, Proxy, Secrets,
    Store, Telemetry, Unknown, Upstream, WhenDown,
};

pub use read::file as read_file;
pub use schema::saga_schema;

pub(crate) use step::refused as default_refused;
pub(crate) use units::{DURATION_HELP, duration};

pub use service::{Credential, CredentialScheme, Service};

use crate::saga::{Plan, PlanHash, RetryPolicy};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::Arc;
use walk::{Sink, Table};

/// All that `qbox run` needs of its files.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// `qbox.toml`.
    pub config: Config,
    /// The sagas, by the names of their files.
    pub sagas: Vec<LoadedSaga>,
    /// Warnings.
    pub report: Report,
}

/// A saga, and where it was read.
#[derive(Clone, Debug)]
pub struct LoadedSaga {
    /// What the file says.
    pub plan: Arc<Plan>,
    /// The file's path.
    pub file: String,
}

/// Reads one saga file's text. `name` is what findings call it. The `Vec` of the good case holds warnings.
///
/// # Errors
/// All that is wrong with it, warnings too.
pub fn load_saga(text: &str, name: &str) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let file = Arc::new(SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    });
    match saga_file::saga(file) {
        (Some(saga), warnings) => Ok((saga.plan, warnings)),
        (None, findings) => Err(findings),
    }
}

/// The plan's content hash: SHA-256 of its JSON. Two plans with the same hash run alike; a saga names the hash of the
/// plan that it began under.
#[must_use]
pub fn plan_hash(plan: &Plan) -> PlanHash {
    // A plan holds no map with other keys than strings, so its JSON can always be written.
    let json = serde_json::to_vec(plan).unwrap_or_else(|_| format!("{plan:?}").into_bytes());
    PlanHash(Sha256::digest(&json).into())
}

/// The `retry` of a step that doesn't say it.
pub(crate) fn default_retry() -> RetryPolicy {
    retry::policy(retry::STEP)
}

/// The `retry` of a compensation that doesn't say it.
pub(crate) fn default_undo_retry() -> RetryPolicy {
    retry::policy(retry::COMPENSATION)
}

/// A `qbox.toml` as it was read.
struct ReadConfig {
    /// With a default for what is wrong; `None` if it isn't TOML.
    config: Option<Config>,
    /// Whether there is no error in it.
    sound: bool,
    /// The value of `sagas`, if it is there.
    sagas_span: Option<Range<usize>>,
    found: Vec<Diagnostic>,
}

fn read_config(file: Arc<SourceFile>) -> ReadConfig {
    let sink = Sink::new(file);
    let mut config = None;
    let mut sagas_span = None;
    if let Some(document) = walk::parse(&sink) {
        let root = Table::new(&sink, document.get_ref(), 0..0, "qbox.toml");
        sagas_span = root.get("sagas").map(|node| node.span);
        config = Some(qbox_toml::config(&sink, &root));
        root.finish();
    }
    ReadConfig {
        config,
        sound: !sink.has_errors(),
        sagas_span,
        found: sink.into_found(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Option<Config>, Vec<Diagnostic>) {
        let read = read_config(Arc::new(SourceFile {
            name: "qbox.toml".to_owned(),
            text: text.to_owned(),
        }));
        (read.config.filter(|_| read.sound), read.found)
    }

    #[test]
    fn the_documented_file_says_the_defaults() {
        let text = include_str!("../../../config/qbox.toml");
        let (config, findings) = parse(text);
        assert_eq!(findings, []);
        assert_eq!(config, Some(Config::default()));
        let (empty, _) = parse("");
        assert_eq!(empty, Some(Config::default()));
    }

    #[test]
    fn the_documented_file_has_every_key() {
        let text = include_str!("../../../config/qbox.toml");
        let sections = [
            "",
            "[journal]",
            "[capture]",
            "[kubernetes]",
            "[explicit]",
            "[limits]",
            "[proxy]",
            "[upstream]",
            "[upstream.breaker]",
            "[[upstream.service]]",
            "[admin]",
            "[secrets]",
            "[telemetry]",
            "[log]",
        ];
        for section in sections {
            let (_, findings) = parse(&format!("{section}\n\"?\" = 1\n"));
            let mut helps = findings.iter().map(|finding| finding.help.as_str());
            let known = helps.find_map(|help| help.strip_prefix("known here: ")).unwrap();
            for key in known.split(", ").map(|key| key.trim_matches('`')) {
                let body = text
                    .split_once(&format!("\n{section}\n"))
                    .or_else(|| text.split_once(&format!("\n# {section}\n")))
                    .map_or(text, |(_, behind)| behind);
                let body = body.split_once("\n[").map_or(body, |(body, _)| body);
                let there = body
                    .lines()
                    .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
                let below = match section.strip_suffix(']') {
                    Some(above) => format!("{above}.{key}]"),
                    None => format!("[{key}]"),
                };
                let below = [below.clone(), format!("[{below}]")];
                let a_section = below.iter().any(|below| sections.contains(&below.as_str()));
                assert!(there || a_section, "{section} {key}");
            }
        }
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let text = "grase = \"1s\"\ngrace = 5\n[admin]\nlisten = \"localhost:1\"\n[limits]\nhead = \"1MB\"\ndepth = 0\n\
                    [log]\nlevel = \"x=y=z\"\n";
        let (config, findings) = parse(text);
        assert_eq!(config, None);
        let found: Vec<_> = findings
            .iter()
            .map(|d| (d.code, d.line_column().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                (Code::UnknownKey, (1, 1)),
                (Code::WrongType, (2, 9)),
                (Code::Address, (4, 10)),
                (Code::Size, (6, 8)),
                (Code::OutOfRange, (7, 9)),
                (Code::Filter, (9, 9)),
            ]
        );
        let drawn = findings[0].render(false);
        assert!(
            drawn.contains("error[QB0005]") && drawn.contains("qbox.toml:1:1"),
            "{drawn}"
        );
        assert!(
            drawn.contains("grase = ") && drawn.contains("write `grace`"),
            "{drawn}"
        );
    }

    #[test]
    fn syntax_errors_point_at_their_place() {
        let (_, findings) = parse("a = 1 2\n");
        assert!(
            findings
                .iter()
                .all(|d| d.code == Code::Syntax && d.line_column().unwrap().0 == 1)
        );
        assert!(!findings.is_empty());
    }
}
