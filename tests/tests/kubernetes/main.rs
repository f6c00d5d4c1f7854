//! The manifests of config/kubernetes: rendered by kubectl and by Helm, which must agree, held to the published schemas, mounted as
//! kubelet does and read by the real binary; and what the hardened overlay grants is enough to capture.

use anyhow::{Context, Result, ensure};
use qbox_tests::{World, workspace};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The oldest that knows every field, and the newest.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];
const MANIFESTS: &str = "config/kubernetes";

/// A program that cargo xtask installs (tests/tests/kubernetes/requirements.txt).
fn tool(name: &str) -> PathBuf {
    let folder = std::env::var_os("QBOX_TEST_TOOLS")
        .map_or_else(|| workspace().join("target/test-tools"), PathBuf::from);
    folder.join("kubernetes/bin").join(name)
}

fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {command:?}; `cargo xtask test` installs what it needs"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {text}{error}",
        output.status
    );
    Ok(text)
}

/// A rendered folder, as text in a file and as values.
struct Rendered {
    file: PathBuf,
    objects: Vec<Value>,
    _folder: TempDir,
}

impl Rendered {
    fn new(kustomization: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("all.yaml");
        fs::write(
            &file,
            read(Command::new(tool("kubectl")).arg("kustomize").arg(kustomization))?,
        )?;
        let convert =
            "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
        let text = read(Command::new(tool("python")).args(["-c", convert]).arg(&file))?;
        Ok(Self {
            file,
            objects: serde_json::from_str(&text)?,
            _folder: folder,
        })
    }

    /// The chart.
    fn chart(values: &Value) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("all.yaml");
        let render = "import json, sys, yaml; from helm_python import Chart, lint\n\
                      path, values, file = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]\n\
                      found = lint(path, values, strict=True, namespace='qbox', kube_version='v1.30.0')\n\
                      assert not found['errors'] and all(one['severity'] < 2 for one in found['messages']), found\n\
                      texts = Chart.load(path).render(values, name='qbox', namespace='qbox').values()\n\
                      objects = [one for text in texts for one in yaml.safe_load_all(text) if one]\n\
                      yaml.safe_dump_all(objects, open(file, 'w')); print(json.dumps(objects))";
        let mut python = Command::new(tool("python"));
        python
            .args(["-c", render])
            .arg(workspace().join(MANIFESTS).join("helm"));
        let text = read(python.arg(values.to_string()).arg(&file))?;
        Ok(Self {
            file,
            objects: serde_json::from_str(&text)?,
            _folder: folder,
        })
    }

    /// Each object by its kind and name, without the part of a name that changes with a text.
    fn by_name(&self) -> Result<BTreeMap<String, Value>> {
        let mut all = BTreeMap::new();
        for object in &self.objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let text = object.to_string();
            let text = match self.object("ConfigMap", "qbox-config") {
                Ok(config) => {
                    let named = config["metadata"]["name"].as_str().context("no name")?;
                    text.replace(named, "qbox-config")
                }
                Err(_) => text,
            };
            let name = match name.starts_with("qbox-config") {
                true => "qbox-config",
                false => name,
            };
            let key = format!("{} {name}", object["kind"].as_str().unwrap_or_default());
            ensure!(
                all.insert(key.clone(), serde_json::from_str(&text)?).is_none(),
                "{key} twice"
            );
        }
        Ok(all)
    }

    fn of(name: &str) -> Result<Self> {
        Self::new(&workspace().join(MANIFESTS).join(name))
    }

    fn object(&self, kind: &str, name: &str) -> Result<&Value> {
        let wanted = |object: &&Value| {
            let has = object["metadata"]["name"].as_str().unwrap_or_default();
            object["kind"] == kind && (has == name || has.starts_with(&format!("{name}-")))
        };
        self.objects
            .iter()
            .find(wanted)
            .with_context(|| format!("no {kind} {name}"))
    }

    fn pod(&self) -> Result<&Value> {
        Ok(&self.object("DaemonSet", "qbox")?["spec"]["template"]["spec"])
    }

    /// The folder on the node that is mounted there.
    fn host_path(&self, mount: &str) -> Result<String> {
        let pod = self.pod()?;
        let mounts = pod["containers"][0]["volumeMounts"]
            .as_array()
            .context("no mounts")?;
        let mount = mounts
            .iter()
            .find(|one| one["mountPath"] == mount)
            .with_context(|| format!("{mount} isn't mounted"))?;
        let volumes = pod["volumes"].as_array().context("no volumes")?;
        let volume = volumes
            .iter()
            .find(|one| one["name"] == mount["name"])
            .context("no such volume")?;
        Ok(volume["hostPath"]["path"].as_str().unwrap_or_default().to_owned())
    }
}

