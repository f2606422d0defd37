//! sqlx: cached named statements, introspection of types, streams, COPY, its pool.

use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use pgweir_drivers::{CONNECTIONS, Error, Steps, TRANSACTIONS, equal};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolCopyExt, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

const ME: &str = "sqlx";

#[tokio::main]
async fn main() {
    let mut steps = Steps::default();
    steps.step("parameters", parameters()).await;
    steps
        .step("prepared_statements_are_reused", reuse(100))
        .await;
    steps
        .step("prepared_statements_are_evicted", reuse(2))
        .await;
    steps.step("unnamed_statements", reuse(0)).await;
    steps.step("types_are_looked_up", types()).await;
    steps.step("rolls_back", rolls_back()).await;
    steps.step("errors_in_the_middle", errors()).await;
    steps
        .step("many_in_one_message", many_in_one_message())
        .await;
    steps.step("streams", streams()).await;
    steps.step("streams_given_up", streams_given_up()).await;
    steps.step("copies", copies()).await;
    steps.step("pools", pools()).await;
    steps.exit();
}

/// They come from the PG* variables.
fn options() -> PgConnectOptions {
    PgConnectOptions::new()
}

async fn connect() -> Result<PgConnection, Error> {
    Ok(PgConnection::connect_with(&options()).await?)
}

async fn pool(connections: usize) -> Result<PgPool, Error> {
    let connections = u32::try_from(connections)?;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections);
    Ok(pool.connect_with(options()).await?)
}

async fn parameters() -> Result<(), Error> {
    let mut conn = connect().await?;
    for i in 0..20 {
        let sql = "select $1::int4, $2::text, $3::text, $4::bytea, $5::int4[], $6::bool";
        let row: (i32, String, Option<String>, Vec<u8>, Vec<i32>, bool) = sqlx::query_as(sql)
            .bind(i)
            .bind("it's ä € \\ $1")
            .bind(None::<String>)
            .bind(vec![0u8, 255])
            .bind(vec![1, 2, 3])
            .bind(true)
            .fetch_one(&mut conn)
            .await?;
        equal(
            (
                i,
                "it's ä € \\ $1".into(),
                None,
                vec![0, 255],
                vec![1, 2, 3],
                true,
            ),
            row,
        )?;
    }
    Ok(())
}

/// Without a cache, sqlx parses the unnamed statement and uses it after the next Sync. Behind a
/// transaction pooler that holds only within a transaction, as with PgBouncer.
async fn reuse(capacity: usize) -> Result<(), Error> {
    let options = options().statement_cache_capacity(capacity);
    let mut conn = PgConnection::connect_with(&options).await?;
    for i in 0..20 {
        if capacity == 0 {
            conn.execute("begin").await?;
        }
        for k in 0..6 {
            let sql = AssertSqlSafe(format!("select $1::int4 + {k}"));
            let query = sqlx::query_scalar(sql).bind(i).persistent(capacity > 0);
            equal(i + k, query.fetch_one(&mut conn).await?)?;
        }
        if capacity == 0 {
            conn.execute("commit").await?;
        }
    }
    conn.close().await?;
    Ok(())
}

async fn types() -> Result<(), Error> {
    let mut conn = connect().await?;
    let row = sqlx::query("select 'busy'::mood as m, array[row('here', 'calm')::place] as p")
        .fetch_one(&mut conn)
        .await?;
    equal(
        "mood",
        sqlx::TypeInfo::name(sqlx::Column::type_info(row.column(0))),
    )?;
    equal(2, row.len())
}

async fn rolls_back() -> Result<(), Error> {
    let mut conn = connect().await?;
    sqlx::query("delete from work where client = $1")
        .bind(ME)
        .execute(&mut conn)
        .await?;
    for explicit in [true, false] {
        let mut transaction = conn.begin().await?;
        sqlx::query("insert into work values ($1, 'gone', 1)")
            .bind(ME)
            .execute(&mut *transaction)
            .await?;
        if explicit {
            transaction.rollback().await?;
        }
    }
    let count = sqlx::query_scalar("select count(*) from work where client = $1").bind(ME);
    equal(0i64, count.fetch_one(&mut conn).await?)
}

