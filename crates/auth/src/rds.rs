//! Tokens that Amazon RDS takes in place of passwords: an address that is signed with AWS' Signature Version 4 and
//! opened by nobody. Whoever may connect as a user can make one without asking anybody.
//!
//! Source: "Create a signed AWS API request" in the IAM user guide, with the signature in the query.

use std::fmt::{self, Write as _};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// How long a token is good for, in seconds: RDS knows nothing else.
const EXPIRES: u32 = 900;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What AWS knows somebody by.
#[derive(Clone)]
pub struct AwsCredentials {
    /// The access key's id.
    pub id: String,
    /// The secret access key.
    pub secret: Zeroizing<String>,
    /// What comes with credentials that are good for a while.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsCredentials({})", self.id)
    }
}

/// What is asked for, and where.
struct Request<'a> {
    host: &'a str,
    path: &'a str,
    /// Names and values, not encoded.
    query: Vec<(&'a str, &'a str)>,
    region: &'a str,
    service: &'a str,
    /// The hash of the body, or a word in its place.
    body_hash: &'a str,
    expires: u32,
}

/// A token with which `user` can log in to the RDS instance at this host and port within a quarter of an hour from `now`,
/// in seconds since 1970.
pub fn rds_token(
    credentials: &AwsCredentials,
    region: &str,
    (host, port): (&str, u16),
    user: &str,
    now: u64,
) -> Zeroizing<String> {
    let host = format!("{}:{port}", host.to_ascii_lowercase());
    let request = Request {
        host: &host,
        path: "/",
        query: vec![("Action", "connect"), ("DBUser", user)],
        region,
        service: "rds-db",
        body_hash: &hex(&Sha256::digest(b"")),
        expires: EXPIRES,
    };
    let query = presigned(credentials, &request, now);
    Zeroizing::new(format!("{host}/?{}", *query))
}

/// The region in the name of an RDS endpoint: `NAME.ID.REGION.rds.amazonaws.com`, and `.cn` behind it in China.
pub fn rds_region(host: &str) -> Option<&str> {
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let name = host.strip_suffix(".rds.amazonaws.com")?;
    let (_, region) = name.rsplit_once('.')?;
    (!region.is_empty()).then_some(region)
}

/// The query that asks with a signature.
fn presigned(credentials: &AwsCredentials, request: &Request<'_>, now: u64) -> Zeroizing<String> {
    let time = timestamp(now);
    let day = &time[..8];
    let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
    let credential = format!("{}/{scope}", credentials.id);
    let expires = request.expires.to_string();
    let mut query = request.query.clone();
    query.extend([
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", &credential),
        ("X-Amz-Date", &time),
        ("X-Amz-Expires", &expires),
        ("X-Amz-SignedHeaders", "host"),
    ]);
    if let Some(token) = &credentials.session_token {
        query.push(("X-Amz-Security-Token", token));
    }
    let mut pairs: Vec<Zeroizing<String>> = query
        .iter()
        .map(|(name, value)| Zeroizing::new(format!("{}={}", encoded(name), encoded(value))))
        .collect();
    pairs.sort_by(|one, other| one.as_str().cmp(other));
    let pairs: Vec<&str> = pairs.iter().map(|pair| pair.as_str()).collect();
    let mut query = Zeroizing::new(pairs.join("&"));
    let canonical = Zeroizing::new(format!(
        "GET\n{}\n{}\nhost:{}\n\nhost\n{}",
        request.path, *query, request.host, request.body_hash
    ));
    let to_sign = format!(
        "{ALGORITHM}\n{time}\n{scope}\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let key = signing_key(&credentials.secret, day, request.region, request.service);
    let signature = hex(&*keyed(&*key, to_sign.as_bytes()));
    query.push_str("&X-Amz-Signature=");
    query.push_str(&signature);
    query
}

fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> Zeroizing<[u8; 32]> {
    let first = Zeroizing::new(format!("AWS4{secret}"));
    let mut key = keyed(first.as_bytes(), day.as_bytes());
    for part in [region, service, "aws4_request"] {
        key = keyed(&*key, part.as_bytes());
    }
    key
}

fn keyed(key: &[u8], text: &[u8]) -> Zeroizing<[u8; 32]> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    Zeroizing::new(mac.chain_update(text).finalize().into_bytes().into())
}

/// As RFC 3986 has it: everything but letters, digits and four signs.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `YYYYMMDDTHHMMSSZ`. The calendar is the Gregorian one, counted in eras of 400 years that begin in March.
fn timestamp(now: u64) -> String {
    let (days, seconds) = (now / 86_400, now % 86_400);
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(secret: &str) -> AwsCredentials {
        AwsCredentials {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            session_token: None,
        }
    }

    /// The example of "Authenticating Requests: Using Query Parameters" in the S3 API reference.
    #[test]
    fn the_published_example_has_its_signature() {
        let request = Request {
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: Vec::new(),
            region: "us-east-1",
            service: "s3",
            body_hash: "UNSIGNED-PAYLOAD",
            expires: 86_400,
        };
        let credentials = credentials("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let query = presigned(&credentials, &request, 1_369_353_600);
        let expected = "X-Amz-Algorithm=AWS4-HMAC-SHA256&\
            X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&\
            X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&\
            X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert_eq!(*query, expected);
    }

    /// The example of "Deriving a signing key" in the AWS General Reference.
    #[test]
    fn the_published_key_is_derived() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let key = signing_key(secret, "20150830", "us-east-1", "iam");
        let expected = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9";
        assert_eq!(hex(&*key), expected);
    }

    #[test]
    fn a_token_is_an_address_without_a_scheme() {
        let mut credentials = credentials("secret");
        credentials.session_token = Some(Zeroizing::new("to/ken==".to_owned()));
        let at = ("Db.Example", 5433);
        let token = rds_token(&credentials, "eu-west-1", at, "app user", 0);
        let expected = "db.example:5433/?Action=connect&DBUser=app%20user&X-Amz-Algorithm=AWS4-HMAC-SHA256&\
            X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F19700101%2Feu-west-1%2Frds-db%2Faws4_request&\
            X-Amz-Date=19700101T000000Z&X-Amz-Expires=900&X-Amz-Security-Token=to%2Fken%3D%3D&\
            X-Amz-SignedHeaders=host&X-Amz-Signature=";
        let (head, signature) = token.split_at(expected.len());
        assert_eq!((head, signature.len()), (expected, 64));
        let later = rds_token(&credentials, "eu-west-1", at, "app user", 1);
        assert_ne!(token, later);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (now, expected) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(timestamp(now), expected);
        }
    }

    #[test]
    fn an_endpoint_names_its_region() {
        for (host, region) in [
            ("db.abc.eu-west-1.rds.amazonaws.com", Some("eu-west-1")),
            ("db.abc.cn-north-1.rds.amazonaws.com.cn", Some("cn-north-1")),
            ("rds.amazonaws.com", None),
            ("db.example", None),
        ] {
            assert_eq!(rds_region(host), region, "{host}");
        }
    }
}
