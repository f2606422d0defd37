//! tokio-postgres with deadpool: pipelines of concurrent queries, portals, binary values, COPY, cancel tokens.

use std::pin::pin;
use std::time::{Duration, Instant};

use deadpool_postgres::{ManagerConfig, Pool, RecyclingMethod};
use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use pgweir_drivers::{CONNECTIONS, Error, Steps, TRANSACTIONS, cancelled_quickly, env, equal};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

const ME: &str = "tokio-postgres";

#[tokio::main]
async fn main() {
    let mut steps = Steps::default();
    if std::env::var_os("DRIVERS_STARTUP_PARAMETERS").is_some() {
        let startup = startup_parameters();
        steps.step("startup_parameters", startup).await;
    }
    steps.step("parameters", parameters()).await;
    steps.step("prepared_statements_are_reused", reuse()).await;
    steps
        .step("statements_are_closed_when_dropped", dropped())
        .await;
    steps
        .step("the_same_name_means_different_statements", same_name())
        .await;
    steps.step("unnamed_statements", unnamed()).await;
    steps.step("types_are_looked_up", types()).await;
    steps.step("rolls_back", rolls_back()).await;
    steps.step("errors_in_the_middle", errors()).await;
    steps.step("pipelines", pipelines()).await;
    steps
        .step("pipelines_with_errors", pipelines_with_errors())
        .await;
    steps.step("batches", batches()).await;
    steps.step("copies", copies()).await;
    steps.step("copies_in_binary", copies_in_binary()).await;
    steps.step("copies_given_up", copies_given_up()).await;
    steps.step("cursors", cursors()).await;
    steps.step("cancels", cancels()).await;
    for (name, method) in [
        ("pools", RecyclingMethod::Fast),
        ("pools_that_verify", RecyclingMethod::Verified),
        ("pools_that_clean", RecyclingMethod::Clean),
    ] {
        steps.step(name, pools(method)).await;
    }
    steps.exit();
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .host(env("PGHOST"))
        .port(env("PGPORT").parse().expect("PGPORT is a number"))
        .user(env("PGUSER"))
        .password(env("PGPASSWORD"))
        .dbname(env("PGDATABASE"));
    config
}

