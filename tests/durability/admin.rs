//! The admin port, by hand.

use std::io::{Read, Write};
use std::net::SocketAddr;

use interflow_gateway::admin::LogReport;

use crate::wire::connect;

/// The status and the text of a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = connect(address).expect("the admin port");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the admin port reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// What `interflow log describe` shows of a topic.
pub(crate) fn logs(address: SocketAddr, topic: &str) -> Vec<LogReport> {
    let (status, body) = get(address, &format!("/v1/topics/{topic}/logs"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("reports")
}

/// The damaged offsets of a topic's partitions.
pub(crate) fn damage(address: SocketAddr, topic: &str) -> Vec<(u32, u64, u64)> {
    let reports = logs(address, topic);
    let ranges = reports.iter().flat_map(|log| {
        log.segments.iter().flat_map(|segment| {
            segment.damaged.iter().map(|(from, to)| (log.partition, *from, *to))
        })
    });
    ranges.collect()
}
