//! All metadata as one file, and back.
//!
//! ```text
//!   "interflow-meta-dump" LF · format u32 · { 1 · key length u32 · key · value length u32 · value }
//!   · 0 · rows u64 · CRC-32C of everything before it u32
//! ```
//!
//! Numbers are big-endian. Keys are without the root, and rows are in key order, so that equal
//! metadata has equal dumps, whatever store and root it lies in.

use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::error::MetaError;
use crate::meta::Meta;
use crate::transaction::{MAX_KEY_BYTES, MAX_VALUE_BYTES, RangeOptions};
use crate::walk::Walk;

const MAGIC: &[u8] = b"interflow-meta-dump\n";
const FORMAT: u32 = 1;
const ROW: u8 = 1;
const END: u8 = 0;
/// Keys and values of one transaction of a restore, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Why metadata wasn't dumped or restored.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file's own.
    #[error("the dump can't be read or written: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no dump of metadata")]
    NotADump,
    /// A newer Interflow wrote it: use that one.
    #[error("the dump has format {0}; this build reads format {FORMAT}")]
    NewerFormat(u32),
    /// It is cut or changed: nothing was restored.
    #[error("the dump is damaged: {0}")]
    Damaged(&'static str),
    /// There is metadata already, or what an unfinished restore left.
    #[error("there is metadata in the store already")]
    NotEmpty,
    /// Meta's own.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

/// What was dumped or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// How many rows.
    pub rows: u64,
    /// Somebody wrote in the meantime: the rows may be of several moments.
    pub has_moved: bool,
}

/// Where a restore that isn't finished leaves its mark, below the root.
fn mark(meta: &Meta) -> Vec<u8> {
    meta.root().pack(&("restore", "unfinished"))
}

/// Writes and counts what it passes on.
struct Sum<W> {
    inner: W,
    crc: u32,
}

impl<W: Write> Sum<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.inner.write_all(bytes)
    }

    fn put_with_length(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&length.to_be_bytes())?;
        self.put(bytes)
    }
}

/// Writes all of `meta` to `out`. Blocks while `out` does.
///
/// # Errors
/// See [`DumpError`].
pub async fn dump(meta: &Meta, out: impl Write) -> Result<Dumped, DumpError> {
    let root = meta.root().bytes().len();
    let mut out = Sum { inner: out, crc: 0 };
    out.put(MAGIC)?;
    out.put(&FORMAT.to_be_bytes())?;
    let mut walk = Walk::new(meta);
    let mut rows = 0_u64;
    while let Some(page) = walk.next_page().await? {
        for (key, value) in page {
            out.put(&[ROW])?;
            out.put_with_length(key.get(root..).unwrap_or_default())?;
            out.put_with_length(&value)?;
            rows += 1;
        }
    }
    out.put(&[END])?;
    out.put(&rows.to_be_bytes())?;
    let crc = out.crc;
    out.inner.write_all(&crc.to_be_bytes())?;
    out.inner.flush()?;
    Ok(Dumped { rows, has_moved: walk.has_moved() })
}

/// Reads a dump row by row.
struct Rows<R> {
    inner: R,
    crc: u32,
    rows: u64,
}

impl<R: Read> Rows<R> {
    fn open(inner: R) -> Result<Self, DumpError> {
        let mut rows = Self { inner, crc: 0, rows: 0 };
        let mut magic = [0; MAGIC.len()];
        match rows.take(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(DumpError::Io(error)) => return Err(error.into()),
            _ => return Err(DumpError::NotADump),
        }
        match rows.number()? {
            FORMAT => Ok(rows),
            other => Err(DumpError::NewerFormat(other)),
        }
    }

