//! `qbox import`: a configuration of the original Qbox becomes saga files that are fit to run, and that behave as its paper says: all
//! transactions, or after a refusal the compensations of those that were done.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, Settings, World, binary};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Two documents: booking, and cancelling what was booked, as a middle service of the original had them.
const ORIGINAL: &str = r#"
host: trips.svc
matchRequest:
  method: POST
  url: http://trips.default.svc:8080/book
  headers: {Begin: "yes"}
onMatchedRequest:
- method: PUT
  url: http://hotel.default.svc:8080/bookings/${parent.headers.Trip}
  body: ${root.body}
  isSuccessIfReceives: [{status-code: 201}]
  timeout: 2
  onFailure:
  - method: DELETE
    url: http://hotel.default.svc:8080/bookings/${root.headers.Trip}
    isSuccessIfReceives: [{status-code: 200}, {status-code: 404}]
    timeout: 2
- method: PUT
  url: http://flight.default.svc:8080/bookings/${parent.headers.Trip}
  headers: {Class: "${parent.headers.Class:economy}"}
  isSuccessIfReceives: [{status-code: 201}]
  maxRetriesOnTimeout: 2
  timeout: 2
  onFailure:
  - method: DELETE
    url: http://flight.default.svc:8080/bookings/${root.headers.Trip}
    headers: {Was: "${parent.headers.Class}"}
    isSuccessIfReceives: [{status-code: 200}, {status-code: 404}]
    timeout: 2
onAllSucceeded: {status-code: 200, body: "hotel ${transaction[0].response.body} flight ${transaction[1].response.body}"}
onAnyFailed: {status-code: 500, body: "not booked: ${transaction[1].response.body:none}"}
---
host: trips.svc
matchRequest: {method: POST, url: "http://trips.default.svc:8080/cancel"}
onMatchedRequest:
- method: DELETE
  url: http://hotel.default.svc:8080/bookings/${parent.headers.Trip}
  isSuccessIfReceives: [{status-code: 200}]
  timeout: 2
  onFailure:
  - method: PUT
    url: http://hotel.default.svc:8080/bookings/${root.headers.Trip}
    isSuccessIfReceives: [{status-code: 201}]
    timeout: 2
onAllSucceeded: {status-code: 200}
onAnyFailed: {status-code: 500}
"#;

fn qbox(words: &[&str], folder: &Path) -> Result<Output> {
    Ok(Command::new(binary()?).args(words).current_dir(folder).output()?)
}

fn all(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Imports into a folder of its own.
fn imported() -> Result<(TempDir, Vec<String>)> {
    let folder = TempDir::new()?;
    fs::write(folder.path().join("config.yaml"), ORIGINAL)?;
    let output = qbox(&["import", "config.yaml", "--out", "sagas"], folder.path())?;
    ensure!(output.status.success(), "{}", all(&output));
    let sagas =
        ["trips.toml", "trips-2.toml"].map(|name| fs::read_to_string(folder.path().join("sagas").join(name)));
    let sagas = sagas.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok((folder, sagas))
}

#[test]
fn what_is_imported_is_checked_and_rehearsed() -> Result<()> {
    let (folder, _) = imported()?;
    let check = qbox(&["check", "sagas"], folder.path())?;
    ensure!(check.status.success(), "{}", all(&check));
    for saga in ["sagas/trips.toml", "sagas/trips-2.toml"] {
        let plan = qbox(&["plan", saga], folder.path())?;
        ensure!(plan.status.success(), "{}", all(&plan));
    }
    // What is there is left alone.
    let again = qbox(&["import", "config.yaml", "--out", "sagas"], folder.path())?;
    ensure!(
        again.status.code() == Some(1) && all(&again).contains("sagas/trips.toml"),
        "{}",
        all(&again)
    );
    // Without a folder both are printed.
    let printed = qbox(&["import", "config.yaml"], folder.path())?;
    ensure!(
        all(&printed).contains("# ---- trips-2.toml ----"),
        "{}",
        all(&printed)
    );
    Ok(())
}

#[test]
fn what_can_not_be_read_is_named_with_its_place() -> Result<()> {
    let folder = TempDir::new()?;
    fs::write(
        folder.path().join("config.yaml"),
        ORIGINAL.replace("timeout: 2\n  onFailure", "timeout: two\n  onFailure"),
    )?;
    let output = qbox(&["import", "config.yaml", "--out", "sagas"], folder.path())?;
    ensure!(output.status.code() == Some(1), "{}", all(&output));
    ensure!(
        all(&output).contains("config.yaml:12:12") && all(&output).contains("QB0071"),
        "{}",
        all(&output)
    );
    ensure!(!folder.path().join("sagas").exists(), "something was written");
    Ok(())
}

fn ask(world: &World, path: &str, trip: &str) -> Result<(u16, String)> {
    let url = format!("http://trips.default.svc:8080/{path}");
    let trip = format!("Trip: {trip}");
    world
        .client
        .http(["-X", "POST", &url, "-H", "Begin: yes", "-H", &trip, "-d", "hello"])
}

#[test]
fn all_of_the_transactions_or_the_compensations_of_those_that_were_done() -> Result<()> {
    let (_folder, sagas) = imported()?;
    let world = World::new(&Settings::sagas(sagas))?;
    world
        .service("flight")?
        .when_booking(Act::Answer(201, vec![], "seat 4"));
    let (status, body) = ask(&world, "book", "7")?;
    assert_eq!(status, 200, "{body}");
    ensure!(
        body.contains("\"service\":\"hotel\"") && body.ends_with("flight seat 4"),
        "{body}"
    );
    assert_eq!(world.booked("7"), ["hotel", "flight"]);
    let hotel = world
        .service("hotel")?
        .asked()
        .pop()
        .context("hotel wasn't asked")?;
    assert_eq!(
        (hotel.body.as_str(), hotel.header("x-qbox-message-type")),
        ("hello", Some("TRANSACTION"))
    );
    let flight = world
        .service("flight")?
        .asked()
        .pop()
        .context("flight wasn't asked")?;
    assert_eq!(flight.header("class"), Some("economy"));

    // The second refuses: the first is undone, the second is not asked again.
    world.service("flight")?.when_booking(Act::Refuse(404));
    let (status, body) = ask(&world, "book", "8")?;
    assert_eq!(status, 500, "{body}");
    assert_eq!(world.booked("8"), [""; 0]);
    assert_eq!(
        (
            world.service("hotel")?.count("DELETE"),
            world.service("flight")?.count("DELETE")
        ),
        (1, 0)
    );

    // The first refuses: nothing is undone, and the second never asked.
    let before = world.service("flight")?.asked().len();
    world.service("hotel")?.when_booking(Act::Refuse(403));
    assert_eq!(ask(&world, "book", "9")?, (500, "not booked: none".to_owned()));
    assert_eq!(
        (
            world.service("hotel")?.count("DELETE"),
            world.service("flight")?.asked().len()
        ),
        (1, before)
    );

    // The other document's saga.
    assert_eq!(ask(&world, "cancel", "7")?.0, 200);
    assert_eq!(world.booked("7"), ["flight"]);
    Ok(())
}
