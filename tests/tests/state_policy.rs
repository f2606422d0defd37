//! The promise of `state_policy`: for each kind of session state an operator says what becomes of it outside of session
//! pooling, for all, for a database or for a user, and nothing else changes.

use std::time::Duration;

use pgweir_tests::{
    Batch, Http, Ini, Message, Pooler, RawClient, Tenant, console, eventually, start, story,
};

const SOON: Duration = Duration::from_secs(10);

/// A kind, one transaction that leaves it, and a query that finds it, with what a fresh session says.
struct Kind {
    name: &'static str,
    /// As messages name it.
    shown: &'static str,
    leave: &'static str,
    look: &'static str,
    fresh: &'static str,
    left: &'static str,
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "settings",
        shown: "parameters",
        leave: "set work_mem = '1MB'",
        look: "show work_mem",
        fresh: "4MB",
        left: "1MB",
    },
    Kind {
        name: "role",
        shown: "role",
        leave: "set role helper",
        look: "select current_user = session_user",
        fresh: "t",
        left: "f",
    },
    Kind {
        name: "locks",
        shown: "advisory lock",
        leave: "select pg_advisory_lock(7)",
        look: "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
        fresh: "0",
        left: "1",
    },
    Kind {
        name: "temporary",
        shown: "temporary object",
        leave: "create temp table mine (x int)",
        look: "select count(*) from pg_class where relnamespace = pg_my_temp_schema()",
        fresh: "0",
        left: "1",
    },
    Kind {
        name: "listen",
        shown: "listen",
        leave: "listen news",
        look: "select count(*) from pg_listening_channels()",
        fresh: "0",
        left: "1",
    },
    Kind {
        name: "prepare",
        shown: "prepared statement",
        leave: "prepare p as select 1",
        look: "select count(*) from pg_prepared_statements where from_sql",
        fresh: "0",
        left: "1",
    },
    Kind {
        name: "cursors",
        shown: "cursor with hold",
        leave: "declare c cursor with hold for select 1",
        look: "select count(*) from pg_cursors where is_holdable",
        fresh: "0",
        left: "1",
    },
];

/// How a client asks.
#[derive(Clone, Copy, Debug)]
enum Way {
    Simple,
    Extended,
}

const WAYS: [Way; 2] = [Way::Simple, Way::Extended];

struct Scene {
    tenant: Tenant,
    pooler: Pooler,
}

impl Scene {
    fn new(servers: u32, change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        let helper = format!("helper_{}", tenant.name);
        let mut root = tenant.root();
        root.rows(&format!("create role {helper}"));
        root.rows(&format!("grant {helper} to {}", tenant.name));
        let ini = tenant.ini().set("default_pool_size", servers);
        let pooler = start(change(ini));
        Some(Self { tenant, pooler })
    }

    fn all(policy: &str, servers: u32) -> Option<Self> {
        let policies = KINDS.map(|kind| format!("{}:{policy}", kind.name));
        Self::new(servers, |ini| {
            Http::set(ini.set("state_policy", policies.join(", ")))
        })
    }

    fn client(&self) -> RawClient {
        self.tenant.client(&self.pooler)
    }

    /// Leaves it in a transaction; what is said, with all that is not part of an answer.
    fn leave(&self, client: &mut RawClient, kind: &Kind, way: Way) -> Vec<Message> {
        let leave = kind
            .leave
            .replace("helper", &format!("helper_{}", self.tenant.name));
        match way {
            Way::Simple => client.send(&Batch::new().query(&format!("begin; {leave}; commit"))),
            Way::Extended => {
                let batch = Batch::new().run("begin").run(&leave).run("commit");
                client.send(&batch.sync());
            }
        }
        let mut said = client.until_ready();
        // A warning comes behind the answer, before the next one.
        client.send(&Batch::new().query("select 1"));
        said.extend(client.until_ready());
        said
    }

    fn pinned(&self) -> usize {
        console(&self.pooler).rows("show pins").len()
    }
}

