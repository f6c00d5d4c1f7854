//! Test suites that no one here wrote, in a pod: first without Qbox, then with every connection of theirs captured. Each test
//! has to end as it did before.
//!
//! The suites start their servers on the loopback, on whatever port is free. So the pod is given few ports to choose from,
//! and for each of them there is a saga whose trigger names it: Qbox then captures the loopback, too. `cargo xtask test`
//! installs the suites and names their folder in `QBOX_TEST_TOOLS`; `cargo xtask conformance` runs those that take longer.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Node, Pod, Qbox, Settings, workspace};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What programs in the pod get when they ask for any port.
const PORTS: RangeInclusive<u16> = 40_000..=40_599;
/// Ports of closed connections that are kept (TIME-WAIT) at once.
const CLOSED: u32 = 64;
/// Where a suite's server always is.
const FIXED: [u16; 1] = [8000];
/// No suite takes longer, twice as long as the longest did on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a test of a server's refusal ends differently.
const REFUSED: &str = "Qbox has refused the request before the server could";

/// Each test's name, and how it ended.
type Outcomes = BTreeMap<String, String>;

/// A suite.
struct Suite {
    name: &'static str,
    /// Words for `suite.py`.
    words: &'static [&'static str],
    /// Where its files are, beside the installed packages.
    folder: Option<&'static str>,
    /// Tests that it has at the least, so that none can be lost unseen.
    tests: usize,
    /// Connections through Qbox, at the least.
    captured: u64,
    /// Tests that end differently, and are meant to: with the reason.
    meant: &'static [(&'static str, &'static str)],
}

fn tools() -> PathBuf {
    env::var_os("QBOX_TEST_TOOLS").map_or_else(|| workspace().join("target/test-tools"), PathBuf::from)
}

/// A saga for each port. None of them is ever triggered.
fn sagas() -> Vec<String> {
    let saga = |port| {
        format!(
            r#"
name = "port-{port}"
[trigger]
method = "POST"
url = "http://localhost:{port}/qbox/conformance"
[[step]]
name = "none"
kind = "pivot"
request = {{ method = "POST", url = "http://localhost:{port}/" }}
"#
        )
    };
    PORTS.chain(FIXED).map(saga).collect()
}

fn play(pod: &Pod, suite: &Suite, turn: &str, node: &Node) -> Result<Outcomes> {
    let python = tools().join("conformance/bin/python");
    ensure!(
        python.exists(),
        "{} is missing: `cargo xtask test` installs it",
        python.display()
    );
    let written = node.folder().join(format!("{turn}.json"));
    let log = node.folder().join(format!("{turn}.log"));
    let begun = Instant::now();
    // Entering the pod's mount namespace leaves the folder.
    let folder = suite
        .folder
        .map_or_else(|| node.folder().to_owned(), |folder| tools().join(folder));
    let mut command = pod.command_for(PATIENCE, "env");
    command
        .arg("--chdir")
        .arg(folder)
        .arg(python)
        .arg(workspace().join("tests/tests/conformance/suite.py"))
        .arg(&written)
        .args(suite.words)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log)?)
        .stderr(fs::File::create(node.folder().join("stderr"))?);
    let status = command.status()?;
    let text = fs::read_to_string(&written).with_context(|| {
        let said =
            [log, node.folder().join("stderr")].map(|file| fs::read_to_string(file).unwrap_or_default());
        format!("{} ended with {status}: {}", suite.name, said.concat())
    })?;
    let outcomes: Outcomes = serde_json::from_str(&text)?;
    println!(
        "{} {turn}: {} tests in {:.1?}",
        suite.name,
        outcomes.len(),
        begun.elapsed()
    );
    Ok(outcomes)
}

/// Those that Qbox has served.
fn connections(qbox: &Qbox) -> Result<u64> {
    let all = qbox.admin().get("/metrics")?.body;
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix("qbox_connections_total "));
    Ok(line.context("no qbox_connections_total")?.trim().parse()?)
}

