//! The examples of docs/cookbook: nothing to say of any, and each run in pods, with services that do their part and with such
//! that refuse, reset or are late.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, Node, Pod, Qbox, Service, Settings, binary, workspace};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const PORT: u16 = 8080;

fn example(name: &str) -> PathBuf {
    workspace().join("config/examples").join(name)
}

/// One example, its services, and a client.
struct Town {
    _qbox: Qbox,
    services: Vec<(Pod, Service)>,
    client: Pod,
    _node: Node,
}

impl Town {
    fn new(saga: &str, names: &[&'static str]) -> Result<Self> {
        let node = Node::new()?;
        let serve = |name: &&'static str| {
            let pod = node.pod(name)?;
            let service = Service::start(name, vec![pod.listen(PORT)?])?;
            Ok((pod, service))
        };
        let services = names.iter().map(serve).collect::<Result<Vec<_>>>()?;
        let client = node.pod("client")?;
        let qbox = Qbox::start(&node, &Settings::saga(fs::read_to_string(example(saga))?))?;
        qbox.wait_for_pod(client.name())?;
        Ok(Self {
            _qbox: qbox,
            services,
            client,
            _node: node,
        })
    }

    fn service(&self, name: &str) -> Result<&Service> {
        let found = self.services.iter().find(|(pod, _)| pod.name() == name);
        found.map(|(_, service)| service).context("no such service")
    }

    /// The status, and the body as JSON where it is some.
    fn post(&self, url: &str, words: &[&str], body: &str) -> Result<(u16, Value)> {
        let all = ["-X", "POST", url, "-d", body]
            .into_iter()
            .chain(words.iter().copied());
        let (status, body) = self.client.http(all)?;
        Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }

    /// Who has the id in its ledger.
    fn have(&self, id: &str) -> Vec<&'static str> {
        let all = self.services.iter().map(|(_, service)| service);
        all.filter(|service| service.has(id)).map(Service::name).collect()
    }
}

#[test]
fn there_is_nothing_to_say_of_any() -> Result<()> {
    let folder = workspace().join("config/examples");
    let output = Command::new(binary()?).arg("check").arg(&folder).output()?;
    let text = String::from_utf8(output.stdout)?;
    // The imported one keeps what the original said: its last step can't be undone.
    ensure!(
        output.status.success() && text.contains("5 files checked, nothing to mend"),
        "{text}"
    );
    for file in fs::read_dir(&folder)?.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "toml") {
            let output = Command::new(binary()?).arg("plan").arg(&file).output()?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
    Ok(())
}

#[test]
fn a_trip() -> Result<()> {
    let town = Town::new("trip.toml", &["trips", "flight", "hotel", "car"])?;
    let url = |trip: &str| format!("http://trips.default.svc:8080/plans/{trip}");
    let body = "{\"guest\":\"Ada\",\"to\":\"OSL\",\"car\":\"small\"}";
    let (status, reply) = town.post(&url("1"), &[], body)?;
    assert_eq!(
        (status, reply),
        (201, json!({ "trip": "1", "seat": "1", "car": "1" }))
    );
    assert_eq!(town.have("1"), ["flight", "hotel", "car"]);
    // Asked again without a key of its own: the same answer, and nobody is asked.
    let before = town.service("flight")?.asked().len();
    assert_eq!(town.post(&url("1"), &[], body)?.0, 201);
    assert_eq!(town.service("flight")?.asked().len(), before);

    let (status, reply) = town.post(&url("2"), &[], "{\"guest\":\"Ada\",\"to\":\"OSL\"}")?;
    assert_eq!((status, &reply["car"]), (201, &json!("")));
    assert_eq!(town.have("2"), ["flight", "hotel"]);

    town.service("hotel")?.when_booking(Act::Refuse(409));
    let (status, reply) = town.post(&url("3"), &[], body)?;
    assert_eq!((status, reply), (409, json!({ "trip": "3", "failed": "hotel" })));
    assert_eq!(town.have("3"), [""; 0]);

    // Every attempt is served and its answer lost; the probe finds the seat.
    town.service("hotel")?.script(|_| Act::Serve);
    town.service("flight")?.when_booking(Act::ServeAndReset);
    assert_eq!(town.post(&url("4"), &[], body)?.0, 201);
    assert_eq!(town.have("4"), ["flight", "hotel", "car"]);
    Ok(())
}

#[test]
fn an_order() -> Result<()> {
    let town = Town::new("order.toml", &["orders", "stock", "payment", "shipping"])?;
    let url = |order: &str| format!("http://orders.default.svc:8080/orders/{order}");
    let body = "{\"item\":\"book\",\"amount\":12}";
    assert_eq!(
        town.post(&url("1"), &[], body)?,
        (201, json!({ "order": "1", "paid": true }))
    );
    assert_eq!(town.have("1"), ["stock", "payment", "shipping"]);

    town.service("payment")?.when_booking(Act::Refuse(402));
    assert_eq!(
        town.post(&url("2"), &[], body)?,
        (402, json!({ "order": "2", "failed": "payment" }))
    );
    assert_eq!(town.have("2"), [""; 0]);
    assert_eq!(town.service("stock")?.count("DELETE"), 1);

    // Charged, and the answer lost: the probe knows. Then the parcel is taken at the third attempt.
    town.service("payment")?.when_booking(Act::ServeAndReset);
    let tries = AtomicUsize::new(0);
    town.service("shipping")?
        .script(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Act::Refuse(503),
            _ => Act::Serve,
        });
    assert_eq!(town.post(&url("3"), &[], body)?.0, 201);
    assert_eq!(town.have("3"), ["stock", "payment", "shipping"]);
    Ok(())
}

