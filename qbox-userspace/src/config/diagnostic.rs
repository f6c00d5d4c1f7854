//! What `qbox check` says of a file: a code, a place, what is wrong and how to mend it, drawn as rustc draws it.
//!
//! Knows nothing of TOML or of sagas. Rendering never fails: a place that lies outside its file is moved inside it.

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet, normalize_untrusted_str};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As the user named it: `config/sagas/book-trip.toml`.
    pub name: String,
    /// Its text; empty where it can't be read as text.
    pub text: String,
}

impl SourceFile {
    /// The line and the column (in characters) of a byte, both from 1. The end of a file is at the end of its last line, not
    /// on one of its own.
    #[must_use]
    pub fn line_column(&self, at: usize) -> (usize, usize) {
        let at = floor(&self.text, at);
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

/// The nearest character boundary at or before `at`; before the last line's end, where that is the end of the text.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    if at == text.len() {
        let last = text.strip_suffix('\n').unwrap_or(text);
        at = last.strip_suffix('\r').unwrap_or(last).len();
    }
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether a file with this finding can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It can; but look.
    Warning,
    /// It can't.
    Error,
}

/// What is wrong, by a number that stays the same over versions. Written `QB0005`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Code {
    /// The file or directory can't be read.
    Unreadable = 1,
    /// The file is larger than 1 MiB.
    TooLarge = 2,
    /// The file is not UTF-8.
    NotUtf8 = 3,
    /// The file is not TOML 1.1.
    Syntax = 4,
    /// A key that means nothing here.
    UnknownKey = 5,
    /// A key that must be there.
    MissingKey = 6,
    /// A value of another type.
    WrongType = 7,
    /// Not a duration.
    Duration = 8,
    /// Not a size.
    Size = 9,
    /// A number outside its bounds, or one too many of something.
    OutOfRange = 10,
    /// Not one of the words that are allowed.
    Choice = 11,
    /// Empty, and must not be.
    Empty = 12,
    /// Not a name.
    Name = 13,
    /// Not an IP address and port.
    Address = 14,
    /// Keys that exclude one another.
    Conflict = 15,
    /// A log filter that can't be read.
    Filter = 16,
    /// An admin API that other machines may reach, without a token.
    OpenAdmin = 17,
    /// A file of keys that can't be used.
    KeyFile = 19,
    /// Not a URL that can be used.
    Url = 20,
    /// A trigger that asks for https.
    HttpsTrigger = 21,
    /// An expression where none may stand.
    ExpressionPlace = 22,
    /// Not a method.
    Method = 23,
    /// Not a header's name.
    HeaderName = 24,
    /// Not a header's value.
    HeaderValue = 25,
    /// A header that Qbox itself writes.
    ReservedHeader = 26,
    /// A file of a service's certificates or credentials that can't be read.
    ServiceFile = 28,
    /// Not a status.
    Status = 30,
    /// Not a cause to retry.
    RetryOn = 31,
    /// Not a range of waits.
    Backoff = 32,
    /// Two steps of one name.
    DuplicateStep = 40,
    /// A step that isn't there.
    UnknownStep = 41,
    /// Steps that wait for one another.
    Cycle = 42,
    /// `order = "sequential"` with `after`.
    SequentialAfter = 43,
    /// A second pivot.
    TwoPivots = 44,
    /// A retriable step that isn't after the pivot.
    RetriableBeforePivot = 45,
    /// A step that is never undone has a compensation.
    NeverUndone = 46,
    /// An expression that isn't well formed, or that names what doesn't exist.
    Expression = 50,
    /// An expression whose value could not be there in time.
    ExpressionOrder = 53,
    /// A compensation or probe that needs a response which can be lost.
    LostResponse = 54,
    /// An expression that names a capture, which the trigger's URL doesn't have.
    UnknownCapture = 55,
    /// A dotted path or pointer that isn't one.
    FieldPath = 56,
    /// Not a label selector.
    Selector = 57,
    /// Two sagas of one name.
    DuplicateSaga = 60,
    /// Two sagas that one request can start.
    Overlap = 61,
    /// Not YAML (qbox import).
    NotYaml = 70,
    /// Not a configuration of the original Qbox (qbox import).
    NotOriginal = 71,
    /// What a saga file can't say (qbox import).
    Unsayable = 72,
    /// Warning: a step is left done when the saga fails.
    NothingUndone = 90,
    /// Warning: a request that may be applied twice.
    UnsafeRetry = 91,
    /// Warning: a time limit that another one makes useless.
    Timeouts = 92,
    /// Warning: what may fail after the pivot can be neither undone nor passed.
    AfterPivot = 93,
    /// Warning: written, but without effect.
    NoEffect = 94,
    /// Warning: a value that isn't there when its step is skipped.
    MaybeSkipped = 95,
    /// Warning: a secret that a saga needs after a restart, and that the restart takes away.
    SecretLost = 96,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QB{:04}", *self as u16)
    }
}

