"""psycopg 3 with psycopg_pool: unnamed statements that become named after five runs, pipelines, libpq's cancel."""

import datetime
import decimal
import threading
import time

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from steps import CONNECTIONS, STARTUP_PARAMETERS, TRANSACTIONS, cancelled_quickly, equal, in_threads, run, step

ME = "psycopg"


def connect(**options):
    return psycopg.connect("", **options)


@step
def connects():
    with connect() as conn:
        equal(("app", "app"), conn.execute("select current_user, current_database()").fetchone())
        equal("UTF8", conn.info.parameter_status("server_encoding"))


@step
def startup_parameters():
    if not STARTUP_PARAMETERS:
        return
    options = "-c search_path=mine,public -c statement_timeout=7s"
    with connect(autocommit=True, options=options) as mine, connect(autocommit=True) as plain:
        for _ in range(20):
            equal(("mine,public",), mine.execute("show search_path").fetchone())
            equal(("7s",), mine.execute("show statement_timeout").fetchone())
            equal(("0",), plain.execute("show statement_timeout").fetchone())


@step
def parameters():
    values = (
        7,
        "it's ä € \\ $1",
        None,
        b"\x00\xff",
        decimal.Decimal("1.50"),
        [1, 2, 3],
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        Jsonb({"a": [1]}),
        True,
    )
    for binary in (False, True):
        with connect() as conn:
            sql = "select %s::int, %s::text, %s::text, %s::bytea, %s::numeric, %s::int[], %s::timestamptz, %s::jsonb, %s::bool"
            got = conn.execute(sql, values, binary=binary).fetchone()
            equal(values[:7] + ({"a": [1]}, True), got)


@step
def prepared_statements_are_reused():
    with connect(autocommit=True) as conn:
        for i in range(50):
            equal((i, str(i)), conn.execute("select %s::int, %s::text", (i, i)).fetchone())
            equal((i + 1,), conn.execute("select %s::int + 1", (i,), prepare=True, binary=True).fetchone())


@step
def prepared_statements_are_evicted():
    with connect(autocommit=True, prepare_threshold=0) as conn:
        conn.prepared_max = 3
        for _ in range(3):
            for i in range(20):
                equal((i + 1,), conn.execute(f"select %s::int + {i}", (1,)).fetchone())


@step
def the_same_name_means_different_statements():
    with connect(autocommit=True, prepare_threshold=0) as a, connect(autocommit=True, prepare_threshold=0) as b:
        for i in range(20):
            equal((i,), a.execute("select %s::int", (i,)).fetchone())
            equal((f"b{i}",), b.execute("select 'b' || %s::text", (i,)).fetchone())


@step
def rolls_back():
    with connect() as conn:
        conn.execute("delete from work where client = %s", (ME,))
        conn.commit()
        conn.execute("insert into work values (%s, 'gone', 1)", (ME,))
        conn.rollback()
        equal((0,), conn.execute("select count(*) from work where client = %s", (ME,)).fetchone())


@step
def errors_in_the_middle():
    with connect() as conn:
        for i in range(10):
            conn.execute("select %s::int", (i,))
            try:
                conn.execute("select 1 / %s", (0,))
                raise AssertionError("no error")
            except psycopg.errors.DivisionByZero:
                pass
            try:
                conn.execute("select 1")
                raise AssertionError("the transaction went on")
            except psycopg.errors.InFailedSqlTransaction:
                pass
            conn.rollback()
            with conn.transaction():
                try:
                    with conn.transaction():
                        conn.execute("select no_such_column")
                except psycopg.errors.UndefinedColumn:
                    pass
                equal((i,), conn.execute("select %s::int", (i,)).fetchone())


@step
def pipelines():
    for autocommit in (True, False):
        with connect(autocommit=autocommit, prepare_threshold=2) as conn:
            for _ in range(5):
                with conn.pipeline() as pipeline:
                    cursors = [conn.execute("select %s::int", (i,)) for i in range(30)]
                    pipeline.sync()
                    cursors += [conn.execute("select %s::text", (i,)) for i in range(30)]
                equal(list(range(30)), [c.fetchone()[0] for c in cursors[:30]])
                equal([str(i) for i in range(30)], [c.fetchone()[0] for c in cursors[30:]])


