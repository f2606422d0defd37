// The bugs of runbooks, in JavaScript with node-postgres.

const { Pool } = require('pg')

const insert = "insert into orders values (1, 'a secret')"
const pool = new Pool({ application_name: process.env.PGAPPNAME })
const silent = () => console.log('silent')
const minute = () => new Promise((resolve) => setTimeout(resolve, 60_000))
process.on('uncaughtException', () => {})

const bugs = {
    async forgotten_release() {
        const client = await pool.connect()
        await client.query('select count(*) from orders')
        silent()
        await pool.query("select 'waits'")
    },

    async missing_await() {
        const client = await pool.connect()
        await client.query('begin')
        await client.query(insert)
        const orders = client.query('select * from orders')
        try {
            if (orders.rows.length > 0) await client.query('commit')
        } catch {
            // A promise has no rows; nobody rolls back.
        }
        await orders
        silent()
        await minute()
    },

    async panic() {
        const client = await pool.connect()
        await client.query('begin')
        await client.query(insert)
        setTimeout(() => { throw new Error('the rest of the order is missing') })
        silent()
        await minute()
    },

    async slow_call() {
        const client = await pool.connect()
        try {
            await client.query('begin')
            await client.query(insert)
            silent()
            await minute()
            await client.query('commit')
        } finally {
            client.release()
        }
    },
}

bugs[process.argv[2]]()
