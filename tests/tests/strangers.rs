//! The promise: whoever has not proven yet who he is may be told which limit keeps him out, but not who else is there.

use pgweir_tests::{Batch, Message, Pooler, RawClient, Tenant, console, eventually, start};

fn told(pooler: &Pooler, database: &str, user: &str, application: &str) -> Message {
    let mut client = RawClient::connect(pooler.port);
    let application = ("application_name", application);
    client.start_login(&[("database", database), ("user", user), application]);
    loop {
        let message = client.read().expect("an error comes");
        if message.tag == b'E' {
            return message;
        }
    }
}

#[test]
fn who_is_one_too_many_learns_who_has_most_after_the_proof_only() {
    for (key, proven) in [
        ("max_client_conn", false),
        ("max_address_client_connections", false),
        ("max_app_client_connections", true),
        ("max_db_client_connections", true),
        ("max_user_client_connections", true),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let ini = tenant.ini().set("error_codes", "postgres");
        let pooler = start(ini.set(key, 2));
        let _clients = [(); 2].map(|()| tenant.client_named(&pooler, "crowd"));
        let refusal = told(&pooler, &tenant.name, &tenant.name, "crowd");
        let (detail, hint) = refusal.explanation();
        assert!(refusal.to_string().contains(key), "{refusal}");
        assert!(detail.contains(" is 2, "), "{key}: {detail}");
        assert!(hint.contains(key), "{key}: {hint}");
        let holder = detail.contains("application crowd at 127.0.0.1 has 2 of them");
        assert_eq!(holder, proven, "{key}: {detail}");
        assert_eq!(detail.contains("crowd at"), proven, "{key}: {detail}");
    }
}

#[test]
fn who_cannot_be_looked_up_is_not_told_who_is_in_the_way() {
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.as_str();
    let pooler = start(
        tenant
            .ini()
            .file("userlist.txt", "\"postgres\" \"\"\n")
            .set("error_codes", "postgres")
            .set("auth_user", "postgres")
            .set("default_pool_size", 1)
            .set("max_pool_waiting", 1),
    );
    // Those of the user who looks others up.
    let greedy = || {
        let application = ("application_name", "greedy");
        let parameters = [("database", name), ("user", "postgres"), application];
        RawClient::login_with(pooler.port, &parameters)
    };
    let (mut holder, mut waiter) = (greedy(), greedy());
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    waiter.send(&Batch::new().query("select 1"));
    eventually(
        std::time::Duration::from_secs(5),
        || {
            let pools = console(&pooler).table("show pools");
            pools
                .find("database", name)
                .map(|pool| pool.number("cl_waiting"))
        },
        |waiting| *waiting == Some(1),
    );
    let refusal = told(&pooler, name, "stranger", "");
    let (detail, _) = refusal.explanation();
    let full =
        "The queue of the pool is full (max_pool_waiting). Nothing of the request has been run.";
    assert_eq!(detail, full, "{refusal}");

    // Who is in, is told.
    let mut client = greedy();
    client.send(&Batch::new().query("select 1"));
    let refusal = client.read().expect("an error comes");
    let (detail, _) = refusal.explanation();
    assert!(
        detail.contains("application greedy at 127.0.0.1"),
        "{detail}"
    );
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
}
