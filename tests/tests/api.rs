//! The operator's eyes, from outside: `qbox sagas list`, `show` and `tail`, `/metrics`, and the token, of the real binary.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, DEADLINE, ExplicitWorld, binary, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

/// Sends the trigger of a booking; the reply's saga.
fn book(world: &ExplicitWorld, trip: &str) -> Result<String> {
    let url = format!("http://{}/trips/{trip}", world.listen);
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--noproxy",
        "*",
        "--max-time",
        "30",
        "-X",
        "POST",
        "-d",
        WISH,
    ])
    .args(["-H", "Host: trips.default.svc:8080", &url]);
    let output = curl.output().context("can't start curl")?;
    let reply: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(reply["saga"].as_str().context("no saga in the reply")?.to_owned())
}

/// `qbox WORDS`, asking the Qbox behind `socket`.
fn command(socket: &Path, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(words).arg("--socket").arg(socket);
    for variable in ["QBOX_ADMIN", "QBOX_TOKEN_FILE", "QBOX_ADMIN_SOCKET"] {
        command.env_remove(variable);
    }
    Ok(command)
}

/// What a command prints; it has to end well.
fn qbox(socket: &Path, words: &[&str]) -> Result<String> {
    let output = command(socket, words)?.output()?;
    ensure!(
        output.status.success(),
        "qbox {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// One booking that is refused at the car, and then two that come through.
fn three_bookings() -> Result<(ExplicitWorld, [String; 3])> {
    let world = ExplicitWorld::new(0)?;
    world.service("car")?.when_booking(Act::Refuse(409));
    let refused = book(&world, "7")?;
    world.service("car")?.when_booking(Act::Serve);
    let sagas = [refused, book(&world, "8")?, book(&world, "9")?];
    Ok((world, sagas))
}

#[test]
fn sagas_are_listed_by_what_is_asked_page_by_page() -> Result<()> {
    let (mut world, [refused, second, third]) = three_bookings()?;
    let socket = world.qbox.socket();
    let ids = |words: &[&str]| -> Result<(Vec<String>, Option<String>)> {
        let words = [&["sagas", "list", "--json"], words].concat();
        let page: Value = serde_json::from_str(&qbox(&socket, &words)?)?;
        let sagas = page["sagas"].as_array().context("no sagas")?;
        let ids = sagas
            .iter()
            .map(|saga| saga["id"].as_str().unwrap_or("?").to_owned());
        Ok((ids.collect(), page["next"].as_str().map(str::to_owned)))
    };
    let all = vec![third.clone(), second.clone(), refused.clone()];
    assert_eq!(ids(&[])?, (all, None));
    let only = |id: &str| (vec![id.to_owned()], None);
    assert_eq!(ids(&["--state", "compensated"])?, only(&refused));
    assert_eq!(ids(&["--step", "car", "--younger-than", "1h"])?, only(&refused));
    assert_eq!(ids(&["--name", "book-trip", "--older-than", "1h"])?.0, [""; 0]);
    assert_eq!(ids(&["--upstream", "car.default.svc"])?.0.len(), 3);
    let (first, next) = ids(&["--sort", "arrived", "--limit", "2"])?;
    assert_eq!(first, [refused.clone(), second]);
    let next = next.context("there is one more")?;
    assert_eq!(
        ids(&["--sort", "arrived", "--limit", "2", "--cursor", &next])?,
        only(&third)
    );
    let text = qbox(&socket, &["sagas", "list", "--limit", "1"])?;
    assert!(
        text.contains(&third) && text.contains("more: --cursor "),
        "{text}"
    );

    let refusal = command(&socket, &["sagas", "list", "--state", "stucked"])?.output()?;
    assert_eq!(refusal.status.code(), Some(1));
    let said = String::from_utf8(refusal.stderr)?;
    assert!(said.contains("state: `stucked`"), "{said}");

    world.qbox.stop(Signal::TERM)?;
    let gone = command(&socket, &["sagas", "list"])?.output()?;
    assert_eq!(gone.status.code(), Some(1), "nobody answers");
    Ok(())
}

#[test]
fn a_saga_is_shown_as_a_timeline() -> Result<()> {
    let (world, [refused, ..]) = three_bookings()?;
    let text = qbox(&world.qbox.socket(), &["sagas", "show", &refused])?;
    for part in [
        &format!("book-trip {refused}: compensated after "),
        "trigger POST http://trips.default.svc:8080/trips/7 at 20",
        "caller  answered 502 after ",
        "transaction #1 PUT http://car.default.svc:8080/",
        "answered 409, not applied",
        "compensation #1 DELETE http://hotel.default.svc:8080/",
        "undone",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    Ok(())
}

/// What has ended is in the journal alone then.
#[test]
fn nothing_is_forgotten_over_a_restart() -> Result<()> {
    let (mut world, sagas) = three_bookings()?;
    let socket = world.qbox.socket();
    let show = |id: &str| qbox(&socket, &["sagas", "show", id]);
    let before = show(&sagas[0])?;
    world.restart()?;
    let page: Value =
        serde_json::from_str(&qbox(&socket, &["sagas", "list", "--sort", "arrived", "--json"])?)?;
    let listed = page["sagas"].as_array().context("no sagas")?.iter();
    let listed: Vec<_> = listed.filter_map(|saga| saga["id"].as_str()).collect();
    assert_eq!(listed, sagas);
    // Each offset counts from the trigger's arrival before, and from the saga's beginning after; no word is another one.
    let words = |text: &str| -> Vec<String> {
        let rows = text.split_once("START").map_or("", |(_, rows)| rows);
        let words = rows.split_whitespace();
        let time = |word: &str| word.contains(|c: char| c.is_ascii_digit()) && !word.contains("://");
        words.filter(|word| !time(word)).map(str::to_owned).collect()
    };
    let after = show(&sagas[0])?;
    assert_eq!(words(&before), words(&after), "\n{before}\n{after}");
    assert!(
        after.contains("compensation #1 DELETE http://hotel.default.svc:8080/"),
        "{after}"
    );
    Ok(())
}

/// `qbox sagas tail -f`, and its lines.
struct Tail {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Tail {
    fn start(socket: &Path, more: &[&str]) -> Result<Self> {
        let words = [&["sagas", "tail", "-f"], more].concat();
        let mut child = command(socket, &words)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "it ended");
        Ok(line)
    }

    /// Waits until it has ended by itself: its status and what it said.
    fn end(mut self) -> Result<Output> {
        drop(self.lines);
        let status = wait_for("the tail to end", DEADLINE, || Ok(self.child.try_wait()?))?;
        let mut stderr = Vec::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_end(&mut stderr)?;
        }
        Ok(Output {
            status,
            stdout: Vec::new(),
            stderr,
        })
    }
}

#[test]
fn a_tail_follows_until_someone_has_enough() -> Result<()> {
    let (mut world, [_, _, third]) = three_bookings()?;
    let socket = world.qbox.socket();
    let newest = qbox(&socket, &["sagas", "tail", "--limit", "2"])?;
    let newest: Vec<_> = newest.lines().collect();
    assert_eq!(newest.len(), 2, "{newest:?}");
    assert!(
        newest[1].contains(&third) && newest[1].ends_with("caller answered 201"),
        "{newest:?}"
    );

    let mut text = Tail::start(&socket, &["--limit", "1"])?;
    assert!(text.line()?.contains("caller answered 201"));
    let mut json = Tail::start(&socket, &["--limit", "1", "--json"])?;
    let first: Value = serde_json::from_str(&json.line()?)?;
    assert_eq!(first["kind"], "replied");
    let mut interrupted = Tail::start(&socket, &["--limit", "1"])?;
    interrupted.line()?;

    let fourth = book(&world, "10")?;
    let line = text.line()?;
    assert!(
        line.contains(&fourth) && line.contains("saga book-trip began: POST http://trips"),
        "{line}"
    );
    let began: Value = serde_json::from_str(&json.line()?)?;
    assert_eq!(
        (&began["kind"], &began["saga"]),
        (&"began".into(), &fourth.as_str().into())
    );

    // A signal ends it as any program. (Not Ctrl-C's own: what a shell starts in the background ignores that one.)
    let id = i32::try_from(interrupted.child.id()).ok().and_then(Pid::from_raw);
    kill_process(id.context("no process id")?, Signal::TERM)?;
    let ended = interrupted.end()?;
    assert_eq!(
        (ended.status.code(), &*ended.stderr),
        (None, &b""[..]),
        "{ended:?}"
    );

    // A reader that has gone (`| head`): the next line that can't be written ends it.
    let Tail { child, lines } = text;
    drop(lines);
    let mut child = child;
    wait_for("the tail to notice", DEADLINE, || {
        book(&world, "11")?;
        Ok(child.try_wait()?)
    })
    .map(|status| assert_eq!(status.code(), Some(0)))?;

    // Qbox's end: what was told is read to its end, and then it says so.
    world.qbox.stop(Signal::TERM)?;
    let mut rest = 0;
    while json.line().is_ok() {
        rest += 1;
    }
    assert!(rest > 0);
    let ended = json.end()?;
    assert_eq!(
        (ended.status.code(), &*ended.stderr),
        (Some(0), &b"Qbox has ended\n"[..]),
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn metrics_count_what_happened() -> Result<()> {
    let (world, _) = three_bookings()?;
    let answer = world.qbox.admin().get("/metrics")?;
    assert_eq!(answer.status, 200);
    let value = |series: &str| -> Result<f64> {
        let mut lines = answer.body.lines().filter_map(|line| line.rsplit_once(' '));
        let line = lines.find(|(name, _)| *name == series);
        Ok(line
            .with_context(|| format!("no {series} in\n{}", answer.body))?
            .1
            .parse()?)
    };
    for (series, wanted) in [
        (
            "qbox_sagas_ended_total{saga=\"book-trip\",outcome=\"committed\"}",
            2.0,
        ),
        (
            "qbox_sagas_ended_total{saga=\"book-trip\",outcome=\"compensated\"}",
            1.0,
        ),
        (
            "qbox_saga_duration_seconds_count{saga=\"book-trip\",outcome=\"committed\"}",
            2.0,
        ),
        ("qbox_sagas{saga=\"book-trip\",state=\"stuck\"}", 0.0),
        ("qbox_requests_total{handling=\"taken\"}", 3.0),
        ("qbox_connections_total", 3.0),
        ("qbox_ready", 1.0),
    ] {
        assert_eq!(value(series)?, wanted, "{series}");
    }
    assert!(
        value("qbox_journal_syncs_total")? >= 3.0,
        "the journal is on disk"
    );
    Ok(())
}

/// On an address that others may reach: refused without a token, and with one asked for it.
#[test]
fn other_machines_need_the_token() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let free =
        |address: Ipv4Addr| -> Result<u16> { Ok(TcpListener::bind((address, 0))?.local_addr()?.port()) };
    let (port, listen) = (free(Ipv4Addr::UNSPECIFIED)?, free(Ipv4Addr::LOCALHOST)?);
    let (config, token) = (folder.path().join("qbox.toml"), folder.path().join("token"));
    let socket = folder.path().join("admin.sock");
    fs::create_dir(folder.path().join("sagas"))?;
    fs::copy(
        qbox_tests::workspace().join(qbox_tests::BOOK_TRIP),
        folder.path().join("sagas/book-trip.toml"),
    )?;
    let text = |more: &str| {
        format!(
            "state_dir = \"state\"\n[capture]\nmode = \"explicit\"\n[explicit]\nlisten = \"127.0.0.1:{listen}\"\n\
             [admin]\nsocket = {socket:?}\nlisten = \"0.0.0.0:{port}\"\n{more}"
        )
    };
    fs::write(&config, text(""))?;
    for verb in [&["check"][..], &["run", "--config"]] {
        let output = Command::new(binary()?).args(verb).arg(&config).output()?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let place = format!("{}:8:10", config.display());
        assert!(said.contains("QB0017") && said.contains(&place), "{said}");
    }

    fs::write(&config, text("token_file = \"token\"\n"))?;
    let run = || -> Result<Child> {
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary()?);
        command.args(["run", "--config"]).arg(&config);
        Ok(command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?)
    };
    let log = || fs::read_to_string(folder.path().join("log"));
    for (content, complaint) in [
        (None, "can't read the token file"),
        (Some("\n"), "holds no token"),
    ] {
        if let Some(content) = content {
            fs::write(&token, content)?;
        }
        let mut child = run()?;
        let status = wait_for("Qbox to refuse", DEADLINE, || Ok(child.try_wait()?))?;
        assert_eq!(status.code(), Some(1));
        assert!(log()?.contains(complaint), "{}", log()?);
    }

    fs::write(&token, "c2VjcmV0\n")?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644))?;
    let mut child = run()?;
    let told = (|| {
        let url = format!("http://127.0.0.1:{port}");
        wait_for("Qbox to be ready", DEADLINE, || {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("it ended with {status}: {}", log()?);
            }
            Ok(qbox(&socket, &["status"]).ok())
        })?;
        assert!(log()?.contains("others may read the token"), "{}", log()?);
        let status = |more: &[&str]| -> Result<Output> {
            let words = [&["status", "--admin", &url], more].concat();
            Ok(command(&socket, &words)?.output()?)
        };
        let refused = status(&[])?;
        let said = String::from_utf8(refused.stderr)?;
        assert!(
            said.contains("asks for a token: name its file with --token-file"),
            "{said}"
        );
        let token = token.to_str().context("path")?;
        let let_in = status(&["--token-file", token])?;
        let said = String::from_utf8(let_in.stdout)?;
        assert!(let_in.status.success() && said.contains("ready"), "{said}");
        fs::write(token, "c2VjcmV1\n")?;
        let said = String::from_utf8(status(&["--token-file", token])?.stderr)?;
        assert!(said.contains("does not know this token"), "{said}");
        Ok(())
    })();
    drop(child.kill());
    drop(child.wait());
    told
}