/// A place in another file (or elsewhere in the same one) that belongs to a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub file: Arc<SourceFile>,
    /// Bytes of `file`.
    pub span: Range<usize>,
    /// Why it belongs here.
    pub label: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// Which.
    pub code: Code,
    /// Where.
    pub file: Arc<SourceFile>,
    /// Bytes of `file`; `None` for the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong, in one line.
    pub message: String,
    /// What stands at the place, beside the underline; may be empty.
    pub label: String,
    /// How to mend it; may be empty.
    pub help: String,
    /// What to write instead of the bytes of `span`, where that is known.
    pub suggestion: Option<String>,
    /// Other places.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// The line and column where it begins, from 1; `None` for the file as a whole.
    #[must_use]
    pub fn line_column(&self) -> Option<(usize, usize)> {
        self.span.as_ref().map(|span| self.file.line_column(span.start))
    }

    /// Draws it as rustc does; with `color`, in ANSI colours.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level
            .primary_title(normalize_untrusted_str(&self.message))
            .id(self.code.to_string());
        let (own, others): (Vec<_>, Vec<_>) = self.related.iter().partition(|r| r.file == self.file);
        let window = Window::of(
            &self.file,
            own.iter().map(|related| &related.span).chain(&self.span),
        );
        let drawn = window.lines.len() <= LARGEST_PICTURE;
        let mut group = match &self.span {
            Some(_) if !drawn => title.elements(self.in_words()),
            Some(span) => {
                let mut here = AnnotationKind::Primary.span(window.inside(span));
                if !self.label.is_empty() {
                    here = here.label(normalize_untrusted_str(&self.label));
                }
                let mut snippet = window.snippet().annotation(here);
                for related in own {
                    snippet = snippet.annotation(window.context(related));
                }
                let mut group = title.element(snippet);
                for related in others {
                    let window = Window::of(&related.file, [&related.span]);
                    group = group.element(window.snippet().annotation(window.context(related)));
                }
                group
            }
            None => title.element(annotate_snippets::Origin::path(self.file.name.as_str())),
        };
        if !self.help.is_empty() && (self.suggestion.is_none() || !drawn) {
            group = group.element(Level::HELP.message(normalize_untrusted_str(&self.help)));
        }
        let mut groups = vec![group];
        if let (Some(text), Some(span)) = (&self.suggestion, &self.span)
            && drawn
        {
            let title = Level::HELP.secondary_title(normalize_untrusted_str(&self.help));
            let patch = Patch::new(window.inside(span), text.as_str());
            groups.push(Group::with_title(title).element(window.snippet().patch(patch)));
        }
        renderer.render(&groups)
    }

    /// The places, where a picture of them would be of a line that nobody reads.
    fn in_words(&self) -> Vec<annotate_snippets::Element<'_>> {
        let (line, column) = self.line_column().unwrap_or((1, 1));
        let origin = annotate_snippets::Origin::path(self.file.name.as_str());
        let mut words = vec![origin.line(line).char_column(column).into()];
        if !self.label.is_empty() {
            words.push(Level::NOTE.message(normalize_untrusted_str(&self.label)).into());
        }
        for related in &self.related {
            let (line, column) = related.file.line_column(related.span.start);
            let label = normalize_untrusted_str(&related.label);
            let text = format!("{}:{line}:{column}: {label}", related.file.name);
            words.push(Level::NOTE.message(text).into());
        }
        words
    }

    /// For machines: `code`, `severity`, `file`, `line`, `column`, `message`, `label`, `help`, `suggestion`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let (line, column) = self
            .line_column()
            .map_or((None, None), |(l, c)| (Some(l), Some(c)));
        serde_json::json!({
            "code": self.code.to_string(),
            "severity": if self.severity == Severity::Error { "error" } else { "warning" },
            "file": self.file.name,
            "line": line,
            "column": column,
            "message": self.message,
            "label": self.label,
            "help": self.help,
            "suggestion": self.suggestion,
        })
    }
}

/// A picture is of so many bytes of a file at most.
const LARGEST_PICTURE: usize = 64 << 10;

/// The lines of a file that a picture is of: the renderer goes through all that it is given, for each finding anew.
struct Window<'a> {
    file: &'a SourceFile,
    /// Whole lines.
    lines: Range<usize>,
}

