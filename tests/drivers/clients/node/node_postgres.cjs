// node-postgres (pg) with pg-cursor and pg-copy-streams: named statements, suspended portals, streams, its pool.
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const pg = require('pg');
const Cursor = require('pg-cursor');
const copy = require('pg-copy-streams');
const { STARTUP_PARAMETERS, CONNECTIONS, TRANSACTIONS, numbers, equal, run, fails } = require('./steps.cjs');

const ME = 'node-pg';

/** Gives a connected client to a function and closes it. */
async function connected(use, config = {}) {
  const client = new pg.Client(config); // it reads the PG* variables
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

const value = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])[0];

run({
  connects: () => connected(async (c) => equal(await value(c, 'select current_user::text'), 'app')),

  startup_parameters: () =>
    STARTUP_PARAMETERS &&
    connected(
      (mine) =>
        connected(async (plain) => {
          for (const _ of numbers(20)) {
            equal(await value(mine, 'show search_path'), 'mine');
            equal(await value(mine, 'show statement_timeout'), '7s');
            equal(await value(mine, 'show lock_timeout'), '3s');
            equal(await value(plain, 'show statement_timeout'), '0');
          }
        }),
      { options: '-c search_path=mine', statement_timeout: 7000, lock_timeout: 3000 },
    ),

  parameters: () =>
    connected(async (c) => {
      const values = [7, "it's ä € \\ $1", null, Buffer.from([0, 255]), [1, 2, 3], true, { a: [1] }];
      const sql = 'select $1::int a, $2::text b, $3::text c, $4::bytea d, $5::int[] e, $6::bool f, $7::jsonb g';
      equal(Object.values((await c.query(sql, values)).rows[0]), values);
    }),

  prepared_statements_are_reused: () =>
    connected(async (c) => {
      for (const i of numbers(50)) {
        equal((await c.query({ name: 'q', text: 'select $1::int as n', values: [i] })).rows[0].n, i);
        equal((await c.query({ name: 'b', text: 'select $1::int as n', values: [i], binary: true })).rows[0].n, i);
      }
    }),

  the_same_name_means_different_statements: () =>
    connected((a) =>
      connected(async (b) => {
        for (const i of numbers(20)) {
          equal((await a.query({ name: 'q', text: 'select $1::int as n', values: [i] })).rows[0].n, i);
          equal((await b.query({ name: 'q', text: "select 'b' || $1::text as n", values: [i] })).rows[0].n, `b${i}`);
        }
      }),
    ),

  rolls_back: () =>
    connected(async (c) => {
      await c.query('delete from work where client = $1', [ME]);
      await c.query('begin');
      await c.query("insert into work values ($1, 'gone', 1)", [ME]);
      await c.query('rollback');
      equal(await value(c, 'select count(*)::int from work where client = $1', [ME]), 0);
    }),

  errors_in_the_middle: () =>
    connected(async (c) => {
      for (const i of numbers(10)) {
        await c.query('begin');
        await fails('22012', c.query({ name: 'd', text: 'select 1 / $1::int', values: [0] }));
        await fails('25P02', c.query('select 1'));
        await c.query('rollback');
        await fails('42703', c.query('select no_such_column'));
        await fails('42703', c.query({ name: `bad${i}`, text: 'select no_such_column + $1', values: [1] }));
        equal(await value(c, 'select $1::int', [i]), i);
      }
    }),

  // All at once on one connection: the client queues them.
  queued_queries: () =>
    connected(async (c) => {
      const queries = numbers(100).map((i) => value(c, 'select $1::int', [i]));
      equal(await Promise.all(queries), numbers(100));
    }),

  copies: () =>
    connected(async (c) => {
      await c.query('delete from work where client = $1', [ME]);
      const rows = numbers(20000).map((i) => `${ME}\tcopy\t${i}\n`);
      await pipeline(Readable.from(rows), c.query(copy.from('copy work from stdin')));
      let text = '';
      const out = c.query(copy.to(`copy (select n from work where client = '${ME}' order by n) to stdout`));
      for await (const chunk of out) text += chunk;
      equal(text.trim().split('\n').map(Number), numbers(20000));
    }),

  cursors: () =>
    connected(async (c) => {
      for (const statement of ['begin', 'commit']) {
        await c.query(statement);
        if (statement === 'commit') break;
        const cursor = c.query(new Cursor('select generate_series(1, $1::int) n', [3000]));
        const got = [];
        for (;;) {
          const rows = await cursor.read(100);
          if (rows.length === 0) break;
          got.push(...rows.map((row) => row.n));
        }
        await cursor.close();
        equal(got, numbers(3000).map((i) => i + 1));
      }
    }),

  cursors_closed_early: () =>
    connected(async (c) => {
      for (const i of numbers(5)) {
        await c.query('begin');
        const cursor = c.query(new Cursor('select generate_series(1, $1::int) n', [3000]));
        equal((await cursor.read(10)).length, 10);
        await cursor.close();
        equal(await value(c, 'select $1::int', [i]), i);
        await c.query('commit');
      }
    }),

  cancels: () =>
    connected(async (c) => {
      const sleeping = c.query('select pg_sleep(15)');
      const start = Date.now();
      setTimeout(() => new pg.Client().cancel(c, c._activeQuery ?? c.activeQuery), 300);
      await fails('57014', sleeping);
      if (Date.now() - start > 8000) throw new Error(`the cancel took ${Date.now() - start} ms`);
      equal(await value(c, 'select 1'), 1);
    }),

  pools: async () => {
    const pool = new pg.Pool({ max: CONNECTIONS });
    const me = `${ME}-pool`;
    await pool.query('delete from work where client = $1', [me]);
    const transaction = async (i) => {
      const c = await pool.connect();
      const token = `${ME}-${i}`;
      await c.query('begin');
      const old = await value(c, "select current_setting('app.token', true)");
      if (old) throw new Error(`a token of another transaction: ${old}`);
      equal(await value(c, { name: 'set', text: "select set_config('app.token', $1, true)", values: [token] }), token);
      const row = (await c.query("select current_setting('app.token') t, $1::int n", [i])).rows[0];
      equal({ ...row }, { t: token, n: i });
      await c.query({ name: 'insert', text: 'insert into work values ($1, $2, $3)', values: [me, token, i] });
      await c.query('commit');
      c.release();
    };
    await Promise.all(numbers(TRANSACTIONS).map(transaction));
    equal(await value(pool, 'select count(distinct token)::int from work where client = $1', [me]), TRANSACTIONS);
    await pool.end();
  },
});