#[test]
fn a_sign_up() -> Result<()> {
    let town = Town::new("sign-up.toml", &["www", "accounts", "mail", "billing"])?;
    let ask = |body: &str| {
        town.post(
            "http://www.default.svc:8080/sign-up",
            &["-H", "Content-Type: application/json"],
            body,
        )
    };
    assert_eq!(
        ask("{\"user\":\"ada\",\"mail\":\"a@b\"}")?,
        (201, json!({ "user": "ada" }))
    );
    assert_eq!(town.have("ada"), ["accounts", "mail"]);
    assert_eq!(
        ask("{\"user\":\"bob\",\"mail\":\"a@b\",\"plan\":\"pro\"}")?.0,
        201
    );
    assert_eq!(town.have("bob"), ["accounts", "mail", "billing"]);
    let asked = town
        .service("billing")?
        .asked()
        .pop()
        .context("billing wasn't asked")?;
    assert_eq!(
        serde_json::from_str::<Value>(&asked.body)?,
        json!({ "plan": "pro", "account": "bob" })
    );

    town.service("billing")?.when_booking(Act::Refuse(402));
    let body = "{\"user\":\"eve\",\"mail\":\"a@b\",\"plan\":\"team\"}";
    assert_eq!(
        ask(body)?,
        (503, json!({ "user": "eve", "failed": "subscription" }))
    );
    assert_eq!(town.have("eve"), [""; 0]);

    // An answer that is no refusal of the account's: it may be there, and is removed.
    town.service("accounts")?
        .when_booking(Act::Answer(400, vec![], "what?"));
    assert_eq!(ask("{\"user\":\"joe\",\"mail\":\"a@b\"}")?.1["failed"], "account");
    assert_eq!(town.have("joe"), [""; 0]);
    // Another kind of body is no sign-up: it passes to www itself.
    assert_eq!(
        town.post("http://www.default.svc:8080/sign-up", &[], "user=kim")?
            .0,
        201
    );
    assert_eq!(town.have("sign-up"), ["www"]);
    Ok(())
}

#[test]
fn a_monoliths_endpoint() -> Result<()> {
    let town = Town::new("take-over.toml", &["monolith", "stock", "points"])?;
    let url = |cart: &str| format!("http://monolith.default.svc:8080/check-out/{cart}");
    town.service("monolith")?
        .when_booking(Act::Answer(200, vec![("X-Own", "1")], "thank you"));
    let (status, reply) = town.post(&url("1"), &["-H", "Cookie: a=1"], "cart")?;
    assert_eq!((status, reply), (200, json!("thank you")));
    assert_eq!(town.have("1"), ["monolith", "stock", "points"]);
    let asked = town
        .service("monolith")?
        .asked()
        .pop()
        .context("the monolith wasn't asked")?;
    assert_eq!(
        (asked.body.as_str(), asked.header("cookie")),
        ("cart", Some("a=1"))
    );

    town.service("monolith")?.when_booking(Act::Refuse(422));
    assert_eq!(
        town.post(&url("2"), &[], "cart")?,
        (409, json!("not checked out: monolith said no\n"))
    );
    assert_eq!(town.have("2"), [""; 0]);
    town.service("points")?.when_booking(Act::Refuse(409));
    assert_eq!(town.post(&url("3"), &[], "cart")?.0, 409);
    assert_eq!(town.have("3"), [""; 0]);
    Ok(())
}

#[test]
fn from_the_original() -> Result<()> {
    let output = Command::new(binary()?)
        .arg("import")
        .arg(example("original.yaml"))
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(
        text.trim_end(),
        fs::read_to_string(example("desk.toml"))?.trim_end()
    );
    let town = Town::new("desk.toml", &["desk", "books", "cards"])?;
    let ask = |loan: &str| town.post("http://desk.default.svc:8080/lend", &["-H", loan], "dune");
    town.service("cards")?
        .when_booking(Act::Answer(201, vec![], "noted"));
    let (status, reply) = ask("Loan: 1")?;
    ensure!(
        status == 200 && reply.as_str().is_some_and(|text| text.starts_with("lent: ")),
        "{status} {reply}"
    );
    assert_eq!(town.have("1"), ["books", "cards"]);
    town.service("cards")?.when_booking(Act::Refuse(404));
    assert_eq!(ask("Loan: 2")?, (500, json!("not lent")));
    assert_eq!(town.have("2"), [""; 0]);
    Ok(())
}
