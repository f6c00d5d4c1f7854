//! A Qbox that may do what the hardened overlay's container may, and no more: a script in its place, for `cargo xtask test --hardened`.

use crate::toolchain::target_folder;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the capabilities are.
const MANIFEST: &str = "config/kubernetes/hardened/daemonset.yaml";

/// Writes the script that runs `binary`.
pub(crate) fn script(binary: &Path) -> Result<PathBuf> {
    let manifest = fs::read_to_string(crate::root()?.join(MANIFEST)).context(MANIFEST)?;
    let capabilities = added(&manifest).with_context(|| format!("{MANIFEST} adds no capabilities"))?;
    eprintln!("    with {} alone", capabilities.join(" "));
    let script = target_folder().join("hardened/qbox");
    if let Some(folder) = script.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&script, text(binary, &capabilities))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    // The demo's suite finds it beside Qbox.
    let demo = script.with_file_name("qbox-demo");
    drop(fs::remove_file(&demo));
    fs::hard_link(binary.with_file_name("qbox-demo"), &demo).context("no qbox-demo beside Qbox")?;
    Ok(script)
}

/// What the container's security context adds, as setpriv(1) names it.
fn added(manifest: &str) -> Option<Vec<String>> {
    let list = manifest
        .lines()
        .find_map(|line| line.trim().strip_prefix("add: ["))?
        .strip_suffix(']')?;
    let names = list.split(',').map(|name| name.trim().to_lowercase());
    let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    (!names.is_empty()).then_some(names)
}

fn text(binary: &Path, capabilities: &[String]) -> String {
    let added: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let binary = binary.display();
    format!(
        "#!/bin/sh\n\
         # `qbox exec --pod` is an operator's, on the node (docs/security.md).\n\
         case \"$1\" in exec) more=,+sys_chroot ;; esac\n\
         # Whoever may no longer give any away has no more already.\n\
         setpriv --bounding-set -all true 2>/dev/null || exec '{binary}' \"$@\"\n\
         exec setpriv --inh-caps -all --bounding-set \"-all{added}$more\" -- '{binary}' \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_capabilities_are_read() {
        let manifest = "capabilities:\n  drop: [ALL]\n  add: [NET_ADMIN, SYS_ADMIN]\nseccompProfile:\n";
        let found = added(manifest).unwrap();
        assert_eq!(found, ["net_admin", "sys_admin"]);
        assert_eq!(added("capabilities:\n  drop: [ALL]\n"), None);
        assert_eq!(added("add: []"), None);
        let script = text(Path::new("/x/qbox"), &found);
        assert!(
            script.contains("\"-all,+net_admin,+sys_admin$more\" -- '/x/qbox'"),
            "{script}"
        );
        let manifest = fs::read_to_string(crate::root().unwrap().join(MANIFEST)).unwrap();
        assert!(added(&manifest).is_some());
    }
}
