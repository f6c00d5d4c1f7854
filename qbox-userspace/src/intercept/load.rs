//! Loading the programs, filling in their constants, attaching them; the maps. Knows no pod and no connection.
//!
//! The programs are attached at once: as long as NAMESPACES is empty they leave every connection alone.

use super::accept::Task;
use super::cgroup::Tree;
use super::error::InterceptError;
use super::pins::Pins;
use super::sys::{self, Hook};
use super::{object, raised};
use crate::causes::chain;
use aya::maps::{Map, MapError};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use qbox_common::names;
use rustix::fd::OwnedFd;
use rustix::thread::{CapabilitySet, capabilities};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use tracing::level_filters::LevelFilter;

/// Each program, with its hook, in the order of attaching: what turns connections comes last, when what it relies on is
/// there.
pub(super) const PROGRAMS: [(&str, Hook); 6] = [
    ("sock_ops", Hook::SockOps),
    ("getpeername4", Hook::GetPeerName4),
    ("getpeername6", Hook::GetPeerName6),
    ("sock_create", Hook::SockCreate),
    ("connect4", Hook::Connect4),
    ("connect6", Hook::Connect6),
];

/// Where the kernel shows its types.
pub(super) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Lines of the verifier's log that go into an error: the last ones say why.
const LOG_LINES: usize = 24;

/// The programs' constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constants {
    pub(super) mark: u32,
    pub(super) own_cgroup: u64,
    pub(super) port: u16,
    pub(super) refuse_unknown: bool,
    pub(super) by_pod: bool,
}

/// The programs, loaded and attached.
pub(super) struct Loaded {
    pub(super) links: Links,
    pub(super) maps: Maps,
    /// Passes the programs' own words on; `None` if they can't be read.
    pub(super) speaker: Option<Task>,
}

/// What keeps the programs attached.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Those that turn connections, or announce pods.
    turning: Vec<OwnedFd>,
    /// Those that serve connections which were turned.
    serving: Vec<OwnedFd>,
    /// The programs' ids.
    programs: BTreeSet<u32>,
    /// What keeps them attached when this process ends, for each cgroup.
    pins: Vec<Pins>,
}

impl Links {
    /// Turns no more connections. Those that were turned go on.
    pub(super) fn stop_turning(&mut self) {
        for pins in self.pins.drain(..) {
            pins.remove();
        }
        self.turning.clear();
    }

    /// Whether the programs stay attached when this process ends.
    pub(super) fn are_pinned(&self) -> bool {
        !self.pins.is_empty()
    }

    /// This run's pins.
    pub(super) fn pins(&self) -> &[Pins] {
        &self.pins
    }

    /// The ids of the programs.
    pub(super) fn programs(&self) -> &BTreeSet<u32> {
        &self.programs
    }
}

/// The maps of a loaded object, by name.
pub(super) struct Maps(Ebpf);

impl Maps {
    /// Takes a map out.
    pub(super) fn take<T>(&mut self, name: &'static str) -> Result<T, InterceptError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let map = self.0.take_map(name).ok_or(InterceptError::OtherObject)?;
        T::try_from(map).map_err(|error| InterceptError::map(name, &error))
    }
}

/// Looks for everything that loading needs, so that what is missing has a name.
pub(super) fn check() -> Result<(), InterceptError> {
    if object::bytes().is_empty() {
        return Err(InterceptError::NoObject);
    }
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return Err(InterceptError::Privileges { missing });
    }
    if !Path::new(BTF).exists() {
        return Err(InterceptError::NoBtf);
    }
    Ok(())
}

/// The capabilities(7) that capturing needs and this process lacks; empty if it has all.
pub(super) fn missing_capabilities() -> String {
    let effective = capabilities(None).map(|sets| sets.effective);
    let effective = effective.unwrap_or(CapabilitySet::empty());
    let needed = [
        ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(_, one)| !effective.contains(*one))
        .map(|(name, _)| *name)
        .collect();
    missing.join(", ")
}

