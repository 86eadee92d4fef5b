//! `interflow group`: consumer groups by the Kafka protocol.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Subcommand;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetFetchRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::topic::offsets;
use super::{Bootstrap, print_line, print_table};
use crate::kafka::{Client, check};

#[derive(Subcommand)]
pub(crate) enum Group {
    /// List consumer groups
    List {
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Show a group's members, committed offsets and lag
    Describe {
        /// Its id
        id: String,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
}

impl Group {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { bootstrap } => list(&mut bootstrap.connect()?),
            Self::Describe { id, bootstrap } => describe(&mut bootstrap.connect()?, &id),
        }
    }
}

fn list(client: &mut Client) -> anyhow::Result<()> {
    let answer = client.call(4, &ListGroupsRequest::default())?;
    check(answer.error_code, "list groups", None)?;
    let mut rows: Vec<_> = answer
        .groups
        .iter()
        .map(|group| {
            vec![
                group.group_id.to_string(),
                group.group_state.to_string(),
                group.protocol_type.to_string(),
            ]
        })
        .collect();
    rows.sort();
    print_table(&["GROUP", "STATE", "TYPE"], &rows)?;
    Ok(())
}

fn describe(client: &mut Client, id: &str) -> anyhow::Result<()> {
    let group = GroupId(StrBytes::from_string(id.to_owned()));
    let request = DescribeGroupsRequest::default().with_groups(vec![group.clone()]);
    let Some(described) = client.call(5, &request)?.groups.pop() else { bail!("{id}: not found") };
    check(described.error_code, id, described.error_message.as_deref())?;

    let request = OffsetFetchRequest::default().with_groups(vec![
        OffsetFetchRequestGroup::default().with_group_id(group).with_topics(None),
    ]);
    let mut committed: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
    for found in client.call(8, &request)?.groups {
        check(found.error_code, id, None)?;
        for topic in found.topics {
            let partitions = committed.entry(topic.name.to_string()).or_default();
            for partition in topic.partitions {
                check(partition.error_code, &topic.name, None)?;
                partitions.insert(partition.partition_index, partition.committed_offset);
            }
        }
    }
    if described.group_state.as_str() == "Dead" && committed.is_empty() {
        bail!("{id}: no such group");
    }

    let mut owners: BTreeMap<(String, i32), String> = BTreeMap::new();
    for member in &described.members {
        let mut assignment = member.member_assignment.clone();
        if assignment.len() < 2 {
            continue;
        }
        // The consumer's own format: a version of two bytes, then the assignment.
        let version = assignment.split_to(2);
        let version = i16::from_be_bytes([version[0], version[1]]).clamp(0, 3);
        let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut assignment, version) else {
            continue;
        };
        for topic in assignment.assigned_partitions {
            for partition in topic.partitions {
                let owner = format!("{} {}", member.client_id, member.client_host);
                owners.insert((topic.topic.to_string(), partition), owner);
            }
        }
    }

    print_line(&format!(
        "group {id}, {}, {} members",
        described.group_state,
        described.members.len()
    ))?;
    let mut rows = Vec::new();
    for (topic, partitions) in &committed {
        let numbers: Vec<i32> = partitions.keys().copied().collect();
        // A topic that was deleted since has offsets but no end.
        let ends: BTreeMap<i32, i64> =
            offsets(client, topic, &numbers, -1).unwrap_or_default().into_iter().collect();
        for (partition, offset) in partitions {
            let end = ends.get(partition);
            rows.push(vec![
                topic.clone(),
                partition.to_string(),
                offset.to_string(),
                end.map_or_else(|| "-".into(), i64::to_string),
                end.map_or_else(|| "-".into(), |end| (end - offset).max(0).to_string()),
                owners.get(&(topic.clone(), *partition)).cloned().unwrap_or_else(|| "-".into()),
            ]);
        }
    }
    print_table(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "OWNER"], &rows)?;
    Ok(())
}
