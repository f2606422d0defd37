// What the Node clients share: steps that print a line each.
const assert = require('node:assert');

/** Whether the pooler applies what a startup message asks for. */
const STARTUP_PARAMETERS = 'DRIVERS_STARTUP_PARAMETERS' in process.env;
const CONNECTIONS = 20;
const TRANSACTIONS = 200;

const numbers = (count) => [...Array(count).keys()];
const equal = assert.deepStrictEqual;

/** Runs each function of an object as a step, in order, and exits. */
async function run(steps) {
  let failed = false;
  for (const [name, step] of Object.entries(steps)) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('no end after 60 s')), 60000);
    });
    try {
      await Promise.race([step(), late]);
      console.log(`ok ${name}`);
    } catch (error) {
      failed = true;
      console.log(`FAIL ${name}: ${error.code || error.name}: ${String(error.message).replaceAll('\n', ' ').slice(0, 400)}`);
    }
    clearTimeout(timer);
  }
  process.exit(failed ? 1 : 0);
}

/** Expects a promise to fail with this SQLSTATE. */
async function fails(code, promise) {
  try {
    await promise;
  } catch (error) {
    if (error.code === code) return;
    throw error;
  }
  throw new Error(`no error, where ${code} was expected`);
}

module.exports = { STARTUP_PARAMETERS, CONNECTIONS, TRANSACTIONS, numbers, equal, run, fails };
