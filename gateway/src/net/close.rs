//! Ends a connection so that its last bytes arrive.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;

/// How long a peer may take to notice.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How much of what it still sends is thrown away.
const MAX_DRAINED_BYTES: usize = 1 << 20;

/// Sends what is written, says that nothing follows, and waits until the peer closes too, at most
/// 3 s and 1 MiB of what it still sends.
///
/// A socket that is closed with unread bytes resets the connection, and the reset overtakes a
/// DISCONNECT that was just written.
pub async fn close(mut stream: Stream) {
    let close = async {
        stream.shutdown().await?;
        let mut drained = 0;
        // On the heap while closing only.
        let mut scratch = vec![0; 4096];
        while drained < MAX_DRAINED_BYTES {
            match stream.read(&mut scratch).await? {
                0 => break,
                read => drained += read,
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever fails: the connection is over.
    let _ = tokio::time::timeout(TIMEOUT, close).await;
}
