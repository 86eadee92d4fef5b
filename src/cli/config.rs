//! `interflow config`: the settings and where they come from.

use clap::Args;

use super::print_table;
use crate::config::{Flags, load};

#[derive(Args)]
pub(crate) struct Config {
    #[command(flatten)]
    flags: Flags,
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let rows: Vec<_> = load(&self.flags)?
            .values()?
            .into_iter()
            .map(|(key, value, source)| vec![key, value, source])
            .collect();
        print_table(&["SETTING", "VALUE", "SOURCE"], &rows)?;
        Ok(())
    }
}
