//! Pods on a node, laid out as kubelet and containerd do with the systemd driver, and a real Qbox that asks a Kubernetes API
//! which of them are in.

use anyhow::{Context, Result, ensure};
use qbox_tests::{
    ApiPod, Authority, BOOK_TRIP, Cluster, DEADLINE, Node, PORT, Pod, Qbox, SERVICES, Script, Service,
    Settings, binary, wait_for, workspace,
};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NODE: &str = "node-1";
const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
const TREE: &str = "kubepods.slice";

/// The UID of a pod of that name; no two names here begin with the same letters.
fn uid(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    let digits = format!("{digits:0<12.12}");
    format!("0d1c2b3a-0000-1111-2222-{digits}")
}

/// As the API has it, without labels.
fn told(name: &str) -> ApiPod {
    ApiPod {
        namespace: "shop".to_owned(),
        ..ApiPod::new(&uid(name), name, NODE)
    }
}

fn labelled(name: &str) -> ApiPod {
    told(name).label("qbox.dev/saga", "enabled")
}

/// Where containerd with systemd's driver has its first container.
fn place(name: &str) -> PathBuf {
    let pod = format!("kubepods-burstable-pod{}.slice", uid(name).replace('-', "_"));
    let above = PathBuf::from(TREE).join("kubepods-burstable.slice").join(pod);
    above.join(format!("cri-containerd-{}.scope", "5e".repeat(32)))
}

/// A node with its services, an API, and a Qbox that asks it.
struct Shop {
    qbox: Qbox,
    cluster: Cluster,
    _services: Vec<(Pod, Service)>,
    node: Node,
    settings: Settings,
    _folder: TempDir,
}

impl Shop {
    fn new(pods: &[ApiPod], kubernetes: &str, capture: &'static str) -> Result<Self> {
        let node = Node::new()?;
        let serve = |name: &'static str| {
            let pod = node.pod(name)?;
            let service = Service::start(name, vec![pod.listen(PORT)?])?;
            Ok((pod, service))
        };
        let services = SERVICES.into_iter().map(serve).collect::<Result<Vec<_>>>()?;
        // As a pod sees the API: TLS with the cluster's authority, at an address that isn't the node's own loopback.
        let authority = Authority::new("kubernetes")?;
        let address = Ipv4Addr::new(10, 88, 0, 1);
        let shown = authority.certify(&address.to_string(), false)?;
        let listener = node.namespace().run(|| Ok(TcpListener::bind((address, 0))?))?;
        let cluster = node
            .namespace()
            .run(|| Cluster::start(listener, "secret", Some(shown.server(None)?)))?;
        pods.iter().for_each(|pod| cluster.put(pod));
        let folder = tempfile::tempdir()?;
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.path().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let (ca, token) = (file("ca.crt", &authority.pem())?, file("token", "secret")?);
        let extra = format!(
            "[kubernetes]\nenroll = \"qbox.dev/saga=enabled\"\nnode = \"{NODE}\"\nserver = {:?}\nca_file = {ca:?}\ntoken_file = {token:?}\n{kubernetes}",
            cluster.url()
        );
        let saga = fs::read_to_string(workspace().join(BOOK_TRIP))?;
        let settings = Settings {
            capture,
            extra,
            ..Settings::saga(saga)
        };
        let qbox = Qbox::start_in(&node, &node.cgroup().join(TREE), &settings)?;
        Ok(Self {
            qbox,
            cluster,
            _services: services,
            node,
            settings,
            _folder: folder,
        })
    }

    fn pod(&self, name: &str) -> Result<Pod> {
        self.node.pod_at(name, &place(name))
    }

    /// Sends a booking from a pod: whether it became a saga.
    fn is_saga(&self, pod: &Pod, trip: &str) -> Result<bool> {
        is_saga(&pod.http(booking(trip))?)
    }

    fn status(&self) -> Result<Value> {
        self.qbox.admin().json("/api/v1/status")
    }

    /// The list that a pod of the API is in, and its entry.
    fn listed(&self, name: &str) -> Result<Option<(&'static str, Value)>> {
        let lists = self.qbox.admin().json("/api/v1/pods")?;
        for list in ["pods", "uncaptured", "left"] {
            let entries = lists[list].as_array().with_context(|| format!("no {list}"))?;
            let found = entries.iter().find(|pod| pod["name"] == name);
            if let Some(found) = found {
                return Ok(Some((list, found.clone())));
            }
        }
        Ok(None)
    }

    fn until_listed(&self, name: &str, list: &str) -> Result<Value> {
        wait_for(&format!("{name} to be in {list}"), DEADLINE, || {
            let found = self.listed(name)?;
            Ok(found.filter(|(found, _)| *found == list).map(|(_, pod)| pod))
        })
    }
}

