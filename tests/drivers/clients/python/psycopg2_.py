"""psycopg2: values are put into the SQL text, and everything goes by the simple protocol."""

import io
import threading
import time

import psycopg2
import psycopg2.errors
from psycopg2.extras import execute_values
from psycopg2.pool import ThreadedConnectionPool

from steps import CONNECTIONS, STARTUP_PARAMETERS, TRANSACTIONS, cancelled_quickly, equal, in_threads, run, step

ME = "psycopg2"


def one(conn, sql, values=None):
    with conn.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()


def do(conn, sql, values=None):
    with conn.cursor() as cursor:
        cursor.execute(sql, values)


@step
def startup_parameters():
    if not STARTUP_PARAMETERS:
        return
    mine = psycopg2.connect("", options="-c search_path=mine -c extra_float_digits=0")
    plain = psycopg2.connect("")
    mine.autocommit = plain.autocommit = True
    for _ in range(20):
        equal(("mine",), one(mine, "show search_path"))
        equal(("0.3333333333333333",), one(plain, "select (1/3.0)::float8::text"))
        equal(("0.333333333333333",), one(mine, "select (1/3.0)::float8::text"))
    mine.close()
    plain.close()


@step
def parameters():
    conn = psycopg2.connect("")
    for i in range(50):
        equal((i, "it's ä \\", None, [1, 2]), one(conn, "select %s, %s, %s, %s", (i, "it's ä \\", None, [1, 2])))
    conn.close()


@step
def rolls_back():
    conn = psycopg2.connect("")
    do(conn, "delete from work where client = %s", (ME,))
    conn.commit()
    do(conn, "insert into work values (%s, 'gone', 1)", (ME,))
    conn.rollback()
    equal((0,), one(conn, "select count(*) from work where client = %s", (ME,)))
    conn.close()


@step
def errors_in_the_middle():
    conn = psycopg2.connect("")
    for i in range(10):
        try:
            do(conn, "select 1 / 0")
            raise AssertionError("no error")
        except psycopg2.errors.DivisionByZero:
            conn.rollback()
        equal((i,), one(conn, "select %s", (i,)))
    conn.close()


@step
def copies():
    conn = psycopg2.connect("")
    cursor = conn.cursor()
    cursor.execute("delete from work where client = %s", (ME,))
    execute_values(cursor, "insert into work values %s", [(ME, "values", i) for i in range(1000)])
    cursor.copy_expert("copy work from stdin", io.StringIO("".join(f"{ME}\tcopy\t{i}\n" for i in range(20000))))
    out = io.StringIO()
    cursor.copy_expert(f"copy (select n from work where client = '{ME}' and token = 'copy' order by n) to stdout", out)
    equal(list(range(20000)), [int(n) for n in out.getvalue().split()])
    conn.commit()
    conn.close()


@step
def cursors():
    conn = psycopg2.connect("")
    cursor = conn.cursor("portal")
    cursor.itersize = 100
    cursor.execute("select generate_series(1, 3000)")
    equal(list(range(1, 3001)), [row[0] for row in cursor])
    conn.close()


@step
def cancels():
    conn = psycopg2.connect("")
    threading.Timer(0.3, conn.cancel).start()
    start = time.monotonic()
    try:
        do(conn, "select pg_sleep(15)")
        raise AssertionError("not cancelled")
    except psycopg2.errors.QueryCanceled:
        cancelled_quickly(start)
    conn.rollback()
    equal((1,), one(conn, "select 1"))
    conn.close()


@step
def pools():
    pool = ThreadedConnectionPool(CONNECTIONS, CONNECTIONS, "")

    def transaction(i):
        conn = pool.getconn()
        token = f"{ME}-{i}"
        old = one(conn, "select current_setting('app.token', true)")[0]
        assert not old, f"a token of another transaction: {old}"
        equal((token,), one(conn, "select set_config('app.token', %s, true)", (token,)))
        equal((token, i), one(conn, "select current_setting('app.token'), %s", (i,)))
        do(conn, "insert into work values (%s, %s, %s)", (f"{ME}-pool", token, i))
        conn.commit()
        pool.putconn(conn)

    conn = pool.getconn()
    do(conn, "delete from work where client = %s", (f"{ME}-pool",))
    conn.commit()
    pool.putconn(conn)
    in_threads(transaction)
    conn = pool.getconn()
    equal((TRANSACTIONS,), one(conn, "select count(distinct token) from work where client = %s", (f"{ME}-pool",)))
    pool.putconn(conn)
    pool.closeall()


run()
