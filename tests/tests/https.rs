//! Steps over TLS: whom Qbox trusts, what it shows of itself, and credentials that come from files, changed under way.

use anyhow::{Context, Result};
use qbox_tests::{Act, Asked, Authority, DEADLINE, Node, Pod, Qbox, Service, Settings, Shown, wait_for};
use serde_json::Value;
use std::fs;

/// A booking of two steps: `bank` under TLS, asked when its answer is lost, and `car` in the clear.
const SAGA: &str = r#"
name = "pay-NAME"
[trigger]
method = "POST"
url = "http://car.default.svc:8080/NAME/{trip}"
[[step]]
name = "bank"
request = { method = "PUT", url = "https://bank.default.svc:PORT/payments/${trigger.path.trip}", headers = { authorization = "of the saga", x-note = "n" } }
[step.probe]
request = { method = "GET", url = "https://bank.default.svc:PORT/payments/${trigger.path.trip}" }
applied = [{ status = 200 }]
refused = [{ status = 404 }]
[[step.compensate]]
request = { method = "DELETE", url = "https://bank.default.svc:PORT/payments/${trigger.path.trip}" }
[[step]]
name = "car"
after = ["bank"]
request = { method = "PUT", url = "http://car.default.svc:8080/bookings/${trigger.path.trip}" }
[[step.compensate]]
request = { method = "DELETE", url = "http://car.default.svc:8080/bookings/${trigger.path.trip}" }
"#;

fn saga(name: &str, port: u16) -> String {
    SAGA.replace("NAME", name).replace("PORT", &port.to_string())
}

struct World {
    qbox: Qbox,
    bank: Service,
    car: Service,
    client: Pod,
    _pods: [Pod; 2],
    node: Node,
}

/// Listens in the bank's pod on further ports, one for each configuration.
fn world(
    sagas: Vec<String>,
    table: &str,
    files: &[(&str, &str)],
    bank: &Shown,
    clients: Option<&Authority>,
    others: &[(u16, &Shown)],
) -> Result<(World, Vec<Service>)> {
    let node = Node::new()?;
    for (name, text) in files {
        fs::write(node.folder().join(name), text)?;
    }
    let (bank_pod, car_pod) = (node.pod("bank")?, node.pod("car")?);
    let car = Service::start("car", vec![car_pod.listen(8080)?])?;
    let others = others
        .iter()
        .map(|(port, shown)| Service::start_tls("other", vec![bank_pod.listen(*port)?], shown.server(None)?))
        .collect::<Result<_>>()?;
    let bank = Service::start_tls("bank", vec![bank_pod.listen(8443)?], bank.server(clients)?)?;
    let client = node.pod("client")?;
    let settings = Settings {
        extra: table.replace("FOLDER", &node.folder().display().to_string()),
        level: Some("trace"),
        ..Settings::sagas(sagas)
    };
    let qbox = Qbox::start(&node, &settings)?;
    qbox.wait_for_pod(client.name())?;
    let world = World {
        qbox,
        bank,
        car,
        client,
        _pods: [bank_pod, car_pod],
        node,
    };
    Ok((world, others))
}

impl World {
    fn book(&self, name: &str, trip: &str) -> Result<(u16, String)> {
        let url = format!("http://car.default.svc:8080/{name}/{trip}");
        self.client.http(["-X", "POST", &url])
    }

    /// The saga that booked last.
    fn last(&self) -> Result<Value> {
        let list = self.qbox.admin().sagas()?;
        let id = list
            .first()
            .and_then(|saga| saga["id"].as_str())
            .context("no saga")?;
        self.qbox.admin().saga(id)
    }

    /// Puts a new file in an old one's place, and waits until Qbox has read it.
    fn exchange(&self, files: &[(&str, &str)]) -> Result<()> {
        let before = self.reloads()?;
        for (name, text) in files {
            let file = self.node.folder().join(name);
            let aside = file.with_extension("new");
            fs::write(&aside, text)?;
            fs::rename(aside, file)?;
        }
        wait_for("the files to be read", DEADLINE, || {
            Ok((self.reloads()? > before).then_some(()))
        })
    }

