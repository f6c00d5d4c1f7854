//! Why a trigger has no saga's reply, as an RFC 9457 problem.

use crate::proxy::Reply;
use crate::runner::Refused;
use bytes::Bytes;

/// The answer to a trigger that was refused.
pub(super) fn refused(refused: &Refused) -> Reply {
    let (status, title) = match refused {
        // Who tries again without a key would begin another one: no Retry-After.
        Refused::Unfinished => (503, "The saga has not ended"),
        Refused::Busy | Refused::Locked | Refused::Draining | Refused::NotBegun(_) => {
            (503, "The saga was not started; try again")
        }
        Refused::KeyReused => (422, "The Idempotency-Key was used for another request"),
        Refused::Orphan(_) => (409, "The saga above does not let this one begin"),
        Refused::Halted(_) => (500, "The saga was halted; its outcome is unknown"),
    };
    let mut reply = Reply::problem(status, Some(title), &refused.to_string());
    if status == 503 && *refused != Refused::Unfinished {
        reply
            .headers
            .push(("Retry-After".into(), Bytes::from_static(b"1")));
    }
    reply
}

/// The answer to a trigger below too many sagas (RFC 5842, 7.2).
pub(super) fn too_deep(limit: u8) -> Reply {
    let detail = format!("more than {limit} sagas are above this one");
    Reply::problem(508, Some("Sagas nest too deeply"), &detail)
}
