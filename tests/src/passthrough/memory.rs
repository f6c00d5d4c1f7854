//! What Qbox has in RAM, idle and while connections pass. Errors: as of the measurement.

use super::{BODIES, CAPTURED, on_first_processor, peers, saga, wrk};
use crate::node::Node;
use crate::pod::Pod;
use crate::poll::{DEADLINE, wait_for};
use crate::qbox::{Qbox, Settings};
use anyhow::Result;
use std::thread;
use std::time::Duration;

/// At once.
const PASSING: usize = 256;

/// How long it is left alone before its memory counts as idle.
const SETTLED: Duration = Duration::from_secs(2);

/// Bytes in RAM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// As it is started on this machine.
    pub(crate) idle: u64,
    /// With one worker.
    pub(crate) idle_one: u64,
    /// With one worker, the most while connections pass.
    pub(crate) passing: u64,
}

/// Measures; each load takes `span`.
pub(crate) fn memory(span: Duration) -> Result<Used> {
    let node = Node::new()?;
    let backend = node.pod("backend")?;
    let load = node.pod("load")?;
    let _servers = peers::backend(&node, &backend)?;
    let settings = Settings::saga(saga());
    let idle = {
        let qbox = Qbox::start(&node, &settings)?;
        settled(&qbox, &load)?
    };
    let qbox = on_first_processor(|| Qbox::start(&node, &settings))?;
    let idle_one = settled(&qbox, &load)?;
    for (_, path) in BODIES {
        let url = format!("http://{}:{CAPTURED}{path}", backend.ipv4());
        wait_for("the backend to answer", DEADLINE, || {
            Ok(load
                .http([&url])
                .is_ok_and(|(status, _)| status == 200)
                .then_some(()))
        })?;
        wrk::run(&load, &url, PASSING, span.as_secs().max(1))?;
    }
    Ok(Used {
        idle,
        idle_one,
        passing: qbox.peak_bytes()?,
    })
}

fn settled(qbox: &Qbox, load: &Pod) -> Result<u64> {
    qbox.wait_for_pod(load.name())?;
    // Nothing tells that it has nothing to do.
    thread::sleep(SETTLED);
    qbox.resident_bytes()
}
