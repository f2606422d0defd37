//! What we send to an LDAP server.

use zeroize::Zeroizing;

use super::ber::{BOOLEAN, ENUMERATED, INTEGER, OCTET_STRING, SEQUENCE, Writer};
use super::{BadUser, Search};

/// Heads of elements and small numbers, with room to spare.
const OVERHEAD_BYTES: usize = 256;

const VERSION_3: i32 = 3;
const NEVER_DEREFERENCE: i32 = 0;
/// One entry is wanted, and a second one is enough to know that there are too many.
const SIZE_LIMIT: i32 = 2;
const NO_TIME_LIMIT: i32 = 0;
/// Asks for no attribute: only the entry's name is wanted.
const NO_ATTRIBUTES: &str = "1.1";
const START_TLS: &str = "1.3.6.1.4.1.1466.20037";

mod tag {
    pub(super) const BIND: u8 = 0x60;
    pub(super) const UNBIND: u8 = 0x42;
    pub(super) const SEARCH: u8 = 0x63;
    pub(super) const EXTENDED: u8 = 0x77;
    /// The password, in the choice of ways to prove oneself.
    pub(super) const SIMPLE: u8 = 0x80;
    /// The name of an extended operation.
    pub(super) const NAME: u8 = 0x80;
}

/// Proves to be `dn` with a password. Both empty is an anonymous bind.
pub fn bind(id: i32, dn: &str, password: &[u8]) -> Zeroizing<Vec<u8>> {
    message(id, dn.len() + password.len(), |writer| {
        writer.element(tag::BIND, |bind| {
            bind.number(INTEGER, VERSION_3);
            bind.bytes(OCTET_STRING, dn.as_bytes());
            bind.bytes(tag::SIMPLE, password);
        });
    })
}

/// Looks for the entry of a user.
///
/// # Errors
/// The user's name cannot stand in a filter.
pub fn search(id: i32, search: &Search, user: &str) -> Result<Zeroizing<Vec<u8>>, BadUser> {
    BadUser::check(user)?;
    Ok(message(id, search.base.len(), |writer| {
        writer.element(tag::SEARCH, |request| {
            request.bytes(OCTET_STRING, search.base.as_bytes());
            request.number(ENUMERATED, search.scope as i32);
            request.number(ENUMERATED, NEVER_DEREFERENCE);
            request.number(INTEGER, SIZE_LIMIT);
            request.number(INTEGER, NO_TIME_LIMIT);
            request.boolean(BOOLEAN, false);
            search.filter.write(user, request);
            request.element(SEQUENCE, |attributes| {
                attributes.bytes(OCTET_STRING, NO_ATTRIBUTES.as_bytes());
            });
        });
    }))
}

/// Asks for TLS on a plain connection.
pub fn start_tls(id: i32) -> Zeroizing<Vec<u8>> {
    message(id, START_TLS.len(), |writer| {
        writer.element(tag::EXTENDED, |request| {
            request.bytes(tag::NAME, START_TLS.as_bytes());
        });
    })
}

/// Says goodbye; there is no answer.
pub fn unbind(id: i32) -> Zeroizing<Vec<u8>> {
    message(id, 0, |writer| writer.bytes(tag::UNBIND, &[]))
}

fn message(id: i32, size: usize, operation: impl FnOnce(&mut Writer)) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::with_capacity(size + OVERHEAD_BYTES);
    writer.element(SEQUENCE, |message| {
        message.number(INTEGER, id);
        operation(message);
    });
    writer.finish()
}
