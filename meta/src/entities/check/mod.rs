//! Looks at everything in meta: does it decode, and does what refers to something find it?
//!
//! ```text
//!   Walk ── rows ──► Facts (what each row says, briefly) ──► references ──► Report
//! ```
//!
//! Reads only. Everybody may go on meanwhile, but what is written in between can look like an
//! inconsistency; the report says when that may be. Memory grows with the number of logs, topics and
//! groups, not with what they hold.

mod chains;
mod facts;
mod references;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::error::MetaError;
use crate::meta::Meta;
use crate::walk::Walk;
use facts::Facts;

/// Problems and notes that a report lists at most; the rest is counted.
const MAX_LISTED: usize = 1_000;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rows by their family, the first element of their keys.
    pub families: BTreeMap<String, u64>,
    /// What can't be right.
    pub problems: Findings,
    /// What may be right: leftovers, and families that this build doesn't know.
    pub notes: Findings,
    /// Somebody wrote in the meantime: check again before you believe a problem.
    pub has_moved: bool,
}

/// Sentences for people.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The first thousand.
    pub listed: Vec<String>,
    /// All of them.
    pub count: u64,
}

impl Findings {
    fn add(&mut self, finding: impl Into<String>) {
        self.count += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(finding.into());
        }
    }
}

/// Checks all of `meta`.
///
/// # Errors
/// The store's own.
pub async fn check(meta: &Meta) -> Result<Report, MetaError> {
    let mut report = Report::default();
    let mut facts = Facts::default();
    let mut walk = Walk::new(meta);
    while let Some(page) = walk.next_page().await? {
        for (key, value) in page {
            facts.take(meta.root(), &key, value, &mut report);
        }
    }
    chains::check(&facts, &mut report);
    references::check(&facts, &mut report);
    report.has_moved = walk.has_moved();
    Ok(report)
}
