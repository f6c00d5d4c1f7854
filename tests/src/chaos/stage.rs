//! Where the trial takes place: participants and callers in pods of their own, all of them captured by one Qbox that is
//! killed and started again.

use super::ledger::Effects;
use super::participant::{Participant, Tally, Turns, lock};
use super::record::Record;
use super::trip::{Kind, PARTICIPANTS, Step};
use super::{Options, caller::Share};
use crate::node::Node;
use crate::pod::Pod;
use crate::qbox::{Qbox, Settings};
use crate::world::PORT;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How many pods callers live in.
const CALLERS: u64 = 3;

/// How many callers there are at once in each of them.
const AT_ONCE: u64 = 40;

/// No trial is longer.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

/// All of it. What is named first goes first.
pub(super) struct Stage {
    pub(super) qbox: Option<Qbox>,
    callers: Vec<Process>,
    participants: Vec<(Pod, Participant)>,
    pods: Vec<Pod>,
    pub(super) tally: Arc<Tally>,
    turns: Turns,
    heard: Arc<Heard>,
    settings: Settings,
    pub(super) node: Node,
}

/// What the callers' processes have said so far.
#[derive(Default)]
struct Heard {
    records: Mutex<Vec<Record>>,
    count: AtomicU64,
}

/// One pod's callers.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    reader: Option<JoinHandle<Result<()>>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends when its input does; both below fail only if it has ended.
        drop(self.input.take());
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

impl Stage {
    /// Makes the pods and starts the participants, and as yet neither Qbox nor the callers.
    pub(super) fn set(options: &Options) -> Result<Self> {
        let node = Node::new()?;
        let (turns, tally) = (Turns::default(), Arc::new(Tally::default()));
        let serve = |name: Step| {
            let pod = node.pod(name)?;
            let chance = (options.seed, options.faults);
            let listener = pod.listen(PORT)?;
            let participant =
                Participant::start(name, chance, listener, Arc::clone(&turns), Arc::clone(&tally))?;
            Ok((pod, participant))
        };
        let participants = PARTICIPANTS.into_iter().map(serve).collect::<Result<_>>()?;
        let pods = (0..CALLERS)
            .map(|number| node.pod(&format!("callers-{number}")))
            .collect::<Result<_>>()?;
        let mut settings = Settings::sagas(Kind::ALL.map(Kind::file));
        settings.extra = format!("[journal]\nstore = \"{}\"\n", options.journal.name());
        Ok(Self {
            qbox: None,
            callers: Vec::new(),
            participants,
            pods,
            tally,
            turns,
            heard: Arc::default(),
            settings,
            node,
        })
    }

    /// Starts Qbox on the state directory that it always has, and waits for nothing. What the one before has logged is kept.
    pub(super) fn launch(&mut self) -> Result<()> {
        // The one before goes first: it holds the directory.
        self.qbox = None;
        let log = self.folder().join("log");
        if log.is_file() {
            let mut all = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.logs())?;
            all.write_all(&fs::read(log)?)?;
        }
        self.qbox = Some(Qbox::launch(&self.node, self.node.cgroup(), &self.settings)?);
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.node.folder().join("qbox")
    }

    /// What all Qboxes but the running one have logged.
    pub(super) fn logs(&self) -> PathBuf {
        self.node.folder().join("logs")
    }

    /// The state directory.
    pub(super) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The pods that Qbox doesn't say it captures.
    pub(super) fn uncaptured(&self) -> Result<Vec<String>> {
        let qbox = self.qbox.as_ref().context("no Qbox runs")?;
        let pods = self
            .pods
            .iter()
            .chain(self.participants.iter().map(|(pod, _)| pod));
        let mut missing = Vec::new();
        for pod in pods {
            if !qbox.admin().has_pod(pod.name())? {
                missing.push(pod.name().to_owned());
            }
        }
        Ok(missing)
    }

    /// Starts the callers' processes. None calls before it may.
    pub(super) fn call(&mut self, seed: u64, trips: u64) -> Result<()> {
        let program = std::env::current_exe().context("this program has no path")?;
        for (first, pod) in (0..).zip(&self.pods) {
            let share = Share {
                seed,
                first,
                of: CALLERS,
                trips,
                at_once: AT_ONCE,
            };
            let mut command = pod.command_for(LIMIT, &program);
            let mut child = command
                .args(share.to_words())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("can't start the callers")?;
            let output = child.stdout.take().context("no output")?;
            let heard = Arc::clone(&self.heard);
            let reader = thread::Builder::new().name("callers".to_owned()).spawn(move || {
                for line in BufReader::new(output).lines() {
                    lock(&heard.records).push(Record::from_line(&line?)?);
                    heard.count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })?;
            self.callers.push(Process {
                input: child.stdin.take(),
                child,
                reader: Some(reader),
            });
        }
        Ok(())
    }

    /// So many trips may have begun by now.
    pub(super) fn allow(&mut self, trips: u64) {
        for caller in &mut self.callers {
            if let Some(input) = &mut caller.input {
                // One whose trips are all over reads no more.
                drop(writeln!(input, "{trips}").and_then(|()| input.flush()));
            }
        }
    }

    /// How many trips are over for their callers.
    pub(super) fn over(&self) -> u64 {
        self.heard.count.load(Ordering::Relaxed)
    }

    /// Whether the callers' processes have all ended.
    ///
    /// # Errors
    /// One of them failed.
    pub(super) fn all_called(&mut self) -> Result<bool> {
        for caller in &mut self.callers {
            let Some(status) = caller.child.try_wait()? else {
                return Ok(false);
            };
            ensure!(status.success(), "a process of callers ended with {status}");
            if let Some(reader) = caller.reader.take() {
                reader.join().ok().context("a reader panicked")??;
            }
        }
        Ok(true)
    }

    pub(super) fn records(&self) -> Vec<Record> {
        lock(&self.heard.records).clone()
    }

    pub(super) fn ledgers(&self) -> Vec<(Step, BTreeMap<String, Effects>)> {
        let all = self.participants.iter();
        all.map(|(_, participant)| (participant.name(), participant.effects()))
            .collect()
    }

    pub(super) fn held_off(&self) -> u64 {
        self.participants
            .iter()
            .map(|(_, participant)| participant.held_off())
            .sum()
    }

    pub(super) fn turns(&self) -> BTreeMap<u64, Vec<String>> {
        lock(&self.turns).clone()
    }
}
