//! `qbox check`: what is wrong with the files, as text or JSON, on standard output.

use crate::config;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// 0 if all is fit to run, 1 if not.
pub(super) fn check(paths: &[PathBuf], json: bool) -> ExitCode {
    let report = config::check_paths(paths);
    let mut out = std::io::stdout();
    let text = if json {
        format!("{:#}\n", report.to_json())
    } else {
        // https://no-color.org: set and not empty means none.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        report.render(out.is_terminal() && !plain)
    };
    // A reader that has gone (`qbox check | head`) has seen enough; the exit code still says what was found.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    if report.has_errors() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
