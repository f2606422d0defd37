"""pg8000: the protocol in pure Python, with its own SCRAM.

It parses the unnamed statement and uses it after the next Sync. Behind a transaction pooler that holds only within a
transaction, so everything with parameters stands in one, as with PgBouncer.
"""

import pg8000.dbapi
import pg8000.native

from steps import DATABASE, HOST, PASSWORD, PORT, USER, equal, in_threads, run, step

ME = "pg8000"


def connect():
    return pg8000.native.Connection(USER, host=HOST, port=PORT, password=PASSWORD, database=DATABASE)


@step
def parameters():
    with connect() as conn:
        conn.run("begin")
        for i in range(50):
            equal([[i, "it's ä", None]], conn.run("select cast(:a as int), cast(:b as text), cast(:c as text)", a=i, b="it's ä", c=None))
        conn.run("commit")


@step
def prepared_statements_are_reused():
    with connect() as conn:
        statement = conn.prepare("select cast(:a as int) + 1")
        for i in range(50):
            equal([[i + 1]], statement.run(a=i))
        statement.close()


@step
def errors_in_the_middle():
    with connect() as conn:
        for i in range(10):
            conn.run("begin")
            conn.run("insert into work values (:c, 'gone', 1)", c=ME)
            try:
                conn.run("select 1 / cast(:a as int)", a=0)
                raise AssertionError("no error")
            except pg8000.native.DatabaseError as error:
                equal("22012", error.args[0]["C"])
            conn.run("rollback")
            equal([[0]], conn.run(f"select count(*) from work where client = '{ME}'"))


@step
def many_connections():
    def transaction(i):
        with connect() as conn:
            conn.run("begin")
            equal([[str(i)]], conn.run("select set_config('app.token', :t, true)", t=str(i)))
            equal([[str(i)]], conn.run("select current_setting('app.token')"))
            conn.run("commit")

    in_threads(transaction)


run()
