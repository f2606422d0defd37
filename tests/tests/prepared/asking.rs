//! Statements executed, and counted where they are prepared.

use pgweir_tests::{Batch, Pooler, RawClient, Tenant, eventually, story};

pub(crate) fn execute(client: &mut RawClient, name: &str, values: &[&str]) -> String {
    client.send(&Batch::new().bind("", name, values).execute("").sync());
    let answer = client.until_ready();
    match &answer[..] {
        [bound, row, done, ready]
            if [bound.tag, row.tag, done.tag, ready.tag] == [b'2', b'D', b'C', b'Z'] =>
        {
            row.values().join("|")
        }
        _ => panic!("{}", story(&answer)),
    }
}

/// How many statements the only server has; asked on that server, so that evictions have happened.
#[track_caller]
pub(crate) fn on_server(tenant: &Tenant, pooler: &Pooler) -> String {
    let mut client = tenant.client(pooler);
    let sql = "select count(*) from pg_prepared_statements";
    eventually(
        std::time::Duration::from_secs(1),
        || client.value(sql),
        |_| true,
    )
}

/// A statement without a name, parsed and executed; the value.
pub(crate) fn nameless(client: &mut RawClient, sql: &str, values: &[&str]) -> String {
    let batch = Batch::new().parse("", sql).bind("", "", values);
    let said = client.ask(&batch.execute("").sync());
    let value = said
        .strip_prefix("1 2 D(")
        .and_then(|rest| rest.strip_suffix(") C(SELECT 1) Z(I)"));
    value.unwrap_or(&said).to_owned()
}
