//! The API over its two sockets.

mod actions;

use super::*;
use crate::runner::testing::{self, Act, Service, plan, runner, trigger};
use crate::saga::{Plan, PlanHash, Timestamp};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

pub(super) fn node() -> Node {
    Node {
        capture: Box::new(|| Capture::Explicit {
            listen: "127.0.0.1:3001".to_owned(),
        }),
        kubernetes: Box::new(|| {
            Some(super::Kubernetes {
                node: "node-1".to_owned(),
                enroll: "a=b".to_owned(),
                listed: true,
                away: Some(3),
                error: Some("pods: it says 503".to_owned()),
                pods: 3,
                enrolled: 2,
                lists: 1,
                watches: 1,
                events: 4,
                expired: 0,
                failures: 1,
                amiss: None,
            })
        }),
        pods: Box::new(|| {
            let pod = |name: &str, netns, error: Option<&str>| Pod {
                name: name.to_owned(),
                cgroup: format!("/sys/fs/cgroup/qbox/{name}"),
                pid: Some(7),
                netns,
                why: "all pods are".to_owned(),
                left: false,
                error: error.map(str::to_owned),
                before: Vec::new(),
                lost: false,
            };
            let left = Pod {
                left: true,
                ..pod("c", 44, None)
            };
            vec![pod("a", 42, None), pod("b", 43, Some("the port is taken")), left]
        }),
        observer: Observer::new(10, Arc::default()),
        traffic: Box::new(|| Traffic {
            requests: vec![("passed", 3)],
            unseen: 3,
            ..Traffic::default()
        }),
        definitions: Box::new(Arc::default),
        log: Box::new(|filter| match filter {
            Some("x=y=z") => Err("`x=y=z` is not a log filter".to_owned()),
            Some(filter) => Ok(filter.to_owned()),
            None => Ok("info".to_owned()),
        }),
        reload: Box::new(|| {
            Arc::new(Definitions {
                error: Some(LoadError {
                    since: Timestamp(7),
                    report: "error[QB0001]: no TOML".to_owned(),
                }),
                ..Definitions::default()
            })
        }),
        handover: Box::new(|_| {
            let (done, waits) = tokio::sync::oneshot::channel();
            done.send(2).ok().map(|()| waits)
        }),
        standby: Box::new(|| None),
    }
}

/// The node, with one saga that is loaded.
pub(super) fn node_with(saga: &(Arc<Plan>, PlanHash)) -> Node {
    let loaded = Arc::new(Definitions {
        definitions: vec![definition(
            &saga.0,
            &saga.1.to_string(),
            "sagas/x.toml",
            Timestamp(5),
        )],
        needs_restart: vec!["proxy"],
        ..Definitions::default()
    });
    let again = Arc::clone(&loaded);
    Node {
        definitions: Box::new(move || Arc::clone(&loaded)),
        reload: Box::new(move || Arc::clone(&again)),
        ..node()
    }
}

pub(super) fn start(runner: &Runner, node: Node) -> (Admin, tempfile::TempDir) {
    start_with(runner, node, None)
}

/// TCP clients are asked for `token`.
pub(super) fn start_with(runner: &Runner, node: Node, token: Option<&str>) -> (Admin, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let token_file = token.map(|token| {
        let file = folder.path().join("token");
        std::fs::write(&file, format!("{token}\n")).unwrap();
        file
    });
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        token_file,
        socket: folder.path().join("run/admin.sock"),
    };
    let bound = Bound::new(&settings).unwrap();
    (Admin::start(bound, runner.clone(), node).unwrap(), folder)
}

/// Status and body of a GET over `stream`.
fn ask(mut stream: impl Read + Write, path: &str, host: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.get(9..12).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}

/// Status, head and body of any request over the Unix socket.
pub(super) fn exchange(admin: &Admin, method: &str, target: &str, body: &str) -> (u16, String, String) {
    let stream = std::os::unix::net::UnixStream::connect(admin.socket().unwrap()).unwrap();
    exchange_over(stream, method, target, body)
}

