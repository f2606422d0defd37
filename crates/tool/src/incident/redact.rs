//! What must not leave the machine is taken out of the tables.

use pgweir_config::may_hold_secret;

use crate::table::Table;

const REMOVED: &str = "(removed)";

/// A table of this name without secrets.
pub(super) fn table(name: &str, mut table: Table) -> Table {
    if name != "CONFIG" {
        return table;
    }
    let position = |table: &Table, wanted: &str| table.columns.iter().position(|c| c == wanted);
    let (Some(key), Some(value)) = (position(&table, "key"), position(&table, "value")) else {
        return table;
    };
    for cells in &mut table.cells {
        let name = cells
            .get(key)
            .and_then(Option::as_deref)
            .unwrap_or_default()
            .to_lowercase();
        let is_secret = may_hold_secret(&name);
        if let Some(cell) = cells
            .get_mut(value)
            .filter(|cell| is_secret && cell.is_some())
        {
            *cell = Some(REMOVED.to_owned());
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn secrets_are_taken_out_of_the_configuration() {
        let config = testing::table(
            "key value\nauth_ldap_options ldapbindpasswd=x\npool_mode session\nsome_password y",
        );
        let safe = table("CONFIG", config);
        let value = |key| safe.find("key", key).map(|row| row.text("value"));
        assert_eq!(value("auth_ldap_options"), Some(REMOVED));
        assert_eq!(value("some_password"), Some(REMOVED));
        assert_eq!(value("pool_mode"), Some("session"));
    }
}
