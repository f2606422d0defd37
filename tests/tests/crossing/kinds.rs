//! Everything that a client can leave in a session.

/// What a client does, and how another one would notice it: with an answer that a fresh session does not give.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// One transaction each.
    pub(crate) leave: &'static [&'static str],
    pub(crate) look: &'static str,
}

const fn kind(name: &'static str, leave: &'static [&'static str], look: &'static str) -> Kind {
    Kind { name, leave, look }
}

pub(crate) const LOCKS: &str =
    "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
pub(crate) const TEMPORARY: &str =
    "select count(*) from pg_class where relnamespace = pg_my_temp_schema()";
const HELD: &str = "select count(*) from pg_cursors where is_holdable";
const SQL_PREPARED: &str = "select count(*) from pg_prepared_statements where from_sql";
pub(crate) const LAST_DRAWN: &str = "select lastval()";

pub(crate) const KINDS: &[Kind] = &[
    kind("set", &["set work_mem = '1MB'"], "show work_mem"),
    kind(
        "set local",
        &["begin; set local work_mem = '1MB'; commit"],
        "show work_mem",
    ),
    kind(
        "timeout",
        &["set statement_timeout = '77s'"],
        "show statement_timeout",
    ),
    kind(
        "search_path",
        &["set search_path = other, pg_temp"],
        "show search_path",
    ),
    kind(
        "own parameter",
        &["set app.tenant = 'a'"],
        "select coalesce(current_setting('app.tenant', true), '')",
    ),
    kind(
        "read only",
        &["set default_transaction_read_only = on"],
        "show default_transaction_read_only",
    ),
    kind(
        "characteristics",
        &["set session characteristics as transaction isolation level serializable"],
        "show default_transaction_isolation",
    ),
    kind(
        "set_config",
        &["select set_config('work_mem', '2MB', false)"],
        "show work_mem",
    ),
    kind(
        "set_config of a name that is computed",
        &["select set_config('work' || '_mem', '2MB', false)"],
        "show work_mem",
    ),
    kind(
        "set_config in do",
        &["do $$ begin perform set_config('work_mem', '3MB', false); end $$"],
        "show work_mem",
    ),
    kind(
        "own parameter in do",
        &["do $$ begin set app.project = 'a'; end $$"],
        "select coalesce(current_setting('app.project', true), '')",
    ),
    kind(
        "set_config in a function",
        &["select sets_work_mem()"],
        "show work_mem",
    ),
    kind(
        "own parameter in a function",
        &["select sets_tenant()"],
        "select coalesce(current_setting('app.owner', true), '')",
    ),
    kind(
        "set in a trigger",
        &["insert into sets_by_trigger values (1)"],
        "show statement_timeout",
    ),
    kind("role", &["set role helper"], "select current_user::text"),
    kind(
        "role in a function",
        &["select sets_role()"],
        "select current_user::text",
    ),
    kind(
        "role by set_config",
        &["select set_config('role', 'helper', false)"],
        "select current_user::text",
    ),
    kind(
        "session authorization",
        &["set session authorization helper"],
        "select session_user::text",
    ),
    kind(
        "temporary table",
        &["create temp table mine (x int)"],
        TEMPORARY,
    ),
    kind(
        "temporary table in a function",
        &["select makes_temporary()"],
        TEMPORARY,
    ),
    kind(
        "temporary table of select into",
        &["select 1 as a into temp mine"],
        TEMPORARY,
    ),
    kind("lock", &["select pg_advisory_lock(7)"], LOCKS),
    kind(
        "tried lock",
        &["select pg_try_advisory_lock_shared(7, 8)"],
        LOCKS,
    ),
    kind("lock in a function", &["select locks()"], LOCKS),
    kind(
        "lock in do",
        &["do $$ begin perform pg_advisory_lock(7); end $$"],
        LOCKS,
    ),
    kind("lock in a procedure", &["call locks_by_call()"], LOCKS),
    kind(
        "listen",
        &["listen news"],
        "select count(*) from pg_listening_channels()",
    ),
    kind(
        "listen in do",
        &["do $$ begin listen news; end $$"],
        "select count(*) from pg_listening_channels()",
    ),
    kind("prepare", &["prepare p as select 1"], SQL_PREPARED),
    kind(
        "cursor",
        &["begin; declare c cursor with hold for select 1; commit"],
        HELD,
    ),
    kind("sequence", &["select nextval('numbers')"], LAST_DRAWN),
    kind(
        "identity",
        &["insert into numbered default values"],
        LAST_DRAWN,
    ),
    kind("sequence in a function", &["select draws()"], LAST_DRAWN),
];

pub(crate) const SCHEMA: &str = "
    create schema other;
    create role helper;
    create sequence numbers;
    create table numbered (id int generated always as identity);
    create table sets_by_trigger (x int);
    create function sets_work_mem() returns text language sql as
        $$ select set_config('work_mem', '5MB', false) $$;
    create function sets_tenant() returns void language plpgsql as
        $$ begin set app.owner = 'somebody'; end $$;
    create function sets_role() returns void language plpgsql as
        $$ begin perform set_config('role', 'helper', false); end $$;
    create function makes_temporary() returns void language plpgsql as
        $$ begin execute 'create temp table hers (x int)'; end $$;
    create function locks() returns void language plpgsql as
        $$ begin perform pg_try_advisory_lock(9); end $$;
    create procedure locks_by_call() language plpgsql as
        $$ begin perform pg_try_advisory_lock(9); end $$;
    create function draws() returns bigint language sql as $$ select nextval('numbers') $$;
    create function sets_timeout() returns trigger language plpgsql as
        $$ begin perform set_config('statement_timeout', '99s', false); return new; end $$;
    create trigger t after insert on sets_by_trigger for each row execute function sets_timeout();
";
