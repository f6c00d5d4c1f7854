//! `[kubernetes]` of `qbox.toml`: which pods of the node are captured, as their labels and namespaces say; and label selectors as
//! Kubernetes writes them ("Labels and Selectors", Equality- and Set-based requirements). Asks no API.

use super::diagnostic::Code;
use super::qbox_toml::is_base;
use super::walk::{Node, Sink, Table};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// `[kubernetes]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// The pods that are captured, by their labels. `None`: the API is not asked, and all of the node's are.
    pub enroll: Option<Selector>,
    /// Only pods of these namespaces; empty: of any.
    pub namespaces: Vec<String>,
    /// Only pods of namespaces with such labels.
    pub namespace_selector: Option<Selector>,
    /// `unlisted`.
    pub unlisted: Unlisted,
    /// The node's name; `None`: `$NODE_NAME`.
    pub node: Option<String>,
    /// The API's URL, without a slash at the end; `None`: as the environment of a pod tells.
    pub server: Option<String>,
    /// The authorities that vouch for it: PEM.
    pub ca_file: PathBuf,
    /// The token that Qbox shows it; read again when it changes.
    pub token_file: PathBuf,
}

/// `kubernetes.unlisted`: what becomes of a pod of which the API has told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// It waits: `capture.unknown` holds for its connections.
    Wait,
    /// It is captured.
    Capture,
}

impl Default for Kubernetes {
    fn default() -> Self {
        // Where kubelet mounts a pod's service account.
        let account = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            enroll: None,
            namespaces: Vec::new(),
            namespace_selector: None,
            unlisted: Unlisted::Wait,
            node: None,
            server: None,
            ca_file: account.join("ca.crt"),
            token_file: account.join("token"),
        }
    }
}

/// The table; paths begin at `folder`. Mistakes go to the sink.
pub(super) fn kubernetes(sink: &Sink, table: &Table<'_>, folder: &Path) -> Kubernetes {
    let mut found = Kubernetes::default();
    let enroll = table.get("enroll");
    if let Some(node) = &enroll {
        found.enroll = selector(sink, node);
    }
    let others = [table.get("namespaces"), table.get("namespace_selector")];
    if let (None, Some(other)) = (&enroll, others.iter().flatten().next()) {
        let message = format!("`{}` says nothing without `enroll`", other.key);
        let help = "write `enroll = \"*\"` beside it, for all pods there, or a label selector";
        sink.error(Code::MissingKey, other.key_span.clone(), message, "", help);
    }
    let [namespaces, namespace_selector] = others;
    if let Some(node) = namespaces {
        found.namespaces = namespace_names(sink, &node);
    }
    if let Some(node) = namespace_selector {
        found.namespace_selector = selector(sink, &node);
    }
    let ways = [("wait", Unlisted::Wait), ("capture", Unlisted::Capture)];
    if let Some(way) = table.get("unlisted").and_then(|node| node.choice(&ways)) {
        found.unlisted = way;
    }
    if let Some(text) = table.get("node").as_ref().and_then(Node::filled) {
        found.node = Some(text.value.to_owned());
    }
    if let Some(node) = table.get("server") {
        found.server = server(sink, &node);
    }
    for (key, place) in [
        ("ca_file", &mut found.ca_file),
        ("token_file", &mut found.token_file),
    ] {
        if let Some(text) = table.get(key).as_ref().and_then(Node::filled) {
            *place = folder.join(text.value);
        }
    }
    found
}

fn selector(sink: &Sink, node: &Node<'_>) -> Option<Selector> {
    let text = node.filled()?;
    match Selector::parse(text.value) {
        Ok(selector) => Some(selector),
        Err(why) => {
            let message = format!("`{}` is not a label selector", text.value);
            let help = "write requirements with commas in between: \"a=b\", \"a!=b\", \"a in (b, c)\", \"a notin (b)\", \
                        \"a\", \"!a\"; or \"*\" for all";
            sink.error(Code::Selector, text.span, message, why, help);
            None
        }
    }
}

fn namespace_names(sink: &Sink, node: &Node<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for node in node.list("[\"shop\", \"travel\"]").unwrap_or_default() {
        let Some(text) = node.filled() else { continue };
        if !is_dns_label(text.value) {
            let message = format!("no namespace can have the name `{}`", text.value);
            let help = "write small letters, digits and hyphens, 63 at the most";
            sink.error(Code::Name, text.span.clone(), message, "", help);
        }
        names.push(text.value.to_owned());
    }
    names
}

fn server(sink: &Sink, node: &Node<'_>) -> Option<String> {
    let text = node.filled()?;
    let base = text.value.trim_end_matches('/');
    if !is_base(base) {
        let message = format!("`{}` is not the URL of an API", text.value);
        let help = "write its scheme, host and port: \"https://10.0.0.1:6443\"";
        sink.error(Code::Url, text.span.clone(), message, "", help);
        return None;
    }
    Some(base.to_owned())
}

