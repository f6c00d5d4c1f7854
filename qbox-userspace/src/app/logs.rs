//! Where log lines go: standard error, for people or for machines. Level and format are the configuration's.

use crate::config::{Log, LogFormat};
use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sets another level, or says why it can't.
pub(super) type Level = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Starts logging. What comes back changes the level.
///
/// # Errors
/// The filter can't be read (`qbox check` has said so), or this process logs already.
pub(super) fn start(log: &Log) -> anyhow::Result<Level> {
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.level)?)
        // Where nobody reads standard error any more, saying so there would be a panic in whoever logs.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The two are of different types.
    let (started, level): (_, Level) = match log.format {
        LogFormat::Text => {
            let logs = logs.with_filter_reloading();
            let handle = logs.reload_handle();
            (
                logs.try_init(),
                Box::new(move |to| change(to, |filter| handle.reload(filter))),
            )
        }
        LogFormat::Json => {
            let logs = logs.json().with_filter_reloading();
            let handle = logs.reload_handle();
            (
                logs.try_init(),
                Box::new(move |to| change(to, |filter| handle.reload(filter))),
            )
        }
    };
    started.map_err(|error| anyhow::anyhow!("can't start logging: {error}"))?;
    Ok(level)
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::builder().parse(level);
    filter.with_context(|| format!("`{level}` is not a log filter"))
}

fn change(
    to: &str,
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>,
) -> Result<(), String> {
    let filter = filter(to).map_err(|error| error.to_string())?;
    reload(filter).map_err(|error| error.to_string())
}
