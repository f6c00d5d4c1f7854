//! Walking a TOML document by hand, so that one run finds every mistake of a file and knows the place of each.
//!
//! A [`Table`] remembers which keys it was asked for; [`Table::finish`] reports the others. A reader that finds
//! something wrong reports it to the [`Sink`] and gives `None`; the walk goes on with a stand-in, and the file counts
//! as loaded only if the sink has no error at the end. Knows nothing of what the keys mean.

use super::diagnostic::{Code, Diagnostic, Severity, SourceFile};
use super::units;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// After so many findings in one file the rest are dropped: the first ones are mended first.
const MOST_FINDINGS: usize = 100;
/// The most lines of a file. A saga file has some hundred.
const MOST_LINES: usize = 50_000;

/// Where findings go.
pub(super) struct Sink {
    pub(super) file: Arc<SourceFile>,
    found: RefCell<Vec<Diagnostic>>,
}

impl Sink {
    pub(super) fn new(file: Arc<SourceFile>) -> Self {
        Self {
            file,
            found: RefCell::default(),
        }
    }

    /// Whether no more findings are kept: what is made only for one needn't be.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().len() >= MOST_FINDINGS
    }

    /// Keeps a finding.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        if found.len() < MOST_FINDINGS {
            found.push(diagnostic);
        }
    }

    /// A finding of this file, to be completed and reported.
    pub(super) fn draft(&self, code: Code, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code,
            file: self.file.clone(),
            span: Some(span),
            message: message.into(),
            label: String::new(),
            help: String::new(),
            suggestion: None,
            related: Vec::new(),
        }
    }

    /// Reports what is wrong (`message`), what stands there (`label`), and how to mend it (`help`).
    pub(super) fn error(
        &self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut diagnostic = self.draft(code, span, message);
        diagnostic.label = label.into();
        diagnostic.help = help.into();
        self.report(diagnostic);
    }

    /// As [`Sink::error`], for what is legal but dangerous.
    pub(super) fn warning(
        &self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut diagnostic = self.draft(code, span, message);
        diagnostic.severity = Severity::Warning;
        diagnostic.label = label.into();
        diagnostic.help = help.into();
        self.report(diagnostic);
    }

    /// Reports a word that isn't known, with the one that was probably meant.
    pub(super) fn unknown(
        &self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        word: &str,
        known: &[&str],
        replace: impl Fn(&str) -> String,
    ) {
        if self.is_full() {
            return;
        }
        let mut diagnostic = self.draft(code, span, message);
        match nearest(word, known) {
            Some(meant) => {
                diagnostic.label = format!("did you mean `{meant}`?");
                diagnostic.help = format!("write `{meant}`");
                diagnostic.suggestion = Some(replace(meant));
            }
            None if known.is_empty() => diagnostic.help = "take it out".to_owned(),
            None => diagnostic.help = format!("known here: {}", list(known)),
        }
        self.report(diagnostic);
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|d| d.severity == Severity::Error)
    }

    /// The findings, in the order of their places.
    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|d| d.span.as_ref().map(|s| (s.start, s.end)));
        found
    }
}

