//! Many connections at once: each finds its own destination, and no saga is lost or run twice.

use anyhow::{Context, Result};
use qbox_tests::World;
use serde_json::Value;
use std::collections::BTreeSet;

/// 16 threads, each with 40 connections, to four services in turn, some of them given up as soon as they stand. Every answer
/// must be of the service that was asked.
const MIXED: &str = r#"
import http.client, random, socket, sys, threading
hosts = ["trips", "hotel", "flight", "car"]
wrong = []
def work(seed):
    r = random.Random(seed)
    for i in range(40):
        host = r.choice(hosts)
        try:
            if r.random() < 0.2:
                s = socket.create_connection((host, 8080), 30)
                s.close()
                continue
            c = http.client.HTTPConnection(host, 8080, timeout=30)
            c.request("GET", "/bookings/1")
            answer = c.getresponse().read().decode()
            if '"service":"%s"' % host not in answer: wrong.append((host, answer))
            c.close()
        except Exception as e:
            wrong.append((host, repr(e)))
threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
for t in threads: t.start()
for t in threads: t.join()
print(wrong)
"#;

#[test]
fn each_connection_finds_its_own_destination() -> Result<()> {
    let world = World::book_trip()?;
    assert_eq!(world.client.python(MIXED, &[])?, "[]\n");
    Ok(())
}

/// 100 triggers from 10 threads, every fifth of them refused by the car.
const BOOKINGS: &str = r#"
import http.client, json, threading
replies = []
def work(n):
    c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=60)
    for i in range(10):
        trip = n * 10 + i
        c.request("POST", "/trips/%d" % trip, json.dumps({"guest": "Ada"}))
        r = c.getresponse()
        replies.append([trip, r.status, json.loads(r.read())])
threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps(replies))
"#;

#[test]
fn a_hundred_sagas_at_once_are_each_all_or_nothing() -> Result<()> {
    let world = World::book_trip()?;
    world.service("car")?.script(|asked| {
        let refused = asked.method == "PUT" && (asked.target.ends_with('0') || asked.target.ends_with('5'));
        if refused {
            qbox_tests::Act::Refuse(409)
        } else {
            qbox_tests::Act::Serve
        }
    });
    let replies: Value = serde_json::from_str(&world.client.python(BOOKINGS, &[])?)?;
    let replies = replies.as_array().context("no list")?;
    assert_eq!(replies.len(), 100);
    let mut sagas = BTreeSet::new();
    for reply in replies {
        let trip = reply[0].as_u64().context("no trip")?;
        let refused = trip % 5 == 0;
        assert_eq!(reply[1], if refused { 502 } else { 201 }, "{reply}");
        assert_eq!(reply[2]["trip"], trip.to_string());
        sagas.insert(reply[2]["saga"].as_str().context("no saga")?.to_owned());
        let booked = world.booked(&trip.to_string());
        let all: &[&str] = if refused { &[] } else { &["hotel", "flight", "car"] };
        assert_eq!(booked, all, "trip {trip}");
    }
    assert_eq!(sagas.len(), 100, "two triggers were one saga");
    assert_eq!(world.service("flight")?.count("PUT"), 100);
    assert_eq!(world.service("flight")?.count("DELETE"), 20);
    Ok(())
}
