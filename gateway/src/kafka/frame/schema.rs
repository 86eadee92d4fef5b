//! The fields of every served request, by version, as Kafka's message definitions state them.

use kafka_protocol::messages::ApiKey;

/// The type of a field. Whether null is allowed is only told apart where it ever is.
#[derive(Debug)]
pub(super) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// STRING; COMPACT_STRING in flexible versions.
    Str,
    /// The same, or null.
    NullableStr,
    /// BYTES; COMPACT_BYTES in flexible versions.
    Bytes,
    /// The same, or null; RECORDS too.
    NullableBytes,
    /// ARRAY; COMPACT_ARRAY in flexible versions.
    Array(&'static Kind),
    /// The same, or null.
    NullableArray(&'static Kind),
    /// Fields, and in flexible versions tagged ones.
    Struct(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) since: i16,
    pub(super) until: i16,
    /// The field's tag, if it is a tagged one.
    pub(super) tag: Option<u32>,
    pub(super) kind: Kind,
}

/// A request.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) api: ApiKey,
    /// The first version with compact lengths and tagged fields.
    pub(super) flexible_since: i16,
    pub(super) body: Kind,
}

const NEVER: i16 = i16::MAX;

const BOOL: Kind = Kind::Fixed(1);
const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const STR: Kind = Kind::Str;
const NULLABLE_STR: Kind = Kind::NullableStr;

const fn all(kind: Kind) -> Field {
    Field { since: 0, until: i16::MAX, tag: None, kind }
}

const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, tag: None, kind }
}

const fn until(until: i16, kind: Kind) -> Field {
    Field { since: 0, until, tag: None, kind }
}

const fn within(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, tag: None, kind }
}

const fn tagged(tag: u32, since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, tag: Some(tag), kind }
}

const fn array(fields: &'static Kind) -> Kind {
    Kind::Array(fields)
}

const fn request(api: ApiKey, flexible_since: i16, fields: &'static [Field]) -> Schema {
    Schema { api, flexible_since, body: Kind::Struct(fields) }
}

/// The schema of `api`.
pub(super) fn of(api: ApiKey) -> Option<&'static Schema> {
    // Data requests come first: they are nearly all of the traffic.
    SCHEMAS.iter().find(|schema| schema.api == api)
}

pub(super) static SCHEMAS: &[Schema] = &[
    request(ApiKey::Produce, 9, PRODUCE),
    request(ApiKey::Fetch, 12, FETCH),
    request(ApiKey::ListOffsets, 6, LIST_OFFSETS),
    request(ApiKey::OffsetForLeaderEpoch, 4, OFFSET_FOR_LEADER_EPOCH),
    request(ApiKey::InitProducerId, 2, INIT_PRODUCER_ID),
    request(ApiKey::Metadata, 9, METADATA),
    request(ApiKey::Heartbeat, 4, HEARTBEAT),
    request(ApiKey::OffsetCommit, 8, OFFSET_COMMIT),
    request(ApiKey::OffsetFetch, 6, OFFSET_FETCH),
    request(ApiKey::OffsetDelete, NEVER, OFFSET_DELETE),
    request(ApiKey::FindCoordinator, 3, FIND_COORDINATOR),
    request(ApiKey::JoinGroup, 6, JOIN_GROUP),
    request(ApiKey::SyncGroup, 4, SYNC_GROUP),
    request(ApiKey::LeaveGroup, 4, LEAVE_GROUP),
    request(ApiKey::ListGroups, 3, &[since(4, array(&STR)), since(5, array(&STR))]),
    request(ApiKey::DescribeGroups, 5, &[all(array(&STR)), since(3, BOOL)]),
    request(ApiKey::DeleteGroups, 2, &[all(array(&STR))]),
    request(ApiKey::ApiVersions, 3, &[since(3, STR), since(3, STR)]),
    request(ApiKey::CreateTopics, 5, CREATE_TOPICS),
    request(ApiKey::DeleteTopics, 4, DELETE_TOPICS),
    request(ApiKey::DescribeConfigs, 4, DESCRIBE_CONFIGS),
    request(ApiKey::IncrementalAlterConfigs, 1, INCREMENTAL_ALTER_CONFIGS),
    request(ApiKey::DescribeCluster, 0, &[all(BOOL), since(1, I8), since(2, BOOL)]),
    request(ApiKey::SaslHandshake, NEVER, &[all(STR)]),
    request(ApiKey::SaslAuthenticate, 2, &[all(Kind::Bytes)]),
];