/// An overlay as docs/kubernetes.md has it, beside the base: a saga, and the monitoring.
fn overlay() -> Result<(TempDir, Rendered)> {
    let folder = tempfile::Builder::new()
        .prefix("overlay-")
        .tempdir_in(workspace().join("target"))?;
    fs::copy(
        workspace().join(qbox_tests::BOOK_TRIP),
        folder.path().join("book-trip.toml"),
    )?;
    let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../config/kubernetes/hardened]\n\
                components: [../../config/kubernetes/monitoring]\nconfigMapGenerator:\n- name: qbox-sagas\n  namespace: qbox\n  behavior: merge\n  files: [book-trip.toml]\n";
    fs::write(folder.path().join("kustomization.yaml"), text)?;
    let rendered = Rendered::new(folder.path())?;
    Ok((folder, rendered))
}

/// The hardened overlay with pods chosen by their labels, as docs/kubernetes.md has it.
fn enrolment() -> Result<(TempDir, Rendered)> {
    let folder = tempfile::Builder::new()
        .prefix("enrolment-")
        .tempdir_in(workspace().join("target"))?;
    let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../config/kubernetes/hardened]\n\
                components: [../../config/kubernetes/enrollment]\n";
    fs::write(folder.path().join("kustomization.yaml"), text)?;
    let rendered = Rendered::new(folder.path())?;
    Ok((folder, rendered))
}

/// With enrolment by labels Qbox may list and watch pods, and nothing else; without it, nothing.
#[test]
fn the_api_is_asked_only_where_labels_choose_pods_and_only_for_pods() -> Result<()> {
    let (_folder, rendered) = enrolment()?;
    let role = rendered.object("ClusterRole", "qbox")?;
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] }]);
    assert_eq!(role["rules"], rules);
    let binding = rendered.object("ClusterRoleBinding", "qbox")?;
    assert_eq!(binding["roleRef"]["name"], "qbox");
    let account = json!([{ "kind": "ServiceAccount", "name": "qbox", "namespace": "qbox" }]);
    assert_eq!(binding["subjects"], account);
    let pod = rendered.pod()?;
    assert_eq!(pod["automountServiceAccountToken"], true);
    let node =
        json!([{ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }]);
    assert_eq!(pod["containers"][0]["env"], node);
    let config = &rendered.object("ConfigMap", "qbox-config")?["data"]["qbox.toml"];
    let config = config.as_str().context("no qbox.toml")?;
    assert!(
        config.contains("[kubernetes]\nenroll = \"qbox.dev/saga=enabled\"\n"),
        "{config}"
    );
    // It differs from the base's in that alone.
    let base = fs::read_to_string(workspace().join(MANIFESTS).join("base/qbox.toml"))?;
    let keys = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(str::to_owned).collect()
    };
    let (base, config) = (keys(&base), keys(config));
    let more: Vec<_> = config.iter().filter(|line| !base.contains(line)).collect();
    assert_eq!(more, ["[kubernetes]", "enroll = \"qbox.dev/saga=enabled\""]);
    assert!(base.iter().all(|line| config.contains(line)), "{config:?}");
    for name in ["base", "hardened"] {
        let rendered = Rendered::of(name)?;
        assert_eq!(rendered.pod()?["automountServiceAccountToken"], false, "{name}");
        assert!(rendered.object("ClusterRole", "qbox").is_err(), "{name}");
    }
    Ok(())
}