/// The same of a GET over TCP.
pub(super) fn get_over_tcp(admin: &Admin, path: &str) -> (u16, String, String) {
    let stream = std::net::TcpStream::connect(admin.address()).unwrap();
    exchange_over(stream, "GET", path, "")
}

fn exchange_over(
    mut stream: impl Read + Write,
    method: &str,
    target: &str,
    body: &str,
) -> (u16, String, String) {
    let length = body.len();
    let kind = "application/json";
    write!(
        stream,
        "{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

fn get(admin: &Admin, path: &str) -> (u16, Value) {
    let stream = std::os::unix::net::UnixStream::connect(admin.socket().unwrap()).unwrap();
    let (status, body) = ask(stream, path, "localhost");
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

#[tokio::test]
async fn both_sockets_answer_and_only_to_their_own_name() {
    let (admin, _folder) = start(&runner(), node());
    assert_eq!(get(&admin, "/healthz"), (200, Value::String("ok\n".to_owned())));
    let tcp = || std::net::TcpStream::connect(admin.address()).unwrap();
    assert_eq!(ask(tcp(), "/healthz", &admin.address().to_string()).0, 200);
    assert_eq!(ask(tcp(), "/api/v1/status", "rebound.example").0, 403);
    assert_eq!(get(&admin, "/nothing").0, 404);
    let (status, pods) = get(&admin, "/api/v1/pods");
    assert_eq!(status, 200);
    assert_eq!(
        (pods["pods"].as_array().unwrap().len(), &pods["pods"][0]["netns"]),
        (1, &42.into())
    );
    assert_eq!(pods["uncaptured"][0]["error"], "the port is taken");
    assert_eq!(pods["left"][0]["name"], "c");
    let (_, status) = get(&admin, "/api/v1/status");
    assert_eq!(status["capture"]["listen"], "127.0.0.1:3001");
    assert_eq!(status["pid"], std::process::id());
}

#[tokio::test]
async fn a_handover_is_asked_on_the_unix_socket_alone() {
    let (admin, _folder) = start(&runner(), node());
    let path = "/api/v1/handover";
    let (status, _, body) = exchange(&admin, "POST", path, "{}");
    assert_eq!((status, body.as_str()), (200, "{\"left\":2}"));
    let mut tcp = std::net::TcpStream::connect(admin.address()).unwrap();
    let host = admin.address();
    let kind = "application/json";
    write!(
        tcp,
        "POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    .unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 403"), "{answer}");
    let none = Node {
        handover: Box::new(|_| None),
        ..node()
    };
    let (admin, _folder) = start(&runner(), none);
    assert_eq!(exchange(&admin, "POST", path, "{}").0, 409);
}

#[tokio::test]
async fn one_that_stands_by_is_told_how_it_stands() {
    let (tell, _) = tokio::sync::watch::channel(Standing::On);
    let tell = Arc::new(tell);
    let standing = Arc::clone(&tell);
    let (admin, _folder) = start(&runner(), node());
    let path = "/api/v1/standby";
    assert_eq!(exchange(&admin, "POST", path, "{}").0, 409);
    let node = Node {
        standby: Box::new(move || Some(standing.subscribe())),
        ..node()
    };
    let (admin, _folder) = start(&runner(), node);
    let follow = || {
        let mut stream = std::os::unix::net::UnixStream::connect(admin.socket().unwrap()).unwrap();
        let patience = std::time::Duration::from_secs(20);
        stream.set_read_timeout(Some(patience)).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
        assert!(lines.next().unwrap().unwrap().starts_with("HTTP/1.0 200"));
        while !lines.next().unwrap().unwrap().is_empty() {}
        assert_eq!(lines.next().unwrap().unwrap(), "");
        lines
    };
    let mut lines = follow();
    assert_eq!(tell.receiver_count(), 1);
    tell.send_replace(Standing::Stopping);
    let said: Vec<String> = lines
        .by_ref()
        .map(Result::unwrap)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(said, ["stopping"]);
    // One that has gone isn't counted for long.
    tell.send_replace(Standing::On);
    drop(follow());
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while tell.receiver_count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_pod_that_is_lost_turns_it_not_ready() {
    let mut node = node();
    let pods = std::mem::replace(&mut node.pods, Box::new(Vec::new));
    node.pods = Box::new(move || {
        let lost = |pod: Pod| Pod {
            before: Vec::new(),
            lost: pod.error.is_some(),
            ..pod
        };
        pods().into_iter().map(lost).collect()
    });
    let (admin, _folder) = start(&runner(), node);
    let (status, ready) = get(&admin, "/readyz");
    assert_eq!(status, 503);
    assert_eq!(
        ready["amiss"],
        serde_json::json!(["the pod b is no longer captured: the port is taken"])
    );
}

#[tokio::test]
async fn the_socket_is_its_owners_and_goes_with_the_api() {
    let (admin, folder) = start(&runner(), node());
    let path = admin.socket().unwrap().to_owned();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        token_file: None,
        socket: path.clone(),
    };
    let error = anyhow::Error::from(Bound::new(&again).unwrap_err());
    assert_eq!(
        format!("{error:#}"),
        format!(
            "can't make the admin socket {}: another Qbox answers there",
            path.display()
        )
    );
    drop(admin);
    assert!(!path.exists());
    // What a killed Qbox leaves behind is replaced; what is no socket is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(Bound::new(&again).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(Bound::new(&again).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    drop(folder);
}

#[test]
fn an_address_that_is_taken_is_named_with_its_cause_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        listen: taken.local_addr().unwrap(),
        token_file: None,
        socket: "/nowhere".into(),
    };
    let error = anyhow::Error::from(Bound::new(&settings).unwrap_err());
    let text = format!("{error:#}");
    assert!(
        text.starts_with("the admin API can't listen on 127.0.0.1:"),
        "{text}"
    );
    assert_eq!(text.matches("in use").count(), 1, "{text}");
}

