//! Decompression with a hard bound on its output.
//!
//! Memory follows what was really decompressed, never what the input claims: output grows as it
//! is filled, and a block that states its size is believed only up to its codec's best ratio.

use std::io::{self, Read};

use bytes::{BufMut, Bytes, BytesMut};

use super::cursor::Cursor;
use super::header::Compression;

/// Why compressed records can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// They come to more than the bound.
    #[error("the records decompress to more than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: usize,
    },
    /// They are no output of this codec.
    #[error("the records do not decompress: {0}")]
    Malformed(io::Error),
}

/// The log2 of the largest Zstandard window: Kafka's (zstd-jni's) own limit, which producers at
/// the highest level use even for small batches. Window memory is touched only as it is filled.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What snappy-java's framing begins with.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";

/// Snappy's best ratio is 64 bytes from a copy of 3.
const SNAPPY_BEST_RATIO: usize = 22;

/// Decompresses `payload` to at most `max_bytes`.
pub fn decompress(
    compression: Compression,
    payload: &[u8],
    max_bytes: usize,
) -> Result<Bytes, DecompressError> {
    match compression {
        Compression::None if payload.len() > max_bytes => {
            Err(DecompressError::TooLarge { max_bytes })
        }
        Compression::None => Ok(Bytes::copy_from_slice(payload)),
        Compression::Gzip => drain(flate2::bufread::MultiGzDecoder::new(payload), max_bytes),
        Compression::Lz4 => drain(lz4_flex::frame::FrameDecoder::new(payload), max_bytes),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload)
                .map_err(DecompressError::Malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(DecompressError::Malformed)?;
            drain(decoder, max_bytes)
        }
        Compression::Snappy => snappy(payload, max_bytes),
    }
}

fn drain(mut from: impl Read, max_bytes: usize) -> Result<Bytes, DecompressError> {
    let mut out = BytesMut::new();
    let mut chunk = [0_u8; 8192];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(out.freeze()),
            Ok(n) if out.len() + n > max_bytes => {
                return Err(DecompressError::TooLarge { max_bytes });
            }
            Ok(n) => out.put_slice(chunk.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DecompressError::Malformed(error)),
        }
    }
}

/// Raw Snappy, or the blocks of snappy-java: 16 bytes of header, then each block with its length.
fn snappy(payload: &[u8], max_bytes: usize) -> Result<Bytes, DecompressError> {
    let mut out = BytesMut::new();
    if !payload.starts_with(XERIAL_MAGIC) {
        snappy_block(payload, max_bytes, &mut out)?;
        return Ok(out.freeze());
    }
    let mut at = Cursor::new(payload);
    at.array::<16>().map_err(|_| malformed("a cut header"))?;
    while at.remaining() > 0 {
        let block = at
            .u32()
            .ok()
            .and_then(|len| at.take(usize::try_from(len).ok()?).ok())
            .ok_or_else(|| malformed("a cut block"))?;
        snappy_block(block, max_bytes, &mut out)?;
    }
    Ok(out.freeze())
}

fn snappy_block(block: &[u8], max_bytes: usize, out: &mut BytesMut) -> Result<(), DecompressError> {
    let len = snap::raw::decompress_len(block).map_err(|e| malformed(e.to_string()))?;
    if len > block.len().saturating_mul(SNAPPY_BEST_RATIO) {
        return Err(malformed("a length that the block can't hold"));
    }
    let before = out.len();
    if len > max_bytes.saturating_sub(before) {
        return Err(DecompressError::TooLarge { max_bytes });
    }
    out.resize(before + len, 0);
    let place = out.get_mut(before..).unwrap_or_default();
    snap::raw::Decoder::new()
        .decompress(block, place)
        .map(|_| ())
        .map_err(|e| malformed(e.to_string()))
}

fn malformed(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DecompressError {
    DecompressError::Malformed(io::Error::new(io::ErrorKind::InvalidData, what))
}
