//! The promise: the status page shows, in a real browser, what is going on: who waits for which limit, who holds a server
//! in silence, which database is down.
//!
//! It needs Chromium (`CHROMIUM`, or `chromium` in the path). With `PGWEIR_SCREENSHOTS=DIR` it leaves pictures there, wide and as on
//! a phone.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pgweir_tests::{
    Batch, Ini, Pooler, RawClient, Tenant, console, eventually, finish_within, free_port, skip,
    start,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Widths and heights that people have.
const SIZES: [(&str, &str); 2] = [("wide", "1200,1800"), ("phone", "390,2600")];

/// The browser, or nothing after saying why the test is skipped.
fn chromium() -> Option<PathBuf> {
    let named = env::var_os("CHROMIUM").map(PathBuf::from);
    let paths = env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let known = env::split_paths(&paths).flat_map(|dir| names.map(|name| dir.join(name)));
    let found = named.into_iter().chain(known).find(|path| path.exists());
    if found.is_none() {
        skip("there is no Chromium: set CHROMIUM, or install the package chromium");
    }
    found
}

struct Browser {
    program: PathBuf,
    port: u16,
    home: tempfile::TempDir,
}

impl Browser {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
            ])
            // The page asks again and again: it is looked at when it has done so twice.
            .arg("--virtual-time-budget=3000")
            .arg(format!("--user-data-dir={}", self.home.path().display()))
            .env("HOME", self.home.path());
        command
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The page as it stands after its scripts have run.
    fn page(&self) -> String {
        let mut command = self.command();
        command.arg("--dump-dom").arg(self.address());
        finish_within(&mut command, PATIENCE).stdout
    }

    /// Pictures, if somebody wants to look at them.
    fn pictures(&self, name: &str) {
        let Some(dir) = env::var_os("PGWEIR_SCREENSHOTS") else {
            return;
        };
        for (size, pixels) in SIZES {
            let file = Path::new(&dir).join(format!("{name}-{size}.png"));
            let mut command = self.command();
            command
                .arg(format!("--screenshot={}", file.display()))
                .arg(format!("--window-size={pixels}"))
                .arg(self.address());
            let run = finish_within(&mut command, PATIENCE);
            assert!(fs::metadata(&file).is_ok(), "{run:?}");
        }
    }
}

/// A pooler and a browser that looks at it.
fn scene(ini: Ini) -> Option<(Pooler, Browser)> {
    let program = chromium()?;
    let port = free_port();
    let pooler = start(ini.set("metrics_listen", format!("127.0.0.1:{port}")));
    let home = tempfile::tempdir().expect("a directory");
    let browser = Browser {
        program,
        port,
        home,
    };
    Some((pooler, browser))
}

#[track_caller]
fn has(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "{part} is not in {page}");
    }
}

#[test]
fn an_idle_pooler_says_that_nothing_is_wrong() {
    let Some(tenant) = Tenant::new() else { return };
    let Some((pooler, browser)) = scene(tenant.ini()) else {
        return;
    };
    tenant.client(&pooler).value("select 1");
    has(
        &browser.page(),
        &[
            "active, ready; up for",
            "Nothing: no limit is reached.",
            "0 clients, 0 waiting",
            "Clients that wait: 0 all the time",
            &format!("<span class=\"name\">{}</span>", tenant.name),
        ],
    );
    browser.pictures("idle");
}

#[test]
fn waiting_clients_leaks_and_a_dead_database_are_seen() {
    let Some(tenant) = Tenant::new() else { return };
    let dead = format!("host=127.0.0.1 port={} user=postgres", free_port());
    let ini = tenant
        .ini()
        .database("warehouse", &dead)
        .set("default_pool_size", 2)
        .set("leak_after", 1)
        .set("error_codes", "postgres")
        .set("server_down_timeout", 1)
        .set("max_db_client_connections", 6);
    let Some((pooler, browser)) = scene(ini) else {
        return;
    };
    let mut leaking = tenant.client_named(&pooler, "checkout");
    assert_eq!(leaking.query("begin"), "C(BEGIN) Z(T)");
    let mut slow = tenant.client_named(&pooler, "report <b>");
    slow.send(&Batch::new().query("select pg_sleep(50)"));
    let _waiting: Vec<_> = (0..4)
        .map(|_| {
            let mut client = tenant.client_named(&pooler, "web");
            client.send(&Batch::new().query("select 1"));
            client
        })
        .collect();
    let name = &tenant.name;
    let parameters = [("user", name.as_str()), ("database", name)];
    assert!(RawClient::try_login(pooler.port, &parameters).is_err());
    let parameters = [("user", "postgres"), ("database", "warehouse")];
    assert!(RawClient::try_login(pooler.port, &parameters).is_err());
    let confirmed = || console(&pooler).rows("show leaks").join("\n");
    eventually(Duration::from_secs(10), confirmed, |rows| {
        rows.contains("confirmed")
    });
    let page = browser.page();
    has(
        &page,
        &[
            &format!("pool_size of {name}"),
            "2 of 2 (100 %), 4 waiting",
            "Not served: ",
            "confirmed: silent for",
            "<span class=\"name\">checkout</span>",
            // A name is only ever text.
            "<span class=\"name\">report &lt;b&gt;</span>",
            "4 clients, 4 waiting",
            "Clients that wait: at most ",
            "SQLSTATE 53300",
            "PostgreSQL was not reached",
        ],
    );
    browser.pictures("load");
}
