//! Records of small sagas.

use super::*;
use crate::config::load_saga;
use crate::saga::{Headers, Request};

const SAGA: &str = r#"
name = "book"
mode = "observe"
[trigger]
method = "POST"
url = "http://trips/trips/{trip}"
[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel/${trigger.path.trip}", headers = { authorization = "${trigger.headers.authorization}", x-key = "${trigger.json.password:}", x-own = "Basic literal" }, json = { guest = "${trigger.json.guest}", password = "${trigger.json.password:}" } }
success = [{ status = 201, json = { who = "${trigger.headers.authorization:}" } }]
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel/${trigger.path.trip}" }
[[step]]
name = "car"
after = ["hotel"]
request = { method = "PUT", url = "http://car/${steps.hotel.response.json.id}", body = "${trigger.body}${steps.hotel.response.json.who}" }
[reply.success]
status = 200
json = { car = "${steps.car.request.body}" }
"#;

fn plan() -> Arc<Plan> {
    Arc::new(load_saga(SAGA, "book.toml").unwrap().0)
}

fn trigger(trip: &str, body: &str) -> Trigger {
    let mut headers = Headers::default();
    headers.push("Authorization", "Bearer hunter2");
    headers.push("X-Tenant", "acme");
    Trigger {
        request: Request {
            method: "POST".to_owned(),
            url: format!("http://trips/trips/{trip}?api_key=hunter2&x=1"),
            headers,
            body: body.to_owned().into(),
        },
        path: vec![("trip".to_owned(), trip.to_owned())],
        destination: None,
        http2: false,
        depth: 0,
    }
}

/// Notes a trigger, and waits for its rehearsal.
async fn see(observer: &Observer, trigger: Trigger) -> (Record, Option<Witness>) {
    let witness = observer.observe(&plan(), PlanHash([0; 32]), trigger, 8);
    let id = observer.list(None, None, 1)[0].id;
    let filled = async {
        loop {
            let record = observer.get(id).unwrap();
            if record.rehearsal.is_some() || record.sighting.unrehearsed.is_some() {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let record = tokio::time::timeout(Duration::from_secs(20), filled).await;
    (record.expect("the rehearsal doesn't end"), witness)
}

#[tokio::test]
async fn every_request_is_filled_in_as_far_as_it_can_be() {
    let observer = Observer::new(10, Arc::default());
    let (record, witness) = see(&observer, trigger("7", "{\"guest\":\"Ada\"}")).await;
    let rehearsal = record.rehearsal.unwrap();
    let sent: Vec<_> = rehearsal
        .sent
        .iter()
        .map(|one| (one.wave, one.step.as_str(), one.url.as_str(), one.assumed))
        .collect();
    assert_eq!(
        sent,
        [
            (1, "hotel", "http://hotel/7", Some(201)),
            (2, "car", "http://car/steps.hotel.response.json.id", Some(200)),
        ]
    );
    let [hotel, car] = rehearsal.sent.as_slice() else {
        panic!("two requests")
    };
    assert_eq!(
        hotel.body.as_deref(),
        Some("{\"guest\":\"Ada\",\"password\":\"[redacted]\"}")
    );
    assert_eq!(car.body.as_deref(), Some("{\"guest\":\"Ada\"}[redacted]"));
    let id = record.sighting.id.to_string();
    let field = |name: &str| {
        hotel
            .headers
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .as_str()
    };
    assert_eq!(field("X-Qbox-TransactionID"), id);
    assert_eq!(
        (rehearsal.state, record.sighting.state),
        ("committed", Some("committed"))
    );
    assert_eq!(rehearsal.reply.unwrap().status, 200);
    assert_eq!(
        (record.sighting.answer, record.sighting.status),
        ("pending", None)
    );
    witness.unwrap().answered(Answer::Status(201));
    let seen = observer.get(record.sighting.id).unwrap().sighting;
    assert_eq!((seen.answer, seen.status), ("answered", Some(201)));
    assert!(seen.took_us.is_some());
}

#[tokio::test]
async fn what_can_not_be_filled_in_is_said() {
    let observer = Observer::new(10, Arc::default());
    let (record, _) = see(&observer, trigger("7", "{}")).await;
    let rehearsal = record.rehearsal.unwrap();
    assert_eq!(rehearsal.sent, [], "it would not have been sent");
    let cause = rehearsal.steps[0].cause.clone().unwrap();
    assert!(cause.contains("`${trigger.json.guest}` has no value"), "{cause}");
    assert_eq!(
        (rehearsal.state, rehearsal.steps[0].state),
        ("compensated", "refused")
    );
    assert_eq!(rehearsal.reply.unwrap().status, 502);
    let deep = Trigger {
        depth: 9,
        ..trigger("7", "{}")
    };
    let (record, _) = see(&observer, deep).await;
    assert!(record.rehearsal.is_none());
    assert!(record.sighting.unrehearsed.unwrap().contains("508"));
}

#[tokio::test]
async fn no_secret_gets_into_a_record() {
    let observer = Observer::new(10, Arc::default());
    for body in [
        "{\"guest\":\"Ada\",\"password\":\"hunter2\"}",
        "{\"guest\":\"Ada\",\"a\":{\"password\":[\"hunter2\"]}}",
        "password=hunter2 which is no JSON",
    ] {
        let (record, _) = see(&observer, trigger("7", body)).await;
        let shown = serde_json::to_string(&record).unwrap();
        assert!(
            shown.contains("[redacted]") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert!(shown.contains("acme") && shown.contains("x=1"), "{shown}");
    }
    let secrets = Secrets::new(["x-own"], [], []);
    let observer = Observer::new(10, Arc::new(secrets));
    let (record, _) = see(&observer, trigger("7", "{\"guest\":\"Ada\"}")).await;
    let shown = serde_json::to_string(&record).unwrap();
    assert!(!shown.contains("Basic literal"), "the file's own: {shown}");
}

#[tokio::test]
async fn the_newest_are_kept() {
    let observer = Observer::new(3, Arc::default());
    for trip in 0..5 {
        drop(see(&observer, trigger(&trip.to_string(), "{\"guest\":\"Ada\"}")).await);
    }
    let trips = |list: Vec<Sighting>| -> Vec<String> {
        let url = |one: &Sighting| one.url.split(['/', '?']).nth(4).unwrap_or_default().to_owned();
        list.iter().map(url).collect()
    };
    let all = observer.list(None, None, 100);
    assert_eq!(trips(all.clone()), ["4", "3", "2"]);
    assert_eq!(trips(observer.list(Some("book"), Some(all[0].id), 1)), ["3"]);
    assert_eq!(observer.list(Some("other"), None, 100), []);
    let counts = observer.counts();
    assert_eq!((counts.recorded, counts.dropped, counts.unrehearsed), (5, 2, 0));
    let none = Observer::new(0, Arc::default());
    assert!(
        none.observe(&plan(), PlanHash([0; 32]), trigger("7", ""), 8)
            .is_none()
    );
    assert_eq!(none.counts(), Counts::default());
}

/// However large what is sent, all of it together stays small.
#[tokio::test]
async fn records_are_bounded_in_bytes() {
    let observer = Observer::new(100_000, Arc::default());
    let mut large = trigger("7", "{\"guest\":\"Ada\"}");
    large.request.headers.push("X-Large", "x".repeat(64 << 10));
    for _ in 0..400 {
        drop(see(&observer, large.clone()).await);
    }
    let kept = observer.list(None, None, 1000).len();
    assert!((2..=BYTES / (64 << 10)).contains(&kept), "{kept}");
    let large = format!("{{\"guest\":\"{}\"}}", "x".repeat(900_000));
    let (record, _) = see(&observer, trigger("7", &large)).await;
    let shown = serde_json::to_string(&record).unwrap();
    assert!(shown.len() < 20_000, "{}", shown.len());
    assert_eq!(record.body_bytes, Some(large.len()));
}

#[tokio::test]
async fn too_many_at_once_are_noted_and_not_rehearsed() {
    let observer = Observer::new(100, Arc::default());
    let all = u32::try_from(AT_ONCE).unwrap();
    let busy = Arc::clone(&observer.shared.rehearsing);
    let busy = busy.try_acquire_many_owned(all).unwrap();
    let (record, witness) = see(&observer, trigger("7", "{}")).await;
    assert!(
        record
            .sighting
            .unrehearsed
            .unwrap()
            .contains("other triggers were being rehearsed")
    );
    witness.unwrap().answered(Answer::None);
    assert_eq!(
        observer.get(record.sighting.id).unwrap().sighting.answer,
        "unanswered"
    );
    drop(busy);
    let (record, _) = see(&observer, trigger("7", "{}")).await;
    assert!(record.rehearsal.is_some());
    assert_eq!(observer.counts().unrehearsed, 1);
}
