"""SQLAlchemy over four drivers: pre-ping, isolation levels, savepoints, its own pool."""

import asyncio

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from steps import CONNECTIONS, DATABASE, HOST, PASSWORD, PORT, TRANSACTIONS, USER, equal, in_threads, run, step

metadata = sa.MetaData()
work = sa.Table("work", metadata, sa.Column("client", sa.Text), sa.Column("token", sa.Text), sa.Column("n", sa.Integer))


def url(driver):
    return sa.URL.create(f"postgresql+{driver}", USER, PASSWORD, HOST, PORT, DATABASE)


def workload(driver):
    me = f"sqlalchemy-{driver}"
    engine = sa.create_engine(url(driver), pool_size=CONNECTIONS, pool_timeout=60, pool_pre_ping=True)
    with engine.begin() as conn:
        conn.execute(work.delete().where(work.c.client == me))
        conn.execute(work.insert(), [{"client": me, "token": str(i), "n": i} for i in range(300)])
        with conn.begin_nested() as savepoint:
            conn.execute(work.insert(), [{"client": me, "token": "gone", "n": -1}])
            savepoint.rollback()
    with engine.connect() as conn:
        rows = conn.execute(sa.select(work.c.n).where(work.c.client == me).order_by(work.c.n)).scalars().all()
        equal(list(range(300)), rows)
    # With pg8000, it is a setting of the session, which stays behind on the server it was made on.
    if driver != "pg8000":
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
            equal("repeatable read", conn.execute(sa.text("show transaction_isolation")).scalar())

    def transaction(i):
        token = f"{me}-{i}"
        with engine.begin() as conn:
            equal(token, conn.execute(sa.text("select set_config('app.token', :t, true)"), {"t": token}).scalar())
            equal(token, conn.execute(sa.text("select current_setting('app.token')")).scalar())

    in_threads(transaction)
    engine.dispose()


@step
def over_psycopg():
    workload("psycopg")


@step
def over_psycopg2():
    workload("psycopg2")


@step
def over_pg8000():
    workload("pg8000")


@step
async def over_asyncpg():
    engine = create_async_engine(url("asyncpg"), pool_size=CONNECTIONS, pool_timeout=60)

    async def transaction(i):
        async with engine.begin() as conn:
            token = (await conn.execute(sa.text("select set_config('app.token', :t, true)"), {"t": str(i)})).scalar()
            equal(str(i), token)
            equal(str(i), (await conn.execute(sa.text("select current_setting('app.token')"))).scalar())

    await asyncio.gather(*[transaction(i) for i in range(TRANSACTIONS)])
    await engine.dispose()


run()
