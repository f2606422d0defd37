//! Options of LDAP of any text, and anything that a directory could send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir_auth::ldap::{LdapOptions, Reply, UserDn, request};

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (options, user, mut sent) = input;
    if let Ok(options) = LdapOptions::parse(options)
        && let UserDn::Search(search) = &options.user_dn
        && let Ok(request) = request::search(1, search, user)
    {
        assert!(Reply::read(&request).is_err(), "a request is no reply");
    }
    while let Ok(Some((_, len))) = Reply::read(sent) {
        assert!(len > 0 && len <= sent.len());
        sent = &sent[len..];
    }
});