async fn connect() -> Result<Client, Error> {
    let (client, connection) = config().connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn startup_parameters() -> Result<(), Error> {
    let mut config = config();
    config.options("-c search_path=mine -c statement_timeout=7s");
    let (mine, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let plain = connect().await?;
    for _ in 0..20 {
        let row = mine.query_one("show search_path", &[]).await?;
        equal("mine", row.get(0))?;
        let row = mine.query_one("show statement_timeout", &[]).await?;
        equal("7s", row.get(0))?;
        let row = plain.query_one("show statement_timeout", &[]).await?;
        equal("0", row.get(0))?;
    }
    Ok(())
}

async fn parameters() -> Result<(), Error> {
    let client = connect().await?;
    let bytes: &[u8] = &[0, 255];
    let list = vec![1, 2, 3];
    let sql = "select $1::int4, $2::text, $3::text, $4::bytea, $5::int4[], $6::bool";
    for i in 0..20 {
        let row = client
            .query_one(
                sql,
                &[&i, &"it's ä € \\ $1", &None::<String>, &bytes, &list, &true],
            )
            .await?;
        equal(i, row.get(0))?;
        equal("it's ä € \\ $1", row.get(1))?;
        equal(None, row.get::<_, Option<String>>(2))?;
        equal(bytes, row.get(3))?;
        equal(list.clone(), row.get(4))?;
        equal(true, row.get(5))?;
    }
    Ok(())
}

async fn reuse() -> Result<(), Error> {
    let client = connect().await?;
    let a = client.prepare("select $1::int4").await?;
    let b = client.prepare("select 'b' || $1::text").await?;
    for i in 0..50 {
        equal(i, client.query_one(&a, &[&i]).await?.get::<_, i32>(0))?;
        let text = i.to_string();
        equal(
            format!("b{i}"),
            client.query_one(&b, &[&text]).await?.get(0),
        )?;
    }
    Ok(())
}

async fn dropped() -> Result<(), Error> {
    let client = connect().await?;
    for i in 0..300 {
        let statement = client.prepare(&format!("select {i} + $1::int4")).await?;
        equal(
            i + 1,
            client.query_one(&statement, &[&1]).await?.get::<_, i32>(0),
        )?;
    }
    Ok(())
}

async fn same_name() -> Result<(), Error> {
    let (a, b) = (connect().await?, connect().await?);
    let ask_a = a.prepare("select $1::int4").await?;
    let ask_b = b.prepare("select 'b' || $1::text").await?;
    for i in 0..30 {
        equal(i, a.query_one(&ask_a, &[&i]).await?.get::<_, i32>(0))?;
        equal(
            format!("b{i}"),
            b.query_one(&ask_b, &[&i.to_string()]).await?.get(0),
        )?;
    }
    Ok(())
}

async fn unnamed() -> Result<(), Error> {
    let client = connect().await?;
    for i in 0..20 {
        let rows = client
            .query_typed("select $1::int4", &[(&i, Type::INT4)])
            .await?;
        equal(i, rows[0].get::<_, i32>(0))?;
    }
    Ok(())
}

async fn types() -> Result<(), Error> {
    let client = connect().await?;
    let statement = client
        .prepare("select $1::mood, array[row('here', 'calm')::place]")
        .await?;
    equal("mood", statement.params()[0].name())?;
    equal("_place", statement.columns()[1].type_().name())
}

async fn rolls_back() -> Result<(), Error> {
    let mut client = connect().await?;
    client
        .execute("delete from work where client = $1", &[&ME])
        .await?;
    let transaction = client.transaction().await?;
    transaction
        .execute("insert into work values ($1, 'gone', 1)", &[&ME])
        .await?;
    transaction.rollback().await?;
    // Dropping a transaction sends its ROLLBACK without waiting for it.
    let transaction = client.transaction().await?;
    transaction
        .execute("insert into work values ($1, 'gone', 1)", &[&ME])
        .await?;
    drop(transaction);
    let row = client
        .query_one("select count(*) from work where client = $1", &[&ME])
        .await?;
    equal(0, row.get::<_, i64>(0))
}

async fn errors() -> Result<(), Error> {
    let mut client = connect().await?;
    for i in 0..10 {
        let mut transaction = client.transaction().await?;
        let savepoint = transaction.transaction().await?;
        fails(
            SqlState::DIVISION_BY_ZERO,
            savepoint.query("select 1 / $1::int4", &[&0]).await,
        )?;
        fails(
            SqlState::IN_FAILED_SQL_TRANSACTION,
            savepoint.query("select 1", &[]).await,
        )?;
        savepoint.rollback().await?;
        equal(
            i,
            transaction
                .query_one("select $1::int4", &[&i])
                .await?
                .get::<_, i32>(0),
        )?;
        transaction.commit().await?;
        fails(
            SqlState::UNDEFINED_COLUMN,
            client.prepare("select no_such_column").await,
        )?;
        fails(
            SqlState::SYNTAX_ERROR,
            client.batch_execute("select 1; nonsense").await,
        )?;
    }
    Ok(())
}

async fn pipelines() -> Result<(), Error> {
    let client = connect().await?;
    for _ in 0..5 {
        let queries = (0..100).map(|i| {
            let client = &client;
            async move {
                client
                    .query_one("select $1::int4", &[&i])
                    .await
                    .map(|row| row.get::<_, i32>(0))
            }
        });
        equal((0..100).collect(), try_join_all(queries).await?)?;
    }
    Ok(())
}

async fn pipelines_with_errors() -> Result<(), Error> {
    let client = connect().await?;
    let statement = client.prepare("select 6 / $1::int4").await?;
    for _ in 0..5 {
        let queries = (0..60).map(|i| {
            let (client, statement) = (&client, &statement);
            async move {
                client
                    .query_one(statement, &[&(i % 3)])
                    .await
                    .map(|row| row.get::<_, i32>(0))
            }
        });
        for (i, result) in (0..).zip(join_all(queries).await) {
            match i % 3 {
                0 => fails(SqlState::DIVISION_BY_ZERO, result)?,
                divisor => equal(6 / divisor, result?)?,
            }
        }
    }
    Ok(())
}

async fn batches() -> Result<(), Error> {
    let client = connect().await?;
    client
        .batch_execute(&format!(
            "begin; delete from work where client = '{ME}'; insert into work values ('{ME}', 'batch', 1); commit"
        ))
        .await?;
    let messages = client
        .simple_query(&format!(
            "select n from work where client = '{ME}'; select 2"
        ))
        .await?;
    equal(6, messages.len())
}

async fn copies() -> Result<(), Error> {
    let client = connect().await?;
    client
        .execute("delete from work where client = $1", &[&ME])
        .await?;
    let mut sink = pin!(client.copy_in("copy work from stdin").await?);
    for i in 0..200 {
        let rows: String = (i * 100..i * 100 + 100)
            .map(|n| format!("{ME}\tcopy\t{n}\n"))
            .collect();
        sink.send(std::io::Cursor::new(rows)).await?;
    }
    equal(20000, sink.finish().await?)?;
    let out = client
        .copy_out(&format!(
            "copy (select n from work where client = '{ME}' order by n) to stdout"
        ))
        .await?;
    let text: Vec<u8> = out
        .try_fold(Vec::new(), async |mut all, part| {
            all.extend_from_slice(&part);
            Ok(all)
        })
        .await?;
    let expected: String = (0..20000).map(|n| format!("{n}\n")).collect();
    equal(expected, String::from_utf8(text)?)
}

async fn copies_in_binary() -> Result<(), Error> {
    let client = connect().await?;
    client
        .execute("delete from work where client = $1", &[&ME])
        .await?;
    let sink = client.copy_in("copy work from stdin binary").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(
        sink,
        &[Type::TEXT, Type::TEXT, Type::INT4]
    ));
    for n in 0..1000 {
        writer.as_mut().write(&[&ME, &"binary", &n]).await?;
    }
    equal(1000, writer.finish().await?)?;
    let out = client
        .copy_out(&format!(
            "copy (select n from work where client = '{ME}' order by n) to stdout binary"
        ))
        .await?;
    let rows: Vec<i32> = BinaryCopyOutStream::new(out, &[Type::INT4])
        .map_ok(|row| row.get::<i32>(0))
        .try_collect()
        .await?;
    equal((0..1000).collect(), rows)
}

/// A COPY that is dropped half-way, and one that the server refuses.
async fn copies_given_up() -> Result<(), Error> {
    let client = connect().await?;
    for i in 0..5 {
        {
            let mut sink = pin!(client.copy_in("copy work from stdin").await?);
            sink.send(std::io::Cursor::new(format!("{ME}\tleft\t1\n")))
                .await?;
        }
        equal(
            i,
            client
                .query_one("select $1::int4", &[&i])
                .await?
                .get::<_, i32>(0),
        )?;
        let mut sink = pin!(client.copy_in("copy work from stdin").await?);
        sink.send(std::io::Cursor::new(format!("{ME}\tbad\tx\n")))
            .await?;
        fails(SqlState::INVALID_TEXT_REPRESENTATION, sink.finish().await)?;
    }
    Ok(())
}

async fn cursors() -> Result<(), Error> {
    let mut client = connect().await?;
    for _ in 0..5 {
        let transaction = client.transaction().await?;
        let portal = transaction
            .bind("select generate_series(1, $1::int4)", &[&1000])
            .await?;
        let other = transaction.bind("select 'other'", &[]).await?;
        let mut got = Vec::new();
        loop {
            let rows = transaction.query_portal(&portal, 90).await?;
            if rows.is_empty() {
                break;
            }
            got.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
        }
        equal((1..=1000).collect(), got)?;
        equal(1, transaction.query_portal(&other, 0).await?.len())?;
        transaction.commit().await?;
    }
    // A result that is not read to its end.
    let mut rows = pin!(
        client
            .query_raw("select generate_series(1, 100000)", &[] as &[i32])
            .await?
    );
    equal(1, rows.next().await.ok_or("no row")??.get::<_, i32>(0))
}

async fn cancels() -> Result<(), Error> {
    let client = connect().await?;
    let token = client.cancel_token();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await
    });
    let start = Instant::now();
    fails(
        SqlState::QUERY_CANCELED,
        client.query("select pg_sleep(15)", &[]).await,
    )?;
    cancelled_quickly(start)?;
    equal(1, client.query_one("select 1", &[]).await?.get::<_, i32>(0))
}

