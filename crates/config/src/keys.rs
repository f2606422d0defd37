//! The table of keys. Everything else about a key follows from its one row; see `declare.rs`.
//!
//! The first rows are PgBouncer's, in the order in which SHOW CONFIG gives them. Monitoring
//! compares those rows, so ours stand behind them and are marked `native`.

use std::num::NonZeroU16;

use crate::declare::{
    Effect, Key, Place, Scope, declare_keys, field_type, initial_value, literal_or_none,
    override_struct, printed_default,
};
use crate::value::{
    AppActions, AuthDatabase, AuthType, Endpoints, ErrorCodes, FileMode, HostLimit, Hosts,
    LeakAction, LeakQuery, List, ListenMode, LoadBalanceHosts, PasswordSource, PoolMode, Preflight,
    ReadyPolicy, Seconds, Secret, SessionState, SslMode, StartupParameters, StatePolicies,
    StrictAllow, TargetSessionAttrs, TlsProtocols, Value,
};

declare_keys! {
    settings {
        /// Users who may do everything on the console, divided by commas.
        admin_users: List = "", AtOnce;
        /// Append the client's address and port to its application_name at login.
        application_name_add_host: bool = "0", NewLeases;
        /// The entry of the databases in which auth_query runs; without it, the client's own database.
        auth_dbname: AuthDatabase = NULL, AtOnce;
        /// The file with users and their secrets.
        auth_file: String = NULL, AtOnce;
        /// The file with host based rules, for auth_type hba.
        auth_hba_file: String = "", AtOnce;
        /// The file with maps of system users, for rules with `map=`.
        auth_ident_file: String = NULL, AtOnce;
        /// Which LDAP servers auth_type ldap asks, and how, in the words of a rule: `ldapserver=a ldapbasedn="dc=b"`.
        auth_ldap_options: String = NULL, AtOnce;
        /// The query for the secret of a user who is not in auth_file: $1 is the user, two columns.
        auth_query: String = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin", AtOnce, better "it runs with the parameters that the pool's servers begin with", database auth_query;
        /// How clients prove who they are.
        auth_type: AuthType = "md5", NewLeases, better "scram-sha-256 is offered with channel binding where TLS is in use";
        /// The user that runs auth_query.
        auth_user: String = NULL, AtOnce, database auth_user;
        /// Seconds after which a database made from the `*` entry is forgotten when unused; 0 is never.
        autodb_idle_timeout: Seconds = "3600", AtOnce;
        /// Seconds that a cancel request may wait for a connection; 0 is no limit.
        cancel_wait_timeout: Seconds = "10", AtOnce;
        /// Seconds that a client may be idle outside a transaction; 0 is no limit.
        client_idle_timeout: Seconds = "0", AtOnce, user client_idle_timeout;
        /// Seconds that a client's login may take; 0 is no limit.
        client_login_timeout: Seconds = "60", AtOnce, better "it is exact";
        /// TLS 1.3 cipher suites for clients, divided by colons.
        client_tls13_ciphers: String = NULL, NewLeases;
        /// The file with the authorities that sign client certificates.
        client_tls_ca_file: String = "", NewLeases;
        /// The file with the certificate shown to clients.
        client_tls_cert_file: String = "", NewLeases;
        /// Ciphers for clients up to TLS 1.2: default, secure, fast, normal, all or an OpenSSL list.
        client_tls_ciphers: String = "default", NewLeases, differs "only names of suites are obeyed; other words of OpenSSL mean all suites that rustls has";
        /// Finite field Diffie-Hellman for clients: auto, none or legacy.
        client_tls_dheparams: String = "auto", NewLeases, idle "rustls has no finite field Diffie-Hellman; elliptic curves are used";
        /// Elliptic curve for clients: auto, none or a curve's name.
        client_tls_ecdhcurve: String = "auto", NewLeases;
        /// The file with the key of the certificate shown to clients.
        client_tls_key_file: String = "", NewLeases, differs "an encrypted key is refused";
        /// TLS versions for clients.
        client_tls_protocols: TlsProtocols = "secure", NewLeases, differs "TLS 1.0 and 1.1 cannot be had";
        /// How much TLS clients need; from verify-ca on they have to show a certificate.
        client_tls_sslmode: SslMode = "disable", NewLeases, differs "verify-ca and verify-full need client_tls_ca_file";
        /// The configuration file that the next RELOAD reads; at start, the one on the command line.
        conffile: String = NULL, AtOnce;
        /// Servers of one pool, which is one database and user; 0 is no limit.
        default_pool_size: i32 = "20", AtOnce, better "a server counts until PostgreSQL has closed its connection", database pool_size, user pool_size, peer pool_size;
        /// Refuse the simple query protocol.
        disable_pqexec: bool = "0", Restart;
        /// Seconds that a resolved host name is kept at most.
        dns_max_ttl: Seconds = "15", AtOnce;
        /// Seconds that a failure to resolve a host name is kept.
        dns_nxdomain_ttl: Seconds = "15", AtOnce;
        /// Seconds between looks at the zones of host names: one whose serial grew has them asked again; 0 is never.
        dns_zone_check_period: Seconds = "0", AtOnce;
        /// Seconds that a client may be idle inside a transaction; 0 is no limit.
        idle_transaction_timeout: Seconds = "0", AtOnce, user idle_transaction_timeout;
        /// Startup parameters to drop silently, divided by commas; `options` drops unknown ones in it.
        ignore_startup_parameters: List = "", NewLeases;
        /// The name of the service.
        job_name: String = "pgbouncer", Restart;
        /// TCP addresses to listen on, divided by commas; `*` is all, none is Unix sockets only.
        listen_addr: List = "", Restart;
        /// How many connections the kernel keeps for us to accept.
        listen_backlog: i32 = "128", Restart;
        /// The port of the TCP and Unix sockets.
        listen_port: u16 = "6432", Restart;
        /// Log every login.
        log_connections: bool = "1", AtOnce;
        /// Log the end of every connection with its reason.
        log_disconnections: bool = "1", AtOnce;
        /// Log the errors that clients are told.
        log_pooler_errors: bool = "1", AtOnce;
        /// Log the totals every stats_period.
        log_stats: bool = "1", AtOnce;
        /// The log file, opened again on RELOAD.
        logfile: String = "", AtOnce;
        /// A notice for every client after its login.
        login_notify_message: String = "", NewLeases;
        /// Clients in all.
        max_client_conn: i32 = "100", AtOnce;
        /// Clients of one database; 0 is no limit.
        max_db_client_connections: i32 = "0", AtOnce, database max_db_client_connections;
        /// Servers of one database, over all users; 0 is no limit.
        max_db_connections: i32 = "0", AtOnce, better "a server counts until PostgreSQL has closed its connection, and pools are served in turn", database max_db_connections;
        /// The longest message, in bytes.
        max_packet_size: u32 = "2147483647", AtOnce;
        /// Prepared statements kept on one server; 0 is no support outside session pooling.
        max_prepared_statements: i32 = "200", AtOnce;
        /// Clients of one user, over all databases; 0 is no limit.
        max_user_client_connections: i32 = "0", AtOnce, user max_user_client_connections;
        /// Servers of one user, over all databases; 0 is no limit.
        max_user_connections: i32 = "0", AtOnce, better "a server counts until PostgreSQL has closed its connection, and pools are served in turn", user max_user_connections;
        /// Servers kept open in a pool that has clients or a forced user.
        min_pool_size: i32 = "0", AtOnce, database min_pool_size;
        /// Our number among our peers, 1 to 16383; 0 is alone.
        peer_id: u16 = "0", AtOnce;
        /// The file for the process id.
        pidfile: String = "", Restart;
        /// The size of a buffer, in bytes.
        pkt_buf: i32 = "4096", Restart, idle "all connections of a thread share one large buffer";
        /// When a server goes back to its pool.
        pool_mode: PoolMode = "session", AtOnce, database pool_mode, user pool_mode;
        /// Seconds after which a pool without clients and servers is forgotten; 0 is never.
        pool_idle_timeout: Seconds = "0", AtOnce;
        /// Seconds that a query may take, waiting included; 0 is no limit.
        query_timeout: Seconds = "0", AtOnce, user query_timeout;
        /// Seconds after which a waiting client is told so by a notice; 0 is never.
        query_wait_notify: i32 = "5", AtOnce;
        /// Seconds that a query may wait for a server; 0 is no limit.
        query_wait_timeout: Seconds = "120", AtOnce, database query_wait_timeout, user query_wait_timeout;
        /// Servers beyond the size of a pool, for clients that waited reserve_pool_timeout.
        reserve_pool_size: i32 = "0", AtOnce, database reserve_pool_size or reserve_pool, user reserve_pool_size;
        /// Seconds that a client waits before the reserve may be used; 0 is never.
        reserve_pool_timeout: Seconds = "5", AtOnce;
        /// A resolv.conf whose name servers are asked for hosts, after /etc/hosts; empty is to ask the system.
        resolv_conf: String = "", Restart;
        /// Buffers handled for one connection before others have their turn; 0 is no limit.
        sbuf_loopcnt: i32 = "5", AtOnce, idle "connections take turns by a number of our own";
        /// Iterations of the SCRAM verifiers made from plain secrets.
        scram_iterations: i32 = "4096", NewLeases;
        /// Seconds that a server may be idle and still be used without a check; 0 is always check.
        server_check_delay: Seconds = "30", AtOnce, better "a server that has closed is noticed before it is lent, whatever the delay";
        /// The query that checks a server; `<empty>` is the empty query, an empty value is no check.
        server_check_query: String = "<empty>", AtOnce;
        /// Seconds that connecting and logging in to a server may take; 0 is no limit.
        server_connect_timeout: Seconds = "15", AtOnce, better "it is exact, and up to four servers of a pool log in at the same time";
        /// Close outdated servers of session pools as soon as they are outside a transaction.
        server_fast_close: bool = "0", AtOnce;
        /// Seconds after which an idle server is closed; 0 is never.
        server_idle_timeout: Seconds = "600", AtOnce;
        /// Seconds after which an unused server is closed; 0 is after one use.
        server_lifetime: Seconds = "3600", AtOnce, database server_lifetime;
        /// Seconds between logins to a server while they fail, 0.2 at least.
        server_login_retry: Seconds = "15", AtOnce;
        /// The query that cleans a server on its way back to a session pool; an empty value is none.
        server_reset_query: String = "DISCARD ALL", AtOnce;
        /// Run server_reset_query in every pool mode.
        server_reset_query_always: bool = "0", AtOnce;
        /// Use idle servers in turn, not the last used one first.
        server_round_robin: bool = "0", AtOnce;
        /// TLS 1.3 cipher suites for servers, divided by colons.
        server_tls13_ciphers: String = NULL, NewLeases;
        /// The file with the authorities that sign server certificates.
        server_tls_ca_file: String = "", NewLeases;
        /// The file with the certificate shown to servers.
        server_tls_cert_file: String = "", NewLeases;
        /// Ciphers for servers up to TLS 1.2: default, secure, fast, normal, all or an OpenSSL list.
        server_tls_ciphers: String = "default", NewLeases, differs "only names of suites are obeyed; other words of OpenSSL mean all suites that rustls has";
        /// The file with the key of the certificate shown to servers.
        server_tls_key_file: String = "", NewLeases, differs "an encrypted key is refused";
        /// TLS versions for servers.
        server_tls_protocols: TlsProtocols = "secure", NewLeases, differs "TLS 1.0 and 1.1 cannot be had";
        /// How much TLS servers need, and how far their certificates are checked.
        server_tls_sslmode: SslMode = "prefer", NewLeases;
        /// Let several processes listen on one TCP port.
        so_reuseport: bool = "0", Restart;
        /// Seconds over which averages are taken.
        stats_period: i32 = "60", AtOnce;
        /// Users who may look at everything on the console, divided by commas.
        stats_users: List = "", AtOnce;
        /// Seconds that SUSPEND waits for buffers to empty before it closes connections.
        suspend_timeout: Seconds = "10", AtOnce;
        /// Log to syslog.
        syslog: bool = "0", AtOnce;
        /// The facility of syslog: auth, authpriv, daemon, user, local0 to local7.
        syslog_facility: String = "daemon", AtOnce;
        /// The name in syslog.
        syslog_ident: String = "pgbouncer", AtOnce;
        /// Let the kernel hold a connection back until its first bytes are there, for about 45 seconds at most.
        tcp_defer_accept: i32 = "1", AtOnce;
        /// Send TCP keepalives.
        tcp_keepalive: bool = "1", NewLeases;
        /// Lost keepalives after which a connection is dead; 0 is the system's default.
        tcp_keepcnt: i32 = "0", NewLeases;
        /// Seconds of silence before the first keepalive; 0 is the system's default.
        tcp_keepidle: i32 = "0", NewLeases;
        /// Seconds between keepalives; 0 is the system's default.
        tcp_keepintvl: i32 = "0", NewLeases;
        /// The size of the kernel's socket buffers, in bytes; 0 is the system's default.
        tcp_socket_buffer: i32 = "0", NewLeases;
        /// Milliseconds that sent bytes may stay unacknowledged; 0 is the system's default.
        tcp_user_timeout: i32 = "0", NewLeases;
        /// More parameters to keep per client, divided by commas: those that servers report.
        track_extra_parameters: List = "IntervalStyle", Restart, better "what servers do not report is kept per client, too";
        /// Seconds that a transaction may take; 0 is no limit.
        transaction_timeout: Seconds = "0", AtOnce, user transaction_timeout;
        /// The directory of Unix sockets, ours and the servers'; `@` is abstract, an empty value is none.
        unix_socket_dir: String = "/tmp", Restart;
        /// The group of the listening Unix socket.
        unix_socket_group: String = "", Restart;
        /// The mode of the listening Unix socket.
        unix_socket_mode: FileMode = "0777", Restart;
        /// The user of the operating system to become.
        user: String = NULL, Restart;
        /// How much more to log, 0 to 3.
        verbose: i32 = ("0"), AtOnce;

        /// Seconds that a server whose client vanished in a query gets to become idle after a cancel.
        cancel_drain_timeout: Seconds = "5", AtOnce, native "5";
        /// Which SQLSTATEs and texts clients are told.
        error_codes: ErrorCodes = "pgbouncer", AtOnce, native "postgres";
        /// Poolers that share max_host_connections, max_db_connections and max_user_connections in equal parts.
        fleet: u16 = "1", AtOnce, native "1";
        /// Whether what is sent to several sockets at a time leaves together, by io_uring, where the kernel allows it.
        io_uring: bool = "1", Restart, native "1";
        /// What becomes of a leak suspect, besides a line in the log.
        leak_action: LeakAction = "log", AtOnce, native "log", database leak_action, user leak_action;
        /// What becomes of the suspects of single applications: `name:action, name:action`. It goes before leak_action.
        leak_action_apps: AppActions = "", AtOnce, native "";
        /// Seconds of silence after which a client that holds a server is a leak suspect; 0 is never.
        leak_after: Seconds = "60", AtOnce, native "60", database leak_after, user leak_after;
        /// Applications that are never leak suspects, divided by commas.
        leak_exempt_apps: List = "", AtOnce, native "";
        /// Seconds a statement may take although it normally takes far less; beyond, it is a leak suspect. 0 is always.
        leak_floor: Seconds = "10", AtOnce, native "10", database leak_floor, user leak_floor;
        /// How statements of leak suspects are shown: without their literals, as they are, or not.
        leak_query: LeakQuery = "normalized", AtOnce, native "normalized";
        /// Who listens outside session pooling: one connection of the database, or each client's own server.
        listen: ListenMode = "shared", NewLeases, native "shared", database listen;
        /// Bytes of notifications that are kept for a client that does not take them; with more it is ended.
        listen_buffer: u32 = "1048576", NewLeases, native "1048576", database listen_buffer;
        /// Milliseconds from which on a statement is slow: logged, and in SHOW STATEMENTS; 0 is all, -1 none.
        log_min_duration_statement: i32 = "-1", AtOnce, native "-1";
        /// Clients of one address; Unix sockets do not count. 0 is no limit.
        max_address_client_connections: i32 = "0", NewLeases, native "0";
        /// Servers lent to clients of one address at the same time; 0 is no limit.
        max_address_connections: i32 = "0", NewLeases, native "0";
        /// Clients of one application, as application_name says at login; 0 is no limit.
        max_app_client_connections: i32 = "0", NewLeases, native "0";
        /// Servers lent to one application at the same time; 0 is no limit.
        max_app_connections: i32 = "0", NewLeases, native "0";
        /// Connections that carry cancel requests to servers at the same time.
        max_cancels: u16 = "64", Restart, native "64";
        /// Servers of one PostgreSQL: a number, a part of what it has (`80%`; `auto` is 90%); 0 is no limit.
        max_host_connections: HostLimit = "0", AtOnce, native "auto";
        /// Servers of one PostgreSQL that connect and log in at the same time; 0 is no limit.
        max_host_logins: i32 = "16", AtOnce, native "16";
        /// Clients that log in over TCP at the same time; 0 is no limit.
        max_logins: i32 = "0", AtOnce, native "0";
        /// Servers of one pool that stay with a client for its session state, whoever waits; never all of them.
        max_pinned: i32 = "10", NewLeases, native "10", database max_pinned;
        /// Clients that wait for a server in one pool; 0 is no limit.
        max_pool_waiting: i32 = "0", AtOnce, native "0", database max_pool_waiting, user max_pool_waiting;
        /// Clients that wait for a server in all pools; 0 is no limit.
        max_waiting: i32 = "0", AtOnce, native "0";
        /// Give the statistics in the metrics also under the names of exporters before 0.11.
        metrics_legacy_names: bool = "0", AtOnce, native "0";
        /// Where metrics and health are served over HTTP; empty is nowhere.
        metrics_listen: Endpoints = "", Restart, native "127.0.0.1:9127";
        /// Where metrics are sent by OTLP over HTTP: `http://HOST:4318`; empty is nowhere. Cargo feature otel.
        otel_endpoint: String = "", AtOnce, native "";
        /// Seconds between two times that metrics are sent.
        otel_period: Seconds = "60", AtOnce, native "60";
        /// Seconds that a command of password_from may take.
        password_exec_timeout: Seconds = "5", AtOnce, native "5";
        /// Seconds that what a command of password_from has written is used for; 0 runs it for each new server.
        password_exec_ttl: Seconds = "600", AtOnce, native "600";
        /// A pool's part of a limit that it shares, beside the weights of the others.
        pool_weight: i32 = "1", AtOnce, native "1", database pool_weight, user pool_weight;
        /// Compare what can be asked of PostgreSQL with what it has: say it, refuse to start, or neither.
        preflight: Preflight = "warn", AtOnce, native "warn";
        /// Prepare statements without a name that come again, once per server, as if they had one.
        prepare_unnamed: bool = "0", NewLeases, native "0", database prepare_unnamed;
        /// Seconds a client should wait at most: under overload those who waited longer are refused; 0 is off.
        query_wait_target: Seconds = "0", AtOnce, native "0";
        /// Which databases must work for /readyz to say so: one, all, or none at all.
        ready_policy: ReadyPolicy = "any", AtOnce, native "any";
        /// Open a connection, which counts, to ask PostgreSQL for its backends where no server is idle.
        reconcile_control: bool = "0", AtOnce, native "0";
        /// Seconds after which PostgreSQL is asked again whose its connections are, on an idle server; 0 is never.
        reconcile_period: Seconds = "60", AtOnce, native "60";
        /// Seconds that a closing server may take to close its socket before its slot is quarantined.
        server_close_timeout: Seconds = "10", AtOnce, native "10";
        /// Seconds that clients wait while no login to PostgreSQL works; 0 is as long as at other times.
        server_down_timeout: Seconds = "0", AtOnce, native "5";
        /// Whether parameters, role, locks, temporary tables and so on of one client reach others.
        session_state: SessionState = "private", NewLeases, native "private", database session_state, user session_state;
        /// Columns for logins in SHOW STATS and its like, which PgBouncer has only since after 1.25.2.
        show_login_counts: bool = "0", AtOnce, native "1";
        /// Seconds in which SIGTERM ends clients between transactions, then the rest; 0 waits until they leave.
        shutdown_drain_timeout: Seconds = "0", AtOnce, native "60";
        /// What becomes of startup parameters that are neither tracked nor ignored.
        startup_parameters: StartupParameters = "refuse", NewLeases, native "apply";
        /// What becomes of each kind of session state outside of session pooling: `kind:policy, kind:policy`.
        state_policy: StatePolicies = "", NewLeases, native "", database state_policy, user state_policy;
        /// Seconds for which a statement that left nothing in its session is trusted; 0 is not at all.
        state_trust: Seconds = "300", NewLeases, native "300";
        /// What opens the status page and /status.json, beside the passwords of the console's users.
        status_token: Secret = "", AtOnce, native "";
        /// Make an error of what goes wrong behind a pooler sooner or later, and report it: for tests.
        strict: bool = "0", Restart, native "0";
        /// What a strict run says nothing about: kinds of findings, or `kind:application`; `*` is all kinds.
        strict_allow: StrictAllow = "", AtOnce, native "";
        /// Seconds that a transaction may last in a strict run; 0 is no limit.
        strict_hold: Seconds = "30", AtOnce, native "30";
        /// Seconds of silence in a transaction that a strict run takes for a leak; 0 is leak_after.
        strict_leak_after: Seconds = "5", AtOnce, native "5";
        /// The file for the findings of a strict run: JUnit if it ends in .xml, otherwise JSON; empty is none.
        strict_report: String = "", Restart, native "";
        /// Threads that serve connections, each its own clients.
        workers: i32 = "1", Restart, native "1";
    }

    database {
        /// The database's name on the server; without it, the name of the entry.
        dbname: String;
        /// Names, addresses, directories of Unix sockets, divided by commas; without it, unix_socket_dir.
        host: Hosts;
        /// The server's port; without it, 5432.
        port: NonZeroU16;
        /// The user of all servers, whoever the client is.
        user: String;
        /// The secret of that user; without it, the one in auth_file.
        password: Secret;
        /// Where that secret is read for each new server: `file:PATH`, `env:NAME`, `exec:COMMAND` or `rds:`, a token of Amazon RDS.
        password_from: PasswordSource;
        /// The entry of the databases in which auth_query runs for this one.
        auth_dbname: String;
        /// A query that every new server runs first.
        connect_query: String;
        /// How servers are spread over a list of hosts; without it, round-robin.
        load_balance_hosts: LoadBalanceHosts;
        /// What PostgreSQL has to be for its servers; a host that is not is passed over. Without it, any.
        target_session_attrs: TargetSessionAttrs;
        /// The client_encoding in the servers' startup message.
        client_encoding: String;
        /// The datestyle in the servers' startup message.
        datestyle: String;
        /// The timezone in the servers' startup message.
        timezone: String;
        /// The application_name in the servers' startup message.
        application_name: String;
    }

    user {
        /// Where servers read what they log in with as this user: `file:PATH`, `env:NAME`, `exec:COMMAND` or `rds:`, a token of Amazon RDS.
        password_from: PasswordSource;
    }

    peer {
        /// The peer's address or the directory of its Unix socket. It is needed.
        host: Hosts;
        /// The peer's port; without it, 6432.
        port: NonZeroU16;
    }
}
