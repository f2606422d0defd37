//! The file of a Unix socket: who may use it, when it may be replaced, when it may be removed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::listen::ListenError;
use crate::unix_name::UnixName;

/// Who may connect to a Unix socket's file. A name in the abstract namespace has no permissions.
#[derive(Clone, Copy, Debug)]
pub struct UnixPermissions {
    /// The file's mode.
    pub mode: u32,
    /// The file's group; `None` leaves the process's.
    pub group: Option<u32>,
}

/// A Unix socket's file, known by more than its name: another process may have replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    pub(crate) fn permit(
        &self,
        permissions: UnixPermissions,
    ) -> Result<(), (&'static str, io::Error)> {
        if let Some(group) = permissions.group {
            std::os::unix::fs::chown(&self.path, None, Some(group))
                .map_err(|error| ("chown", error))?;
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(permissions.mode))
            .map_err(|error| ("chmod", error))
    }

    /// Removes the file, if it is still this one.
    pub(crate) fn remove(&self) {
        let is_ours = Self::of(&self.path)
            .is_ok_and(|now| (now.device, now.inode) == (self.device, self.inode));
        if is_ours {
            // Somebody may be faster; then it is gone, which is what we want.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a Unix socket whose process is gone. Connecting is the only sure question:
/// a socket that nobody has open refuses.
pub(crate) fn make_room(name: &UnixName, path: &Path, port: u16) -> Result<(), ListenError> {
    let mut lock_file = path.as_os_str().to_owned();
    lock_file.push(".lock");
    let lock_file = PathBuf::from(lock_file);
    if fs::symlink_metadata(&lock_file).is_ok() {
        return Err(ListenError::UnixLocked { port, lock_file });
    }
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket { name: name.clone() });
    }
    let probe = SockAddr::unix(path).and_then(|address| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&address)
    });
    match probe.map_err(|error| error.kind()) {
        // WouldBlock is a listener whose queue is full.
        Ok(()) | Err(io::ErrorKind::WouldBlock) => {
            return Err(ListenError::UnixInUse { name: name.clone() });
        }
        Err(_) => {}
    }
    fs::remove_file(path).map_err(|source| ListenError::Os {
        name: name.to_string(),
        step: "unlink",
        source,
    })
}

/// The number of a group given by name or by number. Names are looked up in `/etc/group` only:
/// groups from a directory service are given by number.
pub fn group_id(group: &str) -> io::Result<Option<u32>> {
    if let Ok(id) = group.parse() {
        return Ok(Some(id));
    }
    match group_in(&fs::read_to_string("/etc/group")?, group) {
        Some(id) => Ok(Some(id)),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "could not find this group in /etc/group",
        )),
    }
}

fn group_in(table: &str, group: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        if name != group {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_group_by_name_or_number() {
        let table = "root:x:0:\nsudo:x:27:ann,bob\nbroken\n";
        assert_eq!(group_in(table, "sudo"), Some(27));
        assert_eq!(group_in(table, "sud"), None);
        assert_eq!(group_id("1234").unwrap(), Some(1234));
        let unknown = group_id("no such group").unwrap_err();
        assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
    }
}
