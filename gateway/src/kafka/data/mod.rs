//! The requests that move records: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, and
//! InitProducerId.
//!
//! ```text
//!   Produce  frame ─► walked once ─► each batch checked, its append started, in request order
//!                                    └─► tickets awaited later ─► answer
//!   Fetch    frame ─► session ─► read what is there ─► too little? wait for a log's news ─► answer
//! ```
//!
//! A connection calls [`DataPlane::start_produce`] for its requests in the order in which they
//! came, so their appends have that order, and awaits the returned [`Produce::finish`] when it is
//! the request's turn to be answered. The other requests are plain `async fn`s; dropping their
//! future is safe at any time.
//!
//! Batches pass through as they are: a request's records are slices of its frame, a response's
//! are slices of what the log lends.

mod body;
mod source;

pub use body::Body;
pub use source::{ProducerIdError, ProducerIdSource, Topic, TopicSource};

// The calls of `DataPlane` (shared by all connections behind one `Arc`):
//
//   fn start_produce(&self, version: i16, body: Bytes) -> Result<Produce, FrameError>
//   async fn Produce::finish(self) -> ProduceAnswer       // Body(Body) | Silent | Close
//   async fn fetch(&self, version: i16, body: Bytes) -> Result<Body, FrameError>
//   async fn list_offsets(&self, version: i16, ListOffsetsRequest) -> ListOffsetsResponse
//   async fn offset_for_leader_epoch(&self, version: i16, OffsetForLeaderEpochRequest)
//       -> OffsetForLeaderEpochResponse
//   async fn init_producer_id(&self, version: i16, InitProducerIdRequest)
//       -> InitProducerIdResponse
//
// And of `frame`, before any of them:
//
//   frame::parse_header(frame: &Bytes) -> Result<(RequestHeader, Bytes /* body */), FrameError>
//       RequestHeader { api_key: i16, version: i16, correlation_id: i32, client_id: Option<Bytes> }
//       for an unserved version the header is still parsed (ApiVersions answers in v0 form)
//   frame::check(api: ApiKey, version: i16, body: &[u8]) -> Result<(), FrameError>
//   frame::served_versions(api: ApiKey) -> Option<RangeInclusive<i16>>
//
// A `FrameError` closes the connection.
