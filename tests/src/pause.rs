//! The process that holds a pod's or a node's namespaces. It ends when its standard input does, so that the namespaces go
//! with their owner, however that ends.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A process in new network and mount namespaces.
#[derive(Debug)]
pub(crate) struct Pause(Child);

impl Pause {
    /// Starts one; `cgroup` is where it lives, `hosts` what it sees as /etc/hosts.
    pub(crate) fn start(cgroup: Option<&Path>, hosts: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount"]);
        Self::run(command, cgroup, hosts)
    }

    /// Starts one in a network namespace that is there: that of the process `with`.
    pub(crate) fn share(with: u32, cgroup: &Path, hosts: &Path) -> Result<Self> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{with}/ns/net"))
            .args(["--", "unshare", "--mount"]);
        Self::run(command, Some(cgroup), Some(hosts))
    }

    fn run(mut command: Command, cgroup: Option<&Path>, hosts: Option<&Path>) -> Result<Self> {
        // The builtins do not fork: `$$` is the process that becomes `cat`.
        let script = r#"
            set -e
            [ -z "$1" ] || echo $$ > "$1/cgroup.procs"
            [ -z "$2" ] || mount --bind "$2" /etc/hosts
            echo ready
            exec cat > /dev/null"#;
        let mut child = command
            .args(["--propagation", "private", "--", "sh", "-c", script, "pause"])
            .arg(cgroup.unwrap_or(Path::new("")))
            .arg(hosts.unwrap_or(Path::new("")))
            // Ctrl-C is for the owner.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start `unshare` (Debian's util-linux has it)")?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let pause = Self(child);
        if line != "ready\n" {
            bail!("this kernel or this user can't make network and mount namespaces (see above)");
        }
        Ok(pause)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
