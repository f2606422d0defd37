//! The little that is asked of the operating system about its users.

use std::fs;

/// The user id of a system user, from `/etc/passwd`.
///
/// Directory services are not asked, because that could block for seconds on a network.
pub(crate) fn user_id(name: &str) -> Option<u32> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let id = fields.nth(1)?;
        found.then(|| id.parse().ok())?
    })
}
