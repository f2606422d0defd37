//! What is listened on, as the configuration and the log write it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use socket2::{Domain, SockAddr, Socket, Type};

/// The addresses behind one word of a listen list: `*` is every address of both families, and a
/// name may stand for several. Names are looked up in place, so this is for program start.
pub fn resolve_listen_address(word: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if word == "*" {
        let any4 = SocketAddr::from(([0, 0, 0, 0], port));
        let any6 = SocketAddr::from(([0; 8], port));
        // A kernel without IPv6 refuses to make such a socket at all.
        let has_ipv6 = Socket::new(Domain::IPV6, Type::STREAM, None).is_ok();
        return Ok(if has_ipv6 {
            vec![any4, any6]
        } else {
            vec![any4]
        });
    }
    let mut found = Vec::new();
    for addr in (word, port).to_socket_addrs()? {
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    Ok(found)
}

/// A socket as the log names it.
pub(super) fn socket_name(address: &SockAddr) -> String {
    if let Some(addr) = address.as_socket() {
        return addr.to_string();
    }
    if let Some(path) = address.as_pathname() {
        return format!("unix:{}", path.display());
    }
    match address.as_abstract_namespace() {
        Some(name) => format!("unix:@{}", String::from_utf8_lossy(name)),
        None => "unix".to_owned(),
    }
}