#[test]
fn the_manifests_hold_to_the_published_schemas() -> Result<()> {
    let (_folder, enrolment) = enrolment()?;
    let chart = |hardened: bool| Rendered::chart(&json!({ "hardened": hardened, "createNamespace": true }));
    for (name, rendered) in [
        ("base", Rendered::of("base")?),
        ("hardened", Rendered::of("hardened")?),
        ("enrollment", enrolment),
        ("the chart, privileged", chart(false)?),
        ("the chart", chart(true)?),
        (
            "the chart, enrollment",
            Rendered::chart(
                &json!({ "enrollment": { "enabled": true, "namespaceSelector": "team=travel" } }),
            )?,
        ),
    ] {
        for version in KUBERNETES {
            let mut validate = Command::new(tool("kubernetes-validate"));
            read(validate.args(["--strict", "-k", version]).arg(&rendered.file)).with_context(|| name)?;
        }
    }
    Ok(())
}

#[test]
fn the_chart_and_the_kustomizations_agree() -> Result<()> {
    for (name, hardened) in [("base", false), ("hardened", true)] {
        let chart = Rendered::chart(&json!({ "hardened": hardened, "createNamespace": true }))?;
        assert_eq!(chart.by_name()?, Rendered::of(name)?.by_name()?, "{name}");
    }
    let (_folder, overlay) = overlay()?;
    let saga = fs::read_to_string(workspace().join(qbox_tests::BOOK_TRIP))?;
    let values = json!({ "createNamespace": true, "podMonitor": true, "sagas": { "book-trip.toml": saga } });
    let chart = Rendered::chart(&values)?;
    let (mut chart, mut overlay) = (chart.by_name()?, overlay.by_name()?);
    // The component of kustomize gives it no label of ours, nor needs one.
    for all in [&mut chart, &mut overlay] {
        let monitor = all.get_mut("PodMonitor qbox").context("no PodMonitor")?;
        monitor["metadata"]
            .as_object_mut()
            .context("no metadata")?
            .remove("labels");
    }
    assert_eq!(chart, overlay);

    let (_folder, enrolment) = enrolment()?;
    let chart = Rendered::chart(&json!({ "enrollment": { "enabled": true }, "createNamespace": true }))?;
    assert_eq!(chart.by_name()?, enrolment.by_name()?, "enrollment");

    // What can be set is set, and in all places.
    let values = json!({
        "image": { "repository": "registry.example/qbox", "tag": "9" }, "cgroupDriver": "cgroupfs",
        "imagePullSecrets": [{ "name": "pull" }], "nodeSelector": { "a": "b" }, "adminSecret": "other", "prometheusNamespace": "metrics"
    });
    let chart = Rendered::chart(&values)?;
    assert_eq!(chart.host_path("/run/kubepods")?, "/sys/fs/cgroup/kubepods");
    let pod = chart.pod()?;
    assert_eq!(pod["containers"][0]["image"], "registry.example/qbox:9");
    assert_eq!(pod["imagePullSecrets"], values["imagePullSecrets"]);
    assert_eq!(pod["nodeSelector"], values["nodeSelector"]);
    let config = chart.object("ConfigMap", "qbox-config")?["data"]["qbox.toml"].as_str();
    ensure!(
        config.is_some_and(|text| text.contains("cgroup = \"/sys/fs/cgroup/kubepods\"")),
        "{config:?}"
    );
    let error = Rendered::chart(&json!({ "hardend": true }))
        .map(|_| ())
        .unwrap_err();
    assert!(format!("{error:#}").contains("hardend"), "{error:#}");
    Ok(())
}

