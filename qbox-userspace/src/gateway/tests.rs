//! The gateway over a real runner; what it is asked, as the proxy asks it.

use super::*;
use crate::journal::Memory;
use crate::runner::testing::{Act, Service, plan};
use crate::upstream::{Upstream, Via};
use std::time::Duration;

const LIMITS: Settings = Settings {
    trigger_body: 1000,
    depth: 2,
};

struct Asked<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'static str,
}

impl<'a> Asked<'a> {
    fn post(target: &'a str, body: &'static str) -> Self {
        Self {
            method: "POST",
            target,
            headers: vec![("Host", "trips.default.svc:8080")],
            body,
        }
    }

    fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }
}

fn gateway(sagas: &[String], in_flight: usize) -> Gateway {
    let definitions: Vec<Definition> = sagas
        .iter()
        .map(|text| Definition::new(plan(text).0).unwrap())
        .collect();
    let settings = crate::runner::Settings {
        in_flight,
        ..Default::default()
    };
    let runner = Runner::new(
        Arc::new(Memory::new(Default::default())),
        Upstream::new(Default::default()),
        settings,
    );
    Gateway::new(&definitions, runner, Observer::new(10, Arc::default()), LIMITS)
}

/// A saga of one step that is sent to `service`, and whose reply is its name.
fn saga(name: &str, trigger: &str, service: &Service) -> String {
    format!(
        "name = \"{name}\"\n[trigger]\n{trigger}\n[[step]]\nname = \"only\"\n\
         request = {{ method = \"PUT\", url = \"{}\" }}\n[reply.success]\nstatus = 200\nbody = \"{name}\"\n",
        service.url("/x")
    )
}

fn inspect(gateway: &Gateway, asked: &Asked<'_>) -> Verdict {
    let headers: Vec<httparse::Header<'_>> = asked
        .headers
        .iter()
        .map(|(name, value)| httparse::Header {
            name,
            value: value.as_bytes(),
        })
        .collect();
    gateway.inspect(Head {
        method: asked.method,
        target: asked.target,
        headers: &headers,
    })
}

/// As the proxy does it: `None` is passed on.
async fn ask(gateway: &Gateway, asked: &Asked<'_>) -> Option<Reply> {
    match inspect(gateway, asked) {
        Verdict::Pass => return None,
        Verdict::Take { max_body } | Verdict::Look { max_body } => assert_eq!(max_body, 1000),
    }
    let headers = asked.headers.iter();
    let taken = Taken {
        method: asked.method.to_owned(),
        target: asked.target.to_owned(),
        headers: headers
            .map(|(name, value)| ((*name).into(), value.as_bytes().to_vec().into()))
            .collect(),
        body: asked.body.into(),
        via: Via::Node,
        destination: None,
        http2: false,
    };
    let handled = tokio::time::timeout(Duration::from_secs(10), gateway.handle(taken)).await;
    match handled.expect("no reply came") {
        Handled::Reply(reply) => Some(reply),
        Handled::Pass(_) => None,
    }
}

async fn body(gateway: &Gateway, asked: &Asked<'_>) -> Option<String> {
    let reply = ask(gateway, asked).await?;
    Some(String::from_utf8(reply.body.to_vec()).unwrap())
}

fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let found = reply.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
    found.map(|(_, value)| std::str::from_utf8(value).unwrap())
}