impl<'a> Window<'a> {
    /// From the first line of all these places to the last.
    fn of<'s>(file: &'a SourceFile, spans: impl IntoIterator<Item = &'s Range<usize>>) -> Self {
        let text = file.text.as_str();
        let mut places = spans.into_iter().map(|span| inside(text, span));
        let first = places.next().unwrap_or(0..0);
        let all = places.fold(first, |all, next| {
            all.start.min(next.start)..all.end.max(next.end)
        });
        let before = text.get(..all.start).unwrap_or_default();
        let after = text.get(all.end..).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = after.find('\n').map_or(text.len(), |at| all.end + at + 1);
        Self {
            file,
            lines: start..end,
        }
    }

    /// That place, counted from the window's beginning.
    fn inside(&self, span: &Range<usize>) -> Range<usize> {
        let place = inside(&self.file.text, span);
        let from = self.lines.start;
        place.start.saturating_sub(from)..place.end.saturating_sub(from)
    }

    fn snippet<T: Clone>(&self) -> Snippet<'a, T> {
        let text = self.file.text.as_str();
        let before = text.get(..self.lines.start).unwrap_or_default();
        let above = before.bytes().filter(|byte| *byte == b'\n').count();
        Snippet::source(text.get(self.lines.clone()).unwrap_or_default())
            .path(self.file.name.as_str())
            .line_start(above + 1)
    }

    fn context<'r>(&self, related: &'r Related) -> annotate_snippets::Annotation<'r> {
        AnnotationKind::Context
            .span(self.inside(&related.span))
            .label(normalize_untrusted_str(&related.label))
    }
}

/// A span that the renderer takes: within the text, on character boundaries.
fn inside(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor(text, span.start);
    start..floor(text, span.end).max(start)
}

/// All that was found in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings: by file, then by place.
    pub diagnostics: Vec<Diagnostic>,
    /// How many files were looked at.
    pub files: usize,
    /// How many sagas are fit to run.
    pub sagas: usize,
}

impl Report {
    /// Whether anything must be mended before Qbox would start.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many findings of that severity there are.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|d| d.severity == severity).count()
    }

    /// Every finding, an empty line after each, and a line that counts them.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&diagnostic.render(color));
            out.push_str("\n\n");
        }
        let errors = self.count(Severity::Error);
        let warnings = self.count(Severity::Warning);
        let files = plural(self.files, "file");
        let found = match (errors, warnings) {
            (0, 0) => format!(
                "{files} checked, nothing to mend; {} fit to run",
                plural(self.sagas, "saga")
            ),
            (0, w) => format!("{files} checked: {}", plural(w, "warning")),
            (e, 0) => format!("{files} checked: {}", plural(e, "error")),
            (e, w) => format!(
                "{files} checked: {}, {}",
                plural(e, "error"),
                plural(w, "warning")
            ),
        };
        out.push_str(&found);
        out.push('\n');
        out
    }

    /// For machines: `files`, `errors`, `warnings`, `diagnostics`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "files": self.files,
            "sagas": self.sagas,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "diagnostics": self.diagnostics.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        })
    }
}

/// `1 file`, `2 files`.
fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes of [`Code`], from its own text: an enum can't list itself.
    fn codes() -> Vec<String> {
        let source = include_str!("diagnostic.rs");
        let (_, body) = source.split_once("pub enum Code {").unwrap();
        let (body, _) = body.split_once("\n}\n").unwrap();
        let variants = body.lines().filter(|line| !line.trim_start().starts_with("///"));
        let numbers = variants.filter_map(|line| line.split_once(" = "));
        numbers
            .map(|(_, number)| format!("QB{:0>4}", number.trim_end_matches(',')))
            .collect()
    }

    #[test]
    fn every_code_is_explained_and_nothing_else_is() {
        let page = include_str!("../../../docs/errors.md");
        let headings = page.lines().filter_map(|line| line.strip_prefix("### "));
        let explained: Vec<String> = headings
            .map(|heading| heading.split(':').next().unwrap().to_owned())
            .collect();
        assert!(codes().len() > 40);
        assert_eq!(explained, codes());
    }

    #[test]
    fn a_place_outside_of_its_file_is_moved_inside_it() {
        let file = Arc::new(SourceFile {
            name: "a.toml".to_owned(),
            text: "é = 1".to_owned(),
        });
        assert_eq!(file.line_column(1), (1, 1));
        assert_eq!(file.line_column(99), (1, 6));
        let finding = Diagnostic {
            severity: Severity::Error,
            code: Code::Syntax,
            file,
            span: Some(1..99),
            message: "m".to_owned(),
            label: String::new(),
            help: "h".to_owned(),
            suggestion: None,
            related: Vec::new(),
        };
        assert!(finding.render(false).contains("a.toml:1:1"));
    }
}
