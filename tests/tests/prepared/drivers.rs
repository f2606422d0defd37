//! Programs that prepare by themselves.

use pgweir_tests::{Tenant, start};
use tokio_postgres::{NoTls, types::ToSql};

#[test]
fn tokio_postgres_prepares_and_pipelines_on_few_servers() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 2)
            .set("max_prepared_statements", 4),
    );
    let conninfo = format!(
        "host=127.0.0.1 port={} user={1} dbname={1}",
        pooler.port, tenant.name
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..10i32 {
            tasks.push(tokio::spawn(driver(conninfo.clone(), number)));
        }
        for task in tasks {
            task.await.expect("no panic").expect("no error");
        }
    });
}

/// What an application does through a driver that prepares everything.
async fn driver(conninfo: String, number: i32) -> Result<(), tokio_postgres::Error> {
    let (mut client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    tokio::spawn(connection);
    let mut statements = Vec::new();
    for factor in 0..6 {
        let sql = format!("select $1::int4 * {factor} + {number}");
        statements.push(client.prepare(&sql).await?);
    }
    for round in 0..10i32 {
        for (factor, statement) in statements.iter().enumerate() {
            let row = client.query_one(statement, &[&round]).await?;
            assert_eq!(row.get::<_, i32>(0), round * factor as i32 + number);
        }
        let number_of_round: [&(dyn ToSql + Sync); 1] = [&round];
        let text: [&(dyn ToSql + Sync); 1] = [&"typed"];
        let zero: [&(dyn ToSql + Sync); 1] = [&0i32];
        let (one, two, failed) = tokio::join!(
            client.query_one(&statements[1], &number_of_round),
            client.query_one("select $1::text", &text),
            client.query_one("select 1 / $1::int4", &zero),
        );
        assert_eq!(one?.get::<_, i32>(0), round + number);
        assert_eq!(two?.get::<_, String>(0), "typed");
        assert_eq!(
            failed.expect_err("division by zero").code(),
            Some(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO)
        );
        let transaction = client.transaction().await?;
        let inside = transaction.query_one(&statements[2], &[&round]).await?;
        assert_eq!(inside.get::<_, i32>(0), round * 2 + number);
        transaction.commit().await?;
    }
    Ok(())
}

#[test]
fn pgbench_with_prepared_statements_and_little_room_for_them() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    tenant.postgres.pgbench(name, &["-i", "-q", "-U", name]);
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 3)
            .set("max_prepared_statements", 2),
    );
    let load = [
        "-n", "-M", "prepared", "-c", "10", "-j", "10", "-t", "30", "-U", name,
    ];
    let run = pooler.pgbench(name, &load);
    assert_eq!((run.transactions, run.failed), (300, 0), "{}", run.output);
    assert_eq!(
        tenant.root().value("select count(*) from pgbench_history"),
        "300"
    );
}
