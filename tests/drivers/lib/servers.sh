# The scene: a PostgreSQL, the pooler, a load that competes for its servers, and a count of what reaches PostgreSQL.
# Everything stands in one folder and ends with this script.

scene=$(mktemp -d "${TMPDIR:-/tmp}/pgweir-drivers-XXXXXX") || exit 2
started=() # SIGNAL PID of what runs, in the order of its start
trap end_scene EXIT
trap 'exit 130' INT TERM

end_scene() {
    local i signal pid
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        read -r signal pid <<<"${started[i]}"
        end "$signal" "$pid"
    done
    cp "$scene"/*.log "$work/logs/" 2>/dev/null
    rm -rf "$scene"
}

# Ends a process in the way that is kind to it, or after ten seconds in the other.
end() {
    local tries
    kill -"$1" "$2" 2>/dev/null
    for ((tries = 0; tries < 100; tries++)); do
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$2" 2>/dev/null
    wait "$2" 2>/dev/null
}

# Neither PostgreSQL nor a pooler runs as root.
if [ "$(id -u)" = 0 ]; then
    server_user=postgres
    id "$server_user" >/dev/null 2>&1 || server_user=nobody
    unprivileged=(setpriv --reuid "$server_user" --regid "$(id -g "$server_user")" --clear-groups)
    chown "$server_user" "$scene"
else
    unprivileged=()
fi
chmod 755 "$scene"
mkdir "$scene/bin"
for variable in "${!PG@}"; do # PGHOST, PGOPTIONS and their like would lead the clients elsewhere
    [[ $variable = PGWEIR_* ]] || unset "$variable"
done

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs a command until it succeeds, for at most 20 seconds.
until_works() {
    local end=$((SECONDS + 20))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# Sets $bin_dir to the folder with PostgreSQL's programs.
find_postgres() {
    local dir
    for dir in ${PGWEIR_PG_BIN:+"$PGWEIR_PG_BIN"} $(ls -dv /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | tac) \
        "$(dirname "$(readlink -f "$(command -v initdb)")" 2>/dev/null)"; do
        [ -x "$dir/initdb" ] && bin_dir=$dir && return
    done
    echo "run: no PostgreSQL server found; install one, or set PGWEIR_PG_BIN to the folder with initdb" >&2
    return 1
}

# Copies the pooler to where the servers' user can read it: pgweir, or what PGWEIR_BIN names.
find_binary() {
    local binary=${PGWEIR_BIN:-}
    if [ -z "$binary" ]; then
        binary=$target/debug/pgweir
        (cd "$root" && cargo build --quiet --package pgweir) || return
    fi
    [ -x "$binary" ] || { echo "run: PGWEIR_BIN=$binary is not a program" >&2; return 1; }
    cp "$binary" "$scene/bin/pooler" && chmod 755 "$scene/bin/pooler"
    local version
    version=$("$binary" --version | paste -sd ' ')
    echo "pooler: $binary, $version"
    # Another pooler may refuse what drivers ask for in their startup message.
    startup_parameters="ignore_startup_parameters = extra_float_digits"
    [[ $version = *pgweir* ]] || return 0
    startup_parameters="startup_parameters = apply"
    export DRIVERS_STARTUP_PARAMETERS=apply
}

# A cluster with the database and the user `app`, who needs SCRAM, and the tables that the clients use.
start_postgres() {
    find_postgres || return
    local data=$scene/data
    postgres_port=$(free_port)
    "${unprivileged[@]}" "$bin_dir/initdb" --no-sync -U postgres -A trust -E UTF8 --locale=C -D "$data" \
        >"$scene/initdb.log" 2>&1 || { cat "$scene/initdb.log" >&2; return 1; }
    cat >"$data/pg_hba.conf" <<HBA
local all postgres trust
host all app 127.0.0.1/32 scram-sha-256
HBA
    "${unprivileged[@]}" "$bin_dir/postgres" -D "$data" -k "$scene" -p "$postgres_port" -c listen_addresses=127.0.0.1 \
        -c fsync=off -c max_connections=40 -c password_encryption=scram-sha-256 >"$scene/postgres.log" 2>&1 &
    started+=("INT $!")
    until_works "$bin_dir/pg_isready" -q -h "$scene" -p "$postgres_port" || { cat "$scene/postgres.log" >&2; return 1; }
    as_superuser postgres -c "create role app login password 'secret'" -c "create database app owner app" &&
        as_superuser app -f "$here/lib/schema.sql" &&
        "$bin_dir/pgbench" -q -i -h "$scene" -p "$postgres_port" -U postgres app >"$scene/pgbench-init.log" 2>&1 &&
        as_superuser app -c "grant all on all tables in schema public to app"
}

# Runs psql past the pooler.
as_superuser() {
    psql -qAtX -v ON_ERROR_STOP=1 -h "$scene" -p "$postgres_port" -U postgres -d "$@"
}

# Clients log in with SCRAM; the pooler knows only the verifier and logs in to PostgreSQL with the key that it learns.
start_pooler() {
    local port
    port=$(free_port)
    as_superuser app -c "select format('\"app\" \"%s\"', rolpassword) from pg_authid where rolname = 'app'" \
        >"$scene/userlist.txt" || return
    cat >"$scene/pooler.ini" <<INI
[databases]
app = host=127.0.0.1 port=$postgres_port
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $scene/userlist.txt
stats_users = app
pool_mode = transaction
default_pool_size = $pool_size
$startup_parameters
INI
    chmod 644 "$scene/userlist.txt" "$scene/pooler.ini"
    export PGHOST=127.0.0.1 PGPORT=$port PGUSER=app PGPASSWORD=secret PGDATABASE=app
    "${unprivileged[@]}" "$scene/bin/pooler" "$scene/pooler.ini" >"$scene/pooler.log" 2>&1 &
    started+=("QUIT $!")
    until_works psql -X -c "select 1" || { cat "$scene/pooler.log" >&2; return 1; }
}

# More clients than servers, so that every client of the tests has to queue and meets servers that others have used.
start_load() {
    pgbench -n -S -M prepared -c 3 -T 86400 >"$scene/load.log" 2>&1 &
    load_pid=$!
    started+=("TERM $!")
}

start_sampler() {
    local backends="select count(*) from pg_stat_activity where usename = 'app' and backend_type = 'client backend'"
    echo "$backends \\watch 0.05" | as_superuser postgres >"$scene/backends.log" 2>&1 &
    started+=("TERM $!")
}

check_load() {
    kill -0 "$load_pid" 2>/dev/null && ! grep -q 'error\|abort' "$scene/load.log" && echo "load            PASS" && return
    echo "load            FAIL"
    sed 's/^/    /' "$scene/load.log"
    return 1
}

# PostgreSQL's own count of what came through the pooler.
check_limit() {
    local most
    until_works grep -qx '[1-9][0-9]*' "$scene/backends.log"
    most=$(grep -x '[0-9]*' "$scene/backends.log" | sort -n | tail -n 1)
    [ "${most:-0}" -ge 1 ] && [ "$most" -le "$pool_size" ] && echo "limit           PASS (at most $most servers)" && return
    echo "limit           FAIL (PostgreSQL saw ${most:-no} servers at once, the pool's size is $pool_size)"
    return 1
}

# When all clients are gone, none is counted and no server is held.
check_pooler() {
    end TERM "$load_pid"
    until_works nothing_is_held && ! grep 'panicked' "$scene/pooler.log" && echo "pooler          PASS (nothing is held)" && return
    echo "pooler          FAIL (it should hold nothing when all clients are gone)"
    psql -X pgbouncer -x -c "show pools" | sed 's/^/    /'
    return 1
}

nothing_is_held() {
    psql -X -x -At pgbouncer -c "show pools" |
        awk -F'|' '$1 == "database" { ours = $2 == "app" }
            ours && $1 ~ /^(cl_active|cl_waiting|sv_active)$/ { held += $2; seen++ }
            END { exit seen == 3 && held == 0 ? 0 : 1 }'
}
