//! The way to the collector that the configuration names, if it names one.

use crate::config::Config;
use crate::telemetry::{self, Spans};
use crate::upstream::{self, Hosts, Services, Upstream};
use std::sync::Arc;
use std::time::Duration;

/// How long a batch waits to be filled: soon enough for who looks on, rare enough to cost nothing.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what waits at the end has to get there.
pub(super) const LAST: Duration = Duration::from_secs(2);

/// Begins to export, where the configuration says so. The services are those of the start: a collector's credentials change with a
/// restart.
pub(super) fn start(config: &Config, hosts: &Hosts, services: &Arc<Services>) -> Option<Spans> {
    let collector = config.telemetry.otlp.as_deref()?;
    let upstream = Upstream::new(upstream::Settings {
        hosts: hosts.clone(),
        connect_timeout: config.upstream.connect_timeout,
        idle_timeout: config.upstream.idle_timeout,
        // Nothing is kept of a call that is over, and answers are short.
        linger: Duration::ZERO,
        response_body: 64 << 10,
        ..upstream::Settings::default()
    });
    upstream.know(Arc::clone(services));
    tracing::info!(collector, "spans go to a collector");
    Some(Spans::start(telemetry::Settings {
        url: format!("{collector}/v1/traces"),
        upstream,
        resource: resource(),
        interval: INTERVAL,
        timeout: TIMEOUT,
    }))
}

/// What is said of this process (OpenTelemetry's semantic conventions for resources).
fn resource() -> Vec<(&'static str, String)> {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    vec![
        ("service.name", "qbox".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("host.name", node),
    ]
}
