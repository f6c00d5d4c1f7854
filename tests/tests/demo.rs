//! The demo, as a user sees it.

use anyhow::{Context, Result, ensure};
use qbox_tests::{DEADLINE, binary, require_root, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The demo of the release build.
fn demo() -> Result<Command> {
    let path = binary()?.with_file_name("qbox-demo");
    ensure!(path.is_file(), "{} isn't built", path.display());
    Ok(Command::new(path))
}

/// What a demo of that process has left in the places where it makes something.
fn left_by(process: u32) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let cgroups = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let cgroups = cgroups
        .and_then(|line| line.split(' ').nth(1))
        .context("no cgroup2")?;
    let mut left = Vec::new();
    for folder in [Path::new(cgroups), &std::env::temp_dir()] {
        for entry in fs::read_dir(folder)?.flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("qbox-e2e-{process}-"))
            {
                left.push(entry.path());
            }
        }
    }
    Ok(left)
}

/// The bookings' lines, in their order.
fn assert_timeline(text: &str) -> Result<()> {
    let mut rest = text;
    for part in [
        "ledgers: hotel -   flight -   car -",
        "hotel: transaction sent",
        "saga committed",
        "reply 201",
        "ledgers: hotel 7   flight 7   car 7",
        "transaction answered 409",
        "compensation sent",
        "saga compensated",
        "reply 502",
        "ledgers: hotel 7   flight 7   car 7",
    ] {
        let at = rest
            .find(part)
            .with_context(|| format!("no {part:?} (in its place) in:\n{text}"))?;
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    Ok(())
}

#[test]
fn once_shows_both_bookings_and_leaves_nothing() -> Result<()> {
    require_root()?;
    let child = demo()?.arg("--once").stdout(Stdio::piped()).spawn()?;
    let id = child.id();
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}\n{text}", output.status);
    assert_timeline(&text)?;
    assert_eq!(left_by(id)?, Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn explicit_does_the_same() -> Result<()> {
    let output = demo()?.args(["--once", "--explicit"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_timeline(&text)
}

/// A demo that stays up, the command that it says to type, and where it says that the page is.
fn staying() -> Result<(Child, String, String)> {
    require_root()?;
    let mut child = demo()?.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let mut lines = BufReader::new(output).lines();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(" exec ")));
    let line = line.context("the demo says no command to type")??;
    let page = lines.find_map(|line| {
        let line = line.ok()?;
        Some(
            line.split_once("http://127.0.0.1:")?
                .1
                .trim_end_matches('/')
                .to_owned(),
        )
    });
    let page = format!(
        "127.0.0.1:{}",
        page.context("the demo doesn't say where the page is")?
    );
    // Read on, so that the demo can print.
    std::thread::spawn(move || lines.count());
    Ok((child, line, page))
}

/// GETs a path of the page.
fn get(page: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(page)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {page}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let id = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    Ok(kill_process(id, signal)?)
}

#[test]
fn it_stays_up_for_the_command_it_names_until_ctrl_c() -> Result<()> {
    let (mut child, line, page) = staying()?;
    let html = get(&page, "/")?;
    ensure!(
        html.starts_with("HTTP/1.1 200") && html.contains("<html"),
        "{html}"
    );
    let sagas = get(&page, "/api/v1/sagas")?;
    ensure!(sagas.contains("\"book-trip\""), "{sagas}");
    let output = Command::new("sh")
        .args(["-c", line.trim()])
        .current_dir(qbox_tests::workspace())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        text.contains("\"booked\":true"),
        "{line}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    signal(&child, Signal::INT)?;
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    assert_eq!(left_by(child.id())?, Vec::<PathBuf>::new());
    Ok(())
}

/// Its processes go with it at once; names in the file system go with the next node's start.
#[test]
fn a_killed_demo_takes_its_processes_along() -> Result<()> {
    let (mut child, ..) = staying()?;
    let cgroups = left_by(child.id())?;
    let cgroup = cgroups
        .iter()
        .find(|path| path.starts_with("/sys"))
        .context("no cgroup")?;
    signal(&child, Signal::KILL)?;
    child.wait()?;
    wait_for("the pods' processes to end", DEADLINE, || {
        // cgroup.events's `populated` counts the cgroups below, too (cgroups(7)).
        let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
        Ok((!events.contains("populated 1")).then_some(()))
    })?;
    qbox_tests::sweep()?;
    assert_eq!(left_by(child.id())?, Vec::<PathBuf>::new());
    Ok(())
}
