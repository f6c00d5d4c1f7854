//! Whole files: every one of `config/invalid` and `config/warned` with the findings that it says itself, and folders.

use super::{Code, check_paths, load};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn config_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

/// What is in a folder of `config`, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// The `# expect: QB0005 at 12:3` lines that a file begins with; of a folder those of all files in it, and below.
fn expected(path: &Path) -> Vec<(String, String)> {
    if path.is_dir() {
        return entries(path).iter().flat_map(|path| expected(path)).collect();
    }
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = text.lines().map_while(|line| line.strip_prefix("# expect: "));
    lines
        .map(|line| {
            let (code, place) = line.split_once(" at ").expect("CODE at LINE:COLUMN");
            (code.to_owned(), format!("{}:{place}", path.display()))
        })
        .collect()
}

/// Every mistake that is legal, too, is there to be seen, but for those that no file here can have.
#[test]
fn every_code_has_its_file() {
    let elsewhere = [
        ("QB0002", "a file of more than 1 MiB: `a_file_that_is_too_large`"),
        (
            "QB0070",
            "`qbox import`, whose files are no TOML: `import/tests.rs`",
        ),
        ("QB0071", "the same"),
        ("QB0072", "the same"),
    ];
    let folders = ["invalid", "warned"].map(|name| config_folder().join(name));
    let shown: BTreeSet<String> = folders
        .iter()
        .flat_map(|folder| expected(folder))
        .map(|(code, _)| code)
        .collect();
    let page = include_str!("../../../docs/errors.md");
    let codes = page.lines().filter_map(|line| line.strip_prefix("### "));
    let codes: Vec<&str> = codes.filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert!(codes.len() > 50, "{codes:?}");
    for code in codes {
        let is_elsewhere = elsewhere.iter().any(|(known, _)| *known == code);
        assert!(shown.contains(code) != is_elsewhere, "{code}");
    }
}

#[test]
fn every_invalid_file_has_exactly_the_findings_that_it_names() {
    let invalid = entries(&config_folder().join("invalid"));
    let warned = entries(&config_folder().join("warned"));
    assert!(invalid.len() >= 32, "{} files", invalid.len());
    assert!(warned.len() >= 7, "{} files", warned.len());
    let wrong = invalid.into_iter().map(|path| (path, true));
    for (path, wrong) in wrong.chain(warned.into_iter().map(|path| (path, false))) {
        let mut expected = expected(&path);
        expected.sort();
        assert_ne!(expected, [], "{}", path.display());
        let report = check_paths(std::slice::from_ref(&path));
        let mut found = Vec::new();
        for diagnostic in &report.diagnostics {
            let (line, column) = diagnostic.line_column().unwrap();
            let place = format!("{}:{line}:{column}", diagnostic.file.name);
            let drawn = diagnostic.render(false);
            assert!(drawn.contains(&place), "{drawn}");
            found.push((diagnostic.code.to_string(), place));
            assert!(drawn.contains("help: "), "{drawn}");
            // The line itself stands in it.
            let text = diagnostic.file.text.lines().nth(line - 1).unwrap_or_default();
            assert!(drawn.contains(text.trim()), "{drawn}");
        }
        found.sort();
        assert_eq!(found, expected, "{}\n{report}", path.display());
        assert_eq!(report.has_errors(), wrong, "{}", path.display());
    }
}

#[test]
fn a_folder_with_a_qbox_toml_is_a_configuration_and_its_invalid_files_are_not_looked_at() {
    let report = check_paths(&[config_folder()]);
    assert_eq!(report.diagnostics, [], "{report}");
    assert!(report.sagas >= 1 && report.files == report.sagas + 1, "{report}");
    assert!(check_paths(&[config_folder().join("invalid")]).has_errors());
}

const SAGA: &str = "name = \"NAME\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://a:1/x/{id}\"\n\
                    [[step]]\nname = \"one\"\nrequest = { method = \"GET\", url = \"http://b/\" }\n";

fn codes(report: &super::Report) -> Vec<Code> {
    report.diagnostics.iter().map(|d| d.code).collect()
}

#[test]
fn a_file_that_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    let saga = SAGA.replace("NAME", "a");
    let filled = |bytes: usize| format!("{saga}#{}", "x".repeat(bytes - saga.len() - 1));
    fs::write(&path, filled(1 << 20)).unwrap();
    assert_eq!(codes(&check_paths(std::slice::from_ref(&path))), []);
    fs::write(&path, filled((1 << 20) + 1)).unwrap();
    assert_eq!(codes(&check_paths(&[path])), [Code::TooLarge]);
}

