//! Qbox's client of the Kubernetes API against what that does on the wire: changes, relists, connections that break.

use anyhow::{Context, Result, ensure};
use qbox::config::{Kubernetes, Selector, Unlisted};
use qbox::intercept::{Policy, Ports, Rule, Verdict};
use qbox::kubernetes::{Api, Health, Place, Pods};
use qbox_tests::{ApiPod, Authority, Cluster, Cut, DEADLINE, wait_for};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NODE: &str = "node-1";
const SAGA: (&str, &str) = ("qbox.dev/saga", "enabled");

fn uid(number: usize) -> String {
    format!("0d1c2b3a-0000-1111-2222-{number:012}")
}

fn pod(number: usize) -> ApiPod {
    ApiPod::new(&uid(number), &format!("web-{number}"), NODE)
}

fn labelled(number: usize) -> ApiPod {
    pod(number).label(SAGA.0, SAGA.1)
}

fn selector(text: &str) -> Result<Selector> {
    Selector::parse(text).map_err(anyhow::Error::msg)
}

/// A client that follows a cluster.
struct Followed {
    cluster: Cluster,
    api: Arc<Api>,
    pods: Pods,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Followed {
    /// With pods that are there before it starts.
    fn new(pods: &[ApiPod]) -> Result<Self> {
        Self::with(pods, |_, _| Ok(()))
    }

    fn with(pods: &[ApiPod], change: impl FnOnce(&mut Kubernetes, &Cluster) -> Result<()>) -> Result<Self> {
        let cluster = Cluster::start(TcpListener::bind("127.0.0.1:0")?, "secret", None)?;
        Self::of(cluster, pods, change)
    }

    fn of(
        cluster: Cluster,
        pods: &[ApiPod],
        change: impl FnOnce(&mut Kubernetes, &Cluster) -> Result<()>,
    ) -> Result<Self> {
        pods.iter().for_each(|pod| cluster.put(pod));
        let folder = tempfile::tempdir()?;
        let token_file = folder.path().join("token");
        fs::write(&token_file, "secret")?;
        let mut settings = Kubernetes {
            enroll: Some(selector("qbox.dev/saga=enabled")?),
            server: Some(cluster.url()),
            node: Some(NODE.to_owned()),
            token_file,
            ..Kubernetes::default()
        };
        change(&mut settings, &cluster)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let api = {
            let _inside = runtime.enter();
            Arc::new(Api::start(Place::new(&settings, |_| None)?, &settings)?)
        };
        Ok(Self {
            cluster,
            pods: Pods::told_by(Arc::clone(&api)),
            api,
            _runtime: runtime,
            _folder: folder,
        })
    }

    /// What holds for the cgroup of the pod with this UID.
    fn verdict(&self, uid: &str) -> Result<Verdict> {
        let path = PathBuf::from(format!("kubepods/burstable/pod{uid}/container"));
        self.pods.of(&path).context("not taken for a pod")
    }

    /// Waits until that holds for the pod with this number.
    fn until(&self, number: usize, rule: &Rule) -> Result<Verdict> {
        wait_for(&format!("pod {number} to be {rule:?}"), DEADLINE, || {
            let verdict = self.verdict(&uid(number))?;
            Ok((verdict.rule == *rule).then_some(verdict))
        })
    }

    fn until_health<T>(&self, what: &str, probe: impl Fn(&Health) -> Option<T>) -> Result<T> {
        wait_for(what, DEADLINE, || Ok(probe(&self.api.health())))
    }

    /// Waits until pods are watched.
    fn watched(&self) -> Result<()> {
        wait_for("a watch", DEADLINE, || {
            Ok((self.cluster.watching() > 0).then_some(()))
        })
    }

    fn lists(&self) -> usize {
        let asked = self.cluster.asked();
        asked
            .iter()
            .filter(|target| !target.contains("watch=true"))
            .count()
    }
}

fn all() -> Rule {
    Rule::In(Ports::All)
}

#[test]
fn only_this_nodes_pods_are_asked_for_and_labels_say_which_are_in() -> Result<()> {
    let elsewhere = ApiPod {
        node: "node-2".to_owned(),
        ..labelled(3)
    };
    let followed = Followed::new(&[labelled(1), pod(2), elsewhere])?;
    let verdict = followed.until(1, &all())?;
    assert_eq!((verdict.name.as_str(), verdict.depth), ("default/web-1", 3));
    assert_eq!(verdict.why, "its labels fit qbox.dev/saga=enabled");
    assert!(!verdict.on_node);
    let verdict = followed.until(2, &Rule::Out)?;
    assert_eq!(verdict.why, "its labels don't fit qbox.dev/saga=enabled");
    let verdict = followed.until(3, &Rule::Unknown)?;
    assert_eq!(verdict.name, format!("pod-{}", uid(3)));
    assert_eq!(followed.pods.of(Path::new("qbox/web")), None);
    followed.watched()?;
    for target in followed.cluster.asked() {
        assert!(target.starts_with("/api/v1/pods?"), "{target}");
        assert!(
            target.contains("fieldSelector=spec.nodeName%3Dnode-1"),
            "{target}"
        );
    }
    let health = followed.api.health();
    assert_eq!((health.pods, health.enrolled, health.listed), (2, 1, true));
    assert_eq!((health.away.clone(), health.amiss()), (None, None));
    Ok(())
}

#[test]
fn what_changes_is_told_at_once_and_without_another_list() -> Result<()> {
    let followed = Followed::new(&[pod(1)])?;
    followed.watched()?;
    followed.cluster.put(&labelled(2));
    followed.until(2, &all())?;
    followed.cluster.put(&labelled(1));
    followed.until(1, &all())?;
    followed.cluster.put(&pod(1));
    followed.until(1, &Rule::Out)?;
    followed
        .cluster
        .put(&labelled(1).label("qbox.dev/saga", "disabled"));
    followed.until(1, &Rule::Out)?;
    followed.cluster.delete(&labelled(2));
    followed.until(2, &Rule::Unknown)?;
    // One that moves here, and one of the same name with another UID.
    followed.cluster.put(&ApiPod {
        node: "node-2".to_owned(),
        ..labelled(3)
    });
    followed.cluster.put(&ApiPod {
        uid: uid(4),
        ..labelled(2)
    });
    let verdict = followed.until(4, &all())?;
    assert_eq!(verdict.name, "default/web-2");
    assert_eq!(followed.verdict(&uid(3))?.rule, Rule::Unknown);
    assert_eq!(followed.lists(), 1);
    Ok(())
}

#[test]
fn annotations_opt_out_and_name_ports() -> Result<()> {
    let followed = Followed::new(&[])?;
    let ports = |ports: &[u16]| -> BTreeSet<u16> { ports.iter().copied().collect() };
    let cases = [
        ("qbox.dev/capture", "false", Rule::Out),
        ("qbox.dev/capture", "true", all()),
        ("qbox.dev/capture", "no", Rule::Wrong),
        (
            "qbox.dev/ports",
            "8080, 9000",
            Rule::In(Ports::Only(ports(&[8080, 9000]))),
        ),
        (
            "qbox.dev/except-ports",
            "8080",
            Rule::In(Ports::Except(ports(&[8080]))),
        ),
        ("qbox.dev/ports", "80a", Rule::Wrong),
        ("qbox.dev/ports", "0", Rule::Wrong),
        ("qbox.dev/ports", "", Rule::Wrong),
        ("qbox.dev/ports", "65536", Rule::Wrong),
    ];
    for (key, value, rule) in &cases {
        followed.cluster.put(&labelled(1).annotation(key, value));
        let verdict = followed
            .until(1, rule)
            .with_context(|| format!("{key}: {value}"))?;
        assert!(
            *rule != Rule::Wrong || verdict.why.contains(key),
            "{}",
            verdict.why
        );
        // So that the next one isn't what was there before.
        followed.cluster.put(&pod(1));
        followed.until(1, &Rule::Out)?;
    }
    let both = labelled(1)
        .annotation("qbox.dev/ports", "1")
        .annotation("qbox.dev/except-ports", "2");
    followed.cluster.put(&both);
    assert!(
        followed
            .until(1, &Rule::Wrong)?
            .why
            .contains("exclude one another")
    );
    let many: Vec<String> = (1..=65).map(|port: u16| port.to_string()).collect();
    followed
        .cluster
        .put(&labelled(2).annotation("qbox.dev/ports", &many.join(",")));
    followed.until(2, &Rule::Wrong)?;
    Ok(())
}

#[test]
fn a_namespaces_labels_count_where_they_are_asked_for() -> Result<()> {
    let in_shop = ApiPod {
        namespace: "shop".to_owned(),
        ..pod(1)
    };
    let followed = Followed::with(&[in_shop], |settings, _| {
        settings.enroll = Some(selector("*")?);
        settings.namespace_selector = Some(selector("team=travel")?);
        Ok(())
    })?;
    // Its pod is told of, and it isn't.
    followed.until_health("both lists", |health| health.listed.then_some(()))?;
    assert_eq!(followed.verdict(&uid(1))?.rule, Rule::Unknown);
    followed.cluster.namespace("shop", &[("team", "shop")]);
    let verdict = followed.until(1, &Rule::Out)?;
    assert_eq!(verdict.why, "the labels of its namespace don't fit team=travel");
    followed.cluster.namespace("shop", &[("team", "travel")]);
    followed.until(1, &all())?;
    followed.cluster.namespace("shop", &[]);
    followed.until(1, &Rule::Out)?;
    Ok(())
}

#[test]
fn namespaces_by_name_and_the_fallback_for_what_is_not_listed() -> Result<()> {
    let in_shop = ApiPod {
        namespace: "shop".to_owned(),
        ..labelled(1)
    };
    let followed = Followed::with(&[in_shop, labelled(2)], |settings, _| {
        settings.namespaces = vec!["shop".to_owned()];
        settings.unlisted = Unlisted::Capture;
        Ok(())
    })?;
    followed.until_health("a list", |health| health.listed.then_some(()))?;
    assert_eq!(followed.verdict(&uid(1))?.rule, all());
    assert_eq!(followed.verdict(&uid(2))?.rule, Rule::Out);
    assert_eq!(followed.verdict(&uid(3))?.rule, all(), "not told of");
    let asked = followed.cluster.asked();
    assert!(
        !asked.iter().any(|target| target.contains("namespaces")),
        "{asked:?}"
    );
    Ok(())
}

/// The cgroup of a pod that kubelet has from a file is named after the file's hash, and the API's copy has a UID of its own.
#[test]
fn a_pod_of_a_file_is_known_by_its_hash() -> Result<()> {
    let hash = "0123456789abcdef0123456789abcdef";
    let mirror = labelled(1).annotation("kubernetes.io/config.hash", hash);
    let followed = Followed::new(std::slice::from_ref(&mirror))?;
    wait_for("the pod", DEADLINE, || {
        Ok((followed.verdict(hash)?.rule == all()).then_some(()))
    })?;
    followed.watched()?;
    followed.cluster.delete(&mirror);
    wait_for("the pod to go", DEADLINE, || {
        Ok((followed.verdict(hash)?.rule == Rule::Unknown).then_some(()))
    })
}

/// 410 as an event in a watch, and as the answer to one; what has happened in between is in the next list.
#[test]
fn after_410_gone_all_is_listed_again() -> Result<()> {
    let followed = Followed::new(&[labelled(1), labelled(2), pod(3)])?;
    followed.until(1, &all())?;
    followed.watched()?;
    followed.cluster.cut(Cut::Expire);
    followed.until_health("a second list", |health| (health.counts.lists == 2).then_some(()))?;
    assert_eq!(followed.api.health().counts.expired, 1);
    assert_eq!(followed.api.health().away, None);

    followed.watched()?;
    // It is away, everything happens, and what it knew is forgotten.
    followed.cluster.stop(true);
    followed.until_health("a failure", |health| health.away.clone())?;
    followed.cluster.delete(&labelled(1));
    followed.cluster.put(&pod(2));
    followed.cluster.put(&labelled(3));
    followed.cluster.put(&labelled(4));
    followed.cluster.age(1000);
    followed.cluster.forget();
    let held: Vec<Rule> = [1, 2, 3, 4]
        .iter()
        .map(|number| Ok(followed.verdict(&uid(*number))?.rule))
        .collect::<Result<_>>()?;
    assert_eq!(
        held,
        [all(), all(), Rule::Out, Rule::Unknown],
        "what was known stays"
    );
    followed.cluster.stop(false);
    followed.until(4, &all())?;
    followed.until(3, &all())?;
    followed.until(2, &Rule::Out)?;
    followed.until(1, &Rule::Unknown)?;
    let health = followed.until_health("it to be well", |health| {
        health.away.is_none().then(|| health.clone())
    })?;
    assert_eq!((health.counts.expired, health.counts.lists), (2, 3), "{health:?}");
    Ok(())
}

#[test]
fn a_broken_watch_goes_on_where_it_was() -> Result<()> {
    let followed = Followed::new(&[pod(1)])?;
    for (number, how) in [Cut::Break, Cut::Close, Cut::Break].into_iter().enumerate() {
        followed.watched()?;
        followed.cluster.cut(how);
        wait_for("the watch to end", DEADLINE, || {
            Ok((followed.cluster.watching() == 0).then_some(()))
        })?;
        // While nobody watches.
        followed.cluster.put(&labelled(number + 10));
        followed.until(number + 10, &all())?;
    }
    assert_eq!(followed.lists(), 1, "no list was needed");
    let health = followed.api.health();
    assert_eq!(
        (health.counts.failures, health.counts.expired),
        (2, 0),
        "{health:?}"
    );
    // What can't be understood makes what is known worth nothing.
    followed.watched()?;
    followed.cluster.cut(Cut::Garble);
    followed.until_health("a list", |health| (health.counts.lists == 2).then_some(()))?;
    Ok(())
}

/// The API forgets what is old, however little of it was this node's: a bookmark says from where a watch can go on.
#[test]
fn a_bookmark_saves_a_list() -> Result<()> {
    let followed = Followed::new(&[labelled(1)])?;
    followed.watched()?;
    followed.cluster.age(5000);
    followed.cluster.bookmark();
    followed.until_health("the bookmark", |health| (health.counts.events == 1).then_some(()))?;
    followed.cluster.forget();
    followed.cluster.cut(Cut::Break);
    followed.until_health("another watch", |health| {
        (health.counts.watches == 2).then_some(())
    })?;
    followed.cluster.put(&labelled(2));
    followed.until(2, &all())?;
    assert_eq!(followed.api.health().counts.expired, 0);
    assert_eq!(followed.lists(), 1);
    Ok(())
}

#[test]
fn an_api_that_refuses_is_told_of_and_asked_again() -> Result<()> {
    let cluster = Cluster::start(TcpListener::bind("127.0.0.1:0")?, "secret", None)?;
    cluster.refuse(Some(403));
    let followed = Followed::of(cluster, &[labelled(1)], |_, _| Ok(()))?;
    let (_, why) = followed.until_health("a refusal", |health| {
        health.away.clone().filter(|_| health.counts.failures > 0)
    })?;
    assert!(why.contains("it says 403 refused by the test"), "{why}");
    let health = followed.api.health();
    assert!(
        !health.listed && health.amiss().is_some_and(|amiss| amiss.contains("403")),
        "{health:?}"
    );
    assert_eq!(followed.verdict(&uid(1))?.rule, Rule::Unknown);
    followed.cluster.refuse(None);
    followed.until(1, &all())?;
    assert_eq!(followed.api.health().amiss(), None);
    Ok(())
}

/// As in a cluster: TLS with the cluster's own authority, and a token that is exchanged while Qbox runs.
#[test]
fn over_tls_with_the_service_accounts_authority() -> Result<()> {
    let authority = Authority::new("kubernetes")?;
    let other = Authority::new("another")?;
    let shown = authority.certify("localhost", false)?;
    let start = |trusted: &Authority| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let cluster = Cluster::start(listener, "secret", Some(shown.server(None)?))?;
        let folder = tempfile::tempdir()?;
        let ca_file = folder.path().join("ca.crt");
        fs::write(&ca_file, trusted.pem())?;
        let followed = Followed::of(cluster, &[labelled(1)], |settings, _| {
            settings.server = Some(format!("https://localhost:{port}"));
            settings.ca_file = ca_file;
            Ok(())
        })?;
        Ok::<_, anyhow::Error>((followed, folder))
    };
    let (followed, _folder) = start(&authority)?;
    followed.until(1, &all())?;
    let (followed, _folder) = start(&other)?;
    let (_, why) = followed.until_health("a refusal", |health| {
        health.away.clone().filter(|_| health.counts.failures > 0)
    })?;
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    assert_eq!(followed.verdict(&uid(1))?.rule, Rule::Unknown);
    Ok(())
}

/// As many as kubelet lets a node have.
#[test]
fn two_hundred_and_fifty_pods() -> Result<()> {
    let pods: Vec<ApiPod> = (0..250)
        .map(|number| {
            if number % 2 == 0 {
                labelled(number)
            } else {
                pod(number)
            }
        })
        .collect();
    let followed = Followed::new(&pods)?;
    followed.until_health("a list", |health| health.listed.then_some(()))?;
    assert_eq!(followed.api.health().enrolled, 125);
    followed.watched()?;
    let begin = Instant::now();
    for number in 0..250 {
        followed.cluster.put(&if number % 2 == 0 {
            pod(number)
        } else {
            labelled(number)
        });
    }
    followed.until(248, &Rule::Out)?;
    followed.until(249, &all())?;
    let took = begin.elapsed();
    for number in 0..250 {
        let rule = if number % 2 == 0 { Rule::Out } else { all() };
        ensure!(followed.verdict(&uid(number))?.rule == rule, "pod {number}");
    }
    println!("250 pods' labels were changed and known in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(followed.lists(), 1);
    Ok(())
}
