//! Whether a certificate is for a host: what `verify-full` adds to `verify-ca`.
//!
//! The names in the certificate's subjectAltName decide, as in RFC 6125. Only a certificate that
//! has none of the host's kind is judged by its common name, as libpq does it.

use std::net::IpAddr;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::tls::certificate;

pub(crate) fn check(
    leaf: &CertificateDer<'_>,
    host: &ServerName<'_>,
) -> Result<(), CertificateError> {
    if let Ok(stock) = webpki::EndEntityCert::try_from(leaf)
        && stock.verify_is_valid_for_subject_name(host).is_ok()
    {
        return Ok(());
    }
    let certificate = certificate::parse(leaf).ok_or(CertificateError::BadEncoding)?;
    let mut presented = alternative_names(&certificate, host)?;
    if presented.is_empty()
        && let Some(common_name) = certificate::common_name(certificate.subject())
    {
        let matches = match ip_of(host) {
            Some(ip) => common_name.parse() == Ok(ip),
            None => matches_dns(&common_name, &host.to_str()),
        };
        if matches {
            return Ok(());
        }
        presented.push(common_name);
    }
    Err(CertificateError::NotValidForNameContext {
        expected: host.to_owned(),
        presented,
    })
}

/// The alternative names of the host's kind, as text.
fn alternative_names(
    certificate: &X509Certificate<'_>,
    host: &ServerName<'_>,
) -> Result<Vec<String>, CertificateError> {
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) => return Ok(Vec::new()),
        Err(_) => return Err(CertificateError::BadEncoding),
    };
    let is_ip = ip_of(host).is_some();
    let of_kind = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) if !is_ip => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) if is_ip => Some(match *bytes {
            [a, b, c, d] => IpAddr::from([*a, *b, *c, *d]).to_string(),
            _ => <[u8; 16]>::try_from(*bytes).map_or_else(
                |_| "a broken address".to_owned(),
                |b| IpAddr::from(b).to_string(),
            ),
        }),
        // Names of another kind say nothing about this host.
        _ => None,
    });
    Ok(of_kind.collect())
}

fn ip_of(host: &ServerName<'_>) -> Option<IpAddr> {
    match host {
        ServerName::IpAddress(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// `*.example.com` stands for one label: `a.example.com`, neither `example.com` nor
/// `a.b.example.com`. The star must be a whole label and at least two must follow it.
fn matches_dns(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let Some(domain) = pattern.strip_prefix("*.") else {
        return !pattern.is_empty() && pattern.eq_ignore_ascii_case(host);
    };
    let labels_are_whole = domain.split('.').all(|label| !label.is_empty());
    let Some((first, rest)) = host.split_once('.') else {
        return false;
    };
    labels_are_whole
        && domain.contains('.')
        && !first.is_empty()
        && domain.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Authority;

    #[test]
    fn a_star_stands_for_one_label() {
        let matching = [
            ("db", "db"),
            ("DB.Example.com", "db.example.COM"),
            ("*.example.com", "a.example.com"),
            ("*.example.com", "A.EXAMPLE.com"),
            ("db.example.com", "db.example.com."),
        ];
        for (pattern, host) in matching {
            assert!(matches_dns(pattern, host), "{pattern} {host}");
        }
        let different = [
            ("", ""),
            ("*", "a"),
            ("*.", "a."),
            ("*.com", "example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", ".example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*.example.com", "aexample.com"),
            ("*.example.com.", "a.example.com."),
            ("*..com", "a..com"),
            ("a*.example.com", "ab.example.com"),
            ("*a.example.com", "ba.example.com"),
            ("a.*.com", "a.b.com"),
            ("db", "db2"),
        ];
        for (pattern, host) in different {
            assert!(!matches_dns(pattern, host), "{pattern} {host}");
        }
    }
    #[test]
    fn reading_a_damaged_certificate_never_panics() {
        let leaf = Authority::root("root").leaf("db", &["db", "127.0.0.1", "::1"]);
        let hosts =
            ["db", "127.0.0.1", "elsewhere"].map(|host| ServerName::try_from(host).unwrap());
        let good = leaf.leaf().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = CertificateDer::from(bad);
            for host in &hosts {
                let _ = check(&bad, host);
            }
            let peer = certificate::PeerCertificate::new(&bad);
            let _ = (peer.common_name(), peer.end_point_binding());
        }
    }
}
