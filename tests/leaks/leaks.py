"""The bugs of runbooks, in Python with psycopg."""

import asyncio
import sys
import threading
import time

import psycopg

INSERT = "insert into orders values (1, 'a secret')"
kept = []


def silent():
    print("silent", flush=True)


def forgotten_release():
    connection = psycopg.connect(autocommit=True)
    connection.execute("select count(*) from orders")
    kept.append(connection)
    silent()
    psycopg.connect(autocommit=True).execute("select 'waits'")


def missing_await():
    async def handler():
        connection = await psycopg.AsyncConnection.connect()
        await connection.execute(INSERT)
        connection.commit()
        silent()
        await asyncio.sleep(60)

    asyncio.run(handler())


def panic():
    def handler():
        connection = psycopg.connect()
        kept.append(connection)
        connection.execute(INSERT)
        raise RuntimeError("the rest of the order is missing")

    thread = threading.Thread(target=handler)
    thread.start()
    thread.join()
    silent()
    time.sleep(60)


def slow_call():
    with psycopg.connect() as connection:
        connection.execute(INSERT)
        silent()
        time.sleep(60)


bugs = [forgotten_release, missing_await, panic, slow_call]
{bug.__name__: bug for bug in bugs}[sys.argv[1]]()
