//! The promise: a user for whom several HBA rules count is served whichever way it comes. A login that shows no more than
//! what PostgreSQL stores takes nothing away from what another one has shown.

use pgweir_tests::{Endpoint, Ini, Tenant, start};

/// Rules for one user: this method over TCP, that one over the Unix socket. Secrets are looked up.
fn ini(tenant: &Tenant, tcp: &str, unix: &str) -> Ini {
    let rules = format!("host all all 127.0.0.1/32 {tcp}\nlocal all all {unix}\n");
    tenant
        .ini()
        .file("userlist.txt", "\"postgres\" \"\"\n")
        .file("hba.conf", &rules)
        .set("auth_type", "hba")
        .set("auth_hba_file", "{dir}/hba.conf")
        .set("auth_user", "postgres")
}

fn login(endpoint: &Endpoint, name: &str, password: &str) -> Result<String, String> {
    let conninfo = format!("dbname={name} password='{password}'");
    let answer = endpoint.psql(&conninfo, name, "select 1");
    answer.map_err(|error| error.to_string())
}

#[test]
fn what_one_login_has_shown_is_not_lost_by_another_that_shows_less() {
    for (stored, wants, tcp, unix) in [
        ("scram-sha-256", "scram", "scram-sha-256", "trust"),
        ("scram-sha-256", "password", "password", "trust"),
        ("scram-sha-256", "password", "password", "scram-sha-256"),
        ("md5", "password", "password", "md5"),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let name = &tenant.name;
        tenant.set_password(stored, "first");
        let grant = format!("grant wants_{wants} to {name}");
        tenant.root().rows(&grant);
        let pooler = start(ini(&tenant, tcp, unix));
        let case = format!("{tcp} and {unix} at a server that wants {wants}");
        for password in ["first", "second"] {
            tenant.set_password(stored, password);
            let shown = login(&pooler.endpoint(), name, password);
            assert_eq!(shown.as_deref(), Ok("1"), "{case}, {password}");
            pooler.console("RECONNECT");
            let less = login(&pooler.unix_endpoint(), name, password);
            assert_eq!(less.as_deref(), Ok("1"), "{case}, {password}");
            pooler.console("RECONNECT");
            let again = login(&pooler.unix_endpoint(), name, password);
            assert_eq!(again.as_deref(), Ok("1"), "{case}, {password}, again");
        }
    }
}

#[test]
fn a_changed_password_counts_whichever_login_shows_it() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let old = tenant.set_password("scram-sha-256", "old");
    let pooler = start(ini(&tenant, "scram-sha-256", "trust"));
    let shown = login(&pooler.endpoint(), name, "old");
    assert_eq!(shown.as_deref(), Ok("1"));
    let new = tenant.set_password("scram-sha-256", "new");
    assert_ne!(old, new);
    // It shows what is stored now, whose keys nobody has shown.
    let less = login(&pooler.unix_endpoint(), name, "");
    assert_eq!(less.as_deref(), Ok("1"));
    tenant.root().rows(&format!("grant wants_scram to {name}"));
    pooler.console("RECONNECT");
    let shown = login(&pooler.endpoint(), name, "new");
    assert_eq!(shown.as_deref(), Ok("1"), "{}", pooler.log());
    pooler.console("RECONNECT");
    let less = login(&pooler.unix_endpoint(), name, "");
    assert_eq!(less.as_deref(), Ok("1"), "{}", pooler.log());
}