const PRODUCE: &[Field] = &[
    all(NULLABLE_STR), // transactional id
    all(I16),          // acks
    all(I32),          // timeout
    all(array(&Kind::Struct(&[
        until(12, STR),  // topic
        since(13, UUID), // topic id
        all(array(&Kind::Struct(&[
            all(I32), // partition
            all(Kind::NullableBytes),
        ]))),
    ]))),
];

const FETCH: &[Field] = &[
    tagged(0, 12, NULLABLE_STR),                        // cluster id
    until(14, I32),                                     // replica id
    tagged(1, 15, Kind::Struct(&[all(I32), all(I64)])), // replica state
    all(I32),                                           // max wait
    all(I32),                                           // min bytes
    all(I32),                                           // max bytes
    all(I8),                                            // isolation level
    since(7, I32),                                      // session id
    since(7, I32),                                      // session epoch
    all(array(&Kind::Struct(&[
        until(12, STR),  // topic
        since(13, UUID), // topic id
        all(array(&Kind::Struct(&[
            all(I32),            // partition
            since(9, I32),       // current leader epoch
            all(I64),            // fetch offset
            since(12, I32),      // last fetched epoch
            since(5, I64),       // log start
            all(I32),            // max bytes
            tagged(0, 17, UUID), // replica directory
            tagged(1, 18, I64),  // high watermark
        ]))),
    ]))),
    since(
        7,
        array(&Kind::Struct(&[
            until(12, STR),  // forgotten topic
            since(13, UUID), // forgotten topic id
            all(array(&I32)),
        ])),
    ),
    since(11, STR), // rack
];

const LIST_OFFSETS: &[Field] = &[
    all(I32),     // replica
    since(2, I8), // isolation level
    all(array(&Kind::Struct(&[
        all(STR), // topic
        all(array(&Kind::Struct(&[
            all(I32),      // partition
            since(4, I32), // current leader epoch
            all(I64),      // timestamp
        ]))),
    ]))),
    since(10, I32), // timeout
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    since(3, I32), // replica
    all(array(&Kind::Struct(&[
        all(STR), // topic
        all(array(&Kind::Struct(&[
            all(I32), // partition
            all(I32), // current leader epoch
            all(I32), // leader epoch
        ]))),
    ]))),
];

const INIT_PRODUCER_ID: &[Field] = &[
    all(NULLABLE_STR), // transactional id
    all(I32),          // transaction timeout
    since(3, I64),     // producer id
    since(3, I16),     // producer epoch
    since(6, BOOL),    // two-phase commit
    since(6, BOOL),    // keep the prepared transaction
];

const METADATA: &[Field] = &[
    all(Kind::NullableArray(&Kind::Struct(&[
        since(10, UUID), // topic id
        all(NULLABLE_STR),
    ]))),
    since(4, BOOL),      // create topics
    within(8, 10, BOOL), // operations on the cluster
    since(8, BOOL),      // operations on the topics
];

const HEARTBEAT: &[Field] = &[
    all(STR),               // group
    all(I32),               // generation
    all(STR),               // member
    since(3, NULLABLE_STR), // instance
];