@step
def pipelines_with_errors():
    with connect(autocommit=True, prepare_threshold=0) as conn:
        for i in range(10):
            try:
                with conn.pipeline():
                    conn.execute("select %s::int", (i,))
                    conn.execute("select 1 / %s::int", (0,))
                    conn.execute("select %s::text", (i,))
                raise AssertionError("no error")
            except psycopg.errors.DivisionByZero:
                pass
            equal((i,), conn.execute("select %s::int", (i,)).fetchone())


@step
def batches():
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("delete from work where client = %s", (ME,))
        rows = [(ME, str(i), i) for i in range(300)]
        cursor.executemany("insert into work values (%s, %s, %s) returning n", rows, returning=True)
        got = [cursor.fetchone()[0]]
        while cursor.nextset():
            got.append(cursor.fetchone()[0])
        equal(list(range(300)), got)


@step
def copies():
    for form in ("text", "binary"):
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute("delete from work where client = %s", (ME,))
            with cursor.copy(f"copy work from stdin (format {form})") as copy:
                copy.set_types(["text", "text", "int4"])
                for i in range(20000):
                    copy.write_row((ME, f"row {i}", i))
            with cursor.copy(
                f"copy (select token, n from work where client = '{ME}' order by n) to stdout (format {form})"
            ) as copy:
                copy.set_types(["text", "int4"])
                got = list(copy.rows())
            equal(20000, len(got))
            equal(("row 19999", 19999), got[-1])


@step
def copies_that_fail():
    with connect() as conn:
        for _ in range(3):
            try:
                with conn.cursor().copy("copy work from stdin") as copy:
                    copy.write(f"{ME}\tbad\tnot a number\n")
                raise AssertionError("no error")
            except psycopg.errors.InvalidTextRepresentation:
                conn.rollback()
            try:
                with conn.cursor().copy("copy work from stdin") as copy:
                    copy.write(f"{ME}\tleft\t1\n")
                    raise KeyError("the program changed its mind")
            except KeyError:
                conn.rollback()
            equal((1,), conn.execute("select 1").fetchone())


@step
def cursors():
    with connect() as conn, conn.cursor("portal") as cursor:
        cursor.itersize = 100
        cursor.execute("select generate_series(1, %s)", (5000,))
        equal(list(range(1, 5001)), [row[0] for row in cursor])


@step
def cancels():
    for cancel in ("cancel", "cancel_safe"):
        with connect(autocommit=True) as conn:
            threading.Timer(0.3, getattr(conn, cancel)).start()
            start = time.monotonic()
            try:
                conn.execute("select pg_sleep(15)")
                raise AssertionError("not cancelled")
            except psycopg.errors.QueryCanceled:
                cancelled_quickly(start)
            equal((1,), conn.execute("select 1").fetchone())


@step
def pools():
    with ConnectionPool("", min_size=CONNECTIONS, max_size=CONNECTIONS, timeout=60) as pool:

        def transaction(i):
            token = f"{ME}-{i}"
            with pool.connection() as conn:
                conn.execute("insert into work values (%s, %s, %s)", (f"{ME}-pool", token, i))
                old = conn.execute("select current_setting('app.token', true)").fetchone()[0]
                assert not old, f"a token of another transaction: {old}"
                equal((token,), conn.execute("select set_config('app.token', %s, true)", (token,)).fetchone())
                equal((token, i), conn.execute("select current_setting('app.token'), %s::int", (i,)).fetchone())

        with pool.connection() as conn:
            conn.execute("delete from work where client = %s", (f"{ME}-pool",))
        in_threads(transaction)
        with pool.connection() as conn:
            count = conn.execute("select count(distinct token) from work where client = %s", (f"{ME}-pool",))
            equal((TRANSACTIONS,), count.fetchone())


@step
async def asynchronous_pools():
    import asyncio

    async with AsyncConnectionPool("", min_size=CONNECTIONS, max_size=CONNECTIONS, open=False, timeout=60) as pool:

        async def transaction(i):
            async with pool.connection() as conn, conn.pipeline():
                first = await conn.execute("select set_config('app.token', %s, true)", (str(i),))
                second = await conn.execute("select current_setting('app.token')")
                equal((str(i),), await first.fetchone())
                equal((str(i),), await second.fetchone())

        await asyncio.gather(*[transaction(i) for i in range(TRANSACTIONS)])


run()
