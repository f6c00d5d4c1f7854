//! HTTP/1 to the letter, through the real binary: each case of the table in `docs/http.md` is played from a pod whose
//! connections are captured, to a service that is written here, byte by byte.

mod case;
mod connections;
mod framing;
mod player;
mod syntax;

use anyhow::{Result, ensure};
use case::Case;
use player::Player;
use std::collections::BTreeMap;
use std::fs;

fn cases() -> impl Iterator<Item = &'static Case> {
    syntax::CASES
        .iter()
        .chain(framing::CASES)
        .chain(connections::CASES)
}

#[test]
fn every_case_in_a_pod() -> Result<()> {
    let mut player = Player::start()?;
    let mut wrong = Vec::new();
    for case in cases() {
        if let Err(error) = player.play(case) {
            wrong.push(format!("{} (RFC {}): {error:#}", case.name, case.section));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} cases went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// The table of `docs/http.md` has a row `| section | what Qbox does | name |` for each case, and no other.
#[test]
fn the_table_is_what_is_tested() -> Result<()> {
    let text = fs::read_to_string(qbox_tests::workspace().join("docs/http.md"))?;
    let mut told = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| 9")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, section, .., names, ""] = cells[..] else {
            anyhow::bail!("no row: {line}");
        };
        for name in names.split(' ').map(|name| name.trim_matches([',', '`'])) {
            ensure!(told.insert(name, section).is_none(), "{name} is there twice");
        }
    }
    let tested: BTreeMap<_, _> = cases().map(|case| (case.name, case.section)).collect();
    assert_eq!(cases().count(), tested.len(), "two cases have one name");
    assert_eq!(told, tested, "docs/http.md and the cases differ");
    Ok(())
}
