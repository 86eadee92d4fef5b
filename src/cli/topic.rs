//! `interflow topic`: topics by the Kafka protocol.

use anyhow::{Context, bail};
use clap::Subcommand;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, ListOffsetsRequest,
    MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{Bootstrap, print_line, print_table};
use crate::kafka::{Client, check};

const METADATA_VERSION: i16 = 12;
/// DescribeConfigs: the resource is a topic.
const RESOURCE_TOPIC: i8 = 2;
/// DescribeConfigs: the value was set for the topic itself.
const SOURCE_TOPIC: i8 = 1;

#[derive(Subcommand)]
pub(crate) enum Topic {
    /// List topics with their partitions
    List {
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Create a topic
    Create {
        /// Its name: 1 to 249 of [A-Za-z0-9._-]
        name: String,
        /// How many partitions
        #[arg(long, short = 'p', default_value_t = 1)]
        partitions: i32,
        /// A topic config, as KEY=VALUE; may be repeated
        #[arg(long = "config", value_name = "KEY=VALUE")]
        configs: Vec<String>,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Show a topic's partitions, offsets and configs
    Describe {
        /// Its name
        name: String,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
    /// Delete a topic with all its records
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        bootstrap: Bootstrap,
    },
}

impl Topic {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { bootstrap } => list(&mut bootstrap.connect()?),
            Self::Create { name, partitions, configs, bootstrap } => {
                create(&mut bootstrap.connect()?, &name, partitions, &configs)
            }
            Self::Describe { name, bootstrap } => describe(&mut bootstrap.connect()?, &name),
            Self::Delete { name, bootstrap } => delete(&mut bootstrap.connect()?, &name),
        }
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn name_of(topic: &MetadataResponseTopic) -> String {
    topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default()
}

/// The metadata of `names`, or of all topics.
fn metadata(
    client: &mut Client,
    names: Option<&[&str]>,
) -> anyhow::Result<Vec<MetadataResponseTopic>> {
    let topics = names.map(|names| {
        names
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
            .collect()
    });
    let request =
        MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
    let mut topics = client.call(METADATA_VERSION, &request)?.topics;
    topics.sort_by_key(name_of);
    Ok(topics)
}

/// Offsets of each partition at `timestamp` (-2 earliest, -1 latest).
pub(crate) fn offsets(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> anyhow::Result<Vec<(i32, i64)>> {
    let wanted = partitions
        .iter()
        .map(|p| ListOffsetsPartition::default().with_partition_index(*p).with_timestamp(timestamp))
        .collect();
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(wanted),
    ]);
    let answer = client.call(7, &request)?;
    let mut found = Vec::new();
    for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
        check(partition.error_code, &format!("{topic}-{}", partition.partition_index), None)?;
        found.push((partition.partition_index, partition.offset));
    }
    found.sort_unstable();
    Ok(found)
}

fn list(client: &mut Client) -> anyhow::Result<()> {
    let rows: Vec<_> = metadata(client, None)?
        .iter()
        .map(|topic| {
            vec![name_of(topic), topic.partitions.len().to_string(), topic.topic_id.to_string()]
        })
        .collect();
    print_table(&["TOPIC", "PARTITIONS", "ID"], &rows)?;
    Ok(())
}

fn create(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[String],
) -> anyhow::Result<()> {
    let configs = configs
        .iter()
        .map(|config| {
            let (key, value) =
                config.split_once('=').with_context(|| format!("{config}: want KEY=VALUE"))?;
            Ok(CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(key.to_owned()))
                .with_value(Some(StrBytes::from_string(value.to_owned()))))
        })
        .collect::<anyhow::Result<_>>()?;
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    for topic in client.call(7, &request)?.topics {
        check(topic.error_code, name, topic.error_message.as_deref())?;
        print_line(&format!("created {name} with {} partitions", topic.num_partitions))?;
    }
    Ok(())
}

fn describe(client: &mut Client, name: &str) -> anyhow::Result<()> {
    let Some(topic) = metadata(client, Some(&[name]))?.pop() else { bail!("{name}: not found") };
    check(topic.error_code, name, None)?;
    print_line(&format!("topic {name}, id {}", topic.topic_id))?;
    let mut partitions: Vec<_> = topic.partitions.iter().map(|p| p.partition_index).collect();
    partitions.sort_unstable();
    let earliest = offsets(client, name, &partitions, -2)?;
    let latest = offsets(client, name, &partitions, -1)?;
    let rows: Vec<_> = earliest
        .iter()
        .zip(&latest)
        .map(|((partition, start), (_, end))| {
            vec![
                partition.to_string(),
                start.to_string(),
                end.to_string(),
                end.saturating_sub(*start).to_string(),
            ]
        })
        .collect();
    print_table(&["PARTITION", "START", "END", "RECORDS"], &rows)?;
    let request = DescribeConfigsRequest::default().with_resources(vec![
        DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_configuration_keys(None)
            .with_resource_name(StrBytes::from_string(name.to_owned())),
    ]);
    let mut rows = Vec::new();
    for result in client.call(4, &request)?.results {
        check(result.error_code, name, result.error_message.as_deref())?;
        for config in result.configs {
            let source = if config.config_source == SOURCE_TOPIC { "topic" } else { "default" };
            let value = config.value.map(|value| value.to_string()).unwrap_or_default();
            rows.push(vec![config.name.to_string(), value, source.to_owned()]);
        }
    }
    rows.sort();
    print_line("")?;
    print_table(&["CONFIG", "VALUE", "SOURCE"], &rows)?;
    Ok(())
}

fn delete(client: &mut Client, name: &str) -> anyhow::Result<()> {
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(name)))])
        .with_timeout_ms(30_000);
    for topic in client.call(6, &request)?.responses {
        check(topic.error_code, name, topic.error_message.as_deref())?;
        print_line(&format!("deleted {name}"))?;
    }
    Ok(())
}
