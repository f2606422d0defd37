//! A tar archive (ustar) of a few files.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The unit of an archive, in bytes.
const BLOCK: usize = 512;

/// Writes an archive that only its owner can read.
pub(super) fn write(path: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let archive = archive(files, now.as_secs());
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(&archive)
}

fn archive(files: &[(String, Vec<u8>)], at: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        out.extend_from_slice(&header(&format!("incident/{name}"), content.len(), at));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks are the end.
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn header(name: &str, len: usize, at: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |from: usize, text: &str| {
        block[from..from + text.len()].copy_from_slice(text.as_bytes());
    };
    debug_assert!(name.len() < 100, "longer names have another form");
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{len:011o}"));
    put(136, &format!("{at:011o}"));
    // The sum is made as if its own place were blank.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_made_of_blocks() {
        let files = [
            ("a.txt".to_owned(), b"hello".to_vec()),
            ("b".to_owned(), vec![b'x'; 512]),
        ];
        let archive = archive(&files, 0);
        assert_eq!(archive.len(), BLOCK * (2 + 2 + 2));
        assert!(archive.starts_with(b"incident/a.txt\0"));
        assert_eq!(&archive[BLOCK..BLOCK + 6], b"hello\0");
        assert_eq!(&archive[124..136], b"00000000005\0");
        let sum: u32 = archive[..BLOCK]
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        assert_eq!(&archive[148..154], format!("{sum:06o}").as_bytes());
    }
}
