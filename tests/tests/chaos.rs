//! The promise: nothing is lost and nothing happens twice, whatever goes wrong around a client. A commit that was
//! acknowledged is there exactly once, what was refused as not run is not there, no answer is another's, and the limit
//! holds all the while.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Message, Pooler, RawClient, Signal, Tenant, Watch, console,
    eventually, send_signal, start, story,
};

const SERVERS: u32 = 4;
const CLIENTS: u32 = 24;

/// How long things go wrong.
const STORM: Duration = Duration::from_secs(9);

/// What clients know of what they have written.
#[derive(Default)]
struct Ledger {
    /// PostgreSQL said COMMIT or INSERT, and then that it was ready.
    acknowledged: Mutex<HashSet<String>>,
    /// The pooler said that nothing of it was run.
    not_run: Mutex<HashSet<String>>,
    asked: AtomicU32,
}

#[test]
fn what_was_acknowledged_is_there_once_whatever_goes_wrong() {
    // One of its own, because it crashes; it ends with the program, as the shared one does.
    let Some(postgres) = Cluster::start_or_skip(ClusterOptions::default()) else {
        return;
    };
    let tenant = Tenant::of(Box::leak(Box::new(postgres)));
    tenant
        .direct()
        .rows("create table ledger (entry text not null)");
    let ini = tenant
        .ini()
        .set("default_pool_size", SERVERS)
        .set("error_codes", "postgres");
    let mut pooler = start(
        ini.set("query_wait_timeout", "0.5")
            .set("max_pool_waiting", 12),
    );
    let watch = Watch::through_restarts(tenant.postgres.port(), &tenant.name);
    let (ledger, over) = (Ledger::default(), AtomicBool::new(false));

    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (tenant, port, ledger, over) = (&tenant, pooler.port, &ledger, &over);
            scope.spawn(move || {
                let mut life = Life {
                    tenant,
                    port,
                    ledger,
                    number,
                    turn: 0,
                };
                while !over.load(Ordering::Relaxed) {
                    life.connection();
                }
            });
        }
        // The clients end, even if the one who makes trouble has found something wrong.
        let _end = EndsWhenDropped(&over);
        trouble(&tenant, &mut pooler);
    });

    let seen = watch.end();
    assert!(seen.most <= SERVERS, "{seen:?}");
    assert!(seen.count > 50, "{seen:?}");

    let rows = tenant.direct().rows("select entry from ledger");
    let there: HashSet<&String> = rows.iter().collect();
    assert_eq!(there.len(), rows.len(), "something was written twice");
    let acknowledged = ledger.acknowledged.lock().expect("no client has panicked");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|entry| !there.contains(entry))
        .collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let not_run = ledger.not_run.lock().expect("no client has panicked");
    let run: Vec<_> = not_run
        .iter()
        .filter(|entry| there.contains(entry))
        .collect();
    assert!(run.is_empty(), "refused as not run, and there: {run:?}");
    assert!(
        acknowledged.len() > 50,
        "{} of {:?}",
        acknowledged.len(),
        ledger.asked
    );

    // Calm: everybody is served again, the books balance.
    let mut client = tenant.client(&pooler);
    eventually(
        Duration::from_secs(5),
        || client.query("select 1"),
        |answer| answer == "T D(1) C(SELECT 1) Z(I)",
    );
    let log = pooler.log();
    assert!(!log.contains("the books do not balance"), "{log}");
    assert!(!log.contains("a bug ended"), "{log}");
}

struct EndsWhenDropped<'a>(&'a AtomicBool);

impl Drop for EndsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One client after another, each in the same place.
struct Life<'a> {
    tenant: &'a Tenant,
    port: u16,
    ledger: &'a Ledger,
    number: u32,
    turn: u32,
}

