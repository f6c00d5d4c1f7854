//! The tools that build the eBPF object: a Rust compiler with `core` for BPF, and bpf-linker.
//!
//! Two compilers do. Debian packages one with `core` prebuilt for BPF; it leaves rustup's toolchains alone. Elsewhere a
//! nightly with `rust-src` builds `core` itself. What is there already is preferred to what must be installed. bpf-linker
//! goes into `target/tools`, never into the user's own folders, and uses the LLVM that the Rust toolchain ships, so that
//! no LLVM package is needed. Every installation is announced, with its reason, before it starts.

use crate::tools::{apt, is_root, is_there};
use anyhow::{Context, Result, anyhow, bail};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Known to work with aya-ebpf 0.2; a newer one is tried where this one does not know the toolchain's LLVM.
const BPF_LINKER: &str = "0.13.0";
/// Debian's compiler, and `core` for BPF. (Not `rustc`: bookworm's own is too old.)
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// `debian` or `nightly`: use only that compiler. For trying each way on one machine.
const CHOICE_VARIABLE: &str = "QBOX_BPF_TOOLCHAIN";

/// A compiler and a linker for BPF, both present.
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker_folder: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Compiler {
    /// Debian's rustc, under the cargo that runs us.
    Debian,
    /// rustup's nightly, which builds `core` itself.
    RustupNightly,
    /// The rustc on PATH is a nightly, without rustup.
    PlainNightly,
}

impl Toolchain {
    /// A cargo that compiles for BPF, up to its subcommand. RUSTFLAGS are the caller's.
    ///
    /// # Errors
    /// PATH can't be extended.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let mut command = match self.compiler {
            Compiler::Debian => {
                let mut command = Command::new(cargo());
                // One crate's features, not all: with `1`, aya's build script asks for build-std.
                command
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "aya_ebpf");
                command
            }
            Compiler::RustupNightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", "-Zbuild-std=core"]);
                command.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
                command
            }
            Compiler::PlainNightly => {
                let mut command = Command::new(cargo());
                command.arg("-Zbuild-std=core");
                command
            }
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.linker_folder.clone()).chain(env::split_paths(&path));
        command.env(
            "PATH",
            env::join_paths(folders).context("PATH holds a folder that can't be passed on")?,
        );
        for variable in [
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "CARGO_BUILD_TARGET",
        ] {
            command.env_remove(variable);
        }
        Ok(command)
    }
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or `target` in the workspace.
pub(crate) fn target_folder() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => env::current_dir().unwrap_or_else(|_| root()).join(folder),
        None => root().join("target"),
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// What compiles Qbox itself.
pub(crate) struct Compiled {
    /// As `1.95.0`.
    pub(crate) release: String,
    /// As `x86_64-unknown-linux-gnu`.
    pub(crate) host: String,
}

/// The compiler of all but the programs for the kernel.
///
/// # Errors
/// It can't be started, or doesn't say what it is.
pub(crate) fn compiled() -> Result<Compiled> {
    let text = output(rustc().arg("-vV"))?;
    let says = |what: &str| {
        let said = text.lines().find_map(|line| line.strip_prefix(what));
        said.map(str::to_owned)
            .with_context(|| format!("rustc -vV says no `{what}`:\n{text}"))
    };
    Ok(Compiled {
        release: says("release: ")?,
        host: says("host: ")?,
    })
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// One of the programs of the compiler's own LLVM, which rustup installs if need be.
///
/// # Errors
/// It isn't there and can't be installed.
pub(crate) fn llvm_tool(name: &str) -> Result<PathBuf> {
    let tool = || -> Result<PathBuf> {
        let root = sysroot(rustc())?;
        Ok(root
            .join("lib/rustlib")
            .join(compiled()?.host)
            .join("bin")
            .join(name))
    };
    if !tool()?.is_file() {
        if !is_there("rustup") {
            bail!("there is no rustup to install {name} with (its component llvm-tools)");
        }
        say(&format!("Adding rustup's component llvm-tools: {name} is in it."));
        run(Command::new("rustup").args(["component", "add", "llvm-tools"]))?;
    }
    tool()
}

/// Finds the toolchain, or installs what is missing of it. When all is there, this costs a call or two of `rustc -vV`.
///
/// # Errors
/// Nothing that is present or can be installed does; the message has the commands to type.
pub(crate) fn ensure() -> Result<Toolchain> {
    let mut failures = Vec::new();
    for way in ways()? {
        match way().and_then(with_linker) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => failures.push(format!("- {error:#}")),
        }
    }
    bail!(
        "no compiler for eBPF.\n{}\nOn Debian: apt-get install --no-install-recommends {}\n\
         Elsewhere: rustup toolchain install nightly --profile minimal --component rust-src",
        failures.join("\n"),
        DEBIAN_PACKAGES.join(" "),
    )
}

type Way = fn() -> Result<Compiler>;

