//! The files of users, as they change.

use super::*;

#[test]
fn users_stay_known_while_their_file_is_away() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = ini_with_secret(&tenant, PASSWORD).set("auth_type", "md5");
    let pooler = start(ini);
    let file = pooler.socket_dir.join("userlist.txt");
    std::fs::remove_file(&file).expect("it is there");
    pooler.console("reload");
    let log = pooler.log();
    assert!(log.contains("ERROR could not open auth_file "), "{log}");
    assert!(log.contains(": No such file or directory\n"), "{log}");
    assert_eq!(psql(&pooler, &tenant.name, PASSWORD).as_deref(), Ok("1"));
}

#[test]
fn a_mounted_secret_that_is_replaced_is_read_again_by_itself() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let pooler = start(ini_with_secret(&tenant, "old").set("auth_type", "plain"));
    assert_eq!(psql(&pooler, name, "old").as_deref(), Ok("1"));

    // As Kubernetes does it: another folder, and a link that is renamed over the old one.
    let dir = pooler.ini_path().parent().expect("a folder");
    let (next, link) = (dir.join("next.txt"), dir.join("link"));
    fs::write(&next, format!("\"{name}\" \"new\"\n")).expect("written");
    fs::set_permissions(&next, fs::Permissions::from_mode(0o644)).expect("readable");
    symlink(&next, &link).expect("a link");
    fs::rename(&link, dir.join("userlist.txt")).expect("renamed");
    let answer = eventually(
        Duration::from_secs(5),
        || psql(&pooler, name, "new"),
        |answer| answer.as_deref() == Ok("1"),
    );
    assert_eq!(answer.as_deref(), Ok("1"));
    assert_refused(
        &psql(&pooler, name, "old"),
        "password authentication failed",
        "the old one",
    );
}

#[test]
fn rules_wait_for_a_reload_when_users_are_read_again() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let with = |secret: &str, rules: &str| {
        ini_with_secret(&tenant, secret)
            .file("hba.conf", rules)
            .set("auth_type", "hba")
            .set("auth_hba_file", "{dir}/hba.conf")
    };
    let pooler = start(with("old", "host all all all password\n"));
    assert_eq!(psql(&pooler, name, "old").as_deref(), Ok("1"));

    // The rules are being worked on, and somebody gets a new password.
    let dir = pooler.ini_path().parent().expect("a folder");
    let rules = "host all all all reject\n";
    fs::write(dir.join("hba.conf"), rules).expect("written");
    let users = format!("\"{name}\" \"new\"\n");
    fs::write(dir.join("userlist.txt"), users).expect("written");
    let answer = eventually(
        Duration::from_secs(5),
        || psql(&pooler, name, "new"),
        |answer| answer.as_deref() == Ok("1"),
    );
    assert_eq!(answer.as_deref(), Ok("1"));

    pooler.reload(with("new", rules)).expect("RELOAD");
    assert_refused(&psql(&pooler, name, "new"), "login rejected", "");
}
