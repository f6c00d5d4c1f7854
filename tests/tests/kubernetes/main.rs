//! The manifests of config/kubernetes: rendered by kubectl, held to the published schemas, mounted as kubelet does and read by the
//! real binary; and what the hardened overlay grants is enough to capture.

use anyhow::{Context, Result, ensure};
use qbox_tests::{World, workspace};
use serde_json::{Value, json};
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
    for (name, rendered) in [
        ("base", Rendered::of("base")?),
        ("hardened", Rendered::of("hardened")?),
        ("enrollment", enrolment),
    ] {
        for version in KUBERNETES {
            let mut validate = Command::new(tool("kubernetes-validate"));
            read(validate.args(["--strict", "-k", version]).arg(&rendered.file)).with_context(|| name)?;
        }
    }
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
    assert!(
        grace + 5 <= killed,
        "kubelet kills after {killed} s a Qbox that may wait for {grace} s"
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