#[tokio::test]
async fn readiness_says_what_is_amiss() {
    let runner = runner();
    let (admin, _folder) = start(&runner, node());
    assert_eq!(get(&admin, "/readyz").0, 200);
    runner.drain(std::time::Duration::ZERO).await;
    let (status, body) = get(&admin, "/readyz");
    assert_eq!((status, &body["amiss"][0]), (503, &"stopping".into()));
}

#[tokio::test]
async fn a_sagas_timeline_is_told() {
    let (saga, [hotel, _car]) = refused().await;
    let runner = runner();
    let (admin, _folder) = start(&runner, node_with(&saga));
    let handle = testing::start(&runner, &saga, trigger("7", None, "")).unwrap();
    let id = handle.id;
    assert_eq!(handle.reply().await.unwrap().status, 502);
    runner.drain(std::time::Duration::from_secs(10)).await;

    let (_, list) = get(&admin, "/api/v1/sagas?limit=5");
    assert_eq!(list["sagas"][0]["id"], id.to_string());
    assert_eq!(list["sagas"][0]["state"], "compensated");
    assert_eq!(list["sagas"][0]["failed_step"], "car");
    let listed = |query: &str| {
        let (_, list) = get(&admin, &format!("/api/v1/sagas?{query}"));
        list["sagas"].as_array().unwrap().len()
    };
    assert_eq!(listed("state=stuck,compensated&step=car&younger_than=1h"), 1);
    assert_eq!(listed("state=stuck"), 0);
    assert_eq!(get(&admin, "/api/v1/sagas?older_than=soon").0, 400);
    let (_, saga) = get(&admin, &format!("/api/v1/sagas/{id}"));
    let events = saga["events"].as_array().unwrap();
    let find = |kind: &str, step: &str, direction: &str| {
        let found = events
            .iter()
            .find(|e| e["kind"] == kind && e["step"] == step && e["direction"] == direction);
        found.unwrap_or_else(|| panic!("no {kind} of {step}'s {direction} in {saga:#}"))
    };
    assert_eq!(events[0]["url"], "http://trips/trips/7");
    let undo = find("sending", "hotel", "compensation");
    assert_eq!(
        (&undo["method"], &undo["url"]),
        (&"DELETE".into(), &hotel.url("/7/undo").into())
    );
    let refused = find("ended", "car", "transaction");
    assert_eq!(
        (&refused["end"], &refused["status"], &refused["class"]),
        (&"answered".into(), &409.into(), &"not_applied".into())
    );
    let replied = events.iter().find(|e| e["kind"] == "replied").unwrap();
    assert_eq!(
        (&replied["status"], &replied["text"]),
        (&502.into(), &"caller answered 502".into())
    );
    let offsets: Vec<u64> = events.iter().map(|e| e["offset_us"].as_u64().unwrap()).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");

    let (_, definitions) = get(&admin, "/api/v1/definitions");
    assert_eq!(definitions["definitions"][0]["steps"][1]["after"][0], "hotel");
    assert_eq!(get(&admin, "/api/v1/sagas/nonsense").0, 400);
    assert_eq!(
        get(&admin, "/api/v1/sagas/00000000-0000-0000-0000-000000000000").0,
        404
    );
}

