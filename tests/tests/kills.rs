//! Qbox killed again and again under load, in `direct` mode: what fails was in flight at a kill, and nothing else.
//!
//! `QBOX_KILLS` is how often, one a second (a minute: 60).

use anyhow::{Context, Result, ensure};
use qbox_tests::{BOOK_TRIP, Pod, Qbox, Settings, World, workspace};
use rustix::process::Signal;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

/// Kills, unless the environment says how many.
const KILLS: usize = 4;

/// Each request on a connection of its own; a line for each that fails: when it began and ended (seconds since 1970), and how.
/// At the end, how many did not, and of the longest of all: how long it took, how long until it was connected, and when it
/// began. At last the longest of those of one more thread, to the port that no saga names: they never meet Qbox, and know
/// nothing of its death.
const LOAD: &str = r#"
import http.client, socket, struct, sys, threading, time
stop = threading.Event()
lock = threading.Lock()
ok, longest = 0, (0.0, 0.0, 0.0)
beside = 0.0
def one(port):
    began, failed = time.time(), None
    connected = began
    c = http.client.HTTPConnection("trips", port, timeout=60)
    try:
        c.connect()
        connected = time.time()
        # Closed by a reset, once all is read: a minute of this would else leave no port free.
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.request("GET", "/trips/7")
        c.getresponse().read()
    except (OSError, http.client.HTTPException) as e:
        failed = "%s(%s)" % (type(e).__name__, getattr(e, "errno", None))
    c.close()
    return began, connected, time.time(), failed
def work():
    global ok, longest
    while not stop.is_set():
        began, connected, ended, failed = one(8080)
        with lock:
            longest = max(longest, (ended - began, connected - began, began))
            if failed: print(began, ended, failed, flush=True)
            else: ok += 1
def control():
    global beside
    while not stop.is_set():
        began, _, ended, failed = one(8081)
        if failed: print("beside", failed, flush=True)
        beside = max(beside, ended - began)
threads = [threading.Thread(target=work) for _ in range(4)] + [threading.Thread(target=control)]
for t in threads: t.start()
sys.stdin.read()
stop.set()
for t in threads: t.join()
print("end", ok, *longest, beside)
"#;

/// What a hang may be, in the kernel's own count of a pod (`TcpExt` of /proc/net/netstat): segments that were sent again
/// because nobody answered in time, and connections that a listener had no place for. Shown beside the longest request; a machine
/// that stands still for a second has its share of them, too.
const HANGS: [&str; 4] = ["TCPTimeouts", "TCPSynRetrans", "ListenOverflows", "ListenDrops"];

fn hangs(pod: &Pod) -> Result<Vec<(&'static str, u64)>> {
    let text = pod.run(["cat", "/proc/net/netstat"])?.ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = lines.next().zip(lines.next()).context("no TcpExt")?;
    let all = || names.split(' ').zip(values.split(' '));
    HANGS
        .into_iter()
        .map(|hang| {
            let value = all().find_map(|(name, value)| (name == hang).then_some(value));
            Ok((hang, value.with_context(|| format!("no {hang}"))?.parse()?))
        })
        .collect()
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

#[test]
fn what_fails_was_in_flight_at_a_kill() -> Result<()> {
    let kills = env::var("QBOX_KILLS").ok().map(|count| count.parse::<usize>());
    let kills = kills
        .transpose()
        .context("QBOX_KILLS is no number")?
        .unwrap_or(KILLS);
    let mut world = World::book_trip()?;
    let settings = Settings::saga(fs::read_to_string(workspace().join(BOOK_TRIP))?);
    let mut load = world
        .client
        .command_for(Duration::from_secs(600), "python3")
        .args(["-c", LOAD])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut killed = Vec::new();
    for _ in 0..kills {
        // Half of the time without Qbox, half with it, more or less: the pace, and no wait for anything.
        thread::sleep(Duration::from_millis(500));
        let from = now()?;
        world.qbox.stop(Signal::KILL)?;
        killed.push((from, now()?));
        thread::sleep(Duration::from_millis(200));
        world.qbox = Qbox::start(&world.node, &settings)?;
    }
    drop(load.stdin.take());
    let said = String::from_utf8(load.wait_with_output()?.stdout)?;
    let (mut failed, mut end) = (0, None);
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["end", ok, longest, connected, began, beside] => {
                let (longest, began): (f64, f64) = (longest.parse()?, began.parse()?);
                let beside: f64 = beside.parse()?;
                let kill = killed
                    .iter()
                    .find(|(_, to)| began <= *to)
                    .copied()
                    .unwrap_or((began, began));
                let how = format!(
                    "{longest:.3} s (connected after {connected} s; a kill began {:.3} s after it, and took {:.3} s); beside \
                     Qbox {beside:.3} s",
                    kill.0 - began,
                    kill.1 - kill.0
                );
                end = Some((ok.parse::<u64>()?, longest, beside, how));
            }
            [began, ended, how] => {
                failed += 1;
                let (began, ended): (f64, f64) = (began.parse()?, ended.parse()?);
                let in_flight = killed.iter().any(|(from, to)| began <= *to && ended >= *from);
                ensure!(in_flight, "failed between two kills: {line}");
                let refused = how.starts_with("ConnectionRefusedError") || how.starts_with("TimeoutError");
                ensure!(!refused, "{line}");
            }
            _ => anyhow::bail!("what is {line:?}?"),
        }
    }
    let (ok, longest, beside, how) = end.context("the load ended early")?;
    println!("{kills} kills: {ok} requests answered, {failed} broken in flight, longest {how}");
    ensure!(ok > 0);
    for pod in [&world.client, world.pod_of("trips")?] {
        println!("{}: {:?}", pod.name(), hangs(pod)?);
    }
    // As long as the machine itself keeps anybody waiting, and a second.
    ensure!(longest <= 1.0 + beside, "a request took {how}");
    Ok(())
}
