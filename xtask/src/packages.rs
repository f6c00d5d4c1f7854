//! Libraries of other languages that the suites use: Python's in a virtual environment, Node's beside it, in a folder below
//! `target`, so that nothing of the machine's own changes. Installed when a list of them has changed, after saying so.

use crate::toolchain::target_folder;
use crate::tools::{apt, is_root, is_there};
use crate::ui::call;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that tells the suites where the folder is.
pub(crate) const VARIABLE: &str = "QBOX_TEST_TOOLS";

/// Where all of it goes.
pub(crate) fn folder() -> PathBuf {
    target_folder().join("test-tools")
}

/// What the suites of clients in pods, of the page and of the manifests use.
pub(crate) fn suites() -> Result<()> {
    let lists = crate::root()?.join("tests/tests");
    python("python", &lists.join("clients/requirements.txt"))?;
    python("kubernetes", &lists.join("kubernetes/requirements.txt"))?;
    python("http2", &lists.join("http2/requirements.txt"))?;
    node("node", &lists.join("clients/package.json"))?;
    node("page", &lists.join("page/package.json"))
}

/// Suites of other projects that run in a pod, with Qbox and without.
pub(crate) fn conformance() -> Result<()> {
    let list = crate::root()?.join("tests/tests/conformance/requirements.txt");
    python("conformance", &list)?;
    for project in ["urllib3", "httpx"] {
        source(project, &list)?;
    }
    let has_own = ["-c", "import test.test_httplib"];
    if Command::new("python3")
        .args(has_own)
        .status()
        .is_ok_and(|status| status.success())
    {
        return Ok(());
    }
    eprintln!("    Python's own tests are missing; they are a suite that has to pass through Qbox");
    if !is_root() || !is_there("apt-get") {
        bail!("install Python's own tests (Debian's package is libpython3-testsuite)");
    }
    call(apt().args([
        "install",
        "--yes",
        "--no-install-recommends",
        "libpython3-testsuite",
    ]))
}

/// A project's source archive, unpacked, for the tests that its package does not install.
fn source(project: &str, list: &Path) -> Result<()> {
    let place = folder().join("sources").join(project);
    once(&place, list, "tests of one of the Python packages", || {
        let text = fs::read_to_string(list)?;
        let wanted = text
            .lines()
            .find(|line| line.split("==").next() == Some(project))
            .with_context(|| format!("{} does not name {project}", list.display()))?;
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::create_dir_all(&place)?;
        let mut download = Command::new(folder().join("conformance/bin/python"));
        download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"]);
        download.args(["--no-deps", "--no-binary", project, "--dest"]);
        call(download.arg(&place).arg(wanted))?;
        let archive = fs::read_dir(&place)?
            .next()
            .context("pip has left no archive")??
            .path();
        call(
            Command::new("tar")
                .args(["--strip-components=1", "-C"])
                .arg(&place)
                .arg("-xzf")
                .arg(&archive),
        )
    })
}

/// A virtual environment of that name with what a requirements.txt lists.
pub(crate) fn python(name: &str, list: &Path) -> Result<()> {
    let place = folder().join(name);
    once(&place, list, "Python packages", || {
        call(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&place),
        )?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let mut install = Command::new(place.join("bin/python"));
        call(install.args(pip).arg("--requirement").arg(list))
    })
}

/// A folder of that name with what a package.json depends on.
fn node(name: &str, list: &Path) -> Result<()> {
    let place = folder().join(name);
    once(&place, list, "Node packages", || {
        fs::create_dir_all(&place)?;
        fs::copy(list, place.join("package.json"))?;
        let mut install = Command::new("npm");
        install.current_dir(&place);
        call(install.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
        ]))
    })
}

/// Installs unless it is there as the list says.
fn once(place: &Path, list: &Path, what: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read_to_string(list).with_context(|| format!("can't read {}", list.display()))?;
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    eprintln!(
        "    installing the {what} of {} into {}: the suites use them",
        list.display(),
        place.display()
    );
    install()?;
    fs::write(&stamp, wanted).with_context(|| format!("can't write {}", stamp.display()))
}
