//! The Unix socket: made for its owner alone, from the first moment on, and taken away at the end.

use rustix::fs::{Mode, chmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to, listen, socket_with,
};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket's path; dropped, it takes the file away if it is still this one.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    inode: u64,
}

impl Bound {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Listens at `path` (mode 0600); its directory is made (0700) where it is missing. A socket that a dead Qbox left
/// behind is replaced, one that answers is not.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, Bound)> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of that name",
            ));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another Qbox answers there",
            ));
        }
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind_to(&socket, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before `listen`, so there is no moment in which the mode is wider.
    chmod(path, Mode::RUSR | Mode::WUSR)?;
    listen(&socket, 128)?;
    let inode = fs::symlink_metadata(path)?.ino();
    let bound = Bound {
        path: path.to_owned(),
        inode,
    };
    Ok((UnixListener::from(socket), bound))
}
