//! The documentation's paths: a page that names a file which is gone is wrong, and nobody would notice.
//!
//! Knows Markdown as far as `[text](path)` and `` `path` ``. What begins with one of the workspace's folders is taken for a
//! path.

use super::Finding;
use std::path::Path;

/// Folders whose names begin a path from the workspace's root.
const FOLDERS: [&str; 8] = [
    ".ci/",
    "config/",
    "docs/",
    "qbox-common/",
    "qbox-ebpf/",
    "qbox-userspace/",
    "tests/",
    "xtask/",
];

/// All findings of one page; `path` is relative to `root`.
pub(super) fn check(root: &Path, path: &Path, text: &str) -> Vec<Finding> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    let mut fenced = false;
    for (line, number) in text.lines().zip(1..) {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let links = links(line).map(|link| (link, root.join(folder).join(link)));
        let quoted = line.split('`').skip(1).step_by(2);
        let named = quoted
            .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
            .filter(|word| !word.contains([' ', '*']))
            .map(|word| (word, root.join(word)));
        for (shown, place) in links.chain(named) {
            if !place.exists() {
                let what = format!("there is no `{shown}`");
                findings.push(Finding { line: number, what });
            }
        }
    }
    findings
}

/// The targets of `[text](target)` that are files, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://"))
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
}

#[cfg(test)]
mod tests {
    use super::check;
    use std::path::Path;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let findings = check(&root, Path::new(path), text);
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn paths_that_are_gone_are_findings() {
        assert_eq!(
            lines("README.md", "x\n[a](docs/gone.md)\n`xtask/src/gone.rs`"),
            [2, 3]
        );
        assert_eq!(lines("docs/a.md", "[a](architecture.md#x) [b](gone.md)"), [1]);
    }

    #[test]
    fn paths_that_are_there_and_what_is_no_path_are_none() {
        let text = "[a](architecture.md#x) [b](../README.md) [c](https://a/b) [d](#x) `tests/src/pod.rs`\n\
                    `config/sagas/*.toml` `proxy/gone.rs`\n```\n[a](gone.md)\n```";
        assert_eq!(lines("docs/a.md", text), [0; 0]);
    }
}
