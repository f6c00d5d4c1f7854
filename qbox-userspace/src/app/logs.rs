//! Where log lines go: standard error, for people or for machines. Level and format are the configuration's; the level can be another
//! while Qbox runs.

use crate::config::{Log, LogFormat};
use anyhow::Context;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::EnvFilter;

/// What is logged now, and how that is changed.
pub(super) struct Level {
    now: Mutex<String>,
    change: Change,
}

type Change = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

impl Level {
    /// The filter that holds.
    pub(super) fn now(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on that filter holds.
    ///
    /// # Errors
    /// It is none: then the one before stays.
    pub(super) fn set(&self, to: &str) -> Result<(), String> {
        // One after the other: what is said to hold does.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (self.change)(filter(to)?).map_err(|error| error.to_string())?;
        to.clone_into(&mut now);
        Ok(())
    }
}

/// Starts logging. What comes back changes the level.
///
/// # Errors
/// The filter can't be read (`qbox check` has said so), or this process logs already.
pub(super) fn start(log: &Log) -> anyhow::Result<Level> {
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.level).map_err(anyhow::Error::msg)?)
        // Where nobody reads standard error any more, saying so there would be a panic in whoever logs.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The two are of different types.
    let (started, change): (_, Change) = match log.format {
        LogFormat::Text => {
            let logs = logs.with_filter_reloading();
            let handle = logs.reload_handle();
            (logs.try_init(), Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let logs = logs.json().with_filter_reloading();
            let handle = logs.reload_handle();
            (logs.try_init(), Box::new(move |filter| handle.reload(filter)))
        }
    };
    started
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("can't start logging")?;
    Ok(Level {
        now: Mutex::new(log.level.clone()),
        change,
    })
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!("`{level}` is not a log filter: {why}; write a level, or a list as \"qbox=debug,info\"")
    };
    // An empty one would be silent.
    if level.trim().is_empty() {
        return Err(wrong(&"it is empty"));
    }
    let filter = EnvFilter::builder().parse(level).map_err(|error| wrong(&error))?;
    // It tells of each failure, and so do those who use it, in fewer words.
    let quiet = "kube_client=off".parse().map_err(|error| wrong(&error))?;
    match level.contains("kube_client") {
        true => Ok(filter),
        false => Ok(filter.add_directive(quiet)),
    }
}
