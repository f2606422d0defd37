// postgres.js: pipelines by default, named statements, COPY as streams, cursors and savepoints in transactions.
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const postgres = require('postgres');
const { STARTUP_PARAMETERS, CONNECTIONS, TRANSACTIONS, numbers, equal, run, fails } = require('./steps.cjs');

const ME = 'postgres-js';

/** Gives a pool of so many connections to a function and ends it. */
async function pool(max, use, options = {}) {
  const sql = postgres({ max, onnotice: () => {}, ...options }); // it reads the PG* variables
  try {
    return await use(sql);
  } finally {
    await sql.end({ timeout: 2 });
  }
}

run({
  startup_parameters: () =>
    STARTUP_PARAMETERS &&
    pool(
      1,
      (mine) =>
        pool(1, async (plain) => {
          for (const _ of numbers(20)) {
            equal((await mine`show search_path`)[0].search_path, 'mine, public');
            equal((await plain`show search_path`)[0].search_path, '"$user", public');
          }
        }),
      { connection: { search_path: 'mine, public' } },
    ),

  prepared_statements_are_reused: () =>
    pool(1, async (sql) => {
      for (const i of numbers(50)) equal((await sql`select ${i}::int as n, ${'ä'}::text as t`)[0], { n: i, t: 'ä' });
    }),

  unprepared: () =>
    pool(
      1,
      async (sql) => {
        for (const i of numbers(20)) equal((await sql`select ${i}::int as n`)[0].n, i);
      },
      { prepare: false },
    ),

  pipelines: () =>
    pool(1, async (sql) => {
      const rows = await Promise.all(numbers(300).map((i) => sql`select ${i}::int as n`));
      equal(rows.map((row) => row[0].n), numbers(300));
    }),

  pipelines_with_errors: () =>
    pool(1, async (sql) => {
      const results = await Promise.allSettled(numbers(60).map((i) => sql`select 6 / ${i % 3}::int as n`));
      equal(results.map((r) => r.status), numbers(60).map((i) => (i % 3 ? 'fulfilled' : 'rejected')));
      equal(results[1].value[0].n, 6);
    }),

  transactions: () =>
    pool(2, async (sql) => {
      await sql`delete from work where client = ${ME}`;
      await fails(
        '22012',
        sql.begin(async (t) => {
          await t`insert into work values (${ME}, 'gone', 1)`;
          await t`select 1 / 0`;
        }),
      );
      const count = await sql.begin(async (t) => {
        await t.savepoint((s) => s`select no_such_column`).catch(() => {});
        let count = 0;
        await t`select generate_series(1, 1000)`.cursor(50, (rows) => {
          count += rows.length;
        });
        return count;
      });
      equal(count, 1000);
      equal((await sql`select count(*)::int as n from work where client = ${ME}`)[0].n, 0);
    }),

  copies: () =>
    pool(1, async (sql) => {
      await sql`delete from work where client = ${ME}`;
      await pipeline(Readable.from(numbers(5000).map((i) => `${ME}\tcopy\t${i}\n`)), await sql`copy work from stdin`.writable());
      let text = '';
      for await (const chunk of await sql`copy (select n from work where client = 'postgres-js' order by n) to stdout`.readable()) text += chunk;
      equal(text.trim().split('\n').map(Number), numbers(5000));
    }),

  cancels: () =>
    pool(1, async (sql) => {
      const sleeping = sql`select pg_sleep(15)`;
      setTimeout(() => sleeping.cancel(), 300);
      await fails('57014', sleeping);
      equal((await sql`select 1 as n`)[0].n, 1);
    }),

  pools: () =>
    pool(CONNECTIONS, async (sql) => {
      const one = (i) =>
        sql.begin(async (t) => {
          const token = `${ME}-${i}`;
          const [first, second] = await Promise.all([
            t`select set_config('app.token', ${token}, true) as t`,
            t`select current_setting('app.token') as t, ${i}::int as n`,
          ]);
          equal([first[0].t, second[0].t, second[0].n], [token, token, i]);
        });
      await Promise.all(numbers(TRANSACTIONS).map(one));
    }),
});