/// What is long in itself, within the bytes that a file may have.
#[test]
fn a_file_whose_lines_or_urls_are_too_many_or_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    let saga = SAGA.replace("NAME", "a");
    let found = |text: String| {
        fs::write(&path, text).unwrap();
        check_paths(std::slice::from_ref(&path))
    };
    let lines = |count: usize| format!("{saga}{}", "\n".repeat(count - saga.matches('\n').count()));
    assert_eq!(codes(&found(lines(50_000))), []);
    assert_eq!(codes(&found(lines(50_001))), [Code::TooLarge]);
    let url = |bytes: usize| saga.replace("http://b/", &format!("http://b/{:x>1$}", "", bytes - 9));
    assert_eq!(codes(&found(url(8192))), []);
    assert_eq!(codes(&found(url(8193))), [Code::Url]);
    // Named where it is, and not drawn: nobody reads such a line.
    let wrong = format!("{saga}body = \"{}${{nothing}}\"\n", "x".repeat(100_000));
    let shown = found(wrong).render(false);
    let line = saga.matches('\n').count() + 1;
    assert!(shown.contains(&format!("a.toml:{line}:")), "{shown}");
    assert!(shown.len() < 1000, "{shown}");
}

#[test]
fn a_folder_of_sagas_is_read_whole_and_its_own_folders_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(
        codes(&check_paths(&[folder.path().to_owned()])),
        [Code::Unreadable]
    );
    fs::write(at("a.toml"), SAGA).unwrap();
    fs::write(at(".hidden.toml"), "not TOML").unwrap();
    fs::write(at("readme.txt"), "not TOML").unwrap();
    fs::create_dir(at("old")).unwrap();
    fs::write(at("old/b.toml"), "not TOML").unwrap();
    assert_eq!(codes(&check_paths(&[folder.path().to_owned()])), [Code::Name]);
    fs::write(at("a.toml"), SAGA.replace("NAME", "a")).unwrap();
    let report = check_paths(&[folder.path().to_owned(), at("a.toml")]);
    assert_eq!((report.files, report.sagas), (1, 1), "{report}");
    assert_eq!(codes(&report), []);
}

#[test]
fn two_sagas_of_one_name_and_two_of_one_trigger_are_named_both() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.toml"), SAGA.replace("NAME", "same")).unwrap();
    fs::write(at("b.toml"), SAGA.replace("NAME", "same").replace("{id}", "7")).unwrap();
    let report = check_paths(&[folder.path().to_owned()]);
    assert_eq!(codes(&report), [Code::DuplicateSaga, Code::Overlap]);
    for diagnostic in &report.diagnostics {
        let drawn = diagnostic.render(false);
        assert!(drawn.contains("a.toml:") && drawn.contains("b.toml:"), "{drawn}");
        assert!(drawn.contains("help: "), "{drawn}");
    }
    for (from, to) in [
        ("[trigger]", "[trigger]\npriority = 1"),
        ("\"POST\"", "\"PUT\""),
        ("http://a:1", "http://a:2"),
        ("http://a:1", "http://b:1"),
        ("/x/{id}", "/x/{id}/y"),
    ] {
        fs::write(at("b.toml"), SAGA.replace("NAME", "other").replace(from, to)).unwrap();
        let report = check_paths(&[folder.path().to_owned()]);
        assert_eq!(codes(&report), [], "{to}: {report}");
    }
}

#[test]
fn mistakes_of_the_configuration_and_of_its_sagas_are_named_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("sagas")).unwrap();
    fs::write(at("sagas/a.toml"), SAGA).unwrap();
    fs::write(at("qbox.toml"), "[limits]\ndepth = 0\n").unwrap();
    let report = load(&at("qbox.toml")).unwrap_err();
    assert_eq!(codes(&report), [Code::OutOfRange, Code::Name]);
    fs::write(at("qbox.toml"), "").unwrap();
    fs::write(at("sagas/a.toml"), SAGA.replace("NAME", "a")).unwrap();
    let loaded = load(&at("qbox.toml")).unwrap();
    assert_eq!(loaded.sagas.len(), 1);
    assert_eq!(loaded.config.sagas, at("sagas"));
    // A folder of sagas that is the configuration's own; what looks like another configuration in it is none.
    fs::write(at("qbox.toml"), "sagas = \".\"\n").unwrap();
    fs::write(at("b.toml"), SAGA.replace("NAME", "b")).unwrap();
    let loaded = load(&at("qbox.toml")).unwrap();
    assert_eq!((loaded.sagas.len(), loaded.report.files), (1, 2));
    fs::write(at("c.toml"), "grace = \"2s\"\n").unwrap();
    let report = load(&at("qbox.toml")).unwrap_err();
    assert!(codes(&report).contains(&Code::UnknownKey), "{report}");
    fs::write(at("qbox.toml"), "grace = \"1s\"\nsagas = \"elsewhere\"\n").unwrap();
    let report = load(&at("qbox.toml")).unwrap_err();
    assert_eq!(codes(&report), [Code::Unreadable]);
    assert_eq!(report.diagnostics[0].line_column(), Some((2, 9)));
}