/// RFC 1123, 2.1, as Kubernetes has it.
fn is_dns_label(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let at_ends = !name.starts_with('-') && !name.ends_with('-');
    !name.is_empty() && name.len() <= 63 && name.bytes().all(sound) && at_ends
}

/// The most requirements of a selector, and values of one.
const MOST: usize = 64;

/// A label selector: all its requirements have to be met. With none it is met by everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    /// Also met where the label isn't there.
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Selector {
    /// Reads one; `*` is met by everything.
    ///
    /// # Errors
    /// Why it is none, in a few words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        if text.trim() != "*" {
            for part in parts(text)? {
                requirements.push(requirement(part.trim())?);
            }
        }
        if requirements.len() > MOST {
            return Err(format!("it has more than {MOST} requirements"));
        }
        Ok(Self {
            text: text.to_owned(),
            requirements,
        })
    }

    /// Whether these labels meet it.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Missing => value.is_none(),
            }
        })
    }
}

/// Splits at the commas that are not in parentheses.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match (byte, inside) {
            (b'(', false) => inside = true,
            (b')', true) => inside = false,
            (b'(' | b')', _) => return Err("a parenthesis too many".to_owned()),
            (b',', false) => {
                parts.push(text.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a parenthesis is not closed".to_owned());
    }
    parts.push(text.get(begin..).unwrap_or_default());
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let with = |key: &str, test| {
        let key = key.trim();
        match is_key(key) {
            true => Ok(Requirement {
                key: key.to_owned(),
                test,
            }),
            false => Err(format!("`{key}` is no label's name")),
        }
    };
    if let Some(key) = text.strip_prefix('!') {
        return with(key, Test::Missing);
    }
    if let Some((head, list)) = text.split_once('(') {
        let list = list
            .strip_suffix(')')
            .ok_or("something stands behind the parenthesis")?;
        let values: Vec<String> = list.split(',').map(value).collect::<Result<_, _>>()?;
        if values.len() > MOST {
            return Err(format!("it has more than {MOST} values"));
        }
        let (key, operator) = head
            .trim_end()
            .rsplit_once([' ', '\t'])
            .ok_or("`in` or `notin` is missing")?;
        return match operator {
            "in" => with(key, Test::In(values)),
            "notin" => with(key, Test::NotIn(values)),
            _ => Err(format!("`{operator}` is neither `in` nor `notin`")),
        };
    }
    if let Some((key, text)) = text.split_once("!=") {
        return with(key, Test::NotIn(vec![value(text)?]));
    }
    if let Some((key, text)) = text.split_once('=') {
        let text = text.strip_prefix('=').unwrap_or(text);
        return with(key, Test::In(vec![value(text)?]));
    }
    with(text, Test::Exists)
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.is_empty() || is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no label's value")),
    }
}

/// `name`, or `prefix/name` where the prefix is a DNS name.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => prefix.len() <= 253 && prefix.split('.').all(is_dns_label) && is_name(name),
    }
}

/// Letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; 63 at the most.
fn is_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= 63
        && name.bytes().all(sound)
        && ends
            .iter()
            .all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn selectors_are_met_as_kubernetes_has_it() {
        let pod = "app=shop tier=front qbox.dev/saga=enabled empty=";
        for (selector, met) in [
            ("*", true),
            ("app=shop", true),
            ("app==shop", true),
            ("app = shop", true),
            ("app=other", false),
            ("app!=other", true),
            ("app!=shop", false),
            // A label that isn't there is none of the values.
            ("missing!=x", true),
            ("missing notin (x, y)", true),
            ("missing=x", false),
            ("missing in (x)", false),
            ("missing", false),
            ("!missing", true),
            ("!app", false),
            ("app", true),
            ("empty", true),
            ("empty=", true),
            ("qbox.dev/saga=enabled", true),
            ("app in (shop,travel),tier notin (back)", true),
            ("app in (travel),tier notin (back)", false),
            ("app=shop,tier=back", false),
            ("app  in  ( shop )", true),
        ] {
            let parsed = Selector::parse(selector).unwrap();
            assert_eq!(parsed.matches(&labels(pod)), met, "{selector}");
            assert_eq!(parsed.to_string(), selector);
        }
        assert!(
            Selector::parse("!qbox.dev/off")
                .unwrap()
                .matches(&BTreeMap::new())
        );
    }

    #[test]
    fn what_is_no_selector() {
        for text in [
            "",
            ",",
            "a=b,",
            "a in b",
            "a in (b",
            "a in b)",
            "a of (b)",
            "in (b)",
            "a in (b) c",
            "-a=b",
            "a=b c",
            "a=b=c",
            "a/b/c",
            "/a",
            "A_/b=c",
            "a>1",
            "!",
            "!a=b",
            "a in ((b))",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert!(Selector::parse(&"a,".repeat(65)).is_err());
        assert!(Selector::parse(&format!("a={}", "b".repeat(64))).is_err());
    }
}
