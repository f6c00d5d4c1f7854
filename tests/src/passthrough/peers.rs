//! The proxies that others wrote, and the backend: each one's configuration, as its documentation has it for a plain reverse
//! proxy with connections to the backend kept.

use super::{ALONE, CAPTURED, Options, pinned};
use crate::node::Node;
use crate::pod::Pod;
use anyhow::{Context, Result};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A proxy that is to be started.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Where it listens, on the pod's loopback.
    pub(super) port: u16,
    pub(super) command: Command,
}

/// A process that ends with this, and its children with its pod.
pub(super) struct Running(Child);

impl Running {
    pub(super) fn start(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self(command.spawn().context("can't start a proxy")?))
    }

    /// `timeout`, whose child is what was started.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// nginx with the two bodies, on both ports.
pub(super) fn backend(node: &Node, pod: &Pod) -> Result<Running> {
    let folder = node.folder().join("backend");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("large"), vec![b'x'; 64 << 10])?;
    let servers = format!(
        "server {{ listen {CAPTURED}; listen {ALONE}; root {};
           location /tiny {{ return 200 'ok'; }} }}",
        folder.display()
    );
    Running::start(nginx(pod, "1", &folder, &servers)?)
}

/// nginx in the foreground, one worker.
fn nginx(pod: &Pod, processor: &str, folder: &Path, servers: &str) -> Result<Command> {
    let config = folder.join("nginx.conf");
    let place = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {place}/{kind};"))
        .concat();
    fs::write(
        &config,
        format!(
            "user root; worker_processes 1; daemon off; pid {place}/pid; error_log stderr crit;
             events {{ worker_connections 4096; }}
             http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000;
               {temporary} {servers} }}"
        ),
    )?;
    let mut command = pinned(pod, processor, "nginx");
    command
        .arg("-e")
        .arg("stderr")
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(config);
    Ok(command)
}

/// Everything that is compared with Qbox.
pub(super) fn all(node: &Node, pod: &Pod, origin: (IpAddr, u16), options: &Options) -> Result<Vec<Peer>> {
    let folder = node.folder();
    let (address, port) = origin;
    let mut copy = pinned(pod, "0", &std::env::current_exe()?.to_string_lossy());
    copy.args(["copy", "127.0.0.1:9001", &format!("{address}:{port}")]);
    let mut peers = vec![Peer {
        name: "raw TCP copy",
        port: 9001,
        command: copy,
    }];
    if options.own_alone {
        return Ok(peers);
    }
    let place = folder.join("nginx");
    fs::create_dir_all(&place)?;
    let servers = format!(
        "upstream origin {{ server {address}:{port}; keepalive 512; keepalive_requests 100000000; }}
         server {{ listen 127.0.0.1:9002;
           location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}"
    );
    peers.push(Peer {
        name: "nginx",
        port: 9002,
        command: nginx(pod, "0", &place, &servers)?,
    });
    let haproxy = folder.join("haproxy.cfg");
    fs::write(
        &haproxy,
        format!(
            "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n\
             \x20 timeout server 60s\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:9003\n  default_backend b\n\
             backend b\n  server s {address}:{port}\n"
        ),
    )?;
    let mut command = pinned(pod, "0", "haproxy");
    command.arg("-db").arg("-f").arg(haproxy);
    peers.push(Peer {
        name: "HAProxy",
        port: 9003,
        command,
    });
    let envoy = folder.join("envoy.json");
    fs::write(&envoy, envoy_config(address, port).to_string())?;
    let mut command = pinned(pod, "0", &options.envoy.to_string_lossy());
    command.arg("--config-path").arg(envoy);
    command.args([
        "--concurrency",
        "1",
        "--log-level",
        "error",
        "--disable-hot-restart",
    ]);
    peers.push(Peer {
        name: "Envoy",
        port: 9004,
        command,
    });
    Ok(peers)
}

fn envoy_config(address: IpAddr, port: u16) -> serde_json::Value {
    let place = |address: &str, port| serde_json::json!({ "socket_address": { "address": address, "port_value": port } });
    serde_json::json!({ "static_resources": {
        "listeners": [{
            "address": place("127.0.0.1", 9004),
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "bench",
                    "codec_type": "HTTP1",
                    "route_config": { "virtual_hosts": [{
                        "name": "all", "domains": ["*"],
                        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "origin" } }],
                    }] },
                    "http_filters": [{
                        "name": "envoy.filters.http.router",
                        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                    }],
                },
            }] }],
        }],
        "clusters": [{
            "name": "origin", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": { "cluster_name": "origin", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": place(&address.to_string(), port) } },
            ] }] },
        }],
    } })
}
