//! Listeners and the byte streams that they accept.

mod stream;

pub use stream::{ByteStream, Peer, Stream, Transport};
