//! The promise: with PAM the system decides who gets in; and a build without PAM says so.
//!
//! The tests use libpam_wrapper, which puts a PAM of the test's own in place of the machine's.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use pgweir_tests::{Batch, Ini, Pooler, RawClient, Tenant, skip};
use tempfile::TempDir;

const REFUSED: &str = "E(FATAL 08P01 PAM authentication failed)";

#[test]
fn the_system_decides() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let ini = scene.tenant.ini().set("auth_type", "pam");
    // Nobody is in the file: with PAM it does not count.
    let ini = ini.file("userlist.txt", "").set("stats_users", name);
    let Some(pooler) = scene.start(ini) else {
        return;
    };
    assert_eq!(
        scene.login(&pooler, name, name, "secret"),
        Ok(()),
        "{}",
        pooler.log()
    );
    assert_eq!(
        scene.login(&pooler, name, name, "wrong"),
        Err(REFUSED.to_owned())
    );
    assert_eq!(
        scene.login(&pooler, name, "stranger", "secret"),
        Err(REFUSED.to_owned())
    );
    let empty = Err("E(FATAL 08P01 empty password returned by client)".to_owned());
    assert_eq!(scene.login(&pooler, name, name, ""), empty);
    assert_eq!(scene.login(&pooler, "pgbouncer", name, "secret"), Ok(()));
    let log = pooler.log();
    assert!(log.contains("pam_authenticate() failed: "), "{log}");
}

#[test]
fn a_rule_can_ask_the_system() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let ini = scene
        .tenant
        .ini()
        .set("auth_type", "hba")
        .set("auth_hba_file", "{dir}/hba.conf")
        .file("hba.conf", &format!("host all {name} 127.0.0.1/32 pam\n"));
    let Some(pooler) = scene.start(ini) else {
        return;
    };
    assert_eq!(
        scene.login(&pooler, name, name, "secret"),
        Ok(()),
        "{}",
        pooler.log()
    );
    assert_eq!(
        scene.login(&pooler, name, name, "wrong"),
        Err(REFUSED.to_owned())
    );
}

#[test]
fn the_password_serves_to_log_in_to_the_server() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let mut root = scene.tenant.root();
    root.rows(&format!("alter role {name} password 'secret'"));
    root.rows(&format!("grant wants_scram to {name}"));
    let Some(pooler) = scene.start(scene.tenant.ini().set("auth_type", "pam")) else {
        return;
    };
    assert_eq!(
        scene.login(&pooler, name, name, "secret"),
        Ok(()),
        "{}",
        pooler.log()
    );
}

#[test]
fn many_logins_at_once_are_all_answered() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let Some(pooler) = scene.start(scene.tenant.ini().set("auth_type", "pam")) else {
        return;
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let (scene, pooler) = (&scene, &pooler);
        let login = |password| scope.spawn(move || scene.login(pooler, name, name, password));
        let logins: Vec<_> = (0..60)
            .map(|n| login(if n % 2 == 0 { "secret" } else { "no" }))
            .collect();
        logins
            .into_iter()
            .map(|login| login.join().expect("no panic"))
            .collect()
    });
    assert_eq!(
        answers.iter().filter(|answer| answer.is_ok()).count(),
        30,
        "{}",
        pooler.log()
    );
}

#[test]
fn a_build_without_pam_says_how_to_get_one() {
    let Some(tenant) = Tenant::new() else { return };
    let said = match Pooler::start(tenant.ini().set("auth_type", "pam")) {
        Ok(_) => return skip("this pgweir has been built with PAM"),
        Err(error) => error.to_string(),
    };
    assert!(
        said.contains("invalid value \"pam\" for parameter auth_type"),
        "{said}"
    );
    assert!(said.contains("--features pam"), "{said}");
}

/// A PAM that knows the tenant by the password `secret`.
struct Scene {
    tenant: Tenant,
    dir: TempDir,
    wrapper: PathBuf,
}

impl Scene {
    #[track_caller]
    fn new() -> Option<Self> {
        let tenant = Tenant::new()?;
        let Some(wrapper) = libpam_wrapper() else {
            skip(
                "no libpam_wrapper on this machine (Debian, Ubuntu: sudo apt-get install libpam-wrapper)",
            );
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        };
        open(dir.path(), 0o755);
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("a file");
            open(&path, 0o644);
            path
        };
        let known = write("passdb", &format!("{}:secret:pgbouncer\n", tenant.name));
        let module = wrapper.with_file_name("pam_wrapper").join("pam_matrix.so");
        let (module, known) = (module.display(), known.display());
        write(
            "pgbouncer",
            &format!(
                "auth required {module} passdb={known}\naccount required {module} passdb={known}\n"
            ),
        );
        Some(Self {
            tenant,
            dir,
            wrapper,
        })
    }

    /// Nothing if this pgweir has been built without PAM.
    #[track_caller]
    fn start(&self, ini: Ini) -> Option<Pooler> {
        let (wrapper, dir) = (
            self.wrapper.to_string_lossy(),
            self.dir.path().to_string_lossy(),
        );
        let env = [
            ("LD_PRELOAD", &*wrapper),
            ("PAM_WRAPPER", "1"),
            ("PAM_WRAPPER_SERVICE_DIR", &*dir),
        ];
        match Pooler::start_with_env(&env, ini) {
            Ok(pooler) if pooler.log().contains("not in this build") => {
                skip("this pgweir has been built without PAM (cargo build --features pam)");
                None
            }
            Ok(pooler) => Some(pooler),
            Err(error) if error.to_string().contains("not in this build") => {
                skip("this pgweir has been built without PAM (cargo build --features pam)");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn login(
        &self,
        pooler: &Pooler,
        database: &str,
        user: &str,
        password: &str,
    ) -> Result<(), String> {
        let mut client = RawClient::connect(pooler.port);
        client.start_login(&[("user", user), ("database", database)]);
        client.read().expect("a challenge");
        client.send(&Batch::new().password(format!("{password}\0").as_bytes()));
        client.finish_login()
    }
}

fn libpam_wrapper() -> Option<PathBuf> {
    let mut places = vec![PathBuf::from("/usr/lib64"), PathBuf::from("/usr/lib")];
    let inside = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    places.extend(inside.map(|entry| entry.path()));
    let mut found = places
        .into_iter()
        .map(|place| place.join("libpam_wrapper.so"));
    found.find(|path| path.is_file())
}