fn booking(trip: &str) -> [String; 5] {
    let url = format!("http://trips.default.svc:{PORT}/trips/{trip}");
    [
        "-X".to_owned(),
        "POST".to_owned(),
        url,
        "-d".to_owned(),
        WISH.to_owned(),
    ]
}

fn is_saga((status, body): &(u16, String)) -> Result<bool> {
    let body: Value = serde_json::from_str(body).with_context(|| format!("no JSON: {body}"))?;
    match (status, &body["saga"], &body["service"]) {
        (201, Value::String(_), _) => Ok(true),
        (_, Value::Null, service) if service == "trips" => Ok(false),
        _ => anyhow::bail!("neither a saga's answer nor the service's: {status} {body}"),
    }
}

#[test]
fn labels_say_which_pods_are_captured_and_changes_are_in_force_at_once() -> Result<()> {
    let shop = Shop::new(&[labelled("web"), told("app")], "", "")?;
    let (web, app) = (shop.pod("web")?, shop.pod("app")?);
    let entry = shop.until_listed("shop/web", "pods")?;
    assert_eq!(entry["why"], "its labels fit qbox.dev/saga=enabled");
    let entry = shop.until_listed("shop/app", "left")?;
    assert_eq!(entry["why"], "its labels don't fit qbox.dev/saga=enabled");
    assert!(shop.is_saga(&web, "1")?);
    assert!(!shop.is_saga(&app, "2")?);

    // The other way round.
    let begin = Instant::now();
    shop.cluster.put(&labelled("app"));
    shop.until_listed("shop/app", "pods")?;
    let took = begin.elapsed();
    assert!(shop.is_saga(&app, "3")?);
    let begin = Instant::now();
    shop.cluster.put(&told("web"));
    shop.until_listed("shop/web", "left")?;
    println!(
        "captured {took:?} after the label was set, left alone {:?} after it was taken",
        begin.elapsed()
    );
    assert!(!shop.is_saga(&web, "4")?);

    // What a deleted pod's processes do until they end is nobody's word: it waits.
    shop.cluster.delete(&labelled("app"));
    shop.until_listed(&format!("pod-{}", uid("app")), "left")?;
    assert!(!shop.is_saga(&app, "5")?);
    drop(app);
    wait_for("the dead pod to be forgotten", DEADLINE, || {
        Ok(shop
            .listed(&format!("pod-{}", uid("app")))?
            .is_none()
            .then_some(()))
    })?;

    let status = shop.status()?;
    let kubernetes = &status["kubernetes"];
    assert_eq!(
        (&kubernetes["node"], &kubernetes["pods"], &kubernetes["enrolled"]),
        (&NODE.into(), &1.into(), &0.into())
    );
    let shown = Command::new(binary()?)
        .args(["status", "--socket"])
        .arg(shop.qbox.socket())
        .output()?;
    let shown = String::from_utf8(shown.stdout)?;
    assert!(
        shown.contains("shop/web") && shown.contains("its labels don't fit"),
        "{shown}"
    );
    let metrics = shop.qbox.admin().get("/metrics")?.body;
    for line in [
        "qbox_kubernetes_answers 1",
        "qbox_kubernetes_pods{enrolled=\"false\"} 1",
        "qbox_pods_left 1",
        "qbox_ebpf_map_entries{map=\"pods\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    Ok(())
}

/// Requests all the time, while the label comes and goes: each is answered, by a saga or by the service.
#[test]
fn no_request_fails_while_a_label_comes_and_goes() -> Result<()> {
    let shop = Shop::new(&[labelled("web")], "", "")?;
    let web = shop.pod("web")?;
    shop.until_listed("shop/web", "pods")?;
    let (over, answers) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    thread::scope(|scope| -> Result<()> {
        let asking: Vec<_> = (0..3)
            .map(|worker| {
                let (web, shop, over, answers) = (&web, &shop, &over, &answers);
                scope.spawn(move || -> Result<()> {
                    let mut number = 0;
                    while !over.load(Ordering::Relaxed) {
                        number += 1;
                        let saga = shop.is_saga(web, &format!("{worker}-{number}"))?;
                        answers[usize::from(saga)].fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let flips = (0..10).try_for_each(|flip| -> Result<()> {
            let (pod, list) = match flip % 2 == 0 {
                true => (told("web"), "left"),
                false => (labelled("web"), "pods"),
            };
            let before = answers[flip % 2].load(Ordering::Relaxed);
            shop.cluster.put(&pod);
            shop.until_listed("shop/web", list)?;
            // So that both kinds are seen in each phase.
            wait_for("answers", DEADLINE, || {
                Ok((answers[flip % 2].load(Ordering::Relaxed) > before + 10).then_some(()))
            })
        });
        over.store(true, Ordering::Relaxed);
        for worker in asking {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        flips
    })?;
    let [direct, sagas] = answers.map(AtomicUsize::into_inner);
    println!("{sagas} sagas, {direct} direct answers, 0 failures");
    ensure!(sagas > 50 && direct > 50, "{sagas} sagas, {direct} direct");
    Ok(())
}

/// A trigger on a connection that then stays open, idle: how it ends, and when.
const KEPT: &str = r#"
import http.client, socket, sys
c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=30)
c.request("POST", "/trips/kept", sys.argv[1])
print(c.getresponse().read().decode(), flush=True)
print("ended" if c.sock.recv(1) == b"" else "spoke", flush=True)
"#;

/// A client that keeps its connections must not go on through Qbox for as long as it lives.
#[test]
fn a_connection_of_a_pod_that_is_let_go_ends_once_it_is_idle() -> Result<()> {
    let shop = Shop::new(&[labelled("web")], "", "")?;
    let web = shop.pod("web")?;
    shop.until_listed("shop/web", "pods")?;
    let mut client = web
        .command("python3")
        .args(["-c", KEPT, WISH])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(client.stdout.take().context("no pipe")?).lines();
    let reply: Value = serde_json::from_str(&lines.next().context("no answer")??)?;
    assert!(reply["saga"].is_string(), "{reply}");
    shop.cluster.put(&told("web"));
    assert_eq!(lines.next().context("no end")??, "ended");
    assert!(client.wait()?.success());
    let open = || Ok((shop.qbox.admin().metric("qbox_connections_open")? == 0).then_some(()));
    wait_for("no connection to be open", DEADLINE, open)
}

/// Requests on one connection without a pause, until an answer says that it is the last, or a minute is over.
const BUSY: &str = r#"
import http.client, time
c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=30)
begun, count = time.monotonic(), 0
while time.monotonic() < begun + 60:
    c.request("GET", "/bookings/busy")
    answer = c.getresponse()
    answer.read()
    count += 1
    if count == 10: print("warm", flush=True)
    if answer.getheader("Connection") == "close": print("last", flush=True); break
"#;

/// One that is never idle hears with an answer that it is the last, and loses no request.
#[test]
fn a_busy_connection_of_a_pod_that_is_let_go_ends_with_an_answer() -> Result<()> {
    let shop = Shop::new(&[labelled("web")], "", "")?;
    let web = shop.pod("web")?;
    shop.until_listed("shop/web", "pods")?;
    let mut client = Script::start(&web, BUSY)?;
    assert_eq!(client.line()?, "warm");
    shop.cluster.put(&told("web"));
    assert_eq!(client.line()?, "last");
    Ok(())
}

#[test]
fn annotations_opt_out_and_name_ports() -> Result<()> {
    let shop = Shop::new(&[labelled("web")], "", "")?;
    let web = shop.pod("web")?;
    shop.until_listed("shop/web", "pods")?;
    for (number, (key, value, saga)) in [
        ("qbox.dev/ports", "9999", false),
        ("qbox.dev/ports", "9999,8080", true),
        ("qbox.dev/except-ports", "8080", false),
        ("qbox.dev/except-ports", "9999", true),
        ("qbox.dev/capture", "false", false),
        ("qbox.dev/ports", "eighty", false),
    ]
    .into_iter()
    .enumerate()
    {
        shop.cluster.put(&labelled("web").annotation(key, value));
        wait_for(&format!("{key}: {value}"), DEADLINE, || {
            let found = shop.is_saga(&web, &format!("{number}"))?;
            Ok((found == saga).then_some(()))
        })?;
        // And so it stays.
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(shop.is_saga(&web, &format!("{number}"))?, saga, "{key}: {value}");
    }
    let (list, entry) = shop.listed("shop/web")?.context("it has gone")?;
    assert_eq!(list, "uncaptured");
    assert_eq!(
        entry["error"],
        "its annotation qbox.dev/ports is no list of ports"
    );
    Ok(())
}

/// As pods on the node's network do. Only the labelled one's connections are turned.
#[test]
fn two_pods_that_share_a_namespace_are_told_apart() -> Result<()> {
    let host = |pod: ApiPod| ApiPod {
        host_network: true,
        ..pod
    };
    let shop = Shop::new(&[host(labelled("web")), host(told("app"))], "", "")?;
    let web = shop.pod("web")?;
    shop.until_listed("shop/web", "pods")?;
    let other = shop.node.cgroup().join(place("app"));
    fs::create_dir_all(&other)?;
    // It has a process that stays, as its sandbox is.
    let stay = r#"echo $$ > "$0/cgroup.procs"; exec sleep 80"#;
    let mut staying = web.command("sh").args(["-c", stay]).arg(&other).spawn()?;
    shop.until_listed("shop/app", "left")?;
    // In the namespace of the one, and the cgroup of the other.
    let moved = |trip: &str| -> Result<bool> {
        let other = other.display().to_string();
        let mut words = vec![
            "sh",
            "-c",
            r#"echo $$ > "$0/cgroup.procs"; exec curl -sS -m 80 -w '\n%{http_code}' "$@""#,
            &other,
        ];
        let booking = booking(trip);
        words.extend(booking.iter().map(String::as_str));
        let text = web.run(words)?.ok()?;
        let (body, status) = text.rsplit_once('\n').context("no status")?;
        is_saga(&(status.parse()?, body.to_owned()))
    };
    assert!(!moved("1")?);
    assert!(shop.is_saga(&web, "2")?);
    shop.cluster.put(&host(labelled("app")));
    wait_for("the other one to be captured", DEADLINE, || {
        Ok(moved("3")?.then_some(()))
    })?;
    shop.cluster.put(&host(told("web")));
    wait_for("the first one to be left alone", DEADLINE, || {
        Ok((!shop.is_saga(&web, "4")?).then_some(()))
    })?;
    assert!(moved("5")?);
    staying.kill()?;
    staying.wait()?;
    Ok(())
}

/// What could be a trigger of a pod of which nobody has said anything is refused where that is asked for; then it goes by what
/// the API says.
#[test]
fn a_pod_that_the_api_has_not_told_of_waits() -> Result<()> {
    let shop = Shop::new(&[], "", "unknown = \"refuse\"\n")?;
    let (web, app) = (shop.pod("web")?, shop.pod("app")?);
    for pod in [&web, &app] {
        // curl's "Failed to connect".
        let error = pod.http(booking("1")).unwrap_err();
        assert!(format!("{error:#}").contains("exit status: 7"), "{error:#}");
    }
    // It isn't captured, and that isn't amiss.
    shop.until_listed(&format!("pod-{}", uid("web")), "left")?;
    assert_eq!(shop.qbox.admin().get("/readyz")?.status, 200);
    shop.cluster.put(&labelled("web"));
    shop.cluster.put(&told("app"));
    shop.until_listed("shop/web", "pods")?;
    assert!(shop.is_saga(&web, "2")?);
    shop.until_listed("shop/app", "left")?;
    assert!(!shop.is_saga(&app, "3")?);
    Ok(())
}

/// What was known holds, as far as this Qbox goes; a new pod follows the fallback. Readiness and metrics say so.
#[test]
fn while_the_api_is_away_what_was_known_stays() -> Result<()> {
    let mut shop = Shop::new(&[labelled("web"), told("app")], "unlisted = \"capture\"\n", "")?;
    let (web, app) = (shop.pod("web")?, shop.pod("app")?);
    shop.until_listed("shop/web", "pods")?;
    shop.until_listed("shop/app", "left")?;
    shop.cluster.stop(true);
    let away = wait_for("Qbox to be not ready", DEADLINE, || {
        let ready = shop.qbox.admin().get("/readyz")?;
        Ok((ready.status == 503).then_some(ready.body))
    })?;
    assert!(
        away.contains("the Kubernetes API has not told of pods for"),
        "{away}"
    );
    let metrics = shop.qbox.admin().get("/metrics")?.body;
    assert!(metrics.contains("qbox_kubernetes_answers 0"), "{metrics}");
    assert!(shop.is_saga(&web, "1")?);
    assert!(!shop.is_saga(&app, "2")?);
    let young = shop.pod("new")?;
    shop.until_listed(&format!("pod-{}", uid("new")), "pods")?;
    assert!(shop.is_saga(&young, "3")?);

    shop.cluster.put(&told("new"));
    shop.cluster.stop(false);
    shop.until_listed("shop/new", "left")?;
    assert!(!shop.is_saga(&young, "4")?);
    wait_for("Qbox to be ready", DEADLINE, || {
        Ok((shop.qbox.admin().get("/readyz")?.status == 200).then_some(()))
    })?;

    // A start with the API there: whoever is in is captured when it is ready.
    shop.qbox.stop(rustix::process::Signal::TERM)?;
    shop.qbox = Qbox::start_in(&shop.node, &shop.node.cgroup().join(TREE), &shop.settings)?;
    assert!(shop.is_saga(&web, "5")?);
    assert!(!shop.is_saga(&app, "6")?);
    Ok(())
}

/// As kubelet has it: the sandbox of a pod, which makes no socket, is there before its first container. It is captured then, and not
/// when its first container has already begun.
#[test]
fn a_pod_is_captured_before_its_first_socket() -> Result<()> {
    let names: Vec<String> = (0..8).map(|number| format!("{number}-web")).collect();
    let told: Vec<ApiPod> = names.iter().map(|name| labelled(name)).collect();
    let shop = Shop::new(&told, "", "unknown = \"refuse\"\n")?;
    let mut pods = Vec::new();
    let mut longest = Duration::ZERO;
    for name in &names {
        let pod = shop.pod(name)?;
        // Its network is there when `pod` is: what follows is Qbox's time.
        let begin = Instant::now();
        shop.until_listed(&format!("shop/{name}"), "pods")?;
        longest = longest.max(begin.elapsed());
        // The very first socket of the pod is a connection, to an address.
        assert!(shop.is_saga(&pod, name)?);
        pods.push(pod);
    }
    println!("captured {longest:?} after the sandbox, at the latest");
    // A look comes once a second: that one finds all eight as early as this is unlikely (1 in 256).
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    let metrics = shop.qbox.admin().get("/metrics")?.body;
    assert!(
        metrics.contains("qbox_captured_connections_total{fate=\"unenrolled\"} 0"),
        "{metrics}"
    );
    Ok(())
}

/// Without an API: a pattern of cgroups.
#[test]
fn a_pattern_says_which_cgroups_are_captured() -> Result<()> {
    let node = Node::new()?;
    let serve = |name: &'static str| {
        let pod = node.pod(name)?;
        let service = Service::start(name, vec![pod.listen(PORT)?])?;
        Ok((pod, service))
    };
    let _services = SERVICES.into_iter().map(serve).collect::<Result<Vec<_>>>()?;
    let web = node.pod_at("web", "system.slice/docker-0123.scope".as_ref())?;
    let app = node.pod_at("app", "system.slice/app.service".as_ref())?;
    let saga = fs::read_to_string(workspace().join(BOOK_TRIP))?;
    let pattern = node.cgroup().join("system.slice/docker-*.scope");
    let qbox = Qbox::start_in(&node, &pattern, &Settings::saga(saga))?;
    qbox.wait_for_pod("docker-0123.scope")?;
    assert!(is_saga(&web.http(booking("1"))?)?);
    assert!(!is_saga(&app.http(booking("2"))?)?);
    let lists = qbox.admin().json("/api/v1/pods")?;
    assert_eq!(lists["left"][0]["name"], "app.service");
    let status = qbox.admin().json("/api/v1/status")?;
    assert_eq!(status["capture"]["cgroups"][0], pattern.display().to_string());
    Ok(())
}