/// Loads the object and attaches its programs to the cgroups; `pinned`, for longer than this process lives.
pub(super) fn load(constants: Constants, trees: &[Tree], pinned: bool) -> Result<Loaded, InterceptError> {
    let Constants {
        mark,
        own_cgroup,
        port,
        refuse_unknown,
        by_pod,
    } = constants;
    let (abi, port, level) = (1_u32, u32::from(port), log_level());
    let (refuse_unknown, by_pod) = (u32::from(refuse_unknown), u32::from(by_pod));
    let mut ebpf = EbpfLoader::new()
        // The kernel's own types are for programs that read its structures. They are 30 MiB in memory, and go before the rest.
        .btf(None)
        .override_global(names::ABI, &abi, true)
        .override_global(names::MARK, &mark, true)
        .override_global(names::OWN_CGROUP, &own_cgroup, true)
        .override_global(names::PORT, &port, true)
        .override_global(names::REFUSE_UNKNOWN, &refuse_unknown, true)
        .override_global(names::BY_POD, &by_pod, true)
        .override_global(aya_log::LEVEL, &level, false)
        .load(object::bytes())
        .map_err(|error| {
            let cause = chain(&error);
            if cause.contains(names::ABI) {
                InterceptError::OtherObject
            } else {
                InterceptError::Load { cause }
            }
        })?;
    // Before the programs are loaded: its map must live until then.
    let speaker = match speaker(&mut ebpf) {
        Ok(task) => Some(task),
        Err(cause) => {
            tracing::warn!(cause, "what the eBPF programs log can't be read");
            None
        }
    };
    let mut pins = Vec::new();
    let links =
        attach(&mut ebpf, trees, pinned, &mut pins).inspect_err(|_| pins.iter().for_each(Pins::remove))?;
    sys::give_back_memory();
    Ok(Loaded {
        links: Links { pins, ..links },
        maps: Maps(ebpf),
        speaker,
    })
}

fn attach(
    ebpf: &mut Ebpf,
    trees: &[Tree],
    pinned: bool,
    pins: &mut Vec<Pins>,
) -> Result<Links, InterceptError> {
    if pinned {
        for tree in trees {
            pins.push(Pins::make(tree.id()?)?);
        }
    }
    let folders: Vec<File> = trees.iter().map(Tree::folder).collect::<Result<_, _>>()?;
    let mut links = Links::default();
    for (name, hook) in PROGRAMS {
        let program = ebpf.program_mut(name).ok_or(InterceptError::OtherObject)?;
        load_one(program).map_err(|error| refused(name, &error))?;
        let info = program.info().map_err(|error| refused(name, &error))?;
        links.programs.insert(info.id());
        let program = program.fd().map_err(|error| refused(name, &error))?;
        for (number, folder) in folders.iter().enumerate() {
            let link = sys::link(program, folder, hook).and_then(|link| raised::raise(&link));
            let link = link.map_err(|error| InterceptError::Program {
                program: name,
                cause: format!("can't attach it: {error}"),
                log: String::new(),
            })?;
            if let Some(pins) = pins.get(number) {
                pins.pin(name, &link)?;
            }
            let list = match hook {
                Hook::Connect4 | Hook::Connect6 | Hook::SockCreate => &mut links.turning,
                Hook::SockOps | Hook::GetPeerName4 | Hook::GetPeerName6 => &mut links.serving,
            };
            list.push(link);
        }
    }
    Ok(links)
}

fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SockOps(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn refused(program: &'static str, error: &ProgramError) -> InterceptError {
    let log = match error {
        ProgramError::LoadError { verifier_log, .. } => last_lines(&verifier_log.to_string()),
        _ => String::new(),
    };
    let cause = match error {
        // Its own message has the whole log in it.
        ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        other => chain(other),
    };
    InterceptError::Program { program, cause, log }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines
        .get(lines.len().saturating_sub(LOG_LINES)..)
        .unwrap_or_default();
    last.iter().map(|line| format!("\n  {line}")).collect()
}

/// Hands the programs' log to the crate `log`, and so to tracing, whose subscriber takes its records too.
fn speaker(ebpf: &mut Ebpf) -> Result<Task, String> {
    let mut logger = EbpfLogger::init(ebpf).map_err(|error| chain(&error))?;
    let mut readable = sys::readable(&logger).map_err(|error| error.to_string())?;
    Ok(Task::spawn(async move {
        while let Ok(mut ready) = readable.readable_mut().await {
            ready.clear_ready();
            logger.flush();
        }
    }))
}

/// How much the programs say. Asked once: a line that nobody reads costs a connection a microsecond.
fn log_level() -> u8 {
    let level = if LevelFilter::current() >= LevelFilter::DEBUG {
        aya_log::Level::Debug
    } else {
        aya_log::Level::Warn
    };
    level as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log() {
        let log: String = (0..40).map(|line| format!("{line}\n\n")).collect();
        let last = last_lines(&log);
        assert_eq!(last.lines().count(), LOG_LINES + 1);
        assert!(last.starts_with("\n  16\n") && last.ends_with("\n  39"));
        assert_eq!(last_lines(""), "");
    }
}
