//! How requests come in: captured by the kernel, or sent to a plain port. Hands each connection to the proxy.

use super::enrolment::Enrolment;
use crate::admin;
use crate::config::{CaptureMode, Config, Pass, WhenDown};
use crate::gateway::Gateway;
use crate::intercept::explicit::{self, ExplicitAccepted};
use crate::intercept::{
    self, Accepted, Before, Capture, Destination, Network, Other, Passed, PodStatus, Standing,
};
use crate::proxy::Proxy;
use crate::saga::Plan;
use crate::upstream::{MARK, Via};
use crate::workers::Spread;
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// Ports that are tried for one Qbox beside another, from the configured one on.
const PORTS: u16 = 4;

/// Who serves what comes in, and on which worker thread.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) proxy: Proxy<Gateway>,
    pub(super) spread: Spread,
}

/// The way in; dropped, it leaves nothing behind.
pub(super) enum Entrance {
    /// The pods' own connections.
    Captured {
        capture: Arc<Capture>,
        cgroup: PathBuf,
        cgroups: Vec<String>,
        port: u16,
        /// What the triggers' URLs name.
        ports: BTreeSet<u16>,
        when_down: WhenDown,
    },
    /// A plain port.
    Explicit {
        /// Gone once it is closed.
        listener: Option<explicit::Listener>,
        address: SocketAddr,
    },
}

impl Entrance {
    /// Opens it.
    ///
    /// # Errors
    /// What it needs is missing: the address, leave, the kernel's help.
    pub(super) fn open(
        config: &Config,
        enrolment: &Enrolment,
        plans: &[Arc<Plan>],
        service: Service,
    ) -> anyhow::Result<Self> {
        match config.capture.mode {
            CaptureMode::Ebpf => {
                Self::captured(&config.capture, config.capture.port, enrolment, plans, service)
            }
            CaptureMode::Explicit => Self::explicit(config.explicit.listen, service),
        }
    }

    /// Opens it beside the Qbox that runs and whose listeners are on the port `taken`: as long as that captures, nothing comes in
    /// here.
    ///
    /// # Errors
    /// As [`Entrance::open`]; all ports that are tried are in use; or it is no mode in which there could be two.
    pub(super) fn open_beside(
        taken: Option<u16>,
        config: &Config,
        enrolment: &Enrolment,
        plans: &[Arc<Plan>],
        service: &Service,
    ) -> anyhow::Result<Self> {
        let (CaptureMode::Ebpf, Some(taken)) = (config.capture.mode, taken) else {
            bail!("explicit mode is not handed over: stop the running Qbox first");
        };
        let configured = config.capture.port;
        // One before the last may still have connections to end.
        let ports = (0..PORTS).filter_map(|number| configured.checked_add(number));
        for port in ports.filter(|port| *port != taken) {
            let entrance = Self::captured(&config.capture, port, enrolment, plans, service.clone())?;
            match &entrance {
                Self::Captured { capture, .. } if capture.is_port_taken() => {}
                Self::Captured { .. } | Self::Explicit { .. } => return Ok(entrance),
            }
        }
        bail!(
            "in some pod the ports from {configured} on (`port` of [capture]) are all in use: has an earlier Qbox still to end?"
        );
    }

    /// Whether another Qbox can take this one's place.
    pub(super) fn can_hand_over(&self) -> bool {
        matches!(self, Self::Captured { .. })
    }

    /// Lets no further connection in, so that they come to the next Qbox. Those that are in go on.
    pub(super) fn hand_over(&mut self) {
        match self {
            Self::Captured { capture, .. } => capture.hand_over(),
            Self::Explicit { listener, .. } => *listener = None,
        }
    }

