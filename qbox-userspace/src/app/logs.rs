//! Where log lines go: standard error, for people or for machines. Level and format are the configuration's.

use crate::config::{Log, LogFormat};
use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging.
///
/// # Errors
/// The filter can't be read (`qbox check` has said so), or this process logs already.
pub(super) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&log.level)
        .with_context(|| format!("`{}` is not a log filter", log.level))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where nobody reads standard error any more, saying so there would be a panic in whoever logs.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("can't start logging: {error}"))
}