/// What the chart's values say of pods is what Qbox reads, and it may ask for what that takes.
#[test]
fn the_charts_enrollment_is_what_its_values_say() -> Result<()> {
    let chosen = json!({ "enabled": true, "enroll": "a in (b, c)", "namespaces": ["shop", "travel"],
        "namespaceSelector": "team=travel", "unlisted": "capture" });
    let read_config = |values: Value| -> Result<(Rendered, String)> {
        let chart = Rendered::chart(&values)?;
        let config = &chart.object("ConfigMap", "qbox-config")?["data"]["qbox.toml"];
        let config = config.as_str().context("no qbox.toml")?.to_owned();
        Ok((chart, config))
    };
    let (chart, config) = read_config(json!({ "enrollment": chosen, "cgroupDriver": "cgroupfs" }))?;
    let wanted = "[kubernetes]\nenroll = \"a in (b, c)\"\nnamespaces = [\"shop\",\"travel\"]\n\
                  namespace_selector = \"team=travel\"\nunlisted = \"capture\"\n";
    assert!(config.ends_with(wanted), "{config}");
    let rules =
        json!([{ "apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"] }]);
    assert_eq!(chart.object("ClusterRole", "qbox")?["rules"], rules);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("qbox.toml");
    let local = config
        .replace("/etc/qbox-sagas", "sagas")
        .replace("token_file = \"/etc/qbox-admin/token\"\n", "")
        .replace("0.0.0.0", "127.0.0.1");
    fs::create_dir(folder.path().join("sagas"))?;
    fs::write(&file, local)?;
    let said = read(Command::new(qbox_tests::binary()?).arg("check").arg(&file))?;
    assert!(said.contains("nothing to mend"), "{said}");

    // Another's qbox.toml, with a table of its own and without.
    let own = "[kubernetes]\nenroll = \"*\"\n";
    let (_, config) = read_config(json!({ "enrollment": chosen, "config": own }))?;
    assert_eq!(config, own);
    let (_, config) = read_config(json!({ "enrollment": chosen, "config": "grace = \"5s\"\n" }))?;
    assert!(
        config.starts_with("grace = \"5s\"\n\n") && config.ends_with(wanted),
        "{config}"
    );
    let (chart, config) = read_config(json!({}))?;
    assert!(!config.contains("[kubernetes]"), "{config}");
    assert!(chart.object("ClusterRole", "qbox").is_err());
    assert_eq!(chart.pod()?["automountServiceAccountToken"], false);
    Ok(())
}

/// Files as kubelet mounts a ConfigMap or Secret: links to what `..data` leads to.
fn mount(place: &Path, files: &[(&str, &str)]) -> Result<()> {
    fs::create_dir_all(place.join("..1"))?;
    symlink("..1", place.join("..data"))?;
    for (name, text) in files {
        fs::write(place.join("..1").join(name), text)?;
        fs::set_permissions(place.join("..1").join(name), fs::Permissions::from_mode(0o400))?;
        symlink(Path::new("..data").join(name), place.join(name))?;
    }
    Ok(())
}

