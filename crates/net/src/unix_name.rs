//! Names of Unix sockets: a directory and a port, as PostgreSQL's clients build them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use socket2::SockAddr;

/// The name of a Unix socket: a path, or a name in Linux's abstract namespace.
///
/// An abstract name is kept with a leading NUL, the form that the kernel and tokio use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixName(OsString);

impl UnixName {
    /// The socket of a server with this port in this directory. A directory that begins with `@` is
    /// a prefix in the abstract namespace.
    pub fn in_dir(dir: &str, port: u16) -> Self {
        let name = format!("{dir}/.s.PGSQL.{port}");
        match name.strip_prefix('@') {
            Some(rest) => {
                let mut bytes = vec![0];
                bytes.extend_from_slice(rest.as_bytes());
                Self(OsString::from_vec(bytes))
            }
            None => Self(name.into()),
        }
    }

    /// The socket at this path.
    pub fn at(path: &str) -> Self {
        Self(path.into())
    }

    /// The name that an address of the kernel's has; empty for a socket that was never given one.
    pub(crate) fn of(address: &SockAddr) -> Self {
        if let Some(name) = address.as_abstract_namespace() {
            return Self(OsString::from_vec([&[0], name].concat()));
        }
        Self(address.as_pathname().unwrap_or(Path::new("")).into())
    }

    /// The file, unless the name is abstract.
    pub fn file(&self) -> Option<&Path> {
        (!self.is_abstract()).then(|| Path::new(&self.0))
    }

    /// Whether the name lives in the abstract namespace.
    pub fn is_abstract(&self) -> bool {
        self.0.as_bytes().first() == Some(&0)
    }

    /// The name as the socket calls take it.
    pub(crate) fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_bytes() {
            [0, rest @ ..] => write!(f, "unix:@{}", OsStr::from_bytes(rest).display()),
            _ => write!(f, "unix:{}", self.0.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_built_from_directory_and_port() {
        let file = UnixName::in_dir("/tmp", 6432);
        assert_eq!(file.to_string(), "unix:/tmp/.s.PGSQL.6432");
        assert_eq!(file.file(), Some(Path::new("/tmp/.s.PGSQL.6432")));

        let hidden = UnixName::in_dir("@weir", 6432);
        assert_eq!(hidden.to_string(), "unix:@weir/.s.PGSQL.6432");
        assert_eq!(
            hidden.as_path().as_os_str().as_bytes(),
            b"\0weir/.s.PGSQL.6432"
        );
        assert_eq!(hidden.file(), None);
    }
}
