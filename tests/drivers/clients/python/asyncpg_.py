"""asyncpg: always named statements and binary values, introspection of types, resets by its pool."""

import asyncio
import datetime
import decimal
import time

import asyncpg

from steps import CONNECTIONS, STARTUP_PARAMETERS, TRANSACTIONS, cancelled_quickly, equal, run, step

ME = "asyncpg"


class Connection:
    """`async with Connection() as c`: a connection that is closed afterwards."""

    def __init__(self, **options):
        self.options = options

    async def __aenter__(self):
        self.conn = await asyncpg.connect(**self.options)
        return self.conn

    async def __aexit__(self, *_):
        await self.conn.close()


@step
async def connects():
    async with Connection() as c:
        equal(("app", "app"), tuple(await c.fetchrow("select current_user::text, current_database()::text")))


@step
async def startup_parameters():
    if not STARTUP_PARAMETERS:
        return
    settings = {"jit": "off", "search_path": "mine, public"}
    async with Connection(server_settings=settings) as mine, Connection() as plain:
        for _ in range(20):
            equal("off", await mine.fetchval("show jit"))
            equal("mine, public", await mine.fetchval("show search_path"))
            equal("on", await plain.fetchval("show jit"))
        # What its pool does with a connection that comes back.
        await mine.reset()
        equal("off", await mine.fetchval("show jit"))


@step
async def parameters():
    values = (
        7,
        "it's ä € \\ $1",
        None,
        b"\x00\xff",
        decimal.Decimal("1.50"),
        [1, 2, 3],
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        True,
    )
    async with Connection() as c:
        sql = "select $1::int, $2::text, $3::text, $4::bytea, $5::numeric, $6::int[], $7::timestamptz, $8::bool"
        equal(values, tuple(await c.fetchrow(sql, *values)))


@step
async def types_are_looked_up():
    async with Connection() as c:
        row = await c.fetchrow("select $1::mood as m, array[row('here', 'calm')::place] as places", "busy")
        equal("busy", row["m"])
        equal("calm", row["places"][0]["mood"])


@step
async def prepared_statements_are_reused():
    async with Connection() as c:
        statement = await c.prepare("select $1::int + 1")
        for i in range(50):
            equal(i, await c.fetchval("select $1::int", i))
            equal(i + 1, await statement.fetchval(i))


@step
async def prepared_statements_are_evicted():
    async with Connection(statement_cache_size=3) as c:
        for _ in range(3):
            for i in range(20):
                equal(i + 1, await c.fetchval(f"select $1::int + {i}", 1))


@step
async def the_same_name_means_different_statements():
    async with Connection() as a, Connection() as b:
        for i in range(20):
            equal(i, await a.fetchval("select $1::int", i))
            equal(f"b{i}", await b.fetchval("select 'b' || $1::text", str(i)))


@step
async def rolls_back():
    async with Connection() as c:
        await c.execute("delete from work where client = $1", ME)
        transaction = c.transaction()
        await transaction.start()
        await c.execute("insert into work values ($1, 'gone', 1)", ME)
        await transaction.rollback()
        equal(0, await c.fetchval("select count(*) from work where client = $1", ME))


@step
async def errors_in_the_middle():
    async with Connection() as c:
        for i in range(10):
            try:
                async with c.transaction():
                    equal(i, await c.fetchval("select $1::int", i))
                    await c.fetchval("select 1 / $1::int", 0)
                raise AssertionError("no error")
            except asyncpg.DivisionByZeroError:
                pass
            async with c.transaction():
                try:
                    async with c.transaction():
                        await c.execute("select no_such_column")
                except asyncpg.UndefinedColumnError:
                    pass
                equal(i, await c.fetchval("select $1::int", i))


@step
async def batches():
    async with Connection() as c:
        await c.execute("delete from work where client = $1", ME)
        await c.executemany("insert into work values ($1, $2, $3)", [(ME, str(i), i) for i in range(500)])
        equal(500, await c.fetchval("select count(*) from work where client = $1", ME))
        try:
            await c.executemany("insert into work values ($1, 'bad', 1 / $2)", [(ME, i) for i in (2, 1, 0)])
            raise AssertionError("no error")
        except asyncpg.DivisionByZeroError:
            pass
        equal(500, await c.fetchval("select count(*) from work where client = $1", ME))


@step
async def copies():
    async with Connection() as c:
        await c.execute("delete from work where client = $1", ME)
        records = [(ME, f"row {i}", i) for i in range(20000)]
        await c.copy_records_to_table("work", records=records)
        chunks = []

        async def sink(data):
            chunks.append(data)

        await c.copy_from_query("select n from work where client = $1 order by n", ME, output=sink)
        equal(list(range(20000)), [int(n) for n in b"".join(chunks).split()])


@step
async def cursors():
    async with Connection() as c, c.transaction():
        got = [row[0] async for row in c.cursor("select generate_series(1, $1::int)", 3000, prefetch=50)]
        equal(list(range(1, 3001)), got)


@step
async def cancels():
    async with Connection() as c:
        start = time.monotonic()
        try:
            await c.fetch("select pg_sleep(15)", timeout=0.3)
            raise AssertionError("not cancelled")
        except asyncio.TimeoutError:
            cancelled_quickly(start)
        equal(1, await c.fetchval("select 1"))
        async with c.transaction():
            equal(2, await c.fetchval("select 2"))


@step
async def pools():
    me = f"{ME}-pool"
    async with asyncpg.create_pool(min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        await pool.execute("delete from work where client = $1", me)

        async def one(i):
            token = f"{ME}-{i}"
            async with pool.acquire() as c, c.transaction():
                await c.execute("insert into work values ($1, $2, $3)", me, token, i)
                old = await c.fetchval("select current_setting('app.token', true)")
                assert not old, f"a token of another transaction: {old}"
                equal(token, await c.fetchval("select set_config('app.token', $1, true)", token))
                equal((token, i), tuple(await c.fetchrow("select current_setting('app.token'), $1::int", i)))

        await asyncio.gather(*[one(i) for i in range(TRANSACTIONS)])
        equal(TRANSACTIONS, await pool.fetchval("select count(distinct token) from work where client = $1", me))


run()