fn compare(suite: &Suite) -> Result<()> {
    let node = Node::new()?;
    let pod = node.pod("suite")?;
    let range = format!("{} {}", PORTS.start(), PORTS.end());
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    pod.run(["sh", "-c", &format!("echo {range} > {file}")])?.ok()?;
    // So few ports, each kept for a minute by every connection that was closed, and two connections for one with Qbox: without
    // this a suite of many tests runs out of them.
    let file = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
    pod.run(["sh", "-c", &format!("echo {CLOSED} > {file}")])?.ok()?;
    let without = play(&pod, suite, "without Qbox", &node)?;
    let mut qbox = Qbox::start(&node, &Settings::sagas(sagas()))?;
    qbox.wait_for_pod("suite")?;
    let with = play(&pod, suite, "with Qbox", &node)?;
    let captured = connections(&qbox)?;
    println!("{}: {captured} connections were captured", suite.name);
    ensure!(qbox.is_ready()?, "Qbox is not ready any more");

    ensure!(
        without.len() >= suite.tests,
        "only {} tests of {} ran: {}",
        without.len(),
        suite.name,
        fs::read_to_string(node.folder().join("without Qbox.log")).unwrap_or_default()
    );
    ensure!(
        captured >= suite.captured,
        "only {captured} connections of {} went through Qbox",
        suite.name
    );
    let mut differ = Vec::new();
    for name in without
        .keys()
        .chain(with.keys().filter(|name| !without.contains_key(*name)))
    {
        let [before, after] = [&without, &with].map(|all| all.get(name).map_or("not run", String::as_str));
        if before != after {
            let meant = suite.meant.iter().find(|(meant, _)| meant == name);
            let reason = meant.map_or("this is not meant", |(_, reason)| reason);
            println!("{name}: {before} without Qbox, {after} with it: {reason}");
            if meant.is_none() {
                differ.push(name);
            }
        }
    }
    ensure!(
        differ.is_empty(),
        "{} of {} tests of {} end differently: {differ:?}\n{}",
        differ.len(),
        without.len(),
        suite.name,
        fs::read_to_string(node.folder().join("stderr")).unwrap_or_default()
    );
    Ok(())
}

/// CPython's own tests of its HTTP client and servers, and of SMTP, whose server speaks first.
#[test]
fn python() -> Result<()> {
    compare(&Suite {
        name: "CPython",
        words: &[
            "unittest",
            "test.test_httplib",
            "test.test_httpservers",
            "test.test_urllib2_localnet",
            "test.test_smtplib",
        ],
        folder: None,
        tests: 290,
        captured: 100,
        meant: &[
            (
                "test.test_httpservers.BaseHTTPServerTestCase.test_request_line_trimming",
                "a request line with two spaces is refused with 400, and not with the server's 501",
            ),
            (
                "test.test_smtplib.DebuggingServerTests.testSourceAddress",
                "it skips itself when another has taken its port, with Qbox or without",
            ),
        ],
    })
}

/// More of them, which sleep a lot.
#[test]
#[ignore = "a minute and more: cargo xtask conformance"]
fn python_more() -> Result<()> {
    compare(&Suite {
        name: "CPython, more",
        words: &[
            "unittest",
            "test.test_xmlrpc",
            "test.test_ftplib",
            "test.test_poplib",
            "test.test_imaplib",
        ],
        folder: None,
        tests: 200,
        captured: 100,
        meant: &[],
    })
}