#[test]
fn what_an_overlay_mounts_is_fit_to_run_and_agrees_with_the_pod() -> Result<()> {
    let (_folder, rendered) = overlay()?;
    let node = tempfile::tempdir()?;
    let etc = node.path().join("etc");
    let data = |name| -> Result<Vec<(String, String)>> {
        let data = rendered.object("ConfigMap", name)?["data"]
            .as_object()
            .context("no data")?;
        Ok(data
            .iter()
            .map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()))
            .collect())
    };
    let config = data("qbox-config")?;
    let text = config[0].1.replace("\"/etc/", &format!("\"{}/", etc.display()));
    mount(&etc.join("qbox"), &[("qbox.toml", &text)])?;
    let sagas = data("qbox-sagas")?;
    let sagas: Vec<_> = sagas
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    mount(&etc.join("qbox-sagas"), &sagas)?;
    mount(&etc.join("qbox-admin"), &[("token", "dGVzdA\n")])?;
    let qbox = qbox_tests::binary()?;
    let said = read(Command::new(qbox).arg("check").arg(etc.join("qbox/qbox.toml")))?;
    assert!(said.contains("nothing to mend; 1 saga fit to run"), "{said}");

    let has = |key: &str| -> Result<String> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} = ")))
            .with_context(|| format!("no {key}"))?;
        Ok(line.trim_matches('"').to_owned())
    };
    let pod = rendered.pod()?;
    let container = &pod["containers"][0];
    let grace: u64 = has("grace")?.trim_end_matches('s').parse()?;
    let killed = pod["terminationGracePeriodSeconds"]
        .as_u64()
        .context("no grace period")?;
    // One that stands by has 10 s to take over.
    assert!(
        10 + grace + 5 <= killed,
        "kubelet kills after {killed} s a Qbox that may wait for 10 s and {grace} s"
    );
    let alive = &container["livenessProbe"];
    let alive = alive["periodSeconds"]
        .as_u64()
        .zip(alive["failureThreshold"].as_u64());
    ensure!(
        alive.is_some_and(|(period, failures)| period * (failures - 1) > grace),
        "kubelet restarts a Qbox that hands over"
    );
    let rolling = &rendered.object("DaemonSet", "qbox")?["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(
        rolling,
        &json!({ "maxSurge": 1, "maxUnavailable": 0 }),
        "the next one takes over"
    );
    let args = container["args"].as_array().context("no args")?;
    ensure!(args.contains(&json!("--standby")), "{args:?}");
    assert_eq!(
        rendered.host_path("/run/qbox")?,
        "/run/qbox",
        "where both find the admin socket"
    );
    assert_eq!(rendered.host_path("/run/kubepods")?, has("cgroup")?);
    assert_eq!(rendered.host_path("/sys/fs/cgroup")?, "/sys/fs/cgroup");
    assert_eq!(rendered.host_path("/var/lib/qbox")?, "/var/lib/qbox");
    let port = &container["ports"][0];
    assert!(
        has("listen")?.ends_with(&format!(":{}", port["containerPort"])),
        "{port}"
    );
    let monitor = rendered.object("PodMonitor", "qbox")?;
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], port["name"]);
    assert_eq!(
        (&pod["hostPID"], &pod["hostNetwork"]),
        (&json!(true), &json!(false))
    );
    for object in &rendered.objects {
        assert!(
            !object["kind"].as_str().unwrap_or_default().contains("Role"),
            "Qbox asks no API"
        );
    }
    Ok(())
}

/// A pod is captured, by a Qbox that may do all that this test may.
#[test]
fn a_trip_is_booked() -> Result<()> {
    let world = World::book_trip()?;
    let (status, reply) = world.book("7", r#"{"guest":"Ada","nights":3,"car":"small"}"#)?;
    assert_eq!(status, 201, "{reply}");
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);
    Ok(())
}

/// The test above, with a Qbox that has no other capability than the overlay's.
#[test]
fn the_hardened_overlays_capabilities_are_enough() -> Result<()> {
    let rendered = Rendered::of("hardened")?;
    let rights = &rendered.pod()?["containers"][0]["securityContext"];
    assert_eq!(rights["privileged"], false);
    assert_eq!(rights["capabilities"]["drop"], json!(["ALL"]));
    let added = rights["capabilities"]["add"]
        .as_array()
        .context("no capabilities")?;
    let added: Vec<_> = added
        .iter()
        .filter_map(Value::as_str)
        .map(|name| format!("+{}", name.to_lowercase()))
        .collect();
    assert_eq!(
        added,
        ["+net_admin", "+sys_admin", "+sys_ptrace"],
        "docs/security.md has them"
    );
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("qbox");
    let qbox = qbox_tests::binary()?;
    let text = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -all,{} -- {} \"$@\"\n",
        added.join(","),
        Path::new(&qbox).display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let run = |binary: &OsStr| {
        let mut test = Command::new(std::env::current_exe()?);
        read(test.args(["--exact", "a_trip_is_booked"]).env("QBOX_BIN", binary))
    };
    let said = run(script.as_os_str())?;
    assert!(said.contains("1 passed"), "{said}");

    // And it is the script that counts: without one of them Qbox says so.
    fs::write(&script, fs::read_to_string(&script)?.replace(",+sys_ptrace", ""))?;
    let error = run(script.as_os_str()).unwrap_err();
    assert!(format!("{error:#}").contains("CAP_SYS_PTRACE"), "{error:#}");
    Ok(())
}
