//! Deciding over the API.

use super::*;
use crate::runner::State;
use crate::saga::SagaId;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const JSON: &str = "Content-Type: application/json";

/// Status and body of a POST with these header fields over `stream`.
fn post(mut stream: impl Read + Write, path: &str, fields: &[&str], body: &str) -> (u16, Value) {
    let fields = fields.join("\r\n");
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    let kind = match status {
        200 => "application/json",
        _ => "application/problem+json",
    };
    assert!(head.contains(kind), "{answer}");
    (status, serde_json::from_str(body).unwrap())
}

fn decide(admin: &Admin, path: &str, body: &str) -> (u16, Value) {
    let stream = UnixStream::connect(admin.socket().unwrap()).unwrap();
    post(stream, path, &["Host: localhost", JSON], body)
}

/// A runner with a saga that is stuck in its hotel.
async fn stuck() -> (Runner, SagaId, Service, Service) {
    let hotel = Service::start(|seen| match seen.method.as_str() {
        "DELETE" => Act::Answer(500, "{}"),
        _ => Act::Answer(200, "{}"),
    })
    .await;
    let car = Service::start(|_| Act::Answer(409, "{}")).await;
    let text = format!(
        "name = \"book-trip\"\n[trigger]\nurl = \"http://trips/trips/{{trip}}\"\n\
         [[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"{0}\" }}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{0}\" }}\nretry = {{ attempts = 1 }}\n\
         [[step]]\nname = \"car\"\nafter = [\"hotel\"]\nrequest = {{ method = \"PUT\", url = \"{1}\" }}\n",
        hotel.url("/7"),
        car.url("/7"),
    );
    let runner = runner();
    let handle = testing::start(&runner, &plan(&text), trigger("7", None, "")).unwrap();
    let id = handle.id;
    drop(handle.reply().await);
    let stuck = async {
        while runner.health().stuck == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), stuck)
        .await
        .unwrap();
    (runner, id, hotel, car)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_saga_is_settled() {
    let (runner, id, _hotel, _car) = stuck().await;
    let (admin, _folder) = start(&runner, node());
    let (_, shown) = get(&admin, &format!("/api/v1/sagas/{id}"));
    assert_eq!(shown["stuck"][0]["step"], "hotel", "{shown:#}");
    assert_eq!(shown["stuck"][0]["last"], "answered 500");
    let path = |action: &str| format!("/api/v1/sagas/{id}/{action}");
    let why = r#"{"why":"ticket 7"}"#;

    let (status, problem) = decide(&admin, &path("resume"), why);
    assert_eq!((status, &problem["status"]), (409, &409.into()));
    assert_eq!(problem["detail"], "this can't be done now: it is not paused");
    for (action, body, expected) in [
        ("mend", why, 404),
        ("retry", "retry it", 400),
        ("retry", "{}", 400),
        ("retry", r#"{"why":"x","wer":"me"}"#, 400),
        ("retry", r#"{"why":""}"#, 422),
        ("skip", why, 422),
        ("skip", r#"{"why":"x","step":"hotels"}"#, 422),
    ] {
        assert_eq!(decide(&admin, &path(action), body).0, expected, "{action} {body}");
    }
    let nobody = format!("/api/v1/sagas/{}/retry", SagaId(7));
    assert_eq!(decide(&admin, &nobody, why).0, 404);
    let long = format!(r#"{{"why":"{}"}}"#, "x".repeat(20_000));
    assert_eq!(decide(&admin, &path("retry"), &long).0, 413);

    let skip = r#"{"step":"hotel","why":"refunded by phone"}"#;
    let (status, saga) = decide(&admin, &path("skip"), skip);
    assert_eq!((status, &saga["state"]), (200, &"compensated".into()), "{saga:#}");
    assert_eq!(saga["id"], id.to_string());
    let (_, shown) = get(&admin, &format!("/api/v1/sagas/{id}"));
    let events = shown["events"].as_array().unwrap();
    let decided = events.iter().find(|event| event["kind"] == "decided").unwrap();
    // The socket's peer is this test's own user.
    let me = super::super::peer::Peer::Unix {
        user: Some(rustix::process::getuid().as_raw()),
        process: None,
    }
    .name();
    assert_eq!(
        decided["text"],
        format!("{me} decided: skip hotel (refunded by phone)")
    );
    let (status, problem) = decide(&admin, &path("retry"), why);
    assert_eq!(
        (status, &problem["detail"]),
        (409, &"the saga has ended: it is compensated".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_match_are_decided_on() {
    let (runner, id, _hotel, _car) = stuck().await;
    let (admin, _folder) = start(&runner, node());
    let body = r#"{"why":"ticket 7","who":"ada"}"#;
    let resolve = |query: &str| decide(&admin, &format!("/api/v1/sagas/resolve?{query}"), body);
    assert_eq!(resolve("").0, 400, "which?");
    assert_eq!(resolve("stat=stuck&all=true").0, 400);
    let none = resolve("state=running").1;
    assert_eq!((&none["done"], &none["refused"]), (&0.into(), &0.into()));
    let dry = resolve("state=stuck&step=hotel&dry_run=true").1;
    assert_eq!(
        (&dry["done"], &dry["sagas"][0]["id"]),
        (&1.into(), &id.to_string().into()),
        "{dry:#}"
    );
    assert_eq!(runner.saga(id).unwrap().unwrap().summary.state, State::Stuck);
    let skip_car = r#"{"why":"ticket 7","step":"car"}"#;
    let refused = decide(&admin, "/api/v1/sagas/skip?state=stuck", skip_car).1;
    assert_eq!((&refused["done"], &refused["refused"]), (&0.into(), &1.into()));
    assert_eq!(refused["sagas"][0]["status"], 409);
    let done = resolve("state=stuck").1;
    assert_eq!(
        (&done["done"], &done["sagas"][0]["state"]),
        (&1.into(), &"compensated".into()),
        "{done:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_elsewhere_decides_nothing() {
    let (runner, id, _hotel, _car) = stuck().await;
    let (admin, _folder) = start(&runner, node());
    let host = format!("Host: {}", admin.address());
    let ask = |fields: &[&str]| {
        let stream = TcpStream::connect(admin.address()).unwrap();
        post(
            stream,
            &format!("/api/v1/sagas/{id}/resolve"),
            fields,
            r#"{"why":"x"}"#,
        )
    };
    assert_eq!(ask(&[&host]).0, 415);
    assert_eq!(ask(&[&host, "Content-Type: text/plain"]).0, 415);
    assert_eq!(ask(&[&host, JSON, "Origin: http://evil.example"]).0, 403);
    assert_eq!(ask(&["Host: evil.example", JSON]).0, 403);
    assert_eq!(runner.saga(id).unwrap().unwrap().summary.state, State::Stuck);
    let own = format!("Origin: http://{}", admin.address());
    assert_eq!(ask(&[&host, JSON, &own]).0, 200);
    let detail = runner.saga(id).unwrap().unwrap();
    let who = detail.events.iter().find_map(|event| match event {
        crate::saga::Event::Decided { operator, .. } => Some(operator.who.clone()),
        _ => None,
    });
    assert_eq!(who.as_deref(), Some("api:127.0.0.1"));
}