/// Websockets, and HTTP over tornado's clients and its server.
#[test]
fn tornado() -> Result<()> {
    compare(&Suite {
        name: "tornado",
        words: &[
            "unittest",
            "tornado.test.websocket_test",
            "tornado.test.httpserver_test",
            "tornado.test.http1connection_test",
        ],
        folder: None,
        tests: 150,
        captured: 100,
        meant: &[
            (
                "tornado.test.httpserver_test.HTTPConnectionTest.test_newlines",
                "lines that end in LF alone are refused",
            ),
            (
                "tornado.test.httpserver_test.KeepAliveTest.test_keepalive_chunked",
                "Transfer-Encoding in HTTP/1.0 is refused",
            ),
            // Here tornado refuses, too: the tests look for its log, and Qbox was there before.
            (
                "tornado.test.httpserver_test.HTTPServerRawTest.test_chunked_request_body_duplicate_header",
                REFUSED,
            ),
            (
                "tornado.test.httpserver_test.HTTPServerRawTest.test_chunked_request_body_invalid_size",
                REFUSED,
            ),
            (
                "tornado.test.httpserver_test.HTTPServerRawTest.test_chunked_request_body_transfer_encoding_and_content_length",
                REFUSED,
            ),
            (
                "tornado.test.httpserver_test.HTTPServerRawTest.test_chunked_request_body_unsupported_transfer_encoding",
                REFUSED,
            ),
            (
                "tornado.test.httpserver_test.HTTPServerRawTest.test_content_length_list_whitespace",
                REFUSED,
            ),
            (
                "tornado.test.httpserver_test.HTTPServerRawTest.test_invalid_content_length",
                REFUSED,
            ),
            (
                "tornado.test.httpserver_test.HTTPServerRawTest.test_malformed_headers",
                REFUSED,
            ),
        ],
    })
}

/// More of it: its clients' time-outs, and streams that are no HTTP.
#[test]
#[ignore = "a minute and more: cargo xtask conformance"]
fn tornado_more() -> Result<()> {
    compare(&Suite {
        name: "tornado, more",
        words: &[
            "unittest",
            "tornado.test.simple_httpclient_test",
            "tornado.test.httpclient_test",
            "tornado.test.iostream_test",
            "tornado.test.tcpclient_test",
            "tornado.test.web_test",
        ],
        folder: None,
        tests: 400,
        captured: 200,
        meant: &[],
    })
}

/// urllib3's tests against its own servers.
#[test]
#[ignore = "a minute and more: cargo xtask conformance"]
fn urllib3() -> Result<()> {
    compare(&Suite {
        name: "urllib3",
        words: &[
            "pytest",
            "--timeout=10",
            "test/with_dummyserver/test_connectionpool.py",
            "test/with_dummyserver/test_socketlevel.py",
            "test/with_dummyserver/test_chunked_transfer.py",
            "test/with_dummyserver/test_poolmanager.py",
        ],
        folder: Some("sources/urllib3"),
        tests: 300,
        captured: 200,
        meant: &[
            (
                "test/with_dummyserver/test_chunked_transfer.py::TestChunkedTransfer::test_preserve_chunked_on_broken_connection",
                "it compares the client's source port with the one that the server sees",
            ),
            (
                "test/with_dummyserver/test_chunked_transfer.py::TestChunkedTransfer::test_preserve_chunked_on_redirect",
                "the same",
            ),
            (
                "test/with_dummyserver/test_chunked_transfer.py::TestChunkedTransfer::test_preserve_transfer_encoding_header",
                "a request whose last coding is not chunked is refused",
            ),
            (
                "test/with_dummyserver/test_connectionpool.py::TestConnectionPoolTimeouts::test_create_connection_timeout",
                "a captured connect has succeeded before the service is asked",
            ),
            (
                "test/with_dummyserver/test_socketlevel.py::TestProxyManager::test_headers",
                "a field with spaces in its name is refused",
            ),
        ],
    })
}

/// httpx's tests of its clients against uvicorn.
#[test]
fn httpx() -> Result<()> {
    compare(&Suite {
        name: "httpx",
        words: &["pytest", "--timeout=30", "tests"],
        folder: Some("sources/httpx"),
        tests: 1000,
        captured: 20,
        meant: &[],
    })
}
