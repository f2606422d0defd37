use crate::check;

fn problems(text: &str) -> Vec<String> {
    let problems = check("a.ini", &mut |_| Ok(text.to_owned()));
    problems.iter().map(ToString::to_string).collect()
}

const FINE: &str = "[databases]\na = user=u\n[pgbouncer]\nauth_file = users.txt\n";

#[test]
fn nothing_is_said_about_a_sound_file() {
    assert_eq!(problems(FINE), [""; 0]);
}

#[test]
fn tls_without_certificate_is_an_error_at_its_line() {
    let text = format!("{FINE}client_tls_sslmode = require\n");
    assert_eq!(
        problems(&text),
        [
            "a.ini:5: error: To allow TLS connections from clients, client_tls_key_file and \
          client_tls_cert_file must be set. (or client_tls_sslmode = disable)"
        ]
    );
}

#[test]
fn a_configuration_without_users_databases_or_sockets_is_doubtful() {
    let problems = problems("[pgbouncer]\nunix_socket_dir =\n");
    assert_eq!(
        problems,
        [
            "a.ini:2: error: nowhere to listen on (set listen_addr or unix_socket_dir)",
            "a.ini: warning: no users are known, so nobody can log in \
             (set auth_file or auth_user)",
            "a.ini: warning: there is no database that clients could use \
             (add an entry to the databases, or the entry \"*\")",
        ]
    );
}

#[test]
fn a_method_that_lacks_its_rules_is_doubtful() {
    for (method, expected) in [
        (
            "hba",
            "auth_type=hba without rules refuses everybody (set auth_hba_file)",
        ),
        (
            "ldap",
            "auth_type=ldap without options refuses everybody (set auth_ldap_options)",
        ),
    ] {
        let text = format!("{FINE}auth_type = {method}\n");
        assert_eq!(problems(&text), [format!("a.ini:5: warning: {expected}")]);
    }
}

#[test]
fn the_console_is_no_place_for_secrets() {
    let text = "[databases]\na = auth_dbname=pgbouncer\n[pgbouncer]\nauth_file = f\n";
    assert_eq!(
        problems(text),
        [
            "a.ini:2: error: cannot use the reserved \"pgbouncer\" database as an auth_dbname \
          (clients of this database cannot log in)"
        ]
    );
}

#[test]
fn a_minimum_above_the_size_is_doubtful() {
    let text = "[databases]\na = pool_size=2 min_pool_size=3\n[pgbouncer]\nauth_file = f\n";
    assert_eq!(
        problems(text),
        [
            "a.ini:2: warning: min_pool_size 3 is more than the pool's size 2 \
          (the pool never has more servers than its size)"
        ]
    );
}

#[test]
fn a_password_is_that_of_a_forced_user() {
    for password in ["password=x", "password_from=file:/p"] {
        let text = format!("[databases]\na = {password}\n[pgbouncer]\nauth_file = f\n");
        assert_eq!(
            problems(&text),
            ["a.ini:2: warning: a password without a user is not used \
              (add user=NAME to the entry, or password_from to that user's)"]
        );
    }
}

#[test]
#[cfg(feature = "rds")]
fn a_token_wants_a_server_that_is_verified() {
    let text = "[databases]\na = user=u password_from=rds:\n[users]\nv = password_from=rds:\n\
                [pgbouncer]\nauth_file = f\n";
    let warned = |line: u32| {
        format!(
            "a.ini:{line}: warning: a token of Amazon RDS goes only to a server that is verified \
             (set server_tls_sslmode = verify-full)"
        )
    };
    assert_eq!(problems(text), [warned(2), warned(4)]);
    let text = format!("{text}server_tls_sslmode = verify-full\n");
    assert_eq!(problems(&text), [""; 0]);
}

#[test]
fn what_reaches_others_has_no_policy() {
    let text = format!("{FINE}session_state = pgbouncer\nstate_policy = locks:warn\n");
    assert_eq!(
        problems(&text),
        [
            "a.ini:6: warning: state_policy does nothing with session_state = pgbouncer \
          (say allow for the kinds that may reach others, and session_state = private)"
        ]
    );
}

#[test]
fn a_fleet_is_not_larger_than_what_it_shares() {
    let text = format!("{FINE}fleet = 4\nmax_host_connections = 3\n");
    assert_eq!(
        problems(&text),
        [
            "a.ini:5: error: max_host_connections is 3, and each of 4 poolers has one server of it at least \
          (lower fleet, or raise the limit)"
        ]
    );
    assert_eq!(problems(&format!("{FINE}fleet = 4\n")).len(), 1);
    let text = format!("{FINE}fleet = 4\nmax_host_connections = auto\n");
    assert_eq!(problems(&text), [""; 0]);
}

#[test]
fn peers_have_small_numbers() {
    let text = format!("{FINE}peer_id = 20000\n[peers]\n20001 = host=a\n");
    assert_eq!(problems(&text).len(), 2);
    let text = format!("{FINE}[peers]\n1 = host=a\n");
    assert_eq!(
        problems(&text),
        ["a.ini: warning: peers are ignored as long as peer_id is 0 \
          (set peer_id to our own number)"]
    );
}
