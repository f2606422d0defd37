//! The promise: the books and PostgreSQL's own are compared, and whoever asks is told what does not agree, who else is
//! there and how much is left.

use std::time::Duration;

use pgweir_harness::Table;
use pgweir_tests::{Batch, Pooler, RawClient, Strait, Tenant, console, eventually, start};

const PATIENCE: Duration = Duration::from_secs(10);

fn backends(pooler: &Pooler) -> Table {
    console(pooler).table("show backends")
}

/// The pooler behind a strait to PostgreSQL.
fn behind(strait: &Strait, tenant: &Tenant) -> Pooler {
    let target = format!("host=127.0.0.1 port={}", strait.port);
    let ini = tenant
        .ini()
        .database(&tenant.name, &target)
        .set("server_close_timeout", 1)
        .set("reconcile_period", 1);
    start(ini)
}

/// A client with an open transaction, and the backend that it holds.
fn holder(tenant: &Tenant, pooler: &Pooler) -> (RawClient, String) {
    let mut client = tenant.client(pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let pid = client.value("select pg_backend_pid()");
    (client, pid)
}

#[test]
fn ours_others_and_what_is_left_are_told() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(3);
    let (_held, _) = holder(&tenant, &pooler);
    let name = tenant.name.as_str();
    let direct = |app: &str| {
        let parameters = [
            ("user", name),
            ("database", name),
            ("application_name", app),
        ];
        RawClient::login_with(tenant.postgres.port(), &parameters)
    };
    let _others = [direct("report"), direct("report")];
    let seen = backends(&pooler);
    let own = seen.find("kind", "own").expect("there is a server");
    // One is the client's, and one may be the pooler's own, for the question.
    assert_eq!(own.get("user"), Some(name));
    assert!((1..=2).contains(&own.number("backends")), "{seen}");
    // They come from where the pooler is, as its user: they may be another pooler's.
    let report = seen.find("application_name", "report");
    let report = report.expect("PostgreSQL has them");
    assert_eq!(report.get("kind"), Some("unclaimed"), "{seen}");
    let headroom = seen
        .find("kind", "headroom")
        .expect("PostgreSQL has answered");
    assert!(headroom.number("backends") > 0, "{seen}");
    // What is hidden is not passed over.
    let hidden = seen.find("kind", "hidden").expect("an ordinary user asks");
    let detail = hidden.get("detail").unwrap_or_default();
    assert!(
        detail.contains(&format!("GRANT pg_monitor TO {name}")),
        "{detail}"
    );
    tenant
        .root()
        .rows(&format!("grant pg_monitor to \"{name}\""));
    let seen = backends(&pooler);
    assert!(seen.find("kind", "hidden").is_none(), "{seen}");
    assert!(
        seen.find("kind", "ghost").is_none() && seen.find("kind", "orphan").is_none(),
        "{seen}"
    );
}

#[test]
fn a_server_that_postgres_does_not_have_is_a_ghost() {
    let Some(tenant) = Tenant::new() else { return };
    let strait = Strait::to(tenant.postgres.port());
    let pooler = behind(&strait, &tenant);
    let (_client, pid) = holder(&tenant, &pooler);
    strait.cut_off();
    tenant
        .root()
        .rows(&format!("select pg_terminate_backend({pid})"));
    let seen = eventually(
        PATIENCE,
        || backends(&pooler),
        |seen| seen.find("kind", "ghost").is_some(),
    );
    let ghost = seen.find("kind", "ghost").expect("it was found");
    assert_eq!(ghost.get("pid"), Some(pid.as_str()), "{seen}");
    assert_eq!(ghost.get("user"), Some(tenant.name.as_str()));
    let said = format!("has no backend {pid}");
    eventually(PATIENCE, || pooler.log(), |log| log.contains(&said));
}

#[test]
fn a_backend_that_is_counted_no_more_is_an_orphan() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.direct().rows("create table stock (id int)");
    let strait = Strait::to(tenant.postgres.port());
    let pooler = behind(&strait, &tenant);
    let (mut client, pid) = holder(&tenant, &pooler);
    client.query("lock table stock in access exclusive mode");
    strait.cut_off();
    // Its end does not arrive, so it stays in the books until somebody takes it out.
    drop(client);
    let mut admin = console(&pooler);
    let quarantine = eventually(
        PATIENCE,
        || admin.table("show quarantine"),
        |table| !table.rows.is_empty(),
    );
    assert!(backends(&pooler).find("kind", "orphan").is_none());
    let lost = quarantine.find("user", &tenant.name);
    let id = lost.expect("it was found").number("id");
    admin.rows(&format!("release {id}"));

    let mut other = tenant.client(&pooler);
    assert_eq!(other.value("select 1"), "1");
    let seen = backends(&pooler);
    let orphan = seen.find("kind", "orphan").expect("it is still there");
    assert_eq!(orphan.get("pid"), Some(pid.as_str()), "{seen}");
    assert_eq!(orphan.get("state"), Some("idle in transaction"));
    let said = format!("still has backend {pid}");
    eventually(PATIENCE, || pooler.log(), |log| log.contains(&said));

    // Whoever waits for it is told what it is.
    other.send(&Batch::new().query("select * from stock"));
    let why = eventually(
        PATIENCE,
        || admin.table(&format!("why {}", tenant.name)),
        |why| why.find("kind", "lock").is_some(),
    );
    let text = why
        .find("kind", "lock")
        .expect("as above")
        .get("text")
        .unwrap_or_default();
    assert!(text.contains("although it was a server of it"), "{text}");
    tenant
        .root()
        .rows(&format!("select pg_terminate_backend({pid})"));
    other.until_ready();
    eventually(
        PATIENCE,
        || backends(&pooler),
        |seen| seen.find("kind", "orphan").is_none(),
    );
}

#[test]
fn where_a_limit_leaves_no_room_for_the_question_the_reason_is_told() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("max_db_connections", 1));
    let (_client, _) = holder(&tenant, &pooler);
    let seen = backends(&pooler);
    let unknown = seen.find("kind", "unknown").expect("nobody could be asked");
    let detail = unknown.get("detail").unwrap_or_default();
    assert!(
        detail.contains("max_db_connections") && detail.contains("1 in use"),
        "{detail}"
    );
}