fn warnings(said: &[Message]) -> String {
    let notices = said.iter().filter(|message| message.tag == b'N');
    notices
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn what_is_kept_is_its_clients_and_no_others() {
    let Some(scene) = Scene::new(2, |ini| {
        ini.set(
            "state_policy",
            "settings:restore, role:restore, locks:pin, temporary:pin",
        )
    }) else {
        return;
    };
    for (kind, way) in KINDS.iter().flat_map(|kind| WAYS.map(|way| (kind, way))) {
        let (mut first, mut second) = (scene.client(), scene.client());
        let said = scene.leave(&mut first, kind, way);
        assert_eq!(warnings(&said), "", "{}, {way:?}", kind.name);
        assert_eq!(first.value(kind.look), kind.left, "{}, {way:?}", kind.name);
        assert_eq!(second.value(kind.look), kind.fresh, "{}", kind.name);
    }
}

#[test]
fn what_is_warned_of_is_kept_and_said_once() {
    let Some(scene) = Scene::all("warn", 2) else {
        return;
    };
    for (kind, way) in KINDS.iter().flat_map(|kind| WAYS.map(|way| (kind, way))) {
        let (mut first, mut second) = (scene.client(), scene.client());
        let said = warnings(&scene.leave(&mut first, kind, way));
        let expected = format!(
            "01000 session state was left by the transaction: {}",
            kind.shown
        );
        assert!(said.contains(&expected), "{}, {way:?}: {said}", kind.name);
        assert_eq!(said.matches("01000").count(), 1, "{said}");
        assert_eq!(first.value(kind.look), kind.left, "{}, {way:?}", kind.name);
        assert_eq!(second.value(kind.look), kind.fresh, "{}", kind.name);
        first.send(&Batch::new().query("select 2"));
        assert_eq!(warnings(&first.until_ready()), "", "{}", kind.name);
    }
    let log = scene.pooler.log();
    assert_eq!(log.matches("session state is left: listen").count(), 2);
    let metrics = Http::of(&scene.pooler).metrics();
    assert_eq!(metrics.sum("pgweir_state_warnings_total", &[]), 14.0);
}

#[test]
fn what_is_reset_ends_with_its_transaction() {
    let Some(scene) = Scene::all("reset", 2) else {
        return;
    };
    for (kind, way) in KINDS.iter().flat_map(|kind| WAYS.map(|way| (kind, way))) {
        let (mut first, mut second) = (scene.client(), scene.client());
        let said = warnings(&scene.leave(&mut first, kind, way));
        let expected = format!("session state ends with the transaction: {}", kind.shown);
        assert!(said.contains(&expected), "{}, {way:?}: {said}", kind.name);
        for client in [&mut first, &mut second] {
            assert_eq!(
                client.value(kind.look),
                kind.fresh,
                "{}, {way:?}",
                kind.name
            );
        }
        eventually(SOON, || scene.pinned(), |pinned| *pinned == 0);
    }
}

#[test]
fn a_part_is_reset_and_the_rest_stays() {
    let Some(scene) = Scene::new(2, |ini| {
        ini.set("state_policy", "temporary:reset, settings:reset")
    }) else {
        return;
    };
    let mut client = scene.client();
    client.send(&Batch::new().parse("kept", "select 7").sync());
    client.until_ready();
    client.rows(
        "begin; select pg_advisory_lock(7); create temp table mine (x int); \
         set work_mem = '1MB'; commit",
    );
    let [settings, _, locks, temporary, ..] = &KINDS;
    assert_eq!(client.value(temporary.look), temporary.fresh);
    assert_eq!(client.value(settings.look), settings.fresh);
    assert_eq!(client.value(locks.look), locks.left);
    assert_eq!(scene.pinned(), 1);
    // What the pooler takes back costs the client nothing of its own.
    let kept = client.ask(&Batch::new().bind("", "kept", &[]).execute("").sync());
    assert_eq!(kept, "2 D(7) C(SELECT 1) Z(I)");
    client.rows("select pg_advisory_unlock(7)");
    // The look comes behind the answer.
    eventually(SOON, || scene.pinned(), |pinned| *pinned == 0);
}

#[test]
fn what_is_refused_is_an_error_and_what_hides_it_is_taken_back() {
    let Some(scene) = Scene::all("refuse", 2) else {
        return;
    };
    scene.tenant.direct().rows(
        "create function sets() returns text language sql as \
         $$ select set_config('work_mem', '1MB', false) $$",
    );
    for (kind, way) in KINDS.iter().flat_map(|kind| WAYS.map(|way| (kind, way))) {
        let mut client = scene.client();
        let said = story(&scene.leave(&mut client, kind, way));
        let expected = format!("E(0A000 {}: refused in this pooling mode)", kind.shown);
        assert!(said.contains(&expected), "{}, {way:?}: {said}", kind.name);
        client.rows("rollback");
        assert_eq!(
            client.value(kind.look),
            kind.fresh,
            "{}, {way:?}",
            kind.name
        );
    }
    let mut client = scene.client();
    // Whoever begins anew leaves nothing.
    for sql in [
        "reset all",
        "discard all",
        "set timezone = 'UTC'",
        "set role none",
    ] {
        assert!(!client.query(sql).contains("E("), "{sql}");
    }
    client.rows("select sets()");
    assert_eq!(client.value("show work_mem"), "4MB");
}

#[test]
fn what_is_allowed_is_not_looked_for_and_reaches_others() {
    for kind in &KINDS {
        let Some(scene) = Scene::new(1, |ini| {
            ini.set("state_policy", format!("{}:allow", kind.name))
        }) else {
            return;
        };
        let (mut first, mut second) = (scene.client(), scene.client());
        let said = scene.leave(&mut first, kind, Way::Simple);
        assert_eq!(warnings(&said), "", "{}", kind.name);
        assert_eq!(scene.pinned(), 0, "{}", kind.name);
        assert_eq!(second.value(kind.look), kind.left, "{}", kind.name);
        // The other kinds are kept apart as ever.
        for other in KINDS.iter().filter(|other| other.name != kind.name) {
            scene.leave(&mut first, other, Way::Extended);
            assert_eq!(second.value(other.look), other.fresh, "{}", other.name);
        }
    }
}

#[test]
fn a_database_and_a_user_may_have_policies_of_their_own() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let postgres = format!(
        "host=127.0.0.1 port={} dbname={name}",
        tenant.postgres.port()
    );
    let ini = tenant
        .ini()
        .set("state_policy", "listen:refuse")
        .database("strict", &format!("{postgres} state_policy='locks:refuse'"))
        .database("plain", &postgres)
        .user("postgres", "state_policy='listen:warn'");
    let pooler = start(ini);
    let refused = |database: &str, user: &str, sql: &str| {
        let said = RawClient::login(pooler.port, database, user).query(sql);
        said.contains("refused in this pooling mode")
    };
    let lock = "select pg_advisory_lock(7)";
    assert!(refused("plain", name, "listen a"));
    assert!(!refused("plain", name, lock));
    assert!(refused("strict", name, lock));
    assert!(!refused("strict", name, "listen a"), "it goes before");
    assert!(!refused("plain", "postgres", "listen a"));
    assert!(!refused("strict", "postgres", lock));
}

#[test]
fn a_policy_changes_with_a_reload() {
    let Some(scene) = Scene::new(2, |ini| ini) else {
        return;
    };
    let mut client = scene.client();
    assert_eq!(client.query("listen a"), "C(LISTEN) Z(I)");
    assert_eq!(client.query("unlisten a"), "C(UNLISTEN) Z(I)");
    let ini = scene.tenant.ini().set("state_policy", "listen:refuse");
    scene.pooler.reload(ini).expect("it is read");
    assert!(client.query("listen a").contains("E(0A000 listen: refused"));
}
