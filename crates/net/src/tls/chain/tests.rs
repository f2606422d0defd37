//! What is trusted, shape by shape, with certificates made for the test.

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use super::*;
use crate::tls::parameters::provider;
use crate::tls::testing::{Authority, Identity, pem_of, year};

/// Verifies a chain as a server's in 2030.
fn verify(roots: &[&Authority], identity: &Identity) -> Result<(), CertificateError> {
    verify_as(roots, identity, Role::Server, 2030)
}

fn verify_as(
    roots: &[&Authority],
    identity: &Identity,
    role: Role,
    in_year: i32,
) -> Result<(), CertificateError> {
    let ders: Vec<_> = roots.iter().map(|root| root.der.clone()).collect();
    let roots = Roots::from_pem(&pem_of("ca.crt", &ders)).unwrap();
    let (leaf, rest) = identity.chain.split_first().unwrap();
    let algorithms = provider().signature_verification_algorithms;
    roots.verify(leaf, rest, role, year(in_year), &algorithms)
}

#[test]
fn a_current_certificate_needs_no_second_look() {
    let root = Authority::root("root");
    verify(&[&root], &root.leaf("db", &["db"])).unwrap();
    let middle = root.intermediate("middle", |_| {});
    verify(&[&root], &middle.leaf("db", &["db"]).with(&middle)).unwrap();
    let stranger = Authority::root("root");
    verify(&[&stranger], &root.leaf("db", &["db"])).unwrap_err();
}

#[test]
fn a_v1_certificate_is_good_when_a_root_signed_it() {
    let root = Authority::root("root");
    let leaf = root.leaf_v1("db");
    verify(&[&root], &leaf).unwrap();
    verify_as(&[&root], &leaf, Role::Client, 2030).unwrap();
    let other = Authority::root("other");
    verify(&[&other, &root], &leaf).unwrap();
    assert_eq!(
        verify(&[&other], &leaf),
        Err(CertificateError::UnknownIssuer)
    );
}

#[test]
fn a_v1_root_may_sign_a_v1_certificate() {
    let root = Authority::root_v1("root");
    verify(&[&root], &root.leaf_v1("db")).unwrap();
}

#[test]
fn the_issuers_name_alone_is_not_enough() {
    let root = Authority::root("root");
    let namesake = Authority::root("root");
    let leaf = namesake.leaf_v1("db");
    assert_eq!(
        verify(&[&root], &leaf),
        Err(CertificateError::UnknownIssuer)
    );
}

#[test]
fn a_changed_v1_certificate_is_refused() {
    let root = Authority::root("root");
    let leaf = root.leaf_v1("db1");
    let mut bytes = leaf.leaf().to_vec();
    let at = bytes
        .windows(3)
        .position(|window| window == b"db1")
        .unwrap();
    bytes[at + 2] = b'2';
    let forged = Identity {
        chain: vec![bytes.into()],
        ..leaf
    };
    assert_eq!(
        verify(&[&root], &forged),
        Err(CertificateError::UnknownIssuer)
    );
}

#[test]
fn the_dates_of_a_v1_certificate_count() {
    let root = Authority::root("root");
    let leaf = root.leaf_v1("db");
    let at = |when| verify_as(&[&root], &leaf, Role::Server, when);
    assert_eq!(at(2019), Err(CertificateError::NotValidYet));
    assert_eq!(at(2041), Err(CertificateError::Expired));
}

#[test]
fn the_dates_above_a_v1_certificate_count() {
    let old = |params: &mut rcgen::CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    };
    let root = Authority::root_with("root", old);
    verify(&[&root], &root.leaf_v1("db")).unwrap_err();
    let root = Authority::root("root");
    let middle = root.intermediate("middle", old);
    verify(&[&root], &middle.leaf_v1("db").with(&middle)).unwrap_err();
}

