//! From a machine's call to the wire, and from the wire's end to the machine's outcome.

use crate::saga::{AttemptEnd, Call, Direction, Headers, Response};
use crate::upstream::{End, Late, Outgoing, Upstream, Via};
use std::net::{IpAddr, SocketAddr};

/// How an exchange ended; and the exchange itself, where it is listened to for longer.
pub(super) type Heard = (AttemptEnd, Option<Late>);

/// Carries out one call. Only a forwarded trigger leaves from the pod, for its original destination; every other request
/// is Qbox's own and leaves from the node.
///
/// After a restart there is no pod any more (`None`): the trigger then leaves from the node for the same destination, unless
/// that is an address which means something else there. `http2`: the trigger came over HTTP/2, and is forwarded so.
pub(super) async fn carry_out(
    upstream: Upstream,
    call: Call,
    pod: Option<Via>,
    destination: Option<SocketAddr>,
    http2: bool,
) -> Heard {
    let (via, destination) = match (call.forward, pod) {
        (false, _) => (Via::Node, None),
        (true, Some(pod)) => (pod, destination),
        (true, None) => match destination.filter(|to| is_the_pods_own(to.ip())) {
            None => (Via::Node, destination),
            Some(to) => {
                let cause =
                    format!("{to} is an address inside the pod, which Qbox's restart has cut it off from");
                return (AttemptEnd::NotSent(cause), None);
            }
        },
    };
    let (end, late) = upstream
        .call(Outgoing {
            method: &call.request.method,
            url: &call.request.url,
            headers: &call.request.headers.0,
            body: call.request.body.clone(),
            via: &via,
            destination,
            http2: call.forward && http2,
            timeout: call.timeout,
            credentials: !call.forward,
            // What has to be undone waits for a service that isn't there; what goes forward fails fast.
            patient: matches!(call.direction, Direction::Compensation(_)),
        })
        .await;
    // What comes late of a probe or a compensation tells nothing that the next one doesn't.
    (
        said(end),
        late.filter(|_| call.direction == Direction::Transaction),
    )
}

/// What becomes of an exchange that is listened to beyond its time.
pub(super) async fn hear_out(late: Late) -> Heard {
    (said(late.end().await), None)
}

fn said(end: End) -> AttemptEnd {
    match end {
        End::NotSent(cause) => AttemptEnd::NotSent(cause),
        End::Held(cause) => AttemptEnd::Held(cause),
        End::TimedOut => AttemptEnd::TimedOut,
        End::Broken(how) => AttemptEnd::Broken(how),
        End::Answered(answer) => AttemptEnd::Answered(Response {
            status: answer.status,
            headers: Headers(answer.headers),
            body: answer.body,
            truncated: answer.truncated,
        }),
    }
}

/// Whether an address leads to different places from the pod and from the node: loopback, link-local, unspecified.
fn is_the_pods_own(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_another_place_on_the_node() {
        for own in [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "::ffff:127.0.0.2",
            "0.0.0.0",
        ] {
            assert!(is_the_pods_own(own.parse().unwrap()), "{own}");
        }
        for shared in ["10.96.0.7", "192.168.1.1", "fd00::7", "8.8.8.8"] {
            assert!(!is_the_pods_own(shared.parse().unwrap()), "{shared}");
        }
    }
}
