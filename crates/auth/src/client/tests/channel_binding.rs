use super::*;

fn play_bound(binding: ChannelBinding, client: impl FnMut(&Challenge) -> Vec<u8>) -> Transcript {
    let secret = scram_of(PASSWORD);
    let login = ClientLogin {
        channel_binding: binding,
        ..login(PasswordMethod::ScramSha256, Some(&secret))
    };
    play(
        ClientAuthentication::start(login, &policy(SecretKind::Plain)),
        client,
    )
}

fn available() -> ChannelBinding {
    ChannelBinding::Available(CERTIFICATE_HASH.to_vec())
}

/// A client that sends this first message with this mechanism.
fn client_first(mechanism: &str, message: &str) -> impl FnMut(&Challenge) -> Vec<u8> {
    let payload = initial_response(mechanism, message.as_bytes());
    move |_| payload.clone()
}

#[test]
fn binds_to_our_certificate() {
    let binding = sasl::ChannelBinding::tls_server_end_point(CERTIFICATE_HASH.to_vec());
    let transcript = play_bound(available(), postgres_client(PASSWORD, binding));
    assert!(transcript.end.is_ok(), "{:?}", transcript.end);
}

#[test]
fn refuses_the_certificate_of_somebody_in_between() {
    let binding = sasl::ChannelBinding::tls_server_end_point(b"another hash".to_vec());
    let transcript = play_bound(available(), postgres_client(PASSWORD, binding));
    assert_eq!(transcript.cause(), Some(&Cause::BindingData));
    assert_eq!(transcript.refusal(), Some(Refusal::Sasl));
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let unavailable = || ChannelBinding::Unavailable;
    for (binding, mechanism, message, cause) in [
        (
            available(),
            "SCRAM-SHA-256",
            "y,,n=,r=a",
            Cause::BindingDowngrade,
        ),
        (
            available(),
            "SCRAM-SHA-256",
            "p=tls-server-end-point,,n=,r=a",
            Cause::BindingContradiction,
        ),
        (
            unavailable(),
            "SCRAM-SHA-256",
            "p=tls-server-end-point,,n=,r=a",
            Cause::BindingContradiction,
        ),
        (
            available(),
            "SCRAM-SHA-256-PLUS",
            "n,,n=,r=a",
            Cause::BindingContradiction,
        ),
        (
            available(),
            "SCRAM-SHA-256-PLUS",
            "y,,n=,r=a",
            Cause::BindingContradiction,
        ),
        (
            available(),
            "SCRAM-SHA-256-PLUS",
            "p=tls-unique,,n=,r=a",
            Cause::BindingType,
        ),
    ] {
        let transcript = play_bound(binding, client_first(mechanism, message));
        assert_eq!(transcript.cause(), Some(&cause), "{mechanism} {message}");
        assert_eq!(transcript.refusal(), Some(Refusal::Sasl));
    }
}

#[test]
fn a_client_that_could_bind_may_say_so_where_it_is_not_offered() {
    let client = postgres_client(PASSWORD, sasl::ChannelBinding::unrequested());
    assert!(play_bound(ChannelBinding::Unavailable, client).end.is_ok());
}

#[test]
fn mechanisms_that_were_not_offered_are_refused_by_name() {
    let required = || ChannelBinding::Required(CERTIFICATE_HASH.to_vec());
    for (binding, mechanism) in [
        (ChannelBinding::Unavailable, "SCRAM-SHA-256-PLUS"),
        (required(), "SCRAM-SHA-256"),
        (available(), "SCRAM-SHA-1"),
    ] {
        let transcript = play_bound(binding, client_first(mechanism, "n,,n=,r=a"));
        assert_eq!(transcript.refusal(), Some(Refusal::InvalidMechanism));
        assert_eq!(
            transcript.cause(),
            Some(&Cause::Mechanism(mechanism.into()))
        );
    }
}

#[test]
fn the_header_cannot_be_changed_later() {
    // Says "n" first and signs "y".
    let mut client = unbound_client(PASSWORD);
    let transcript = play_bound(ChannelBinding::Unavailable, move |challenge| {
        let payload = client(challenge);
        match payload.strip_prefix(b"c=biws") {
            Some(rest) => [b"c=eSws", rest].concat(),
            None => payload,
        }
    });
    assert_eq!(transcript.cause(), Some(&Cause::BindingData));
}
