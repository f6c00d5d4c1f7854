//! From a machine's call to the wire, and from the wire's end to the machine's outcome.

use crate::saga::{AttemptEnd, Call, Headers, Outcome, Response};
use crate::upstream::{End, Outgoing, Upstream, Via};
use std::net::SocketAddr;

/// Carries out one call. Only a forwarded trigger leaves from the pod, for its original destination; every other request
/// is Qbox's own and leaves from the node.
pub(super) async fn carry_out(
    upstream: Upstream,
    call: Call,
    pod: Via,
    destination: Option<SocketAddr>,
) -> Outcome {
    let (via, destination) = if call.forward {
        (pod, destination)
    } else {
        (Via::Node, None)
    };
    let end = upstream
        .call(Outgoing {
            method: &call.request.method,
            url: &call.request.url,
            headers: &call.request.headers.0,
            body: call.request.body.clone(),
            via: &via,
            destination,
            timeout: call.timeout,
        })
        .await;
    Outcome {
        step: call.step,
        direction: call.direction,
        attempt: call.attempt,
        end: match end {
            End::NotSent(cause) => AttemptEnd::NotSent(cause),
            End::TimedOut => AttemptEnd::TimedOut,
            End::Broken(how) => AttemptEnd::Broken(how),
            End::Answered(answer) => AttemptEnd::Answered(Response {
                status: answer.status,
                headers: Headers(answer.headers),
                body: answer.body,
                truncated: answer.truncated,
            }),
        },
    }
}
