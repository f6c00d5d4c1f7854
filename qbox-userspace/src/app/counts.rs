//! The data path's counters under the names that the API draws them by. Each counter has one, or this doesn't compile.

use crate::admin::Traffic;
use crate::gateway::Gateway;
use crate::intercept;
use crate::proxy::{Counters, Errors, Proxy};

/// Reads them at the time of asking. `captured`: those of the capture, while there is one.
pub(super) fn traffic(
    proxy: Proxy<Gateway>,
    captured: impl Fn() -> Option<intercept::Counters> + Send + Sync + 'static,
) -> Box<dyn Fn() -> Traffic + Send + Sync> {
    Box::new(move || {
        let mut traffic = of_proxy(proxy.counters(), proxy.open());
        if let Some(counters) = captured() {
            of_capture(&counters, &mut traffic);
        }
        traffic
    })
}

fn of_proxy(counters: &Counters, open: usize) -> Traffic {
    let Counters {
        connections,
        over_limit,
        passed,
        unseen,
        taken,
        http2,
        opaque,
        undecided,
        tunnels,
        relay,
        errors,
    } = counters;
    let Errors {
        dial,
        malformed,
        head_too_large,
        body_too_large,
        response,
        streams,
        client,
        upstream,
        aborted,
    } = errors;
    Traffic {
        open,
        connections: connections.get(),
        over_limit: over_limit.get(),
        http2: http2.get(),
        relay: relay.get(),
        requests: vec![("passed", passed.get()), ("taken", taken.get())],
        unseen: unseen.get(),
        through: vec![
            ("opaque", opaque.get()),
            ("undecided", undecided.get()),
            ("tunnel", tunnels.get()),
        ],
        errors: vec![
            ("dial", dial.get()),
            ("malformed", malformed.get()),
            ("head_too_large", head_too_large.get()),
            ("body_too_large", body_too_large.get()),
            ("response", response.get()),
            ("streams", streams.get()),
            ("client", client.get()),
            ("upstream", upstream.get()),
            ("aborted", aborted.get()),
        ],
        ..Traffic::default()
    }
}

fn of_capture(counters: &intercept::Counters, traffic: &mut Traffic) {
    let intercept::Counters {
        captured,
        accepted,
        direct,
        stale,
        unenrolled,
        refused,
        left,
        no_memory,
        announced,
        unannounced,
        destinations,
        namespaces,
        filled,
        rules,
    } = *counters;
    let most = |most: u32| u64::from(most);
    traffic.maps = vec![
        ("destinations", destinations, most(qbox_common::MAX_DESTINATIONS)),
        ("namespaces", namespaces, most(qbox_common::MAX_NAMESPACES)),
        ("flows", filled.flows, most(qbox_common::MAX_FLOWS)),
        ("announced", filled.announced, most(qbox_common::MAX_ANNOUNCED)),
        ("events", filled.unread, most(qbox_common::EVENTS_BYTES)),
        ("pods", rules, most(qbox_common::MAX_PODS)),
    ];
    traffic.checked = filled.age;
    traffic.captured = vec![
        ("captured", captured),
        ("accepted", accepted),
        ("direct", direct),
        ("stale", stale),
        ("unenrolled", unenrolled),
        ("refused", refused),
        ("left", left),
        ("no_memory", no_memory),
    ];
    traffic.namespaces = vec![("announced", announced), ("unannounced", unannounced)];
}