async fn errors() -> Result<(), Error> {
    let mut conn = connect().await?;
    for i in 0..10 {
        let mut transaction = conn.begin().await?;
        let mut savepoint = transaction.begin().await?;
        fails(
            "22012",
            sqlx::query("select 1 / $1")
                .bind(0)
                .execute(&mut *savepoint)
                .await,
        )?;
        fails(
            "25P02",
            sqlx::query("select 1").execute(&mut *savepoint).await,
        )?;
        savepoint.rollback().await?;
        equal(
            i,
            sqlx::query_scalar("select $1")
                .bind(i)
                .fetch_one(&mut *transaction)
                .await?,
        )?;
        transaction.commit().await?;
        fails(
            "42703",
            sqlx::query("select no_such_column")
                .execute(&mut conn)
                .await,
        )?;
    }
    Ok(())
}

async fn many_in_one_message() -> Result<(), Error> {
    let mut conn = connect().await?;
    let sql = "begin; insert into work values ('sqlx', 'many', 1); rollback; select 1";
    conn.execute(sqlx::raw_sql(sql)).await?;
    fails(
        "22012",
        conn.execute(sqlx::raw_sql("select 1; select 1/0; select 2"))
            .await,
    )?;
    equal(
        1,
        sqlx::query_scalar("select 1").fetch_one(&mut conn).await?,
    )
}

async fn streams() -> Result<(), Error> {
    let mut conn = connect().await?;
    let rows = sqlx::query_scalar::<_, i32>("select generate_series(1, $1)").bind(20000);
    let rows: Vec<i32> = rows.fetch(&mut conn).try_collect().await?;
    equal((1..=20000).collect(), rows)
}

/// A stream that is dropped: its rest is read when the connection is used again.
async fn streams_given_up() -> Result<(), Error> {
    let mut conn = connect().await?;
    for i in 0..5 {
        {
            let mut rows = sqlx::query_scalar::<_, i32>("select generate_series(1, $1)")
                .bind(20000)
                .fetch(&mut conn);
            equal(Some(1), rows.try_next().await?)?;
        }
        equal(
            i,
            sqlx::query_scalar("select $1")
                .bind(i)
                .fetch_one(&mut conn)
                .await?,
        )?;
    }
    Ok(())
}

async fn copies() -> Result<(), Error> {
    let pool = pool(1).await?;
    sqlx::query("delete from work where client = $1")
        .bind(ME)
        .execute(&pool)
        .await?;
    let mut copy = pool.copy_in_raw("copy work from stdin").await?;
    let rows: String = (0..20000).map(|n| format!("{ME}\tcopy\t{n}\n")).collect();
    copy.send(rows.as_bytes()).await?;
    equal(20000, copy.finish().await?)?;
    let mut copy = pool.copy_in_raw("copy work from stdin").await?;
    copy.send(b"sqlx\tleft\t1\n".as_slice()).await?;
    copy.abort("the program changed its mind").await?;
    let sql = "copy (select n from work where client = 'sqlx' order by n) to stdout";
    let parts: Vec<_> = pool.copy_out_raw(sql).await?.try_collect().await?;
    let expected: String = (0..20000).map(|n| format!("{n}\n")).collect();
    equal(expected.into_bytes(), parts.concat())
}

async fn pools() -> Result<(), Error> {
    let pool = pool(CONNECTIONS).await?;
    let me = format!("{ME}-pool");
    sqlx::query("delete from work where client = $1")
        .bind(&me)
        .execute(&pool)
        .await?;
    let tasks = (0..TRANSACTIONS).map(|i| tokio::spawn(transaction(pool.clone(), me.clone(), i)));
    for result in try_join_all(tasks).await? {
        result?;
    }
    let count =
        sqlx::query_scalar("select count(distinct token) from work where client = $1").bind(me);
    equal(i64::from(TRANSACTIONS), count.fetch_one(&pool).await?)
}

async fn transaction(pool: PgPool, me: String, i: i32) -> Result<(), Error> {
    let token = format!("{me}-{i}");
    let mut transaction = pool.begin().await?;
    let old = sqlx::query_scalar("select coalesce(current_setting('app.token', true), '')");
    equal(String::new(), old.fetch_one(&mut *transaction).await?)?;
    let set = sqlx::query_scalar("select set_config('app.token', $1, true)").bind(&token);
    equal(token.clone(), set.fetch_one(&mut *transaction).await?)?;
    let both = sqlx::query_as("select current_setting('app.token'), $1::int4").bind(i);
    equal((token.clone(), i), both.fetch_one(&mut *transaction).await?)?;
    let insert = sqlx::query("insert into work values ($1, $2, $3)")
        .bind(&me)
        .bind(&token)
        .bind(i);
    insert.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

fn fails<T>(code: &str, result: Result<T, sqlx::Error>) -> Result<(), Error> {
    match result {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(code) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(format!("no error, where {code} was expected").into()),
    }
}