    fn reloads(&self) -> Result<u64> {
        let told = self.qbox.admin().json("/api/v1/definitions")?;
        anyhow::ensure!(
            told["error"].is_null() || told["reloads"].as_u64().is_some(),
            "{told}"
        );
        told["reloads"].as_u64().context("no count")
    }

    /// Neither logged nor told nor written down.
    fn nowhere(&self, secrets: &[&str]) -> Result<()> {
        let saga = self.last()?.to_string();
        let log = self.qbox.log();
        let state = self.node.folder().join("qbox/state");
        for secret in secrets {
            assert!(!log.contains(secret), "the log has {secret}");
            assert!(!saga.contains(secret), "the API has {secret}: {saga}");
            for file in fs::read_dir(&state)? {
                let bytes = fs::read(file?.path())?;
                let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "the journal has {secret}");
            }
        }
        Ok(())
    }
}

fn authorizations(asked: &[Asked]) -> Vec<(&str, Option<&str>)> {
    let all = asked.iter();
    all.map(|asked| (asked.method.as_str(), asked.header("authorization")))
        .collect()
}

const TRUST: &str = "[[upstream.service]]\nhost = \"*.default.svc:8443\"\nca = \"FOLDER/ca.pem\"\n";

/// A transaction whose answer is lost, its probe, and its compensation; then another token.
#[test]
fn a_token_is_shown_by_every_message_and_can_change() -> Result<()> {
    let authority = Authority::new("one")?;
    let shown = authority.certify("bank.default.svc", false)?;
    let table = format!(
        "{TRUST}bearer_file = \"FOLDER/token\"\nheader_files = {{ x-api-key = \"FOLDER/api-key\" }}\n"
    );
    let files = [
        ("ca.pem", &*authority.pem()),
        ("token", "first-token\n"),
        ("api-key", "the-api-key\n"),
    ];
    let (world, _) = world(vec![saga("a", 8443)], &table, &files, &shown, None, &[])?;
    world.bank.when_booking(Act::ServeAndReset);
    world.car.when_booking(Act::Refuse(409));
    let (status, body) = world.book("a", "7")?;
    assert_eq!(status, 502, "{body}");
    let asked = world.bank.asked();
    let token = Some("Bearer first-token");
    assert_eq!(
        authorizations(&asked),
        [("PUT", token), ("GET", token), ("DELETE", token)]
    );
    for message in &asked {
        assert_eq!(message.header("x-api-key"), Some("the-api-key"));
        let fields = message.headers.iter().filter(|(name, _)| name == "authorization");
        assert_eq!(fields.count(), 1, "the saga's own beside it");
    }
    assert_eq!(asked[0].header("x-note"), Some("n"));
    assert_eq!(asked[0].header("host"), Some("bank.default.svc:8443"));
    assert!(world.bank.ledger().is_empty());
    // Another service is not shown it.
    assert!(
        world
            .car
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );

    world.bank.script(|_| Act::Serve);
    world.car.script(|_| Act::Serve);
    world.exchange(&[("token", "second-token\n")])?;
    let (status, body) = world.book("a", "8")?;
    assert_eq!(status, 200, "{body}");
    let last = world.bank.asked().pop().context("not asked")?;
    assert_eq!(last.header("authorization"), Some("Bearer second-token"));

    // A file that can't be used changes nothing, and is told of without what is in it.
    fs::write(world.node.folder().join("token"), "third token\n")?;
    let told = wait_for("the mistake to be told", DEADLINE, || {
        let told = world.qbox.admin().json("/api/v1/definitions")?;
        Ok(told["error"]["report"].as_str().map(str::to_owned))
    })?;
    assert!(told.contains("token") && told.contains("no space"), "{told}");
    assert_eq!(world.book("a", "9")?.0, 200);
    world.nowhere(&["first-token", "second-token", "third token", "the-api-key"])
}

