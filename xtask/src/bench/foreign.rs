//! The configuration files of poolers that have a language of their own. Written after their manuals; what is not
//! set here has its default.

use std::path::Path;

use super::{
    material::PASSWORD,
    workload::{Auth, SERVERS, Way},
};

/// Where a pooler listens, and what is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) port: u16,
    /// PostgreSQL's.
    pub(crate) server_port: u16,
    /// Where its files are.
    pub(crate) dir: &'a Path,
    pub(crate) clients_max: u32,
}

/// `pgcat.toml`.
pub(crate) fn pgcat(place: &Place<'_>, way: Way) -> String {
    let Place {
        port,
        server_port,
        dir,
        ..
    } = place;
    let dir = dir.display();
    let tls = if way.tls_client {
        format!("tls_certificate = \"{dir}/server.crt\"\ntls_private_key = \"{dir}/server.key\"\n")
    } else {
        String::new()
    };
    let auth = match way.auth {
        Auth::Md5 => "md5",
        Auth::Trust | Auth::Scram | Auth::Cert => "trust",
    };
    format!(
        "[general]\nhost = \"127.0.0.1\"\nport = {port}\nadmin_username = \"admin\"\nadmin_password = \"{PASSWORD}\"\n\
         worker_threads = 1\nconnect_timeout = 60000\nserver_tls = {}\n{tls}\n\
         [pools.postgres]\npool_mode = \"transaction\"\nprepared_statements_cache_size = 200\n\n\
         [pools.postgres.users.0]\nusername = \"postgres\"\npassword = \"{PASSWORD}\"\nauth_type = \"{auth}\"\n\
         pool_size = {SERVERS}\n\n\
         [pools.postgres.shards.0]\nservers = [[\"127.0.0.1\", {server_port}, \"primary\"]]\n\
         database = \"postgres\"\n",
        way.tls_server
    )
}

/// `odyssey.conf`.
pub(crate) fn odyssey(place: &Place<'_>, way: Way) -> String {
    let Place {
        port,
        server_port,
        dir,
        clients_max,
    } = place;
    let dir = dir.display();
    let towards_clients = if way.tls_client {
        format!(
            "\ttls \"require\"\n\ttls_cert_file \"{dir}/server.crt\"\n\ttls_key_file \"{dir}/server.key\"\n"
        )
    } else {
        "\ttls \"disable\"\n".to_owned()
    };
    let towards_server = if way.tls_server { "require" } else { "disable" };
    let auth = match way.auth {
        Auth::Trust | Auth::Cert => "\t\tauthentication \"none\"\n".to_owned(),
        Auth::Md5 => format!("\t\tauthentication \"md5\"\n\t\tpassword \"{PASSWORD}\"\n"),
        Auth::Scram => {
            format!("\t\tauthentication \"scram-sha-256\"\n\t\tpassword \"{PASSWORD}\"\n")
        }
    };
    format!(
        "daemonize no\nunix_socket_dir \"{dir}\"\nunix_socket_mode \"0644\"\nlocks_dir \"{dir}\"\n\
         log_format \"%p %t %l %m\\n\"\nlog_to_stdout yes\nlog_session no\nlog_query no\nlog_stats no\n\
         workers 1\nclient_max {clients_max}\n\
         listen {{\n\thost \"127.0.0.1\"\n\tport {port}\n{towards_clients}}}\n\
         storage \"server\" {{\n\ttype \"remote\"\n\thost \"127.0.0.1\"\n\tport {server_port}\n\
         \ttls \"{towards_server}\"\n}}\n\
         database default {{\n\tuser default {{\n{auth}\t\tstorage \"server\"\n\t\tpool \"transaction\"\n\
         \t\tpool_size {SERVERS}\n\t\tpool_timeout 0\n\t\tpool_discard no\n\
         \t\tpool_reserve_prepared_statement yes\n\t\tclient_fwd_error yes\n\t}}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place<'static> {
        Place {
            port: 6432,
            server_port: 5433,
            dir: Path::new("/run/bench"),
            clients_max: 100,
        }
    }

    #[test]
    fn tls_is_asked_for_only_where_it_is_wanted() {
        let tls = Way {
            tls_client: true,
            ..Way::PLAIN
        };
        assert!(!pgcat(&place(), Way::PLAIN).contains("tls_certificate"));
        assert!(pgcat(&place(), tls).contains("tls_certificate = \"/run/bench/server.crt\""));
        assert!(odyssey(&place(), Way::PLAIN).contains("\ttls \"disable\""));
        assert!(odyssey(&place(), tls).contains("tls_cert_file \"/run/bench/server.crt\""));
    }

    #[test]
    fn blocks_are_closed() {
        let text = odyssey(&place(), Way::PLAIN);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
