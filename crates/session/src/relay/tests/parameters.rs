//! Parameters follow their client.

use super::*;

#[test]
fn a_parameter_is_remembered_on_both_sides() {
    let mut story = Story::new();
    story.client(&[query("set timezone to utc")]);
    let answer = [
        frame(b'S', b"TimeZone\0UTC\0"),
        complete("SET"),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answer), answer.concat());
    assert!(story.client.values.same(story.relay.values()));
}

#[test]
fn fitting_is_invisible_and_adopts_the_servers_spelling() {
    let mut story = Story::new();
    let datestyle = story.tracked.index("DateStyle").unwrap();
    story.client.values.set(datestyle, "ISO");
    let mut out = BytesMut::new();
    assert!(story.relay.fit(&mut story.client, &story.tracked, &mut out));
    assert_eq!(&out[..], query("SET DateStyle='ISO';"));
    assert!(story.relay.is_asking());
    let answer = [
        frame(b'S', b"DateStyle\0ISO, MDY\0"),
        complete("SET"),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answer), b"");
    assert!(story.relay.may_release());
    assert!(
        !story
            .relay
            .fit(&mut story.client, &story.tracked, &mut BytesMut::new())
    );
}

#[test]
fn checking_a_server_leaves_the_clients_parameters_alone() {
    let mut story = Story::new();
    let timezone = story.tracked.index("TimeZone").unwrap();
    story.client.values.set(timezone, "Asia/Tokyo");
    let mut values = Values::default();
    values.set(timezone, "GMT");
    story.relay = Relay::new(values);
    story.relay.ask("select 1", &mut BytesMut::new());
    story.server(&[complete("SELECT 1"), ready(b'I')]);
    let mut out = BytesMut::new();
    assert!(story.relay.fit(&mut story.client, &story.tracked, &mut out));
    assert_eq!(&out[..], query("SET TimeZone='Asia/Tokyo';"));
}

#[test]
fn a_refused_own_query_ends_both() {
    let mut story = Story::new();
    story.relay.ask("SET nonsense=1", &mut BytesMut::new());
    assert_eq!(
        story.try_server(&error()),
        Err(Violation::OwnQueryFailed("no".into()))
    );
}

#[test]
fn a_session_with_more_parameters_than_are_kept_is_not_known() {
    for (names, is_known) in [(10, true), (1_001, false)] {
        let mut story = Story::new();
        for n in 0..names {
            let scan = crate::residue::scan(format!("set a.x{n} = 1").as_bytes());
            story.relay.residue.note(&scan, Kinds::NONE, |_| false);
        }
        story.relay.facts = Some(Box::default());
        let (mut memory, now) = (Memory::default(), Instant::now());
        let settled = story
            .relay
            .settle(&mut story.client, &story.tracked, &mut memory, now);
        assert_eq!(settled != Settled::Unknown, is_known);
        assert!(is_known || story.relay.cleaning().is_none());
    }
}

#[test]
fn values_that_nobody_told_are_those_of_the_servers_login() {
    let mut story = Story::new();
    let name = story.tracked.index("application_name").unwrap();
    let mut values = Values::default();
    values.set(name, "");
    story.relay = Relay::new(values);
    // Somebody has left a name on the server.
    story.client.values.set(name, "other");
    let tracked = story.tracked.clone();
    let mut out = BytesMut::new();
    assert!(story.relay.fit(&mut story.client, &tracked, &mut out));
    let report = frame(b'S', b"application_name\0other\0");
    story.server(&[report, complete("SET"), ready(b'I')]);

    out.clear();
    story.client = ClientSide::default();
    assert!(story.relay.fit(&mut story.client, &tracked, &mut out));
    let sql = String::from_utf8_lossy(&out[5..]).into_owned();
    assert!(sql.contains("SET application_name='';"), "{sql}");
}
