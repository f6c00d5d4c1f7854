//! What those who look on are shown, and what a journal keeps.

use super::service::{Act, Service};
use super::{reply, runner, saga, start, step, trigger};

#[tokio::test]
async fn who_looks_on_sees_no_secret() {
    let body = "{\"password\":\"hunter2\"}";
    let hotel = Service::start(move |_| Act::Answer(409, body)).await;
    let url = hotel.url("/7?k=${trigger.headers.authorization}");
    let plan = saga("", &[step("hotel", &url, "")]);
    let runner = runner();
    let mut trigger = trigger("7", None, body);
    trigger.request.url.push_str("?password=hunter2");
    trigger.request.headers.push("Authorization", "hunter2");
    let handle = start(&runner, &plan, trigger).unwrap();
    let id = handle.id;
    let reply = reply(handle).await.unwrap();
    assert_eq!(hotel.seen()[0].target, "/7?k=hunter2");
    let detail = runner.saga(id).unwrap().unwrap();
    let (told, _) = runner.follow();
    assert!(!told.is_empty());
    let shown = format!("{detail:?} {told:?} {}", String::from_utf8_lossy(&reply.body));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("/7?k=${trigger.headers.authorization}") && shown.contains("[redacted]"),
        "{shown}"
    );
}
