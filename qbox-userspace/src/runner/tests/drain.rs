//! What a drain does with what has not ended.

use super::service::{Act, Service};
use super::*;

#[tokio::test]
async fn the_end_of_a_drain_tells_the_callers_and_begins_nothing_more() {
    let hotel = Service::start(|_| Act::Hang).await;
    let plan = saga(
        "lock = \"${trigger.path.trip}\"",
        &[step("hotel", &hotel.url("/7"), "")],
    );
    let runner = runner();
    let began = start(&runner, &plan, trigger("7", None, "a")).unwrap();
    let waits = start(&runner, &plan, trigger("7", None, "b")).unwrap();
    hotel.asked(1).await;
    let (began_id, waits_id) = (began.id, waits.id);
    let (began, waits, left) = tokio::join!(
        reply(began),
        reply(waits),
        runner.drain(Duration::from_millis(100))
    );
    assert_eq!(began.unwrap_err(), Refused::Unfinished);
    assert_eq!(waits.unwrap_err(), Refused::Draining, "nothing of it was sent");
    assert_eq!(left, 2);
    assert!(runner.saga(waits_id).unwrap().is_none());
    let began = runner.saga(began_id).unwrap().unwrap();
    assert_eq!(began.summary.state, State::Running);
    assert_eq!(hotel.seen().len(), 1);
}
