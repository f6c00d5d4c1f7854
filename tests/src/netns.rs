//! Working inside another network namespace, on a thread of its own (setns(2) moves a thread).

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::thread;

/// A network namespace, kept open.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// That of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).with_context(|| format!("can't open {path}"))?;
        Ok(Self(file))
    }

    /// The same one.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Runs `work` inside. A socket that it makes belongs to the namespace for good.
    ///
    /// # Errors
    /// The namespace can't be entered, or `work` failed.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .context("can't enter a network namespace")?;
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(_) => bail!("the work inside a network namespace panicked"),
        }
    }
}
