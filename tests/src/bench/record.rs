//! What each part of `cargo xtask bench` has found last: its goals and its charts. They are kept beside the page as JSON
//! (`docs/pictures/performance.json`), so that a part that runs alone leaves the others' goals where they are.
//!
//! Errors: the file is no such JSON, or can't be written.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The parts, in the page's order.
pub(super) const ORDER: [&str; 7] = [
    "sagas",
    "growth",
    "passthrough",
    "connect",
    "matching",
    "memory",
    "hold",
];

/// One part's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// Day, machine and versions.
    #[serde(default)]
    pub(crate) when: String,
    pub(crate) goals: Vec<Goal>,
    #[serde(default)]
    pub(crate) charts: Vec<Chart>,
}

/// What is asked for, and what was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) limit: String,
    /// Each figure, and whether it is as the goal says.
    pub(crate) found: Vec<(String, bool)>,
}

/// Bars in groups, one of each series in each group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chart {
    /// The SVG's name, without its ending.
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) groups: Vec<String>,
    pub(crate) series: Vec<Series>,
}

/// In each group a lowest, a median and a highest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<[f64; 3]>,
}

impl Goal {
    /// A goal that each of the figures has to be below, or to reach.
    pub(crate) fn most(what: &str, (limit, unit): (f64, &str), found: impl IntoIterator<Item = f64>) -> Self {
        Self::each(what, format!("at most {limit}{unit}"), unit, found, |it| {
            it <= limit
        })
    }

    pub(crate) fn least(
        what: &str,
        (limit, unit): (f64, &str),
        found: impl IntoIterator<Item = f64>,
    ) -> Self {
        Self::each(what, format!("at least {limit}{unit}"), unit, found, |it| {
            it >= limit
        })
    }

    fn each(
        what: &str,
        limit: String,
        unit: &str,
        found: impl IntoIterator<Item = f64>,
        met: impl Fn(f64) -> bool,
    ) -> Self {
        // What is shown is what is judged.
        let rounded = |it: f64| (it * 100.0).round() / 100.0;
        let found = found.into_iter().map(rounded);
        Self {
            what: what.to_owned(),
            limit,
            found: found.map(|it| (format!("{it:.2}{unit}"), met(it))).collect(),
        }
    }

    fn row(&self) -> String {
        let met = self.found.iter().filter(|(_, met)| *met).count();
        let verdict = match self.found.len() {
            all if met == all => "yes".to_owned(),
            1 => "**no**".to_owned(),
            all => format!("**{met} of {all}**"),
        };
        let figures: Vec<_> = self
            .found
            .iter()
            .map(|(value, met)| match met {
                true => value.clone(),
                false => format!("**{value}**"),
            })
            .collect();
        format!(
            "| {} | {} | {} | {verdict} |",
            self.what,
            self.limit,
            figures.join(" · ")
        )
    }
}

/// All parts', by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Records(BTreeMap<String, Record>);

impl Records {
    /// Those of an earlier run, or none.
    pub(super) fn read(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    pub(super) fn put(&mut self, part: &str, record: Record, path: &Path) -> Result<()> {
        self.0.insert(part.to_owned(), record);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }

    /// Every goal beside its figure, and when each part was measured.
    pub(super) fn table(&self) -> String {
        let mut text = "| goal | limit | found | met |\n|---|---|---|---|\n".to_owned();
        let mut when: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for part in ORDER {
            let Some(record) = self.0.get(part) else { continue };
            for goal in &record.goals {
                text.push_str(&goal.row());
                text.push('\n');
            }
            when.entry(&record.when).or_default().push(part);
        }
        for (when, parts) in when {
            // Writing to a string can't fail.
            let _ = write!(text, "\n{}: {when}.\n", parts.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_says_whether_it_is_met() {
        let goal = Goal::most("p50", (1.5, "×"), [1.5, 1.504, 1.51]);
        assert_eq!(
            goal.row(),
            "| p50 | at most 1.5× | 1.50× · 1.50× · **1.51×** | **2 of 3** |"
        );
        let goal = Goal::least("rate", (0.5, "×"), [0.4]);
        assert_eq!(goal.row(), "| rate | at least 0.5× | **0.40×** | **no** |");
        assert!(Goal::least("rate", (0.5, "×"), [0.6]).row().ends_with("| yes |"));
    }

    #[test]
    fn parts_stay_where_another_is_put() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for part in ["sagas", "memory", "sagas"] {
            let record = Record {
                when: "today".to_owned(),
                goals: vec![Goal::most(part, (1.0, ""), [0.5])],
                charts: Vec::new(),
            };
            Records::read(&path).unwrap().put(part, record, &path).unwrap();
        }
        let table = Records::read(&path).unwrap().table();
        assert_eq!(table.matches("| yes |").count(), 2, "{table}");
        assert!(table.ends_with("\nsagas, memory: today.\n"), "{table}");
    }
}
