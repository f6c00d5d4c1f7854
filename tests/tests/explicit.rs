//! Explicit mode: the same sagas through a plain port, without root and eBPF.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, ExplicitWorld};
use serde_json::Value;
use std::process::Command;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
const TRIP: &str = "http://trips.default.svc:8080/trips/7";

/// curl here, on the node: status and body.
fn curl(words: &[&str]) -> Result<(u16, Value)> {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "30", "--write-out", "\n%{http_code}"])
        .args(words);
    // The user's own proxy settings are none of the test's.
    for variable in ["http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(variable);
    }
    let output = command.output().context("can't start curl")?;
    ensure!(
        output.status.success(),
        "curl {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let (body, status) = text.rsplit_once('\n').context("no status")?;
    Ok((status.parse()?, serde_json::from_str(body).unwrap_or_default()))
}

#[test]
fn a_request_that_names_the_service_as_its_host() -> Result<()> {
    let world = ExplicitWorld::new(0)?;
    let url = format!("http://{}/trips/7", world.listen);
    let host = "Host: trips.default.svc:8080";
    let (status, reply) = curl(&["-X", "POST", "-H", host, "-d", WISH, &url])?;
    assert_eq!((status, &reply["booked"]), (201, &Value::Bool(true)));
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);

    let (_, answer) = curl(&["-H", host, &url])?;
    assert_eq!(answer["service"], "trips", "no trigger, so the service answers");
    Ok(())
}

/// RFC 9112, 3.2.2: as an HTTP proxy is asked.
#[test]
fn a_client_that_takes_qbox_for_its_proxy() -> Result<()> {
    let world = ExplicitWorld::new(0)?;
    let proxy = format!("http://{}", world.listen);
    world.service("car")?.when_booking(Act::Refuse(409));
    let (status, reply) = curl(&["--proxy", &proxy, "-X", "POST", "-d", WISH, TRIP])?;
    assert_eq!((status, &reply["failed"]), (502, &Value::from("car")));
    assert!(world.booked("7").is_empty());
    world.service("car")?.when_booking(Act::Serve);
    let (status, _) = curl(&["--proxy", &proxy, "-X", "POST", "-d", WISH, TRIP])?;
    assert_eq!(status, 201);
    let (_, answer) = curl(&["--proxy", &proxy, TRIP])?;
    assert_eq!(answer["service"], "trips");
    Ok(())
}

#[test]
fn a_name_that_nobody_has_is_a_bad_gateway() -> Result<()> {
    let world = ExplicitWorld::new(0)?;
    let url = format!("http://{}/x", world.listen);
    let (status, _) = curl(&["-H", "Host: nobody.invalid:8080", &url])?;
    assert_eq!(status, 502);
    Ok(())
}
