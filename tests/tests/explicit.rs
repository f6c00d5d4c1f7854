//! Explicit mode: the same sagas through a plain port, without root and eBPF.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, ExplicitWorld, book_trip_in_memory};
use serde_json::Value;
use std::process::Command;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
const TRIP: &str = "http://trips.default.svc:8080/trips/7";
const HOST: &str = "Host: trips.default.svc:8080";

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

/// A trip is booked by a request that names the service as its host.
fn book(world: &ExplicitWorld) -> Result<()> {
    let url = format!("http://{}/trips/7", world.listen);
    let (status, reply) = curl(&["-X", "POST", "-H", HOST, "-d", WISH, &url])?;
    assert_eq!((status, &reply["booked"]), (201, &Value::Bool(true)));
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);
    Ok(())
}

#[test]
fn a_request_that_names_the_service_as_its_host() -> Result<()> {
    let world = ExplicitWorld::new(0)?;
    book(&world)?;
    let (_, answer) = curl(&["-H", HOST, &format!("http://{}/trips/7", world.listen)])?;
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

/// Forbids io_uring_setup(2), as the profiles of container runtimes do, and becomes the program.
const NO_IO_URING: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# linux/filter.h: the call's number; if it is io_uring_setup EPERM, else all is allowed.
filter = b"".join(struct.pack("HBBI", *line) for line in
    [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)])
held = ctypes.create_string_buffer(filter)
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(held))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_kernel_that_grants_no_io_uring() -> Result<()> {
    let forbids = ["python3", "-c", NO_IO_URING].map(str::to_owned);
    let world = ExplicitWorld::with(0, &book_trip_in_memory()?, &forbids)?;
    let log = world.qbox.log();
    ensure!(log.contains("no io_uring is to be had"), "{log}");
    book(&world)
}
