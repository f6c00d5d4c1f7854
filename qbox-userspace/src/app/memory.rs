//! What only the start needs of the binary: it is let go of once Qbox is ready, since most of what an idle Qbox has in RAM is that.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};
use std::ffi::c_void;
use std::fs;
use std::io;

/// Unmaps the pages of files that this process only reads, as code and constants are. Those that are needed again come back from the
/// page cache, without a read of the disk as long as it has them.
///
/// # Errors
/// `/proc/self/smaps` can't be read, or the kernel refuses.
pub(super) fn let_go_of_the_start() -> io::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    for mapping in unwritten(&fs::read_to_string("/proc/self/smaps")?, &own.to_string_lossy()) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(mapping.start);
        // SAFETY: the range is a private mapping of the running binary, which the kernel lets nobody change (ETXTBSY). It is not
        // writable and has no page of its own, so what the file has is what stands there; nothing makes it writable after the
        // dynamic linker is done.
        unsafe { madvise(start, mapping.end - mapping.start, Advice::LinuxDontNeed)? };
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
}

/// Those of a file that can't be written and hold nothing but what the file has (proc_pid_smaps(5)).
fn unwritten(smaps: &str, file: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("Anonymous:"), Some("0")) => found.extend(candidate.take()),
            (Some(key), _) if key.ends_with(':') => {}
            (Some(range), Some(leave)) => {
                let own = line.strip_suffix(file).is_some_and(|rest| rest.ends_with(' '));
                candidate = mapping(range).filter(|_| own && matches!(leave, "r--p" | "r-xp"));
            }
            _ => {}
        }
    }
    found
}

fn mapping(range: &str) -> Option<Mapping> {
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(Mapping {
        start: number(start)?,
        end: number(end)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_has_written_is_found() {
        let smaps = "\
7f00-8f00 r--p 00000000 fe:00 77 /usr/bin/qbox
Rss:  4 kB
Anonymous:             0 kB
8f00-9f00 r-xp 00001000 fe:00 77 /usr/bin/qbox
Anonymous:             0 kB
VmFlags: rd ex mr mw me
9f00-af00 r--p 00002000 fe:00 77 /usr/bin/qbox
Anonymous:             8 kB
af00-bf00 rw-p 00003000 fe:00 77 /usr/bin/qbox
Anonymous:             0 kB
bf00-cf00 r-xp 00003000 fe:00 78 /chroot/usr/bin/qbox
Anonymous:             0 kB
cf00-df00 rw-p 00000000 00:00 0
Anonymous:             0 kB
";
        let found = unwritten(smaps, "/usr/bin/qbox");
        let ranges: Vec<_> = found.iter().map(|m| (m.start, m.end)).collect();
        assert_eq!(ranges, [(0x7f00, 0x8f00), (0x8f00, 0x9f00)]);
    }

    #[test]
    fn code_and_constants_are_there_when_they_are_needed_again() {
        for _ in 0..3 {
            let_go_of_the_start().unwrap();
            assert_eq!(
                format!("{:?}", mapping("1-f")),
                "Some(Mapping { start: 1, end: 15 })"
            );
        }
    }
}
