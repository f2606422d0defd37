//! A user and a password in an HTTP header (RFC 7617).

use crate::scram::base64;
use crate::secret::Password;

/// What the header `Authorization: Basic` says.
#[derive(Debug)]
pub struct BasicCredentials {
    /// The user, who may have no name.
    pub user: String,
    /// The password.
    pub password: Password,
}

impl BasicCredentials {
    /// Reads the value of the header; `None` if it is of another scheme, or broken.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (scheme, rest) = header.split_at_checked(SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let text = zeroize::Zeroizing::new(base64::decode(rest.trim_ascii())?);
        let colon = text.iter().position(|&byte| byte == b':')?;
        let (user, password) = (&text[..colon], &text[colon + 1..]);
        Some(Self {
            user: str::from_utf8(user).ok()?.to_owned(),
            password: Password::new(password).ok()?,
        })
    }
}

const SCHEME: &[u8] = b"Basic ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_have_colons_and_a_user_may_not() {
        let header = format!("basic {}", base64::encode(b"ann:a:b"));
        let read = BasicCredentials::parse(header.as_bytes()).expect("it is well-formed");
        assert_eq!((&*read.user, read.password.expose()), ("ann", &b"a:b"[..]));
    }

    #[test]
    fn what_is_broken_is_nothing() {
        for header in [
            "",
            "Basic",
            "Basic ",
            "Bearer YTpi",
            "Basic ?",
            "Basic YQ==",
            "Basic /zpi",
        ] {
            assert!(
                BasicCredentials::parse(header.as_bytes()).is_none(),
                "{header}"
            );
        }
    }
}
