//! Connections that a program in a pod opens, and that a test then holds: the socket is made and connected by a process of
//! the pod, in its cgroup and namespace, and handed over (unix(7), SCM_RIGHTS).

use crate::pod::Pod;
use anyhow::{Context, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

/// What runs in the pod: for each line an address and a port, and back a descriptor or what went wrong.
const PROGRAM: &str = r#"
import socket
line = socket.socket(fileno=0)
while word := line.recv(256):
    host, port = word.decode().split()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        try:
            made.settimeout(20)
            made.connect((host, int(port)))
            made.settimeout(None)
            socket.send_fds(line, [b"+"], [made.fileno()])
        except OSError as error:
            line.sendall(str(error).encode())
"#;

/// A process in a pod that connects on behalf of a test.
#[derive(Debug)]
pub struct Dialler {
    line: UnixStream,
    child: Child,
}

impl Dialler {
    /// Starts one. It lives as long as any command in a pod may.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(pod: &Pod) -> Result<Self> {
        let (line, theirs) = UnixStream::pair()?;
        let child = pod
            .command("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .context("can't start `nsenter` (Debian's util-linux has it)")?;
        line.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { line, child })
    }

    /// A connection from inside the pod.
    ///
    /// # Errors
    /// It can't connect, or the process has ended.
    pub fn connect(&mut self, address: IpAddr, port: u16) -> Result<TcpStream> {
        self.line.write_all(format!("{address} {port}").as_bytes())?;
        let mut word = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.line,
            &mut [IoSliceMut::new(&mut word)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut all) => all.next(),
            _ => None,
        });
        match descriptor {
            Some(descriptor) => Ok(TcpStream::from(descriptor)),
            None => bail!(
                "a program in the pod can't connect to {}: {}",
                SocketAddr::new(address, port),
                String::from_utf8_lossy(word.get(..received.bytes).unwrap_or_default())
            ),
        }
    }
}

impl Drop for Dialler {
    fn drop(&mut self) {
        // The child is timeout(1)'s parent, whose children end with their standard input, this line. Both calls fail
        // only if it is gone already.
        drop(self.line.shutdown(std::net::Shutdown::Both));
        drop(self.child.wait());
    }
}
