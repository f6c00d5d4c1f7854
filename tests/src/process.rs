//! What a process and its children cost: memory, processor time, system calls. Errors: it has ended, or strace(1) isn't there.

use crate::poll::{DEADLINE, wait_for};
use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The process and those below it.
///
/// # Errors
/// It has ended.
pub fn tree(process: u32) -> Result<Vec<u32>> {
    let mut all = vec![process];
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    for child in children.split_whitespace() {
        all.extend(tree(child.parse()?)?);
    }
    Ok(all)
}

/// Bytes in RAM (`VmRSS`, proc_pid_status(5)), of all of `tree`.
///
/// # Errors
/// One has ended.
pub fn resident(tree: &[u32]) -> Result<u64> {
    let mut bytes = 0;
    for process in tree {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        bytes += kilobytes.context("no VmRSS")?.trim().parse::<u64>()? << 10;
    }
    Ok(bytes)
}

/// Time on processors so far, in microseconds, of all threads of these, also those that have ended, since a runtime's come and go
/// (proc_pid_stat(5), whose ticks are 10 ms here).
///
/// # Errors
/// One process has ended.
pub fn processor_time(tree: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for process in tree {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name can hold anything. Behind it: user and system time are the 14th and 15th of all fields.
        let (_, fields) = stat.rsplit_once(") ").context("an odd stat")?;
        for time in fields.split(' ').skip(11).take(2) {
            ticks += time.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 * 1e6 / clock_ticks_per_second() as f64)
}

/// The folders of all threads.
fn threads(tree: &[u32]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for process in tree {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            all.push(thread?.path().display().to_string());
        }
    }
    Ok(all)
}

/// System calls, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    /// Of what somebody sent, or wrote to a disk.
    pub reads: f64,
    /// To somebody, or to a disk.
    pub writes: f64,
    /// For something to be ready.
    pub waits: f64,
    /// All else.
    pub others: f64,
}

impl Calls {
    /// For each of so many requests.
    #[must_use]
    pub fn each(self, requests: f64) -> Self {
        Self {
            reads: self.reads / requests,
            writes: self.writes / requests,
            waits: self.waits / requests,
            others: self.others / requests,
        }
    }
}

/// The calls that `tree` makes while `work` runs, as strace(1) counts them, and what `work` returns.
/// `file` is where strace may write.
///
/// # Errors
/// strace can't be started or may not look, or `work` failed.
pub fn calls<T>(tree: &[u32], file: &Path, work: impl FnOnce() -> Result<T>) -> Result<(Calls, T)> {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-c", "-U", "calls,name", "-o"])
        .arg(file);
    for process in tree {
        strace.arg("-p").arg(process.to_string());
    }
    let mut strace = strace
        .stderr(Stdio::null())
        .spawn()
        .context("can't start strace")?;
    let traced = wait_for("strace to look", DEADLINE, || {
        for thread in threads(tree)? {
            if fs::read_to_string(Path::new(&thread).join("status"))?.contains("TracerPid:\t0\n") {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    let done = traced.and_then(|()| work());
    let id = i32::try_from(strace.id()).ok().and_then(Pid::from_raw);
    kill_process(id.context("no process id")?, Signal::INT)?;
    strace.wait()?;
    Ok((read(&fs::read_to_string(file)?), done?))
}

/// strace's table: a line for each call, `COUNT NAME`, between a head and a sum.
fn read(text: &str) -> Calls {
    let mut calls = Calls::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(count), Some(name), None) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(count) = count.parse::<f64>() else { continue };
        match name {
            "read" | "readv" | "recvfrom" | "recvmsg" => calls.reads += count,
            "write" | "writev" | "sendto" | "sendmsg" | "sendfile" | "splice" => calls.writes += count,
            "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "poll" | "ppoll" => calls.waits += count,
            "total" => {}
            _ => calls.others += count,
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_calls() {
        let text = "    calls syscall\n--------- ----------------\n       12 read\n        3 epoll_wait\n        1 futex\n\
                    --------- ----------------\n       16 total\n";
        let calls = read(text);
        assert_eq!(
            calls.each(2.0),
            Calls {
                reads: 6.0,
                writes: 0.0,
                waits: 1.5,
                others: 0.5
            }
        );
    }
}
