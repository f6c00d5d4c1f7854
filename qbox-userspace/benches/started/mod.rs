//! The real binary with a plain port, for as long as it is measured.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A running Qbox, killed when it is dropped.
pub(crate) struct Qbox {
    child: Child,
    /// Where its API is.
    admin: SocketAddr,
    /// Where clients go.
    pub(crate) listen: SocketAddr,
    /// How long it took to be ready.
    pub(crate) ready: Duration,
}

impl Drop for Qbox {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Qbox {
    /// With the sagas in `folder/sagas` and the journal in `folder/state`.
    pub(crate) fn start(folder: &Path, extra: &str) -> Result<Self> {
        let free = || -> Result<SocketAddr> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?) };
        let (admin, listen) = (free()?, free()?);
        let config = folder.join("qbox.toml");
        fs::write(
            &config,
            format!(
                "state_dir = \"state\"\n[capture]\nmode = \"explicit\"\n[explicit]\nlisten = \"{listen}\"\n\
                 [admin]\nlisten = \"{admin}\"\nsocket = {:?}\n[log]\nlevel = \"error\"\n{extra}",
                folder.join("admin.sock")
            ),
        )?;
        let log = fs::File::create(folder.join("log"))?;
        let begun = Instant::now();
        let child = Command::new(binary())
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start Qbox")?;
        let mut qbox = Self {
            child,
            admin,
            listen,
            ready: Duration::ZERO,
        };
        while !qbox.is_ready() {
            if let Some(status) = qbox.child.try_wait()? {
                bail!(
                    "Qbox ended with {status}: {}",
                    fs::read_to_string(folder.join("log"))?
                );
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(120),
                "Qbox isn't ready after 2 minutes"
            );
            thread::sleep(Duration::from_millis(2));
        }
        qbox.ready = begun.elapsed();
        Ok(qbox)
    }

    pub(crate) fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut connection = TcpStream::connect_timeout(&self.admin, Duration::from_secs(1))?;
            connection.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                connection,
                "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A line of its /proc/PID/status (proc_pid_status(5)) that is in kB.
    pub(crate) fn kilobytes(&self, key: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| format!("no {key}"))?.parse()?)
    }
}

fn binary() -> PathBuf {
    std::env::var_os("QBOX_BIN").map_or_else(|| env!("CARGO_BIN_EXE_qbox").into(), PathBuf::from)
}