/// The value of one line of `/metrics`, named as it is written there.
fn metric(document: &str, name: &str) -> f64 {
    let mut lines = document.lines().filter_map(|line| line.rsplit_once(' '));
    let line = lines.find(|(series, _)| *series == name);
    let (_, value) = line.unwrap_or_else(|| panic!("no {name} in\n{document}"));
    value.parse().unwrap()
}

#[tokio::test]
async fn what_sagas_do_is_counted() {
    let (saga, _services) = refused().await;
    let runner = runner();
    let (admin, _folder) = start(&runner, node());
    let (_, before) = get(&admin, "/metrics");
    assert_eq!(
        metric(
            before.as_str().unwrap(),
            "qbox_triggers_refused_total{reason=\"busy\"}"
        ),
        0.0
    );
    let first = testing::start(&runner, &saga, trigger("7", Some("k"), "")).unwrap();
    let again = testing::start(&runner, &saga, trigger("7", Some("k"), "")).unwrap();
    assert_eq!(first.reply().await.unwrap().status, 502);
    again.reply().await.unwrap();
    testing::start(&runner, &saga, trigger("8", Some("k"), "")).unwrap_err();
    runner.drain(std::time::Duration::from_secs(10)).await;
    testing::start(&runner, &saga, trigger("9", None, "")).unwrap_err();
    runner.too_deep();

    let (status, document) = get(&admin, "/metrics");
    let document = document.as_str().unwrap();
    assert_eq!(status, 200, "{document}");
    let attempts = |step: &str, direction: &str, class: &str| {
        let labels =
            format!("saga=\"book-trip\",step=\"{step}\",direction=\"{direction}\",class=\"{class}\"");
        metric(document, &format!("qbox_attempts_total{{{labels}}}"))
    };
    assert_eq!(attempts("hotel", "transaction", "applied"), 1.0);
    assert_eq!(attempts("hotel", "compensation", "applied"), 1.0);
    assert_eq!(attempts("car", "transaction", "not_applied"), 1.0);
    assert_eq!(attempts("car", "transaction", "applied"), 0.0);
    for (name, value) in [
        (
            "qbox_sagas_ended_total{saga=\"book-trip\",outcome=\"compensated\"}",
            1.0,
        ),
        (
            "qbox_saga_duration_seconds_bucket{le=\"+Inf\",saga=\"book-trip\",outcome=\"compensated\"}",
            1.0,
        ),
        ("qbox_sagas_begun_total{saga=\"book-trip\"}", 1.0),
        (
            "qbox_step_duration_seconds_count{saga=\"book-trip\",step=\"hotel\",outcome=\"applied\"}",
            1.0,
        ),
        (
            "qbox_step_duration_seconds_count{saga=\"book-trip\",step=\"car\",outcome=\"failed\"}",
            1.0,
        ),
        ("qbox_limit_reached_total{limit=\"limits.sagas_in_flight\"}", 0.0),
        ("qbox_limit_reached_total{limit=\"limits.depth\"}", 1.0),
        ("qbox_triggers_refused_total{reason=\"too_deep\"}", 1.0),
        ("qbox_sagas{saga=\"book-trip\",state=\"running\"}", 0.0),
        ("qbox_sagas{saga=\"book-trip\",state=\"stuck\"}", 0.0),
        ("qbox_triggers_joined_total", 1.0),
        ("qbox_triggers_refused_total{reason=\"key_reused\"}", 1.0),
        ("qbox_triggers_refused_total{reason=\"draining\"}", 1.0),
        ("qbox_requests_total{handling=\"passed\"}", 3.0),
        ("qbox_pods{captured=\"false\"}", 1.0),
        ("qbox_pods_left", 1.0),
        ("qbox_kubernetes_answers", 0.0),
        ("qbox_kubernetes_pods{enrolled=\"false\"}", 1.0),
        ("qbox_kubernetes_requests_total{outcome=\"failed\"}", 1.0),
        ("qbox_ready", 0.0),
    ] {
        assert_eq!(metric(document, name), value, "{name} in\n{document}");
    }
    // As Prometheus asks, and as others do.
    let asked = "localhost\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let stream = std::net::TcpStream::connect(admin.address()).unwrap();
    let (_, open) = ask(stream, "/metrics", asked);
    assert!(open.ends_with("# EOF\n") && !document.contains("# EOF"), "{open}");
}