#[tokio::test]
async fn two_sagas_that_differ_by_their_url_only() {
    let service = Service::willing().await;
    let one = "method = \"POST\"\nurl = \"http://trips.default.svc:8080/trips/{trip}\"";
    let two = "method = \"POST\"\nurl = \"http://trips.default.svc:8080/tours/{trip}\"";
    let gateway = gateway(&[saga("one", one, &service), saga("two", two, &service)], 100);
    assert_eq!(
        body(&gateway, &Asked::post("/trips/7", "")).await.as_deref(),
        Some("one")
    );
    assert_eq!(
        body(&gateway, &Asked::post("/tours/7", "")).await.as_deref(),
        Some("two")
    );
    let absolute = Asked::post("http://trips.default.svc:8080/tours/7?x=1", "");
    assert_eq!(body(&gateway, &absolute).await.as_deref(), Some("two"));
    for pass in [
        "/trips",
        "/trips/7/8",
        "/trips/",
        "/other/7",
        "http://other:8080/trips/7",
    ] {
        assert_eq!(inspect(&gateway, &Asked::post(pass, "")), Verdict::Pass, "{pass}");
    }
    let mut get = Asked::post("/trips/7", "");
    get.method = "GET";
    assert_eq!(inspect(&gateway, &get), Verdict::Pass);
    let mut elsewhere = Asked::post("/trips/7", "");
    for host in [
        "trips.default.svc",
        "trips.default.svc:80",
        "tours.default.svc:8080",
        "",
    ] {
        elsewhere.headers[0].1 = host;
        assert_eq!(inspect(&gateway, &elsewhere), Verdict::Pass, "{host}");
    }
    elsewhere.headers[0].1 = "TRIPS.Default.svc:8080";
    assert_eq!(body(&gateway, &elsewhere).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn the_body_decides_where_a_trigger_asks_for_it() {
    let service = Service::willing().await;
    let url = "url = \"http://trips.default.svc:8080/trips/{trip}\"";
    let book = saga("book", &format!("{url}\njson = {{ kind = \"book\" }}"), &service);
    let move_ = saga(
        "move",
        &format!("{url}\njson = {{ kind = \"move\" }}\npriority = 1"),
        &service,
    );
    let gateway = gateway(&[book, move_], 100);
    let kind = |body| Asked::post("/trips/7", body);
    assert_eq!(
        body(&gateway, &kind("{\"kind\":\"book\"}")).await.as_deref(),
        Some("book")
    );
    assert_eq!(
        body(&gateway, &kind("{\"kind\":\"move\"}")).await.as_deref(),
        Some("move")
    );
    for other in [
        "",
        "{}",
        "{\"kind\":\"look\"}",
        "{\"kind\":\"book\"",
        "[\"book\"]",
    ] {
        assert_eq!(body(&gateway, &kind(other)).await, None, "{other}");
    }
    assert_eq!(service.seen().len(), 2, "what is passed on starts nothing");
}

#[tokio::test]
async fn the_higher_priority_goes_first() {
    let service = Service::willing().await;
    let wide = saga(
        "wide",
        "url = \"http://trips.default.svc:8080/trips/{trip}\"",
        &service,
    );
    let narrow = "url = \"http://trips.default.svc:8080/trips/7\"\npriority = 5";
    let gateway = gateway(&[wide, saga("narrow", narrow, &service)], 100);
    assert_eq!(
        body(&gateway, &Asked::post("/trips/7", "")).await.as_deref(),
        Some("narrow")
    );
    assert_eq!(
        body(&gateway, &Asked::post("/trips/8", "")).await.as_deref(),
        Some("wide")
    );
}

#[tokio::test]
async fn a_saga_that_only_observes_passes_everything_on() {
    let service = Service::willing().await;
    let text = saga(
        "x",
        "url = \"http://trips.default.svc:8080/trips/{trip}\"",
        &service,
    );
    let gateway = gateway(&[text.replace("[trigger]", "mode = \"observe\"\n[trigger]")], 100);
    // However long its body is.
    assert!(matches!(
        inspect(&gateway, &Asked::post("/trips/7", "")),
        Verdict::Look { .. }
    ));
    assert!(ask(&gateway, &Asked::post("/trips/7", "")).await.is_none());
    assert_eq!(service.seen(), []);
    let observed = gateway.observer.list(None, None, 10);
    assert_eq!(observed.len(), 1);
    assert_eq!(
        (observed[0].name.as_str(), observed[0].url.as_str()),
        ("x", "http://trips.default.svc:8080/trips/7")
    );
    // Nobody listens to what `ask` got back.
    assert_eq!(observed[0].answer, "unanswered");
    let to = |port| Some(SocketAddr::from(([10, 0, 0, 7], port)));
    assert!(gateway.listens(to(8080)) && !gateway.listens(to(80)) && !gateway.listens(None));
}

#[tokio::test]
async fn every_reply_names_its_saga() {
    let service = Service::willing().await;
    let gateway = gateway(
        &[saga(
            "x",
            "url = \"http://trips.default.svc:8080/trips/{trip}\"",
            &service,
        )],
        100,
    );
    let reply = ask(&gateway, &Asked::post("/trips/7", "")).await.unwrap();
    let id = field(&reply, ID).unwrap();
    assert_eq!(service.seen()[0].header(ID), Some(id));
}

#[tokio::test]
async fn sagas_nest_so_deep_and_no_deeper() {
    let service = Service::willing().await;
    let gateway = gateway(
        &[saga(
            "x",
            "url = \"http://trips.default.svc:8080/trips/{trip}\"",
            &service,
        )],
        100,
    );
    let reply = ask(&gateway, &Asked::post("/trips/7", "").with("X-Qbox-Depth", "2"))
        .await
        .unwrap();
    assert_eq!(reply.status, 200);
    for deeper in ["3", "255"] {
        let reply = ask(
            &gateway,
            &Asked::post("/trips/7", "").with("X-Qbox-Depth", deeper),
        )
        .await
        .unwrap();
        assert_eq!(reply.status, 508, "{deeper}");
        assert_eq!(field(&reply, "content-type"), Some("application/problem+json"));
    }
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn a_key_for_another_request_is_422() {
    let service = Service::willing().await;
    let gateway = gateway(
        &[saga(
            "x",
            "url = \"http://trips.default.svc:8080/trips/{trip}\"",
            &service,
        )],
        100,
    );
    let keyed = |body| Asked::post("/trips/7", body).with("Idempotency-Key", "\"k\"");
    let first = ask(&gateway, &keyed("a")).await.unwrap();
    let again = ask(&gateway, &keyed("a")).await.unwrap();
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(field(&first, ID), field(&again, ID));
    let other = ask(&gateway, &keyed("b")).await.unwrap();
    assert_eq!(other.status, 422);
    assert_eq!(field(&other, "retry-after"), None);
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn one_too_many_is_503_and_may_come_back() {
    let service = Service::start(|_| Act::Hang).await;
    let gateway = Arc::new(gateway(
        &[saga(
            "x",
            "url = \"http://trips.default.svc:8080/trips/{trip}\"",
            &service,
        )],
        1,
    ));
    let busy = Arc::clone(&gateway);
    let first = tokio::spawn(async move { ask(&busy, &Asked::post("/trips/7", "")).await });
    service.asked(1).await;
    let reply = ask(&gateway, &Asked::post("/trips/8", "")).await.unwrap();
    assert_eq!(reply.status, 503);
    assert_eq!(field(&reply, "retry-after"), Some("1"));
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem["detail"], "too many sagas are in flight");
    first.abort();
}
