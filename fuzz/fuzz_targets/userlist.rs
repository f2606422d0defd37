//! Files of users and secrets of any bytes: what is read is found again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir_auth::Secret;
use pgweir_auth::userlist::UserList;

fuzz_target!(|bytes: &[u8]| {
    let (users, _) = UserList::parse(bytes);
    assert!(users.iter().count() <= users.len());
    for (user, secret) in users.iter() {
        assert!(users.secret(user).is_some());
        let again = Secret::parse(&secret.expose()).expect("a stored secret can be stored");
        assert_eq!(again.kind(), secret.kind());
    }
});
