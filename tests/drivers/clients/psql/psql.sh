# psql: the simple protocol, its variables, savepoints, COPY, FETCH_COUNT's cursors, and cancel with Ctrl-C.
set -u
name=psql
. "$(dirname "$0")/../steps.sh"

sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }

connect() { equal "app|app" "$(sql -c 'select current_user, current_database()')"; }

# What psql quotes arrives as it was.
parameters() {
    local odd="it's \"ä\" \\ € \$1"
    equal "$odd" "$(sql -v "odd=$odd" <<<"select :'odd'")"
}

# Many statements of one session, each answered with its own number.
reuse() {
    equal "$(seq 1 200)" "$(for i in $(seq 1 200); do echo "select $i;"; done | sql)"
}

prepare_in_transaction() {
    equal "3 7" "$(sql <<<"begin; prepare p as select \$1::int + \$2; execute p(1, 2); execute p(3, 4); deallocate p; commit;" | xargs)"
}

rollback() {
    sql -c "delete from work where client = 'psql'"
    sql <<<"begin; insert into work values ('psql', 'gone', 1); rollback;"
    equal 0 "$(sql -c "select count(*) from work where client = 'psql'")"
}

# The error stands in its place, what follows is refused until ROLLBACK, and then the session goes on.
error_in_the_middle() {
    local said
    said=$(psql -XqAt 2>&1 <<<"begin; select 1; select 1/0; select 2; rollback; select 3;" | xargs -d '\n')
    equal "1 ERROR: division by zero ERROR: current transaction is aborted, commands ignored until end of transaction block 3" \
        "${said//  / }"
}

savepoints() {
    equal "1 2" "$(sql -v ON_ERROR_STOP=0 -v ON_ERROR_ROLLBACK=on 2>/dev/null <<<"begin; select 1; select 1/0; select 2; commit;" | xargs)"
}

# Several statements in one message are one transaction.
many_in_one_message() {
    equal 5 "$(sql -c "insert into work values ('psql', 'a', 1); select 5")" || return
    sql -c "insert into work values ('psql', 'b', 1); select 1/0" 2>/dev/null
    equal 0 "$(sql -c "select count(*) from work where client = 'psql' and token = 'b'")"
}

copy() {
    sql -c "delete from work where client = 'psql'"
    seq 1 20000 | sed 's/^/psql\tcopy\t/' | sql -c '\copy work from stdin'
    equal "$(seq 1 20000 | md5sum)" "$(sql -c "\copy (select n from work where client = 'psql' order by n) to stdout" | md5sum)"
}

copy_with_a_bad_row() {
    local said
    said=$( (printf 'psql\tbad\t1\n'; printf 'psql\tbad\tx\n') | sql -c '\copy work from stdin' 2>&1)
    [[ $said = *"invalid input syntax"* ]] || { echo "$said"; return 1; }
    equal 1 "$(sql -c 'select 1')"
}

cursor() {
    equal "$(seq 1 3000)" "$(sql -v FETCH_COUNT=100 <<<"select generate_series(1, 3000);")"
}

cancel() {
    local started=$SECONDS said
    # timeout's SIGINT is a user's Ctrl-C.
    said=$(timeout --foreground -s INT 1 psql -XqAt -c 'select pg_sleep(15)' 2>&1)
    [ $((SECONDS - started)) -lt 10 ] || { echo "took $((SECONDS - started)) s"; return 1; }
    [[ $said = *"canceling statement due to user request"* ]] || { echo "said: $said"; return 1; }
}

# Twenty sessions at once, ten transactions each.
session() {
    local i
    for i in $(seq 1 10); do
        echo "begin; select set_config('app.token', '$1-$i', true) is null; select pg_sleep(0.002) is null;"
        echo "select current_setting('app.token'); commit;"
    done | sql | grep -v '^f$'
}

pool() {
    local i folder
    folder=$(mktemp -d)
    for i in $(seq 1 20); do session "$i" >"$folder/$i" 2>&1 & done
    wait
    for i in $(seq 1 20); do
        equal "$(for k in $(seq 1 10); do echo "$i-$k"; done)" "$(cat "$folder/$i")" || { rm -rf "$folder"; return 1; }
    done
    rm -rf "$folder"
}

steps connect parameters reuse prepare_in_transaction rollback error_in_the_middle savepoints many_in_one_message \
    copy copy_with_a_bad_row cursor cancel pool