const OFFSET_COMMIT: &[Field] = &[
    all(STR),               // group
    since(1, I32),          // generation
    since(1, STR),          // member
    since(7, NULLABLE_STR), // instance
    within(2, 4, I64),      // retention
    all(array(&Kind::Struct(&[
        until(9, STR),   // topic
        since(10, UUID), // topic id
        all(array(&Kind::Struct(&[
            all(I32),      // partition
            all(I64),      // offset
            since(6, I32), // leader epoch
            all(NULLABLE_STR),
        ]))),
    ]))),
];

const OFFSET_FETCH: &[Field] = &[
    until(7, STR), // group
    until(
        7,
        Kind::NullableArray(&Kind::Struct(&[
            all(STR), // topic
            all(array(&I32)),
        ])),
    ),
    since(
        8,
        array(&Kind::Struct(&[
            all(STR),               // group
            since(9, NULLABLE_STR), // member
            since(9, I32),          // member epoch
            all(Kind::NullableArray(&Kind::Struct(&[
                until(9, STR),   // topic
                since(10, UUID), // topic id
                all(array(&I32)),
            ]))),
        ])),
    ),
    since(7, BOOL), // stable offsets only
];

const OFFSET_DELETE: &[Field] = &[
    all(STR), // group
    all(array(&Kind::Struct(&[
        all(STR), // topic
        all(array(&Kind::Struct(&[all(I32)]))),
    ]))),
];

const FIND_COORDINATOR: &[Field] = &[
    until(3, STR),         // key
    since(1, I8),          // its type
    since(4, array(&STR)), // keys
];

const JOIN_GROUP: &[Field] = &[
    all(STR),               // group
    all(I32),               // session timeout
    since(1, I32),          // rebalance timeout
    all(STR),               // member
    since(5, NULLABLE_STR), // instance
    all(STR),               // protocol type
    all(array(&Kind::Struct(&[
        all(STR), // protocol
        all(Kind::Bytes),
    ]))),
    since(8, NULLABLE_STR), // reason
];

const SYNC_GROUP: &[Field] = &[
    all(STR),               // group
    all(I32),               // generation
    all(STR),               // member
    since(3, NULLABLE_STR), // instance
    since(5, NULLABLE_STR), // protocol type
    since(5, NULLABLE_STR), // protocol
    all(array(&Kind::Struct(&[
        all(STR), // member
        all(Kind::Bytes),
    ]))),
];

const LEAVE_GROUP: &[Field] = &[
    all(STR),      // group
    until(2, STR), // member
    since(
        3,
        array(&Kind::Struct(&[
            all(STR),               // member
            all(NULLABLE_STR),      // instance
            since(5, NULLABLE_STR), // reason
        ])),
    ),
];

const CREATE_TOPICS: &[Field] = &[
    all(array(&Kind::Struct(&[
        all(STR), // topic
        all(I32), // partitions
        all(I16), // replication factor
        all(array(&Kind::Struct(&[
            all(I32), // partition
            all(array(&I32)),
        ]))),
        all(array(&Kind::Struct(&[
            all(STR), // option
            all(NULLABLE_STR),
        ]))),
    ]))),
    all(I32),       // timeout
    since(1, BOOL), // validate only
];

const DELETE_TOPICS: &[Field] = &[
    since(
        6,
        array(&Kind::Struct(&[
            all(NULLABLE_STR), // topic
            all(UUID),         // topic id
        ])),
    ),
    until(5, array(&STR)), // topics
    all(I32),              // timeout
];

const DESCRIBE_CONFIGS: &[Field] = &[
    all(array(&Kind::Struct(&[
        all(I8),  // resource type
        all(STR), // resource
        all(Kind::NullableArray(&STR)),
    ]))),
    since(1, BOOL), // synonyms
    since(3, BOOL), // documentation
];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    all(array(&Kind::Struct(&[
        all(I8),  // resource type
        all(STR), // resource
        all(array(&Kind::Struct(&[
            all(STR), // option
            all(I8),  // operation
            all(NULLABLE_STR),
        ]))),
    ]))),
    all(BOOL), // validate only
];
