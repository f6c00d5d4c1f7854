//! Why a trigger has no saga's reply, as an RFC 9457 problem.

use crate::proxy::Reply;
use crate::runner::Refused;
use bytes::Bytes;

/// The answer to a trigger that was refused.
pub(super) fn refused(refused: &Refused) -> Reply {
    let (status, title) = match refused {
        Refused::Busy | Refused::Locked | Refused::Draining | Refused::NotBegun(_) => {
            (503, "The saga was not started; try again")
        }
        Refused::KeyReused => (422, "The Idempotency-Key was used for another request"),
        Refused::Halted(_) => (500, "The saga was halted; its outcome is unknown"),
    };
    let mut reply = problem(status, title, &refused.to_string());
    if status == 503 {
        reply
            .headers
            .push(("Retry-After".to_owned(), Bytes::from_static(b"1")));
    }
    reply
}

/// The answer to a trigger below too many sagas (RFC 5842, 7.2).
pub(super) fn too_deep(limit: u8) -> Reply {
    let detail = format!("more than {limit} sagas are above this one");
    problem(508, "Sagas nest too deeply", &detail)
}

fn problem(status: u16, title: &str, detail: &str) -> Reply {
    let body =
        serde_json::json!({ "type": "about:blank", "status": status, "title": title, "detail": detail });
    Reply {
        status,
        headers: vec![(
            "Content-Type".to_owned(),
            Bytes::from_static(b"application/problem+json"),
        )],
        body: Bytes::from(body.to_string()),
    }
}
