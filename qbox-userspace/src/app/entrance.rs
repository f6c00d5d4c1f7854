//! How requests come in: captured by the kernel, or sent to a plain port. Hands each connection to the proxy.

use crate::admin::{Capture, Pod};
use crate::config::{CaptureMode, Config};
use crate::gateway::Gateway;
use crate::intercept::explicit::{self, ExplicitAccepted};
use crate::proxy::Proxy;
use crate::saga::Plan;
use anyhow::{Context, bail};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The way in; dropped, no further connection comes.
#[derive(Debug)]
pub(super) enum Entrance {
    Explicit { listener: explicit::Listener },
}

type Ask<T> = Box<dyn Fn() -> Vec<T> + Send + Sync>;

impl Entrance {
    /// Opens it.
    ///
    /// # Errors
    /// What it needs is missing: the address, leave, the kernel's help.
    pub(super) fn open(
        config: &Config,
        _plans: &[Arc<Plan>],
        proxy: &Proxy<Gateway>,
    ) -> anyhow::Result<Self> {
        match config.capture.mode {
            CaptureMode::Ebpf => bail!("this build can't capture yet: run it with --explicit"),
            CaptureMode::Explicit => Self::explicit(config.explicit.listen, proxy.clone()),
        }
    }

    fn explicit(address: SocketAddr, proxy: Proxy<Gateway>) -> anyhow::Result<Self> {
        let sink = Arc::new(move |accepted: ExplicitAccepted| {
            let proxy = proxy.clone();
            let ExplicitAccepted { stream, peer } = accepted;
            tokio::spawn(async move { proxy.serve_explicit(stream, peer).await });
        });
        let listener = explicit::listen(address, sink)
            .with_context(|| format!("can't listen on {address} (`listen` of [explicit])"))?;
        Ok(Self::Explicit { listener })
    }

    /// What the API says of it.
    pub(super) fn describe(&self) -> Capture {
        match self {
            Self::Explicit { listener } => Capture::Explicit {
                listen: listener.address().to_string(),
            },
        }
    }

    /// The pods that are captured at the time of asking.
    pub(super) fn pods(&self) -> Ask<Pod> {
        match self {
            Self::Explicit { .. } => Box::new(Vec::new),
        }
    }

    /// What is amiss with it at the time of asking.
    pub(super) fn amiss(&self) -> Ask<String> {
        match self {
            Self::Explicit { .. } => Box::new(Vec::new),
        }
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit { listener } => write!(
                f,
                "listens on {} (explicit mode: nothing is captured)",
                listener.address()
            ),
        }
    }
}
