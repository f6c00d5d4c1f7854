//! The parts of a Qbox, each as the configuration has it. Knows no order of theirs. Errors end the start, each in a sentence.

use crate::config::{Config, Store};
use crate::journal::{Durable, Journal, Memory, OpenError, Retention, Split, durable};
use crate::keys::Keys;
use crate::proxy;
use crate::runner::{self, Retain, Runner};
use crate::telemetry::Spans;
use crate::upstream::{self, Breaker, Hosts, Upstream};
use anyhow::Context;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

/// The hosts file, if there is one.
pub(super) fn hosts(config: &Config) -> anyhow::Result<Hosts> {
    let Some(path) = &config.upstream.hosts else {
        return Ok(Hosts::default());
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("can't read {} (`hosts` of [upstream])", path.display()))?;
    Ok(Hosts::parse(&text))
}

/// How much is kept of finished sagas with `durability = "none"`, in bytes.
const MEMORY_BESIDE_DISK: usize = 8 << 20;

/// The journal that the configuration asks for. It never falls back on memory by itself.
pub(super) fn journal(config: &Config) -> anyhow::Result<Arc<dyn Journal>> {
    let (open, keep) = (config.limits.sagas_in_flight, config.journal.keep);
    let memory = |bytes| {
        Memory::new(Retention {
            open,
            bytes,
            age: keep,
            ..Retention::default()
        })
    };
    match config.journal.store {
        Store::Disk => {
            let opened = Durable::open(
                &config.state_dir,
                durable::Settings {
                    open,
                    keep,
                    ..durable::Settings::default()
                },
            );
            let journal = opened.map_err(|error| {
                let denied = matches!(&error, OpenError::Folder { source, .. }
                    if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem));
                match denied {
                    true => anyhow::anyhow!(
                        "{error}; name a folder that this process may write with `state_dir`, or, to try Qbox out \
                         without a journal that survives it, set `store = \"memory\"` in [journal]"
                    ),
                    false => anyhow::Error::new(error).context("no journal (`state_dir`)"),
                }
            })?;
            tracing::debug!(file = %journal.path().display(), "journal");
            Ok(Arc::new(Split::new(journal, memory(MEMORY_BESIDE_DISK))))
        }
        Store::Memory => {
            tracing::warn!("the journal is in memory: when Qbox ends, sagas in flight are lost half-way");
            Ok(Arc::new(memory(Retention::default().bytes)))
        }
    }
}

/// The keys that the configuration names, or one that ends with this process.
pub(super) fn keys(config: &Config) -> anyhow::Result<Keys> {
    match &config.secrets.key_file {
        Some(path) => Keys::read(path)
            .with_context(|| format!("no keys in {} (`key_file` of [secrets])", path.display())),
        None => Keys::in_memory().context("no key for secrets"),
    }
}

pub(super) fn upstream(config: &Config, hosts: Hosts, workers: usize) -> Upstream {
    let limits = &config.limits;
    Upstream::new(upstream::Settings {
        hosts,
        workers,
        max_idle_per_upstream: limits.upstream_connections,
        idle_timeout: config.upstream.idle_timeout,
        connect_timeout: config.upstream.connect_timeout,
        response_body: limits.response_body,
        max_calls_per_upstream: config.upstream.concurrency,
        linger: config.upstream.linger,
        max_lingering: config.upstream.lingering,
        breaker: Breaker {
            failures: config.upstream.breaker.failures,
            open_for: config.upstream.breaker.open_for,
        },
        ..upstream::Settings::default()
    })
}

pub(super) fn runner(
    config: &Config,
    keys: Keys,
    journal: Arc<dyn Journal>,
    upstream: Upstream,
    spans: Option<Spans>,
) -> Runner {
    let settings = runner::Settings {
        in_flight: config.limits.sagas_in_flight,
        steps_in_flight: config.limits.steps_in_flight,
        retain: Retain {
            age: config.journal.keep,
            ..Retain::default()
        },
        secrets: Arc::new(config.secrets.names()),
        keys: Arc::new(keys),
        spans,
        ..runner::Settings::default()
    };
    Runner::new(journal, upstream, settings)
}

pub(super) fn proxy_settings(config: &Config, admin: SocketAddr) -> proxy::Settings {
    proxy::Settings {
        head: config.limits.head,
        connections: config.limits.connections,
        streams: config.limits.http2_streams,
        detect_timeout: config.proxy.detect_timeout,
        head_timeout: config.proxy.head_timeout,
        connect_timeout: config.proxy.connect_timeout,
        private: Some(admin),
        ..proxy::Settings::default()
    }
}