#[test]
fn a_v1_certificate_may_come_through_cas() {
    let root = Authority::root("root");
    let upper = root.intermediate("upper", |_| {});
    let lower = upper.intermediate("lower", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    verify(&[&root], &lower.leaf_v1("db").with(&lower).with(&upper)).unwrap();
    verify(&[&root], &lower.leaf_v1("db").with(&upper).with(&lower)).unwrap();
    verify(&[&root], &lower.leaf_v1("db").with(&lower)).unwrap_err();
}

#[test]
fn nobody_but_a_ca_may_stand_between() {
    let root = Authority::root("root");
    let refused: [&dyn Fn() -> Authority; 7] = [
        &|| root.leaf_v1("middle").into_authority("middle"),
        &|| root.leaf("middle", &["middle"]).into_authority("middle"),
        &|| root.intermediate("middle", |p| p.is_ca = IsCa::ExplicitNoCa),
        &|| {
            root.intermediate("middle", |p| {
                p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            })
        },
        &|| {
            root.intermediate("middle", |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            })
        },
        &|| {
            root.intermediate("middle", |p| {
                p.name_constraints = Some(rcgen::NameConstraints {
                    permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("db".into())],
                    excluded_subtrees: Vec::new(),
                });
            })
        },
        &|| {
            root.intermediate("middle", |p| {
                let oid = &[1, 3, 6, 1, 4, 1, 99999, 1];
                let mut unknown = rcgen::CustomExtension::from_oid_content(oid, vec![5, 0]);
                unknown.set_criticality(true);
                p.custom_extensions = vec![unknown];
            })
        },
    ];
    for (case, make) in refused.iter().enumerate() {
        let middle = make();
        let leaf = middle.leaf_v1("db").with(&middle);
        assert_eq!(
            verify(&[&root], &leaf),
            Err(CertificateError::UnknownIssuer),
            "{case}"
        );
    }
}

#[test]
fn a_path_length_counts_for_v1_certificates() {
    let short = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    };
    let root = Authority::root_with("root", short);
    verify(&[&root], &root.leaf_v1("db")).unwrap();
    let middle = root.intermediate("middle", |_| {});
    verify(&[&root], &middle.leaf_v1("db").with(&middle)).unwrap_err();
}

#[test]
fn a_certificate_that_is_itself_a_root_is_good() {
    let own_root = Authority::root("db");
    let identity = |root: &Authority| Identity {
        chain: vec![root.der.clone()],
        ..root.leaf("x", &[])
    };
    verify(&[&own_root], &identity(&own_root)).unwrap();
    let own_v1 = Authority::root_v1("db");
    verify(&[&own_v1], &identity(&own_v1)).unwrap();
    verify(&[&Authority::root("db")], &identity(&own_root)).unwrap_err();

    let issuer = Authority::root("issuer");
    let named = issuer.leaf("db", &["db"]).into_authority("db");
    verify(&[&named], &identity(&named)).unwrap();

    assert_eq!(
        verify_as(&[&own_v1], &identity(&own_v1), Role::Server, 2041),
        Err(CertificateError::Expired)
    );
    let client_only = Authority::root_with("db", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(
        verify(&[&client_only], &identity(&client_only)),
        Err(CertificateError::InvalidPurpose)
    );
    verify_as(&[&client_only], &identity(&client_only), Role::Client, 2030).unwrap();
}

#[test]
fn a_ca_that_is_no_root_cannot_be_a_peer() {
    let root = Authority::root("root");
    let middle = root.intermediate("middle", |_| {});
    let peer = Identity {
        chain: vec![middle.der.clone()],
        ..root.leaf("x", &[])
    };
    let error = verify(&[&root], &peer).unwrap_err();
    assert!(error.to_string().contains("CaUsedAsEndEntity"), "{error}");
}
/// Whatever bit of a certificate is turned over, it is not the one that was signed any more;
/// and reading it never panics.
#[test]
fn no_bit_of_a_v1_certificate_can_be_changed() {
    let root = Authority::root("root");
    let leaf = root.leaf_v1("db");
    let roots = Roots::from_pem(&root.pem()).unwrap();
    let algorithms = provider().signature_verification_algorithms;
    let now = year(2030);
    let good = leaf.leaf().to_vec();
    roots
        .verify(leaf.leaf(), &[], Role::Server, now, &algorithms)
        .unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let bad = CertificateDer::from(bad);
        let verdict = roots.verify(&bad, &[], Role::Server, now, &algorithms);
        assert!(verdict.is_err(), "bit {bit}");
    }
}