/// Cheapest first: what is there, then what the system packages, then a download of a whole toolchain.
fn ways() -> Result<Vec<Way>> {
    let debian: [Way; 2] = [debian_present, debian_install];
    let nightly: [Way; 2] = [nightly_present, nightly_install];
    match env::var(CHOICE_VARIABLE).ok().as_deref() {
        None | Some("") => Ok(vec![debian[0], nightly[0], debian[1], nightly[1]]),
        Some("debian") => Ok(debian.to_vec()),
        Some("nightly") => Ok(nightly.to_vec()),
        Some(other) => bail!("{CHOICE_VARIABLE}={other}: it is `debian` or `nightly`"),
    }
}

fn debian_present() -> Result<Compiler> {
    let root = sysroot(Command::new(DEBIAN_RUSTC))?;
    let core = root.join("lib/rustlib").join(crate::build_ebpf::TARGET);
    if core.is_dir() {
        Ok(Compiler::Debian)
    } else {
        Err(anyhow!("{} is missing", core.display()))
    }
}

fn debian_install() -> Result<Compiler> {
    if !is_there("apt-get") {
        bail!("this is no Debian: there is no apt-get");
    }
    let install = [
        "install",
        "--yes",
        "--no-install-recommends",
        DEBIAN_PACKAGES[0],
        DEBIAN_PACKAGES[1],
    ];
    if !is_root() {
        bail!(
            "a compiler for eBPF is to be installed by root: sudo apt-get install --no-install-recommends {}",
            DEBIAN_PACKAGES.join(" ")
        );
    }
    if !packages_known() {
        say("Reading Debian's package lists (apt-get update): the compiler for eBPF comes from there.");
        run(apt().arg("update"))?;
        if !packages_known() {
            bail!("this Debian does not package {}", DEBIAN_PACKAGES.join(" and "));
        }
    }
    say(&format!(
        "Installing Debian's {}: a Rust compiler that builds for the kernel. It leaves rustup's toolchains alone.",
        DEBIAN_PACKAGES.join(" and ")
    ));
    if run(apt().args(install)).is_err() {
        // The lists may be older than the mirror's files.
        say("Reading Debian's package lists anew (apt-get update), and once more.");
        run(apt().arg("update"))?;
        run(apt().args(install))?;
    }
    debian_present()
}

fn nightly_present() -> Result<Compiler> {
    let rustup = sysroot(nightly("rustc"));
    let (compiler, root) = match rustup {
        Ok(root) => (Compiler::RustupNightly, root),
        Err(error) => {
            let version = output(Command::new("rustc").arg("-vV"))?;
            if !version.contains("-nightly") {
                return Err(error.context("there is no nightly toolchain"));
            }
            (Compiler::PlainNightly, sysroot(Command::new("rustc"))?)
        }
    };
    let source = root.join("lib/rustlib/src/rust/library/core");
    if source.is_dir() {
        Ok(compiler)
    } else {
        Err(anyhow!("nightly has no rust-src ({})", source.display()))
    }
}

fn nightly_install() -> Result<Compiler> {
    if !is_there("rustup") {
        bail!("there is no rustup to install a nightly toolchain with");
    }
    if sysroot(nightly("rustc")).is_ok() {
        say("Adding rust-src to rustup's nightly: with it, nightly builds Rust's core for the kernel.");
        run(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", "nightly"]))?;
    } else {
        say(
            "Installing rustup's nightly with rust-src: it builds Rust's core for the kernel. Your default stays.",
        );
        let install = [
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ];
        run(Command::new("rustup").args(install))?;
    }
    nightly_present()
}

/// A Rust toolchain's LLVM, as a shared library.
struct Llvm {
    version: (u32, u32),
    library: PathBuf,
}

/// Adds bpf-linker. Its LLVM must not be older than the compiler's, whose bitcode it reads.
fn with_linker(compiler: Compiler) -> Result<Toolchain> {
    let wanted = llvm_version(match compiler {
        Compiler::Debian => Command::new(DEBIAN_RUSTC),
        Compiler::RustupNightly => nightly("rustc"),
        Compiler::PlainNightly => Command::new("rustc"),
    })?;
    // The oldest that does comes first, and is that of the toolchain in use if it may be.
    let shipped: Vec<Llvm> = [Command::new("rustc"), nightly("rustc")]
        .into_iter()
        .filter_map(|rustc| shipped_llvm(&rustc))
        .collect();
    let llvm = shipped
        .into_iter()
        .find(|llvm| llvm.version.0 >= wanted.0)
        .ok_or_else(|| {
            anyhow!(
                "no installed Rust toolchain ships LLVM {} as a library, which bpf-linker needs",
                wanted.0
            )
        })?;

    let tools = target_folder().join("tools");
    let folder = tools.join("bin");
    let stamp = tools.join("bpf-linker.stamp");
    let content = format!("bpf-linker {BPF_LINKER}, LLVM {}\n", llvm.library.display());
    let linker = folder.join("bpf-linker");
    if !(linker.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == content)) {
        install_linker(&tools, &llvm)?;
        fs::write(&stamp, content).with_context(|| format!("can't write {}", stamp.display()))?;
    }
    Ok(Toolchain {
        compiler,
        linker_folder: folder,
    })
}