/// A service that knows its callers by certificate; then the certificate changes.
#[test]
fn a_certificate_is_shown_and_can_change() -> Result<()> {
    let (authority, clients) = (Authority::new("one")?, Authority::new("clients")?);
    let shown = authority.certify("bank.default.svc", false)?;
    let (first, second) = (clients.certify("qbox", false)?, clients.certify("qbox", false)?);
    let stranger = authority.certify("qbox", false)?;
    let table = format!("{TRUST}client_cert = \"FOLDER/cert.pem\"\nclient_key = \"FOLDER/key.pem\"\n");
    let files = [
        ("ca.pem", &*authority.pem()),
        ("cert.pem", &*first.certificate),
        ("key.pem", &*first.key),
    ];
    let (world, _) = world(vec![saga("a", 8443)], &table, &files, &shown, Some(&clients), &[])?;
    let (status, body) = world.book("a", "1")?;
    assert_eq!(status, 200, "{body}");
    let shown = |asked: Option<Asked>| asked.and_then(|asked| asked.certificate);
    assert_eq!(shown(world.bank.asked().pop()), Some(first.der));
    world.exchange(&[("key.pem", &second.key), ("cert.pem", &second.certificate)])?;
    assert_eq!(world.book("a", "2")?.0, 200);
    assert_eq!(shown(world.bank.asked().pop()), Some(second.der));
    // One that the service doesn't know: it reads nothing, so nothing is undone.
    world.exchange(&[("key.pem", &stranger.key), ("cert.pem", &stranger.certificate)])?;
    let (status, body) = world.book("a", "3")?;
    assert_eq!(status, 502, "{body}");
    let saga = world.last()?;
    assert_eq!(
        (&saga["state"], &saga["failed_step"]),
        (&"compensated".into(), &"bank".into())
    );
    assert_eq!(world.bank.count("DELETE"), 0, "{saga:#}");
    world.nowhere(&["PRIVATE KEY"])
}

/// Whoever can't show that it is the bank is sent nothing, and nothing is undone.
#[test]
fn who_is_not_the_bank_is_sent_nothing() -> Result<()> {
    let (authority, stranger) = (Authority::new("one")?, Authority::new("another")?);
    let shown = authority.certify("bank.default.svc", false)?;
    let others = [
        (
            8444,
            &stranger.certify("bank.default.svc", false)?,
            "UnknownIssuer",
        ),
        (8445, &authority.certify("bank.default.svc", true)?, "expired"),
        (
            8446,
            &authority.certify("hotel.default.svc", false)?,
            "not valid for name",
        ),
        // The system's authorities vouch for none of these, where it has any.
        (8447, &shown, "not sent"),
    ];
    let table = format!(
        "[[upstream.service]]\nhost = \"bank.default.svc:8447\"\n{}",
        TRUST.replace(":8443", "")
    );
    let names = ["a", "b", "c", "d", "e"];
    let ports = [8443, 8444, 8445, 8446, 8447];
    let sagas = names
        .iter()
        .zip(ports)
        .map(|(name, port)| saga(name, port))
        .collect();
    let listening: Vec<_> = others.iter().map(|(port, shown, _)| (*port, *shown)).collect();
    let files = [("ca.pem", &*authority.pem())];
    let (world, strangers) = world(sagas, &table, &files, &shown, None, &listening)?;
    let (status, body) = world.book("a", "1")?;
    assert_eq!(status, 200, "{body}");
    for (name, (_, _, why)) in names.iter().skip(1).zip(&others) {
        let (status, body) = world.book(name, "1")?;
        assert_eq!(status, 502, "{body}");
        let saga = world.last()?;
        assert_eq!(saga["state"], "compensated", "{saga:#}");
        let told = saga["events"].to_string();
        assert!(
            told.contains(why) && told.contains("not_applied"),
            "{why}: {saga:#}"
        );
    }
    assert!(strangers.iter().all(|stranger| stranger.asked().is_empty()));
    assert_eq!(world.bank.count("DELETE"), 0);
    Ok(())
}