/// "`a`, `b`, `c`".
pub(super) fn list(words: &[&str]) -> String {
    words
        .iter()
        .map(|w| format!("`{w}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The known word that `word` is probably a slip of.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_lowercase().replace('_', "-");
    known
        .iter()
        .map(|k| {
            (
                strsim::damerau_levenshtein(&lower, &k.to_lowercase().replace('_', "-")),
                *k,
            )
        })
        .filter(|(distance, k)| *distance <= (k.chars().count() / 3).clamp(1, 3))
        .min()
        .map(|(_, k)| k)
}

/// Parses the text, all its syntax errors at once.
pub(super) fn parse(sink: &Sink) -> Option<Spanned<DeTable<'_>>> {
    // What the library keeps of each line, or of the error in it, is many times the line.
    let mut ends = sink
        .file
        .text
        .bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'\n');
    if let Some((end, _)) = ends.nth(MOST_LINES) {
        let message = format!("`{}` has more than {MOST_LINES} lines", sink.file.name);
        let help = "one saga a file; take out what is not needed";
        sink.error(Code::TooLarge, end..end, message, "", help);
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(&sink.file.text);
    // What is not closed swallows the lines below it, each of them another error: the first one is where to look.
    let unclosed = |message: &str| {
        ["unclosed inline table", "unclosed array"]
            .iter()
            .any(|what| message.starts_with(what))
    };
    let swallowed = errors.iter().any(|error| unclosed(error.message()));
    let shown = if swallowed { 1 } else { errors.len() };
    for error in errors.iter().take(shown) {
        let span = error.span().unwrap_or(0..0);
        let help = match error.message() {
            _ if swallowed => {
                "a `{` or `[` above it is never closed: look for a `}` or `]` that is missing there"
            }
            m if m.contains("duplicate key") => "a key stands once in its table: take one of them out",
            m if m.contains("must be quoted") => "put strings between quotes: key = \"value\"",
            m if m.contains("missing comma") => "put a `,` between the two",
            _ => "see https://toml.io/en/v1.1.0 for how TOML is written",
        };
        sink.error(
            Code::Syntax,
            span,
            format!("not TOML: {}", error.message()),
            "here",
            help,
        );
    }
    errors.is_empty().then_some(document)
}

/// A table that is being read.
pub(super) struct Table<'a> {
    pub(super) sink: &'a Sink,
    /// As messages call it: `[trigger]`, `this step`.
    pub(super) what: String,
    /// The header `[trigger]`, or the inline table, or the name of a dotted key.
    pub(super) span: Range<usize>,
    entries: Vec<Node<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

/// One value, with its key (of a list's element: the list's key).
#[derive(Clone)]
pub(super) struct Node<'a> {
    sink: &'a Sink,
    pub(super) key: &'a str,
    pub(super) key_span: Range<usize>,
    pub(super) span: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        sink: &'a Sink,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        what: impl Into<String>,
    ) -> Self {
        let mut entries: Vec<Node<'a>> = table
            .iter()
            .map(|(key, value)| Node {
                sink,
                key: key.get_ref(),
                key_span: key.span(),
                span: value.span(),
                value: value.get_ref(),
            })
            .collect();
        // The library keeps tables by name; the file's order is what a JSON body and a header list are to have.
        entries.sort_by_key(|e| e.key_span.start);
        Self {
            sink,
            what: what.into(),
            span,
            entries,
            asked: RefCell::default(),
        }
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Node<'a>> {
        self.asked.borrow_mut().push(key);
        self.entries.iter().find(|e| e.key == key).cloned()
    }

    /// The value of `key`; its absence is reported, with `example` as what to write.
    pub(super) fn need(&self, key: &'static str, example: &str) -> Option<Node<'a>> {
        let found = self.get(key);
        if found.is_none() {
            let message = format!("{} has no `{key}`", self.what);
            self.sink.error(
                Code::MissingKey,
                self.span.clone(),
                message,
                "",
                format!("write `{example}`"),
            );
        }
        found
    }

    /// Every entry, in the file's order: for tables whose keys are the user's own.
    pub(super) fn entries(&self) -> &[Node<'a>] {
        &self.entries
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reports every key that was never asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        for entry in self.entries.iter().filter(|e| !asked.contains(&e.key)) {
            let message = format!("{} has no key `{}`", self.what, entry.key);
            let span = entry.key_span.clone();
            self.sink
                .unknown(Code::UnknownKey, span, message, entry.key, &asked, str::to_owned);
        }
    }
}

/// A string and where it stands.
#[derive(Clone)]
pub(super) struct Text<'a> {
    pub(super) value: &'a str,
    pub(super) span: Range<usize>,
    /// How many bytes of quotes stand before the text, where the file holds it letter by letter; `None` with escapes.
    quote: Option<usize>,
}

impl<'a> Text<'a> {
    /// A part of it, as a text of its own.
    pub(super) fn part(&self, range: Range<usize>) -> Text<'a> {
        Text {
            value: self.value.get(range.clone()).unwrap_or_default(),
            span: self.at(range),
            quote: self.quote.map(|_| 0),
        }
    }

    /// The place in the file of bytes of the value; the whole string where it has escapes.
    pub(super) fn at(&self, range: Range<usize>) -> Range<usize> {
        match self.quote {
            Some(quote) => self.span.start + quote + range.start..self.span.start + quote + range.end,
            None => self.span.clone(),
        }
    }
}

impl<'a> Node<'a> {
    /// Reports that this is not what was expected.
    pub(super) fn wrong_type(&self, expected: &str, help: impl Into<String>) {
        let message = format!(
            "`{}` must be {expected}, not {}",
            self.key,
            article(self.value.type_str())
        );
        self.sink.error(
            Code::WrongType,
            self.span.clone(),
            message,
            format!("expected {expected}"),
            help,
        );
    }