fn install_linker(tools: &Path, llvm: &Llvm) -> Result<()> {
    say(&format!(
        "Installing bpf-linker into {} (it links the programs for the kernel; about a minute, once).",
        tools.display()
    ));
    // The names that the linker's build and its rpath look for. The folder stays: the rpath points into it.
    let prefix = tools.join("llvm");
    let library_folder = prefix.join("lib");
    fs::create_dir_all(&library_folder)
        .with_context(|| format!("can't make {}", library_folder.display()))?;
    let name = llvm.library.file_name().context("LLVM's library has no name")?;
    link(&llvm.library, &library_folder.join(name))?;
    link(&llvm.library, &library_folder.join("libLLVM.so"))?;

    let feature = format!("llvm-{}", llvm.version.0);
    let install = |version: Option<&str>| {
        let mut command = Command::new(cargo());
        command.args([
            "install",
            "bpf-linker",
            "--locked",
            "--force",
            "--no-default-features",
        ]);
        command.args(["--features", &feature]).arg("--root").arg(tools);
        if let Some(version) = version {
            command.args(["--version", version]);
        }
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            command.env_remove(variable);
        }
        command
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_TARGET_DIR", tools.join("build"));
        run(&mut command)
    };
    let result = install(Some(BPF_LINKER)).or_else(|_| {
        say("That bpf-linker did not build with this LLVM; trying the newest.");
        install(None)
    });
    // Its build files are of no more use, and large.
    let _ = fs::remove_dir_all(tools.join("build"));
    result
}

fn link(original: &Path, name: &Path) -> Result<()> {
    if name.symlink_metadata().is_ok() {
        fs::remove_file(name).with_context(|| format!("can't replace {}", name.display()))?;
    }
    std::os::unix::fs::symlink(original, name).with_context(|| format!("can't link {}", name.display()))
}

/// The LLVM that a toolchain ships, if it ships one as a shared library.
fn shipped_llvm(rustc: &Command) -> Option<Llvm> {
    let program = rustc.get_program().to_owned();
    let arguments: Vec<_> = rustc.get_args().map(OsStr::to_owned).collect();
    let again = || {
        let mut command = Command::new(&program);
        command.args(&arguments);
        command
    };
    let version = llvm_version(again()).ok()?;
    let folder = sysroot(again()).ok()?.join("lib");
    let library = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            // `libLLVM.so.22.1-rust-1.95.0-stable`; what is named otherwise links to it or is a linker script.
            path.file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| name.starts_with("libLLVM.so."))
        })?;
    Some(Llvm { version, library })
}

/// The `LLVM version: 22.1.2` line of `rustc -vV`.
fn llvm_version(mut rustc: Command) -> Result<(u32, u32)> {
    let text = output(rustc.arg("-vV"))?;
    parse_llvm_version(&text).with_context(|| format!("rustc -vV names no LLVM version:\n{text}"))
}

fn parse_llvm_version(text: &str) -> Option<(u32, u32)> {
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version:"))?;
    let mut parts = version.trim().split('.');
    Some((
        parts.next()?.parse().ok()?,
        parts.next().unwrap_or("0").parse().ok()?,
    ))
}

fn sysroot(mut rustc: Command) -> Result<PathBuf> {
    Ok(PathBuf::from(output(rustc.args(["--print", "sysroot"]))?.trim()))
}

/// One of nightly's tools, by rustup.
fn nightly(tool: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", tool])
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

/// Whether Debian's lists offer the packages.
fn packages_known() -> bool {
    output(Command::new("apt-cache").arg("policy").args(DEBIAN_PACKAGES)).is_ok_and(|text| {
        text.matches("Candidate:").count() == DEBIAN_PACKAGES.len() && !text.contains("(none)\n  Version")
    })
}

/// Steps that take time are announced on standard error; standard output is for results.
fn say(text: &str) {
    eprintln!("[xtask] {text}");
}

fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    eprintln!("[xtask] $ {shown}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("can't start {shown}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(anyhow!("`{shown}` failed ({status})"))
    }
}

fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {shown}"))?;
    if !output.status.success() {
        let cause = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{shown}` failed ({}): {}",
            output.status,
            cause.lines().next().unwrap_or_default()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_version_is_read() {
        assert_eq!(
            parse_llvm_version("rustc 1.95.0\nLLVM version: 22.1.2\n"),
            Some((22, 1))
        );
        assert_eq!(parse_llvm_version("LLVM version: 23\n"), Some((23, 0)));
        assert_eq!(parse_llvm_version("rustc 1.95.0\n"), None);
    }
}
