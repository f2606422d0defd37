# pgbench in its three protocols: transactions that check their own tokens, pipelines, reconnects, and TPC-B.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../steps.sh"

# Runs a script in one protocol with 20 clients, 200 transactions in all. A wrong reply aborts the client.
# Each client has its own thread: pgbench prepares a statement without letting the thread's other clients go on, so
# where two of them hold both servers in their transactions, it would wait for ever.
bench() {
    local said
    said=$(pgbench -n -c 20 -j 20 -t 10 "$@" 2>&1) &&
        grep -q 'actually processed: 200/200' <<<"$said" && ! grep -q 'aborted\|error' <<<"$said" ||
        { grep -v '^pgbench (' <<<"$said"; return 1; }
}

tokens_simple() { bench -M simple -f "$here/token.sql"; }
tokens_extended() { bench -M extended -f "$here/token.sql"; }
tokens_prepared() { bench -M prepared -f "$here/token.sql"; }
pipeline_extended() { bench -M extended -f "$here/pipeline.sql"; }
pipeline_prepared() { bench -M prepared -f "$here/pipeline.sql"; }
reconnecting() { bench -C -M prepared -f "$here/token.sql"; }

# What TPC-B has moved is the same in all its tables.
tpcb() {
    local protocol sums
    for protocol in simple extended prepared; do
        bench -M "$protocol" || return
    done
    sums=$(psql -XqAt -c "select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)
        and (select sum(delta) from pgbench_history) = (select sum(tbalance) from pgbench_tellers)
        and (select count(*) from pgbench_history) >= 600")
    equal t "$sums"
}

steps tokens_simple tokens_extended tokens_prepared pipeline_extended pipeline_prepared reconnecting tpcb
