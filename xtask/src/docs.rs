//! `cargo xtask docs`: writes anew what of docs/ is written from the code: the tables of docs/metrics.md. A test fails where that was
//! forgotten; this runs the same test, and has it write instead.

use crate::ui::{call, cargo, step};
use anyhow::Result;

/// Writes it.
pub(crate) fn run() -> Result<()> {
    let mut test = cargo();
    test.current_dir(crate::root()?);
    test.env("QBOX_WRITE_DOCS", "1");
    test.args(["test", "--package", "qbox-userspace", "--lib", "--"]);
    test.args(["--exact", "admin::metrics::page::the_page_is_current"]);
    step("Writing docs/metrics.md", || call(&mut test))
}
