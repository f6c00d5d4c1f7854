//! Folders as they are configured: paths, in whose components `*` and `?` stand for other bytes. Looks at no file.

use std::path::{Component, Path, PathBuf};

/// As configured, below the mount where it is relative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(pub(super) PathBuf);

impl Pattern {
    pub(super) fn new(mount: &Path, configured: &Path) -> Self {
        // An absolute path replaces the mount's.
        Self(mount.join(configured))
    }

    /// The folder in front of its first component that is not meant literally.
    pub(super) fn tree(&self) -> PathBuf {
        let literal = self.0.components().take_while(|part| !is_wild(*part));
        literal.collect()
    }

    pub(super) fn is_literal(&self) -> bool {
        !self.0.components().any(is_wild)
    }

    /// The part of a folder's path that it fits, if it does: the folder itself, or one above it.
    pub(super) fn fits<'a>(&self, folder: &'a Path) -> Option<&'a Path> {
        let depth = self.0.components().count();
        let surplus = folder.components().count().checked_sub(depth)?;
        let head = folder.ancestors().nth(surplus)?;
        let mut parts = self.0.components().zip(head.components());
        let fits = parts.all(|(pattern, part)| {
            part_fits(
                pattern.as_os_str().as_encoded_bytes(),
                part.as_os_str().as_encoded_bytes(),
            )
        });
        fits.then_some(head)
    }
}

fn is_wild(part: Component<'_>) -> bool {
    part.as_os_str()
        .as_encoded_bytes()
        .iter()
        .any(|byte| matches!(byte, b'*' | b'?'))
}

/// Whether a name fits a pattern: `*` is any bytes, `?` is one. What a `*` takes is lengthened only when what follows does
/// not fit, so that it takes no more than pattern times name steps.
fn part_fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((behind, taken)) = star else { return false };
                star = Some((behind, taken + 1));
                (p, n) = (behind, taken + 1);
            }
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

/// The folders that programs are attached to for these patterns: none of them in another.
pub(super) fn trees(mount: &Path, configured: &[PathBuf]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = configured
        .iter()
        .map(|one| Pattern::new(mount, one).tree())
        .collect();
    all.sort();
    all.dedup();
    // The outer one of two is in front of the inner one.
    let mut trees: Vec<PathBuf> = Vec::new();
    for path in all {
        if !trees.iter().any(|tree| path.starts_with(tree)) {
            trees.push(path);
        }
    }
    trees
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "b", false),
            ("", "", true),
            ("*", "", true),
            ("*", "abc", true),
            ("docker-*.scope", "docker-0123.scope", true),
            ("docker-*.scope", "docker-0123.scope.d", false),
            ("docker-*.scope", "crio-0123.scope", false),
            ("*a*b", "xaxab", true),
            ("*a*b", "xaxac", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a**", "a", true),
            ("?", "", false),
        ] {
            assert_eq!(
                part_fits(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
        // Many stars, and a name that nearly fits: still in no time.
        assert!(!part_fits("*a".repeat(40).as_bytes(), "a".repeat(39).as_bytes()));
    }

    #[test]
    fn programs_go_to_the_outermost_folders() {
        let mount = Path::new("/sys/fs/cgroup");
        let found = |configured: &[&str]| -> Vec<String> {
            let configured: Vec<PathBuf> = configured.iter().map(PathBuf::from).collect();
            let trees = trees(mount, &configured);
            trees.iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(found(&["qbox"]), ["/sys/fs/cgroup/qbox"]);
        assert_eq!(
            found(&["system.slice/docker-*.scope", "b/c", "b", "b-c"]),
            [
                "/sys/fs/cgroup/b",
                "/sys/fs/cgroup/b-c",
                "/sys/fs/cgroup/system.slice"
            ]
        );
        assert_eq!(found(&["*/x"]), ["/sys/fs/cgroup"]);
        assert_eq!(found(&["/elsewhere/a?/b", "/elsewhere"]), ["/elsewhere"]);
    }
}