    fn captured(
        config: &crate::config::Capture,
        port: u16,
        enrolment: &Enrolment,
        plans: &[Arc<Plan>],
        service: Service,
    ) -> anyhow::Result<Self> {
        let Service { proxy, spread } = service;
        let leaving = proxy.clone();
        let settings = intercept::Settings {
            left: Arc::new(move || leaving.look()),
            cgroups: config.cgroups.clone(),
            policy: enrolment.policy(),
            port,
            mark: MARK,
            when_down: config.when_down,
            unknown: config.unknown,
            passed: config.pass.iter().copied().map(passed).collect(),
        };
        let sink = Arc::new(move |accepted: Accepted| {
            let proxy = proxy.clone();
            let Accepted {
                stream,
                peer,
                destination,
                pod,
            } = accepted;
            let (via, left) = (Via::Pod(pod.netns.clone()), Arc::clone(&pod.left));
            spread.give(stream, move |stream| async move {
                proxy.serve_captured(stream, peer, destination, via, left).await;
            });
        });
        let capture = Capture::start(&settings, sink)?;
        let plans = || plans.iter().map(|plan| &**plan);
        let ports = ports(plans());
        capture.set_destinations(&destinations(plans()))?;
        capture.replace_earlier();
        let capture = Arc::new(capture);
        enrolment.tell(Arc::downgrade(&capture));
        Ok(Self::Captured {
            cgroup: capture.cgroup().to_owned(),
            cgroups: shown(&capture.cgroups()),
            capture,
            port,
            ports,
            when_down: config.when_down,
        })
    }

    fn explicit(address: SocketAddr, service: Service) -> anyhow::Result<Self> {
        let Service { proxy, spread } = service;
        let sink = Arc::new(move |accepted: ExplicitAccepted| {
            let proxy = proxy.clone();
            let ExplicitAccepted {
                stream,
                peer,
                listens,
            } = accepted;
            spread.give(stream, move |stream| async move {
                proxy.serve_explicit(stream, peer, listens).await;
            });
        });
        let listener = explicit::listen(address, sink)
            .with_context(|| format!("can't listen on {address} (`listen` of [explicit])"))?;
        Ok(Self::Explicit {
            address: listener.address(),
            listener: Some(listener),
        })
    }

    /// Lets no further connection in. Those that are in go on.
    pub(super) fn close(&mut self) {
        match self {
            Self::Captured { capture, .. } => capture.detach(),
            Self::Explicit { listener, .. } => *listener = None,
        }
    }

    /// What stays when it is closed, for the log.
    pub(super) fn left_behind(&self) -> &'static str {
        match self {
            Self::Captured {
                when_down: WhenDown::Refuse,
                ..
            } => ": what triggers could match is refused until the next start, or `qbox clean`",
            Self::Captured { .. } | Self::Explicit { .. } => "",
        }
    }

    /// Tells what the API says of it, at the time of asking. It doesn't keep the entrance alive.
    pub(super) fn describe(&self) -> Box<dyn Fn() -> admin::Capture + Send + Sync> {
        match self {
            Self::Captured {
                capture,
                cgroup,
                cgroups,
                port,
                ..
            } => {
                let (capture, cgroup, port) = (Arc::downgrade(capture), cgroup.display().to_string(), *port);
                let cgroups = cgroups.clone();
                Box::new(move || {
                    let others = capture.upgrade().map(|capture| capture.others());
                    admin::Capture::Ebpf {
                        cgroup: cgroup.clone(),
                        cgroups: cgroups.clone(),
                        port,
                        others: others.unwrap_or_default().into_iter().map(other).collect(),
                    }
                })
            }
            Self::Explicit { address, .. } => {
                let listen = address.to_string();
                Box::new(move || admin::Capture::Explicit {
                    listen: listen.clone(),
                })
            }
        }
    }

    /// Tells the pods at the time of asking. It doesn't keep the entrance alive.
    pub(super) fn pods(&self) -> Box<dyn Fn() -> Vec<admin::Pod> + Send + Sync> {
        match self {
            Self::Captured { capture, .. } => {
                let capture = Arc::downgrade(capture);
                Box::new(move || {
                    let pods = capture.upgrade().map(|capture| capture.pods());
                    pods.unwrap_or_default().into_iter().map(pod).collect()
                })
            }
            Self::Explicit { .. } => Box::new(Vec::new),
        }
    }
}

impl Entrance {
    /// The capture, as long as there is one.
    pub(super) fn capture(&self) -> Weak<Capture> {
        match self {
            Self::Captured { capture, .. } => Arc::downgrade(capture),
            Self::Explicit { .. } => Weak::new(),
        }
    }

