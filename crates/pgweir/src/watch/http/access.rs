//! Who may see the status: where clients are, and who they are, is not for everybody.
//!
//! On this machine everybody may, as long as there is no `status_token`. From elsewhere, and everywhere
//! with a token, it takes that or the password of a user of the console.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};
use pgweir_auth::BasicCredentials;
use pgweir_net::Address;
use subtle::ConstantTimeEq as _;

use crate::shared::Shared;

/// Whether a request may have what it asks for.
pub(super) async fn is_allowed(shared: &Arc<Shared>, peer: &Address, headers: &HeaderMap) -> bool {
    let config = shared.config();
    let token = config.global.status_token.expose();
    if token.is_empty() && is_local(peer, headers) {
        return true;
    }
    let Some(header) = headers.get(AUTHORIZATION) else {
        return false;
    };
    let is_token = |given: &[u8]| !token.is_empty() && given.ct_eq(token.as_bytes()).into();
    if let Some(token) = bearer_token(header.as_bytes()) {
        return is_token(token);
    }
    let Some(given) = BasicCredentials::parse(header.as_bytes()) else {
        return false;
    };
    is_token(given.password.expose()) || is_of_console(shared, given).await
}

/// The token in the header `Authorization: Bearer` (RFC 6750).
fn bearer_token(header: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let (scheme, token) = header.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    is_bearer.then(|| token.trim_ascii())
}

/// Whether it comes from this machine. A web page elsewhere can make a browser here ask by a name that
/// it gives this machine; so the name must be one that nobody else can give.
fn is_local(peer: &Address, headers: &HeaderMap) -> bool {
    let Some(ip) = peer.ip() else {
        return true;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let is_own = matches!(name, "localhost" | "127.0.0.1" | "[::1]" | "");
    ip.to_canonical().is_loopback() && is_own
}

/// Whether a user of the console has this password. Such questions take turns, because a hash may
/// take milliseconds.
async fn is_of_console(shared: &Arc<Shared>, given: BasicCredentials) -> bool {
    let config = shared.config();
    let (admins, others) = (&config.global.admin_users, &config.global.stats_users);
    if !admins.contains(&given.user) && !others.contains(&given.user) {
        return false;
    }
    let files = shared.files();
    let check = move || {
        let (first, second) = files.users.secrets(&given.user);
        let mut secrets = first.into_iter().chain(second);
        secrets.any(|secret| secret.is_of(&given.password, &given.user))
    };
    shared.http.write(check).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn the_scheme_may_be_written_in_any_case() {
        assert_eq!(bearer_token(b"bearer  letmein "), Some(&b"letmein"[..]));
        assert_eq!(bearer_token(b"Bearer "), Some(&b""[..]));
        assert_eq!(bearer_token(b"Bearer"), None);
        assert_eq!(bearer_token(b"Basic eDpsZXRtZWlu"), None);
    }

    #[test]
    fn only_this_machine_under_its_own_names_is_local() {
        let with = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            headers
        };
        let tcp = |ip: &str| {
            Address::Tcp((ip.parse::<std::net::IpAddr>().expect("an address"), 1).into())
        };
        let unix = Address::Unix {
            peer: None,
            port: 0,
        };
        for (peer, host, local) in [
            (tcp("127.0.0.1"), "localhost:9127", true),
            (tcp("::1"), "[::1]:9127", true),
            (tcp("::1"), "[::1]", true),
            (tcp("::ffff:127.0.0.1"), "127.0.0.1", true),
            (tcp("127.0.0.1"), "evil.example:9127", false),
            (tcp("10.0.0.1"), "localhost", false),
            (unix, "anything", true),
        ] {
            assert_eq!(is_local(&peer, &with(host)), local, "{peer} {host}");
        }
    }
}
