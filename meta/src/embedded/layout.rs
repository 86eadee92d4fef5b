//! The tables of the embedded store.

use redb::{ReadableTable, TableDefinition};

use super::failed;
use crate::error::MetaError;

/// The rows.
pub(super) const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
/// Numbers of the store itself.
pub(super) const SYSTEM: TableDefinition<'_, &str, u64> = TableDefinition::new("system");

/// The version of the last commit.
pub(super) const VERSION: &str = "version";
/// The number `name`, if it was ever set.
pub(super) fn read_number(
    table: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<Option<u64>, MetaError> {
    Ok(table.get(name).map_err(failed)?.map(|value| value.value()))
}