/// What is described is drawn, in that order, and nothing else is; docs/metrics.md is written from it.
#[tokio::test]
async fn every_metric_is_described() {
    let (admin, _folder) = start(&runner(), node());
    let (_, document) = get(&admin, "/metrics");
    let lines = document.as_str().unwrap().lines();
    let types = lines.filter_map(|line| line.strip_prefix("# TYPE "));
    let mut drawn: Vec<&str> = types.map(|line| line.split_once(' ').unwrap().0).collect();
    let mut described = super::metrics::described();
    drawn.sort_unstable();
    described.sort_unstable();
    assert_eq!(drawn, described);
}

#[tokio::test]
async fn over_tcp_a_token_is_asked_where_there_is_one() {
    let (admin, _folder) = start_with(&runner(), node(), Some("c2VjcmV0"));
    // The second line of `host` is one more field of the request.
    let tcp = |path: &str, host: &str| {
        let stream = std::net::TcpStream::connect(admin.address()).unwrap();
        ask(stream, path, host).0
    };
    let with_token = "node-7.example\r\nAuthorization: Bearer c2VjcmV0";
    for path in ["/healthz", "/readyz"] {
        assert_eq!(tcp(path, "node-7.example"), 200, "{path}");
    }
    for path in [
        "/api/v1/status",
        "/api/v1/sagas",
        "/metrics",
        "/nothing",
        "/healthz/",
    ] {
        assert_eq!(tcp(path, "localhost"), 401, "{path}");
        assert_eq!(
            tcp(path, "localhost\r\nAuthorization: Bearer c2VjcmV1"),
            401,
            "{path}"
        );
    }
    assert_eq!(tcp("/api/v1/status", with_token), 200);
    assert_eq!(tcp("/metrics", with_token), 200);
    assert_eq!(
        get(&admin, "/api/v1/status").0,
        200,
        "the socket is its owner's alone"
    );
}

