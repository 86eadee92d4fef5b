//! Produce and Fetch are read in their frames, by readers of our own: for fuzzing.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::Decodable;
use uuid::Uuid;

use super::fetch::read_request;
use super::produce::{Named, Preamble, Visitor, walk};
use crate::kafka::frame::{check, parse_header};
use crate::topics::Topics;

/// Reads any bytes as a request frame of Produce or Fetch that has passed the checks. What the
/// readers say is what kafka-protocol's decoder says.
pub fn fuzz_bodies(frame: &[u8]) {
    let frame = Bytes::copy_from_slice(frame);
    let Ok((header, mut body)) = parse_header(&frame) else { return };
    let Ok(api) = ApiKey::try_from(header.api_key) else { return };
    if check(api, header.version, &body).is_err() {
        return;
    }
    match api {
        ApiKey::Produce => {
            let ours = walk(header.version, &body, Produced::new);
            let theirs = messages::ProduceRequest::decode(&mut body, header.version);
            let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return };
            assert_eq!((ours.acks, ours.timeout_ms), (theirs.acks, theirs.timeout_ms));
            let all = theirs.topic_data.into_iter().flat_map(|topic| {
                let name: Arc<str> = topic.name.as_str().into();
                let id = topic.topic_id;
                topic
                    .partition_data
                    .into_iter()
                    .map(move |partition| (name.clone(), id, partition.index, partition.records))
            });
            assert!(ours.partitions.into_iter().eq(all), "two readers of Produce differ");
        }
        ApiKey::Fetch => {
            let ours = read_request(header.version, &body, &Topics::fixed([]));
            let theirs = messages::FetchRequest::decode(&mut body, header.version);
            let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return };
            let all = theirs.topics.into_iter().flat_map(|topic| topic.partitions);
            let all = all.map(|wanted| (wanted.partition, wanted.fetch_offset));
            assert!(ours.into_iter().eq(all), "two readers of Fetch differ");
        }
        _ => body.advance(body.remaining()),
    }
}

/// What a walk over a Produce request met.
struct Produced {
    acks: i16,
    timeout_ms: i32,
    topic: (Arc<str>, Uuid),
    partitions: Vec<(Arc<str>, Uuid, i32, Option<Bytes>)>,
}

impl Produced {
    fn new(Preamble { acks, timeout_ms }: Preamble) -> Self {
        let topic = ("".into(), Uuid::nil());
        Self { acks, timeout_ms, topic, partitions: Vec::new() }
    }
}

impl Visitor for Produced {
    fn topic(&mut self, topic: Named<'_>, _: usize) {
        self.topic = match topic {
            Named::Name(name) => (name.into(), Uuid::nil()),
            Named::Id(id) => ("".into(), id),
        };
    }

    fn partition(&mut self, index: i32, records: Option<Bytes>) {
        let (name, id) = self.topic.clone();
        self.partitions.push((name, id, index, records));
    }
}