    /// A string.
    pub(super) fn text(&self) -> Option<Text<'a>> {
        let DeValue::String(value) = self.value else {
            let help = match self.value {
                DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => "put it between quotes",
                _ => "write a string: \"…\"",
            };
            self.wrong_type("a string", help);
            return None;
        };
        let raw = self.sink.file.text.get(self.span.clone()).unwrap_or_default();
        let quote = [("\"\"\"", 3), ("'''", 3), ("\"", 1), ("'", 1)]
            .into_iter()
            .find_map(|(quote, len)| {
                let inner = raw.strip_prefix(quote)?.strip_suffix(quote)?;
                // TOML: a newline right after the opening quotes of a multi-line string is not part of it.
                let trimmed = if len == 3 {
                    inner.strip_prefix("\r\n").or(inner.strip_prefix('\n'))
                } else {
                    None
                };
                let body = trimmed.unwrap_or(inner);
                (body == value.as_ref()).then_some(len + inner.len() - body.len())
            });
        Some(Text {
            value,
            span: self.span.clone(),
            quote,
        })
    }

    /// A string that isn't empty.
    pub(super) fn filled(&self) -> Option<Text<'a>> {
        let text = self.text()?;
        if text.value.is_empty() {
            let message = format!("`{}` is empty", self.key);
            self.sink.error(
                Code::Empty,
                text.span,
                message,
                "",
                "write something, or take the key out",
            );
            return None;
        }
        Some(text)
    }

    /// An integer from `low` to `high`.
    pub(super) fn integer(&self, low: i64, high: i64) -> Option<i64> {
        let DeValue::Integer(number) = self.value else {
            self.wrong_type(
                "an integer",
                format!("write a whole number from {low} to {high}, without quotes"),
            );
            return None;
        };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if (low..=high).contains(&value) => Some(value),
            _ => {
                let message = format!("`{}` is out of bounds", self.key);
                let help = format!("write a number from {low} to {high}");
                self.sink
                    .error(Code::OutOfRange, self.span.clone(), message, "", help);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        if let DeValue::Boolean(value) = self.value {
            return Some(*value);
        }
        self.wrong_type("a boolean", "write `true` or `false`, without quotes");
        None
    }

    /// A table, called `what` in messages.
    pub(super) fn table(&self, what: impl Into<String>) -> Option<Table<'a>> {
        if let DeValue::Table(table) = self.value {
            return Some(Table::new(self.sink, table, self.span.clone(), what));
        }
        self.wrong_type(
            "a table",
            format!("write `{} = {{ … }}`, or a `[{}]` section", self.key, self.key),
        );
        None
    }

    /// A list's elements.
    pub(super) fn list(&self, example: &str) -> Option<Vec<Node<'a>>> {
        if let DeValue::Array(array) = self.value {
            return Some(
                array
                    .iter()
                    .map(|element| Node {
                        span: element.span(),
                        value: element.get_ref(),
                        ..self.clone()
                    })
                    .collect(),
            );
        }
        self.wrong_type("a list", format!("write `{example}`"));
        None
    }

    /// A duration between `low` and [`units::LONGEST`].
    pub(super) fn duration(&self, low: Duration) -> Option<Duration> {
        if !matches!(self.value, DeValue::String(_)) {
            self.wrong_type("a duration", units::DURATION_HELP);
            return None;
        }
        let text = self.text()?;
        let message = format!("`{}` is not a duration that `{}` can have", text.value, self.key);
        match units::duration(text.value) {
            Ok(span) if span >= low => Some(span),
            Ok(_) => {
                let help = format!("write at least {}ms", low.as_millis());
                self.sink
                    .error(Code::Duration, text.span, message, "it is too short", help);
                None
            }
            Err(why) => {
                self.sink
                    .error(Code::Duration, text.span, message, why, units::DURATION_HELP);
                None
            }
        }
    }

    /// A size in bytes between `low` and `high`.
    pub(super) fn size(&self, low: u64, high: u64) -> Option<u64> {
        if !matches!(self.value, DeValue::String(_)) {
            self.wrong_type("a size", units::SIZE_HELP);
            return None;
        }
        let text = self.text()?;
        let message = format!("`{}` is not a size that `{}` can have", text.value, self.key);
        match units::size(text.value) {
            Ok(bytes) if (low..=high).contains(&bytes) => Some(bytes),
            Ok(_) => {
                let help = format!("write a size from {low} to {high} bytes");
                self.sink
                    .error(Code::Size, text.span, message, "it is out of bounds", help);
                None
            }
            Err(why) => {
                self.sink
                    .error(Code::Size, text.span, message, why, units::SIZE_HELP);
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{}` can't be `{}`", self.key, text.value);
        self.sink
            .unknown(Code::Choice, text.span, message, text.value, &known, |w| {
                format!("\"{w}\"")
            });
        None
    }
}

fn article(kind: &str) -> String {
    match kind {
        "integer" | "array" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}
