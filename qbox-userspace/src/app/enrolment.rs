//! Which pods are captured: all of the node's, or those that the Kubernetes API says. Puts what the API tells where interception
//! asks for it.

use crate::admin;
use crate::config::{CaptureMode, Config};
use crate::intercept::{Capture, Policy};
use crate::kubernetes::{Api, Counts, Health, Place, Pods};
use anyhow::Context;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long a start waits for the API's first list, so that the pods that are enrolled are captured when it is ready.
const FIRST_LIST: Duration = Duration::from_secs(5);

/// Says which.
pub(super) struct Enrolment {
    api: Option<Arc<Api>>,
}

impl Enrolment {
    /// Begins to ask the API, if the configuration wants it asked, and waits a moment for its first answer.
    ///
    /// # Errors
    /// What asking takes isn't there.
    pub(super) async fn begin(config: &Config) -> anyhow::Result<Self> {
        let settings = &config.kubernetes;
        if settings.enroll.is_none() || config.capture.mode != CaptureMode::Ebpf {
            return Ok(Self { api: None });
        }
        let place = Place::new(settings, |name| std::env::var(name).ok())?;
        let api = Api::start(place, settings).context("pods can't be enrolled by their labels")?;
        if !api.listed(FIRST_LIST).await {
            tracing::warn!(waited = ?FIRST_LIST, "the Kubernetes API has not told of this node's pods yet; going on without");
        }
        Ok(Self {
            api: Some(Arc::new(api)),
        })
    }

    /// What interception asks.
    pub(super) fn policy(&self) -> Arc<dyn Policy> {
        match &self.api {
            Some(api) => Arc::new(Pods::told_by(Arc::clone(api))),
            None => Arc::new(Pods::all()),
        }
    }

    /// Has a capture ask again whenever what holds has changed, for as long as it lives.
    pub(super) fn tell(&self, capture: Weak<Capture>) {
        let Some(api) = &self.api else { return };
        let mut changes = api.changes();
        // Some may have come since the capture's first scan.
        changes.mark_changed();
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let Some(capture) = capture.upgrade() else { return };
                capture.reconsider();
            }
        });
    }

    /// Tells how it goes, for the API of this node's Qbox.
    pub(super) fn describe(&self) -> Box<dyn Fn() -> Option<admin::Kubernetes> + Send + Sync> {
        let api = self.api.as_ref().map(Arc::downgrade);
        Box::new(move || Some(view(api.as_ref()?.upgrade()?.health())))
    }
}

fn view(health: Health) -> admin::Kubernetes {
    let amiss = health.amiss();
    let Health {
        node,
        enroll,
        listed,
        away,
        pods,
        enrolled,
        counts:
            Counts {
                lists,
                watches,
                events,
                expired,
                failures,
            },
    } = health;
    let (away, error) = away.unzip();
    admin::Kubernetes {
        node,
        enroll,
        listed,
        away: away.map(|time| time.as_secs()),
        error,
        pods,
        enrolled,
        lists,
        watches,
        events,
        expired,
        failures,
        amiss,
    }
}
