//! Which version of a file has been read: some are followed without a RELOAD.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FileMark {
    modified: SystemTime,
    /// A mounted Secret changes by a link.
    inode: u64,
    len: u64,
}

impl FileMark {
    /// The mark of the file as it is now; `None` if there is none.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            modified: found.modified().ok()?,
            inode: found.ino(),
            len: found.len(),
        })
    }

    /// Whether somebody may still be writing the file.
    pub(crate) fn is_fresh(&self) -> bool {
        const SETTLED: Duration = Duration::from_millis(300);
        self.modified.elapsed().is_ok_and(|age| age < SETTLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_left_alone_for_a_moment() {
        let now = SystemTime::now();
        let is_fresh = |modified| {
            let (inode, len) = (1, 1);
            let mark = FileMark {
                modified,
                inode,
                len,
            };
            mark.is_fresh()
        };
        assert!(is_fresh(now));
        assert!(!is_fresh(now - Duration::from_secs(1)));
        // A clock that is wrong must not keep the file from being read.
        assert!(!is_fresh(now + Duration::from_secs(60)));
    }
}