/// A plan whose first step is done and undone, since its second one is refused.
pub(super) async fn refused() -> ((Arc<crate::saga::Plan>, crate::saga::PlanHash), [Service; 2]) {
    let hotel = Service::willing().await;
    let car = Service::start(|_| Act::Answer(409, "{\"error\":\"no cars\"}")).await;
    let text = format!(
        "name = \"book-trip\"\n[trigger]\nurl = \"http://trips/trips/{{trip}}\"\n\
         [[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"{}\" }}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{}\" }}\n\
         [[step]]\nname = \"car\"\nafter = [\"hotel\"]\nrequest = {{ method = \"PUT\", url = \"{}\" }}\n",
        hotel.url("/7"),
        hotel.url("/7/undo"),
        car.url("/7"),
    );
    (plan(&text), [hotel, car])
}

#[tokio::test]
async fn a_history_says_how_long_what_took_and_why_it_failed() {
    let (saga, _services) = refused().await;
    let runner = runner();
    let (admin, _folder) = start(&runner, node());
    let handle = testing::start(&runner, &saga, trigger("7", None, "")).unwrap();
    let id = handle.id;
    handle.reply().await.unwrap();
    runner.drain(std::time::Duration::from_secs(10)).await;
    let (_, saga) = get(&admin, &format!("/api/v1/sagas/{id}"));
    let steps: Vec<_> = saga["steps"].as_array().unwrap().iter().collect();
    let state = |step: usize| {
        let step = &steps[step];
        (
            step["state"].as_str(),
            step["attempts"].as_u64(),
            step["compensations"].as_u64(),
        )
    };
    assert_eq!(state(0), (Some("undone"), Some(1), Some(1)));
    assert_eq!(state(1), (Some("not_applied"), Some(1), Some(0)));
    let events = saga["events"].as_array().unwrap();
    let ended: Vec<_> = events.iter().filter(|event| event["kind"] == "ended").collect();
    let took: u64 = ended.iter().map(|event| event["took_us"].as_u64().unwrap()).sum();
    let steps_took: u64 = steps.iter().map(|step| step["took_us"].as_u64().unwrap()).sum();
    assert_eq!(took, steps_took);
    let bodies: Vec<_> = ended.iter().map(|event| event["body"].as_str()).collect();
    assert_eq!(bodies, [Some("{}"), Some("{\"error\":\"no cars\"}"), Some("{}")]);
    // The requests too, with their fields; not among what happens to all sagas.
    let sent = events.iter().filter(|event| event["kind"] == "sending");
    for sending in sent {
        let step = format!("[\"X-Qbox-Step\",{}]", sending["step"]);
        assert!(sending["headers"].to_string().contains(&step), "{sending}");
    }
    let (_, _, told) = exchange(&admin, "GET", "/api/v1/events?limit=100", "");
    assert!(
        told.contains("answered 409") && !told.contains("X-Qbox-Step"),
        "{told}"
    );
}

