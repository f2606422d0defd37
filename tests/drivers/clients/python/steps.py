"""What the Python clients share: steps that print a line each, and threads that all must succeed."""

import asyncio
import inspect
import os
import sys
import threading
import time

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
USER = os.environ["PGUSER"]
PASSWORD = os.environ["PGPASSWORD"]
DATABASE = os.environ["PGDATABASE"]

# Whether the pooler applies what a startup message asks for.
STARTUP_PARAMETERS = "DRIVERS_STARTUP_PARAMETERS" in os.environ

CONNECTIONS = 20
TRANSACTIONS = 200

_steps = []


def step(function):
    """Marks a function as a step, in the order of the file."""
    _steps.append(function)
    return function


def run():
    failed = False
    for function in _steps:
        name = function.__name__
        start = time.monotonic()
        try:
            result = function()
            if inspect.iscoroutine(result):
                asyncio.run(asyncio.wait_for(result, 60))
            print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except BaseException as error:  # also what asserts and timeouts raise
            failed = True
            text = " | ".join(str(error).strip().splitlines())
            where = error.__traceback__
            while where.tb_next and where.tb_next.tb_frame.f_code.co_filename == sys.argv[0]:
                where = where.tb_next
            print(f"FAIL {name}: {type(error).__name__} in line {where.tb_lineno}: {text[:400]}", flush=True)
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # a thread that hangs in a client must not keep the script


def equal(expected, got):
    assert expected == got, f"expected {expected!r}, got {got!r}"


def cancelled_quickly(start):
    took = time.monotonic() - start
    assert took < 8, f"the cancel took {took:.1f} s"


def in_threads(work):
    """Runs work(i) for every transaction in as many threads as the pool has connections."""
    numbers = iter(range(TRANSACTIONS))
    lock = threading.Lock()
    errors = []

    def worker():
        while True:
            with lock:
                i = next(numbers, None)
            if i is None or errors:
                return
            try:
                work(i)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread still waits after 60 s"
    if errors:
        raise errors[0]