    /// Tells what the capture has counted, as long as there is one.
    pub(super) fn captured_so_far(&self) -> impl Fn() -> Option<intercept::Counters> + Send + Sync + 'static {
        let capture = self.capture();
        move || capture.upgrade().map(|capture| capture.counters())
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Captured {
                capture,
                cgroups,
                ports,
                ..
            } => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                let is_captured = |pod: &&PodStatus| pod.standing == Standing::In && pod.error.is_none();
                let pods = capture.pods().iter().filter(is_captured).count();
                let (cgroup, ports) = (cgroups.join(", "), ports.join(", "));
                match ports.is_empty() {
                    true => write!(
                        f,
                        "captures nothing from the pods below {cgroup}: no trigger names a port"
                    ),
                    false => write!(
                        f,
                        "captures what the pods below {cgroup} ({pods} now) send to port {ports}"
                    ),
                }
            }
            Self::Explicit { address, .. } => {
                write!(f, "listens on {address} (explicit mode: nothing is captured)")
            }
        }
    }
}

/// The ports that triggers name. A saga that only observes has to see its triggers too.
fn ports<'a>(plans: impl Iterator<Item = &'a Plan>) -> BTreeSet<u16> {
    plans.map(|plan| plan.trigger.port).collect()
}

/// What the kernel is to turn. A trigger is matched by its Host, wherever its connection goes: of a name the port is all
/// that is certain. Who asks for an address by itself goes there. A pod's own loopback is left alone unless a trigger names it.
pub(super) fn destinations<'a>(plans: impl Iterator<Item = &'a Plan>) -> Vec<Destination> {
    plans
        .flat_map(|plan| of_trigger(&plan.trigger.host, plan.trigger.port))
        .collect()
}

fn of_trigger(host: &str, port: u16) -> Vec<Destination> {
    let anywhere = Destination { port, network: None };
    let at = |network| Destination {
        port,
        network: Some(network),
    };
    if names_loopback(host) {
        return vec![anywhere, at(Network::V4_LOOPBACK), at(Network::V6_LOOPBACK)];
    }
    match literal(host) {
        Some(address) => vec![at(Network::of(address))],
        None => vec![anywhere],
    }
}

/// RFC 6761, 6.3, or an address.
fn names_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || literal(host).is_some_and(|address| address.is_loopback())
}

/// The address that a host is, as URLs have it: IPv6 in brackets. A mapped IPv4 one is unmapped.
fn literal(host: &str) -> Option<IpAddr> {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

fn passed(pass: Pass) -> Passed {
    let Pass {
        address,
        prefix,
        port,
    } = pass;
    Passed {
        network: Network { address, prefix },
        port,
    }
}

fn other(other: Other) -> admin::Other {
    admin::Other {
        hook: other.hook.to_owned(),
        program: other.program,
        id: other.id,
        cgroup: other.cgroup.display().to_string(),
        first: other.first,
    }
}

fn before(before: Before) -> admin::Before {
    admin::Before {
        hook: before.hook.to_owned(),
        program: before.program,
        id: before.id,
    }
}

fn pod(status: PodStatus) -> admin::Pod {
    admin::Pod {
        name: status.name,
        pid: Some(status.process),
        cgroup: status.cgroup.display().to_string(),
        netns: status.netns,
        left: status.standing != Standing::In,
        why: status.why,
        error: status.error,
        before: status.before.into_iter().map(before).collect(),
        lost: status.lost,
    }
}

fn shown(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_anywhere_and_an_address_is_where_it_is() {
        let anywhere = Destination {
            port: 80,
            network: None,
        };
        let at = |address: &str| {
            vec![Destination {
                port: 80,
                network: Some(Network::of(address.parse().unwrap())),
            }]
        };
        assert_eq!(of_trigger("trips.default.svc", 80), [anywhere]);
        assert_eq!(of_trigger("10.0.0.7", 80), at("10.0.0.7"));
        assert_eq!(of_trigger("[fd00::7]", 80), at("fd00::7"));
        assert_eq!(of_trigger("[::ffff:10.0.0.7]", 80), at("10.0.0.7"));
        for host in ["localhost", "a.localhost", "127.0.0.9", "[::1]"] {
            assert_eq!(of_trigger(host, 80).len(), 3, "{host}");
        }
    }
}