#[tokio::test]
async fn events_are_told_as_they_happen() {
    let (saga, _services) = refused().await;
    let runner = runner();
    let (admin, _folder) = start(&runner, node());
    let run = async |id: &str| {
        let handle = testing::start(&runner, &saga, trigger(id, None, "")).unwrap();
        let id = handle.id;
        handle.reply().await.unwrap();
        id.to_string()
    };
    let first = run("7").await;
    let path = admin.socket().unwrap().to_owned();
    let follow = move |query: &str| {
        let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        write!(
            &stream,
            "GET /api/v1/events?{query} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )
        .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
        assert!(lines.next().unwrap().unwrap().contains("200"));
        let head = lines
            .by_ref()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty());
        assert_eq!(
            head.filter(|line| line == "content-type: application/x-ndjson")
                .count(),
            1
        );
        lines
            .map_while(Result::ok)
            .map(|line| serde_json::from_str::<Value>(&line).unwrap())
    };
    let mut following = follow("follow=1&limit=1000");
    let kinds = |events: &[Value]| -> Vec<String> {
        let kinds = events
            .iter()
            .map(|event| event["kind"].as_str().unwrap().to_owned());
        kinds.collect()
    };
    let until_ended = |following: &mut dyn Iterator<Item = Value>| {
        let mut events: Vec<Value> = Vec::new();
        while events.last().is_none_or(|last| last["kind"] != "replied") {
            events.push(following.next().expect("it goes on"));
        }
        events
    };
    let told = until_ended(&mut following);
    assert!(
        told.iter()
            .all(|event| event["saga"] == first && event["name"] == "book-trip")
    );
    let wanted = [
        "began",
        "sending",
        "ended",
        "sending",
        "ended",
        "step_failed",
        "failed",
        "compensating",
        "sending",
        "ended",
        "undone",
        "compensated",
        "replied",
    ];
    assert_eq!(kinds(&told), wanted);
    let second = run("8").await;
    let (told, mut following) = tokio::task::spawn_blocking(move || (until_ended(&mut following), following))
        .await
        .unwrap();
    assert_eq!(kinds(&told), wanted, "what follows is what happened");
    assert!(told.iter().all(|event| event["saga"] == second));
    // Without following it ends by itself; the newest are shown, the oldest of them first.
    let newest: Vec<Value> = follow("limit=2&name=book-trip").collect();
    assert_eq!(kinds(&newest), ["compensated", "replied"]);
    assert_eq!(follow("state=stuck").count(), 0);
    // Every place is taken, and then one is free again.
    let held: Vec<_> = (0..15).map(|_| follow("follow=1")).collect();
    let (status, problem) = get(&admin, "/api/v1/events");
    assert_eq!((status, &problem["status"]), (503, &503.into()));
    drop(held);
    drop(admin);
    assert_eq!(following.next(), None, "the API's end is the answer's end");
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_is_named() {
    let (admin, _folder) = start(&runner(), node());
    for (query, parameter) in [
        ("/api/v1/sagas?limit=0", "limit"),
        ("/api/v1/sagas?limit=1001", "limit"),
        ("/api/v1/sagas?state=stucked", "state"),
        ("/api/v1/sagas?colour=red", "colour"),
        ("/api/v1/sagas?sort=age", "sort"),
        ("/api/v1/sagas?cursor=7", "cursor"),
        ("/api/v1/events?follow=perhaps", "follow"),
        ("/api/v1/events?older_than=10", "older_than"),
    ] {
        let (status, problem) = get(&admin, query);
        assert_eq!(
            (status, &problem["parameter"]),
            (400, &parameter.into()),
            "{query}: {problem}"
        );
        assert_eq!(problem["title"], "Bad Request");
    }
}

#[tokio::test]
async fn pages_follow_on_one_another() {
    let hotel = Service::willing().await;
    let saga = plan(&format!(
        "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{{trip}}\"\n\
         [[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"{}\" }}\n",
        hotel.url("/7")
    ));
    let runner = runner();
    let (admin, _folder) = start(&runner, node());
    let mut ids = Vec::new();
    for n in 0..5 {
        let handle = testing::start(&runner, &saga, trigger(&n.to_string(), None, "")).unwrap();
        ids.push(handle.id.to_string());
        handle.reply().await.unwrap();
    }
    runner.drain(std::time::Duration::from_secs(10)).await;
    for (sort, descending) in [
        ("arrived", false),
        ("-arrived", true),
        ("ended", false),
        ("-name", true),
    ] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (status, page) = get(
                &admin,
                &format!("/api/v1/sagas?limit=2&sort={sort}&cursor={cursor}"),
            );
            assert_eq!(status, 200, "{page}");
            let sagas = page["sagas"].as_array().unwrap();
            found.extend(sagas.iter().map(|saga| saga["id"].as_str().unwrap().to_owned()));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        if descending {
            found.reverse();
        }
        assert_eq!((found, pages), (ids.clone(), 3), "{sort}");
    }
}
