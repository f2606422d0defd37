//! What the console says about itself: version, greeting, help.

use crate::encode::{message, parameter_status, ready_for_query};

/// The version of PgBouncer whose console this is. Monitors parse it, so it is not our own.
pub const VERSION: &str = "1.25.2";

/// What SHOW VERSION answers.
pub const PRODUCT: &str = "PgBouncer 1.25.2";

/// The parameters that the console reports at login, in PgBouncer's order.
pub const LOGIN_PARAMETERS: [(&str, &str); 7] = [
    ("server_version", "1.25.2/bouncer"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
];

/// Appends what follows AuthenticationOk: parameters, BackendKeyData with `cancel_key` (process id and
/// secret as they are sent), ReadyForQuery.
pub fn write_greeting(cancel_key: &[u8], out: &mut Vec<u8>) {
    for (name, value) in LOGIN_PARAMETERS {
        parameter_status(out, name, value);
    }
    message(out, b'K', |body| body.extend_from_slice(cancel_key));
    ready_for_query(out);
}

/// The detail of SHOW HELP's notice.
pub(crate) const HELP: &str = "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW PEERS|PEER_POOLS
\tSHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSUSPEND
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Fixed, Show};

    #[test]
    fn the_greeting_has_pgbouncers_bytes() {
        let mut out = Vec::new();
        write_greeting(b"0\x05\x00\x18\x80\xba\xf0\x8f", &mut out);
        assert_eq!(
            out,
            b"S\x00\x00\x00\"server_version\x001.25.2/bouncer\x00\
              S\x00\x00\x00\x19client_encoding\x00UTF8\x00\
              S\x00\x00\x00\x19server_encoding\x00UTF8\x00\
              S\x00\x00\x00\x12DateStyle\x00ISO\x00\
              S\x00\x00\x00\x11TimeZone\x00GMT\x00\
              S\x00\x00\x00#standard_conforming_strings\x00on\x00\
              S\x00\x00\x00\x14is_superuser\x00on\x00\
              K\x00\x00\x00\x0c0\x05\x00\x18\x80\xba\xf0\x8f\
              Z\x00\x00\x00\x05I"
        );
    }

    #[test]
    fn the_version_stands_in_every_place() {
        assert_eq!(PRODUCT, format!("PgBouncer {VERSION}"));
        assert_eq!(LOGIN_PARAMETERS[0].1, format!("{VERSION}/bouncer"));
    }

    #[test]
    fn help_names_every_table() {
        let words: Vec<_> = HELP
            .split(|c: char| !c.is_ascii_uppercase() && c != '_')
            .collect();
        for show in Show::ALL.iter().filter(|show| !show.is_native()) {
            assert!(
                words.contains(&show.word().to_ascii_uppercase().as_str()),
                "{show:?}"
            );
        }
    }

    #[test]
    fn help_is_a_notice_without_rows() {
        let mut out = Vec::new();
        Fixed::Help.write(&mut out);
        assert!(out.starts_with(b"N\0\0\x01\xcfSNOTICE\0C00000\0MConsole usage\0D\n\tSHOW HELP|"));
        assert!(out.ends_with(b"\tWAIT_CLOSE [<db>]\0\0C\0\0\0\x09SHOW\0Z\0\0\0\x05I"));
    }
}