impl Life<'_> {
    /// One connection: some requests, until one goes wrong or the client has had enough.
    fn connection(&mut self) {
        let name = &self.tenant.name;
        let wish = [("user", name.as_str()), ("database", name.as_str())];
        let Ok(mut client) = RawClient::try_login(self.port, &wish) else {
            // A login may be refused or killed; that is not what is tested here.
            thread::sleep(Duration::from_millis(20));
            return;
        };
        for _ in 0..8 {
            self.turn += 1;
            let token = format!("{}-{}", self.number, self.turn);
            self.ledger.asked.fetch_add(1, Ordering::Relaxed);
            let goes_on = match self.turn % 6 {
                0 => self.vanish(&mut client, &token),
                1 => self.write(&mut client, &token, Form::Simple),
                2 => self.write(&mut client, &token, Form::Extended),
                3 => self.write(&mut client, &token, Form::Transaction),
                4 => self.read(&mut client, &token),
                _ => self.cancel(&mut client, &token),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Leaves in the middle; whether it was written nobody knows.
    fn vanish(&self, client: &mut RawClient, token: &str) -> bool {
        let sleep = format!("begin; insert into ledger values ('{token}'); select pg_sleep(3)");
        client.send(&Batch::new().query(&sleep));
        thread::sleep(Duration::from_millis(u64::from(self.number % 4) * 5));
        false
    }

    fn write(&self, client: &mut RawClient, token: &str, form: Form) -> bool {
        let insert = format!("insert into ledger values ('{token}')");
        let (batch, done) = match form {
            Form::Simple => (Batch::new().query(&insert), "C(INSERT 0 1) Z(I)"),
            Form::Extended => (Batch::new().run(&insert).sync(), "1 2 C(INSERT 0 1) Z(I)"),
            Form::Transaction => {
                let begin = client.query("begin");
                if begin != "C(BEGIN) Z(T)" {
                    return begin.ends_with("Z(I)");
                }
                if client.query(&insert) != "C(INSERT 0 1) Z(T)" {
                    return false;
                }
                (Batch::new().query("commit"), "C(COMMIT) Z(I)")
            }
        };
        client.send(&batch);
        let answer = client.until_ready();
        let told = without_notices(&answer);
        if told == done {
            self.note(&self.ledger.acknowledged, token);
        } else if answer.iter().any(says_not_run) {
            self.note(&self.ledger.not_run, token);
        }
        told.ends_with("Z(I)")
    }

    fn note(&self, known: &Mutex<HashSet<String>>, token: &str) {
        known
            .lock()
            .expect("no client has panicked")
            .insert(token.to_owned());
    }

    /// An answer is the client's own, or an error.
    fn read(&self, client: &mut RawClient, token: &str) -> bool {
        client.send(&Batch::new().query(&format!("select '{token}'")));
        is_own(client, &format!("T D({token}) C(SELECT 1) Z(I)"))
    }

    /// A canceled query ends with one answer.
    fn cancel(&self, client: &mut RawClient, token: &str) -> bool {
        client.send(&Batch::new().query(&format!("select '{token}', pg_sleep(0.2)")));
        thread::sleep(Duration::from_millis(10));
        client.cancel();
        is_own(client, &format!("T D({token},) C(SELECT 1) Z(I)"))
    }
}

/// Whether the client goes on. What it is told is its own answer or an error; that PostgreSQL crashes may be told
/// before it, by the server that it has had before.
fn is_own(client: &mut RawClient, own: &str) -> bool {
    let told = without_notices(&client.until_ready());
    assert!(
        told == own || told.contains("E(") || told.is_empty(),
        "{told}, where {own} was due"
    );
    told.ends_with("Z(I)")
}

#[derive(Clone, Copy)]
enum Form {
    Simple,
    Extended,
    Transaction,
}

fn says_not_run(message: &Message) -> bool {
    message.tag == b'E'
        && message
            .explanation()
            .0
            .contains("Nothing of the request has been run.")
}

fn without_notices(messages: &[Message]) -> String {
    let kept: Vec<_> = messages
        .iter()
        .filter(|message| message.tag != b'N')
        .cloned()
        .collect();
    story(&kept)
}

/// Everything that an operator or a bad day can do, in turn.
fn trouble(tenant: &Tenant, pooler: &mut Pooler) {
    let mut root = tenant.root();
    let mut operator = console(pooler);
    let end = Instant::now() + STORM;
    let mut turn = 0;
    // On a slow machine, too, everything goes wrong at least once.
    while Instant::now() < end || turn < 24 {
        turn += 1;
        thread::sleep(Duration::from_millis(70));
        match turn % 24 {
            11 => {
                pooler.reboot().expect("taken over");
                operator = console(pooler);
                continue;
            }
            23 => {
                root = crash(tenant, &mut root);
                continue;
            }
            _ => {}
        }
        match turn % 7 {
            0 => {
                operator.query("reconnect");
            }
            1 => {
                root.query(&format!(
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}' limit 2",
                    tenant.name
                ));
            }
            2 => {
                operator.query("reload");
            }
            3 => {
                assert_eq!(operator.query("pause"), "C(PAUSE) Z(I)");
                assert_eq!(operator.query("resume"), "C(RESUME) Z(I)");
            }
            4 => {
                let clients = operator.table("show clients");
                let victim = clients
                    .iter()
                    .find(|client| client.get("user") == Some(&tenant.name));
                if let Some(id) = victim.and_then(|client| client.get("id")) {
                    operator.query(&format!("kill_client {id}"));
                }
            }
            5 => {
                root.query(&format!(
                    "select pg_cancel_backend(pid) from pg_stat_activity where usename = '{}' limit 2",
                    tenant.name
                ));
            }
            _ => {
                let size = 1 + turn % SERVERS;
                assert!(
                    operator
                        .query(&format!("set default_pool_size = {size}"))
                        .ends_with("Z(I)")
                );
                thread::sleep(Duration::from_millis(50));
                operator.query(&format!("set default_pool_size = {SERVERS}"));
            }
        }
    }
}

/// Kills a process of PostgreSQL, which then ends all the others and recovers. The superuser of afterwards.
fn crash(tenant: &Tenant, root: &mut RawClient) -> RawClient {
    let pid = root.value("select pg_backend_pid()");
    send_signal(&pid, Signal::KILL);
    let login = [("user", "postgres"), ("database", &tenant.name)];
    let again = || RawClient::try_login(tenant.postgres.port(), &login);
    // Whoever comes before it has noticed is sent away again.
    thread::sleep(Duration::from_millis(100));
    let up = eventually(Duration::from_secs(10), again, Result::is_ok);
    up.expect("it is up")
}
