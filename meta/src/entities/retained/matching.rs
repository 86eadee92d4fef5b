//! The retained messages that match a filter, page by page.

use bytes::Bytes;

use super::filter::{Next, Verdict, fixed_levels, judge};
use super::{RetainedMessage, Row, load, topics_of};
use crate::entities::codec::bad_key;
use crate::error::MetaError;
use crate::store::{KeyRange, after_prefix, key_after};
use crate::transaction::{RangeOptions, Transaction};

/// Rows and reads of one call at most, so that it ends well within a transaction's time, also where a
/// read takes some milliseconds.
const MAX_TOUCHED_ROWS: usize = 4_096;
const MAX_READS: usize = 512;
/// Rows of the first read: what few topics match is found by one.
const FIRST_READ_ROWS: usize = 16;
/// Rows of one read at most.
const MAX_READ_ROWS: usize = 64;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct MatchQuery<'a> {
    /// Whose topics.
    pub tenant: &'a str,
    /// A valid topic filter, without `$share/…`.
    pub filter: &'a str,
    /// Where the page before ended; `None` begins.
    pub from: Option<Bytes>,
    /// What has expired by then is left out; milliseconds since 1970.
    pub now_ms: i64,
    /// The page ends with the message that reaches this many bytes of topic, properties and payload.
    pub max_bytes: usize,
}

/// One page of matches.
#[derive(Clone, Debug, Default)]
pub struct MatchPage {
    /// Topics and their messages, by topic.
    pub messages: Vec<(String, RetainedMessage)>,
    /// Where the next page begins (also an empty page can have a next); `None` at the end.
    pub next: Option<Bytes>,
}

/// What is retained for topics that match the filter. Touches little more than what matches. A
/// snapshot read; pages of several transactions may show different moments.
///
/// # Errors
/// Meta's own.
pub async fn matching(tx: &Transaction, query: &MatchQuery<'_>) -> Result<MatchPage, MetaError> {
    let root = topics_of(tx, query.tenant);
    let filter: Vec<&str> = query.filter.split('/').collect();
    let fixed = fixed_levels(&filter);
    let first: Bytes = root.pack(&fixed).into();
    let end = after_prefix(&first).unwrap_or_else(|| first.clone());
    let mut at = query.from.clone().unwrap_or(first);
    let mut page = MatchPage::default();
    let mut bytes = query.max_bytes.max(1);
    let is_exact = fixed.len() == filter.len();
    let mut read_rows = if is_exact { 1 } else { FIRST_READ_ROWS };
    let (mut touched, mut reads) = (0, 0);
    loop {
        if touched >= MAX_TOUCHED_ROWS || reads >= MAX_READS || bytes == 0 {
            page.next = Some(at);
            return Ok(page);
        }
        let options = RangeOptions {
            bytes: bytes.clamp(1, 256 * 1024),
            ..RangeOptions::limit(read_rows).snapshot()
        };
        let rows = tx.get_range(&KeyRange::new(at.clone(), end.clone()), options).await?;
        let (mut judged, count) = (0, rows.rows.len());
        touched += count;
        reads += 1;
        for (key, value) in rows.rows {
            if key < at {
                continue;
            }
            if bytes == 0 {
                break;
            }
            let levels: Vec<String> = root.unpack(&key).map_err(bad_key("retained"))?;
            let topic: Vec<&str> = levels.iter().map(String::as_str).collect();
            judged += 1;
            let (matches, next) = match judge(&filter, &topic) {
                Verdict::Match(next) => (true, next),
                Verdict::Skip(next) => (false, next),
            };
            if matches {
                let name = topic.join("/");
                let row = Row::decode(value)?;
                if let Some(message) = load(tx, query.tenant, &name, row, query.now_ms).await? {
                    let size = name.len() + message.properties.len() + message.payload.len();
                    bytes = bytes.saturating_sub(size.max(1));
                    page.messages.push((name, message));
                }
            }
            at = match next {
                Next::Behind => key_after(&key),
                Next::At(levels) => root.pack(&levels).into(),
                Next::Past(count) => {
                    let prefix = root.pack(&topic.get(..count).unwrap_or(&topic));
                    after_prefix(&prefix).unwrap_or_else(|| end.clone())
                }
                Next::PastDollar => {
                    // The first string that is behind all that begin with '$'.
                    let mut past = root.pack(&"%");
                    past.pop();
                    past.into()
                }
                Next::Nowhere => return Ok(page),
            };
        }
        // A page that is full may have left rows of this read aside.
        let is_last = count < read_rows && !rows.more && bytes > 0;
        if at >= end || is_last {
            return Ok(page);
        }
        // More at once where each row had to be looked at, fewer where the scan jumped over some.
        read_rows = if judged == count {
            (read_rows * 2).min(MAX_READ_ROWS)
        } else {
            (read_rows / 2).max(1)
        };
    }
}
