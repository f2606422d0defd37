//! Which keys are not to be told in logs and reports.

/// Keys whose values may hold a secret among other things.
const KEYS: [&str; 2] = ["auth_ldap_options", "auth_query"];

/// Parts of names of keys that hold one.
const WORDS: [&str; 3] = ["password", "passwd", "secret"];

/// Whether the value of a key may be, or contain, a secret.
pub fn may_hold_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    KEYS.contains(&&*key) || WORDS.iter().any(|word| key.contains(word))
}