async fn pools(recycling_method: RecyclingMethod) -> Result<(), Error> {
    let manager = deadpool_postgres::Manager::from_config(
        config(),
        NoTls,
        ManagerConfig { recycling_method },
    );
    let pool = Pool::builder(manager).max_size(CONNECTIONS).build()?;
    let me = format!("{ME}-pool");
    pool.get()
        .await?
        .execute("delete from work where client = $1", &[&me])
        .await?;
    let tasks = (0..TRANSACTIONS).map(|i| tokio::spawn(transaction(pool.clone(), me.clone(), i)));
    for result in try_join_all(tasks).await? {
        result?;
    }
    let count = "select count(distinct token) from work where client = $1";
    let row = pool.get().await?.query_one(count, &[&me]).await?;
    equal(i64::from(TRANSACTIONS), row.get(0))
}

async fn transaction(pool: Pool, me: String, i: i32) -> Result<(), Error> {
    let token = format!("{me}-{i}");
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;
    let ask = |sql| transaction.prepare_cached(sql);
    let old = ask("select coalesce(current_setting('app.token', true), '')").await?;
    equal("", transaction.query_one(&old, &[]).await?.get(0))?;
    let set = ask("select set_config('app.token', $1, true)").await?;
    equal(
        &*token,
        transaction.query_one(&set, &[&token]).await?.get(0),
    )?;
    let both = ask("select current_setting('app.token'), $1::int4").await?;
    let row = transaction.query_one(&both, &[&i]).await?;
    equal((&*token, i), (row.get(0), row.get(1)))?;
    transaction
        .execute("insert into work values ($1, $2, $3)", &[&me, &token, &i])
        .await?;
    transaction.commit().await?;
    Ok(())
}

fn fails<T>(code: SqlState, result: Result<T, tokio_postgres::Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.code() == Some(&code) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(format!("no error, where {} was expected", code.code()).into()),
    }
}