    fn take(&mut self, out: &mut [u8]) -> Result<(), DumpError> {
        self.inner.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DumpError::Damaged("it ends too early"),
            _ => DumpError::Io(error),
        })?;
        self.crc = crc32c::crc32c_append(self.crc, out);
        Ok(())
    }

    fn number(&mut self) -> Result<u32, DumpError> {
        let mut bytes = [0; 4];
        self.take(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn bytes(&mut self, most: usize) -> Result<Bytes, DumpError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length > most {
            return Err(DumpError::Damaged("a key or value is too long"));
        }
        let mut bytes = vec![0; length];
        self.take(&mut bytes)?;
        Ok(bytes.into())
    }

    /// The next row; `None` at the end, when everything was found to be whole.
    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, DumpError> {
        let mut kind = [0];
        self.take(&mut kind)?;
        match kind {
            [ROW] => {
                self.rows += 1;
                Ok(Some((self.bytes(MAX_KEY_BYTES)?, self.bytes(MAX_VALUE_BYTES)?)))
            }
            [END] => {
                let mut rows = [0; 8];
                self.take(&mut rows)?;
                let crc = self.crc;
                if u64::from_be_bytes(rows) != self.rows || self.number()? != crc {
                    return Err(DumpError::Damaged("its checksum is another one"));
                }
                match self.inner.read(&mut [0])? {
                    0 => Ok(None),
                    _ => Err(DumpError::Damaged("something follows its end")),
                }
            }
            _ => Err(DumpError::Damaged("a row of no kind")),
        }
    }
}

/// Fills `meta` from a dump, which `open` opens anew for each of two passes: it is found to be whole
/// before anything is written. With `replace`, everything that is there goes first.
///
/// Many transactions: a restore that was interrupted leaves a mark, by which the store counts as
/// not empty; restore again, with `replace`.
///
/// # Errors
/// See [`DumpError`].
pub async fn restore<R: Read>(
    meta: &Meta,
    mut open: impl FnMut() -> io::Result<R>,
    replace: bool,
) -> Result<Dumped, DumpError> {
    let mut rows = Rows::open(open()?)?;
    while rows.next()?.is_some() {}

    let (all, mark) = (&meta.all_keys(), &mark(meta));
    meta.transact(|tx| async move {
        let there = tx.get_range(all, RangeOptions::limit(2)).await?.rows;
        // The mark alone may be this very restore's, of an attempt whose answer was lost.
        let is_own = matches!(&there[..], [(key, _)] if *key == mark[..]);
        if !(there.is_empty() || replace || is_own && tx.is_maybe_committed()) {
            return Ok(false);
        }
        tx.clear_range(all.clone())?;
        tx.set(mark.clone(), Bytes::new())?;
        Ok::<_, MetaError>(true)
    })
    .await?
    .then_some(())
    .ok_or(DumpError::NotEmpty)?;

    let mut rows = Rows::open(open()?)?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some((key, value)) = rows.next()? {
        bytes += key.len() + value.len();
        batch.push((Bytes::from([meta.root().bytes(), &key].concat()), value));
        if bytes > BATCH_BYTES {
            write(meta, &batch).await?;
            batch.clear();
            bytes = 0;
        }
    }
    write(meta, &batch).await?;
    meta.transact(|tx| async move { tx.clear(mark.clone()) }).await?;
    Ok(Dumped { rows: rows.rows, has_moved: false })
}

async fn write(meta: &Meta, batch: &[(Bytes, Bytes)]) -> Result<(), MetaError> {
    meta.transact(|tx| async move {
        batch.iter().try_for_each(|(key, value)| tx.set(key.clone(), value.clone()))
    })
    .await
}

/// Reads any bytes as a dump: for fuzzing.
pub fn fuzz_dump(bytes: &[u8]) {
    if let Ok(mut rows) = Rows::open(bytes) {
        while let Ok(Some(_)) = rows.next() {}
    }
}

/// A valid input of [`fuzz_dump`].
#[must_use]
pub fn dump_seeds() -> Vec<Vec<u8>> {
    let mut file = Vec::new();
    let mut out = Sum { inner: &mut file, crc: 0 };
    let written = out.put(MAGIC).and_then(|()| out.put(&FORMAT.to_be_bytes()));
    let written = written.and_then(|()| out.put(&[ROW]));
    let written = written.and_then(|()| out.put_with_length(b"key"));
    let written = written.and_then(|()| out.put_with_length(b"value"));
    let written = written.and_then(|()| out.put(&[END]));
    let written = written.and_then(|()| out.put(&1_u64.to_be_bytes()));
    let crc = out.crc;
    file.extend(crc.to_be_bytes());
    written.map(|()| file).into_iter().collect()
}

#[cfg(test)]
mod tests;
