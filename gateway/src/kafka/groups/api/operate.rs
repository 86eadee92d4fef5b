//! ListGroups, DescribeGroups, DeleteGroups; and what the end of a topic means for groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use interflow_meta::groups::{self as stored};
use interflow_meta::{DEFAULT_TENANT, MetaError};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, ListGroupsRequest, ListGroupsResponse,
};
use tokio::sync::oneshot;

use super::{check_name, text};
use crate::kafka::broker::Broker;
use crate::kafka::groups::Groups;
use crate::kafka::groups::core::{Description, State};
use crate::kafka::groups::registry::{not_written, unavailable};
use crate::kafka::groups::store;
use crate::kafka::groups::writer::Write;
use crate::kafka::route::Request;
use crate::topics::Topic;

/// The type of every group until there are others (KIP-848).
const CLASSIC: &str = "classic";
/// The bits of the operations that exist on a group.
const OPERATIONS: i32 = 328;

pub(in crate::kafka) async fn list(
    broker: &Broker,
    _: &Request,
    asked: ListGroupsRequest,
) -> ListGroupsResponse {
    let wants = |filter: &[kafka_protocol::protocol::StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    if !wants(&asked.types_filter, CLASSIC) {
        return ListGroupsResponse::default();
    }
    if !broker.brokers.gateways().lease_holds() {
        // To say "none" would be taken for the truth.
        let error = ResponseError::CoordinatorNotAvailable;
        return ListGroupsResponse::default().with_error_code(error.code());
    }
    let all = match broker.groups.all().await {
        Ok(all) => all,
        Err(error) => {
            let error = unavailable("all", &error);
            return ListGroupsResponse::default().with_error_code(error.code());
        }
    };
    let listed = all
        .into_iter()
        .filter(|(_, _, state)| wants(&asked.states_filter, state.name()))
        .map(|(name, protocol_type, state)| {
            ListedGroup::default()
                .with_group_id(GroupId(text(&name)))
                .with_protocol_type(text(&protocol_type))
                .with_group_state(text(state.name()))
                .with_group_type(text(CLASSIC))
        });
    ListGroupsResponse::default().with_groups(listed.collect())
}

pub(in crate::kafka) async fn describe(
    broker: &Broker,
    request: &Request,
    asked: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(asked.groups.len());
    let mut seen = BTreeSet::new();
    for group in &asked.groups {
        // A group that is named twice is described once.
        if !seen.insert(group.as_str()) {
            continue;
        }
        let mut described = DescribedGroup::default().with_group_id(group.clone());
        let found = match check_name(group) {
            Ok(()) => broker.groups.with(group, false, |_, state, _| state.describe()).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(Some(description)) => {
                described = shown(described, description);
                if asked.include_authorized_operations {
                    described.authorized_operations = OPERATIONS;
                }
            }
            Ok(None) => {
                described.group_state = text(State::Dead.name());
                if request.version >= 6 {
                    described.error_code = ResponseError::GroupIdNotFound.code();
                    described.error_message = Some(text(&format!("group {} not found", **group)));
                }
            }
            Err(error) => described.error_code = error.code(),
        }
        groups.push(described);
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn shown(group: DescribedGroup, description: Description) -> DescribedGroup {
    let members = description.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(&member.member))
            .with_group_instance_id(member.instance.map(|name| text(&name)))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    group
        .with_group_state(text(description.state.name()))
        .with_protocol_type(text(&description.protocol_type))
        .with_protocol_data(text(&description.protocol))
        .with_members(members.collect())
}

pub(in crate::kafka) async fn delete(
    broker: &Broker,
    _: &Request,
    asked: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(asked.groups_names.len());
    for group in &asked.groups_names {
        let outcome = delete_one(broker, group).await;
        results.push(
            DeletableGroupResult::default()
                .with_group_id(group.clone())
                .with_error_code(outcome.err().map_or(0, |error| error.code())),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete_one(broker: &Broker, group: &str) -> Result<(), ResponseError> {
    check_name(group)?;
    let groups = &broker.groups;
    let (done, durable) = oneshot::channel();
    groups
        .with(group, false, |slot, state, _| {
            state.check_delete()?;
            groups.write(slot, Write::Delete(done));
            Ok(())
        })
        .await?
        .ok_or(ResponseError::GroupIdNotFound)??;
    match durable.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(not_written(group, &error)),
        Err(_) => Err(ResponseError::CoordinatorNotAvailable),
    }
}

impl Groups {
    /// Name, protocol type and state of each group that is this gateway's: those in memory, and those
    /// that are stored.
    async fn all(self: &Arc<Self>) -> Result<Vec<(String, String, State)>, MetaError> {
        let mut names: BTreeSet<String> =
            self.in_memory().iter().map(|slot| (*slot.name).to_owned()).collect();
        let mut after: Option<String> = None;
        loop {
            let page = store::names(self.meta(), after.as_deref()).await?;
            let is_last = page.len() < store::PAGE;
            after = page.last().cloned();
            names.extend(page);
            if is_last {
                break;
            }
        }
        names.retain(|name| self.check(name).is_ok());
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let present = self.peek(&name, |group| {
                let kind = group.protocol_type().map(|kind| (**kind).to_owned());
                (kind.unwrap_or_default(), group.state())
            });
            let (kind, state) = match present {
                Some(present) => present,
                None => {
                    let found = store::glance(self.meta(), &name).await?;
                    let state = if found.has_members { State::Stable } else { State::Empty };
                    (found.protocol_type, state)
                }
            };
            all.push((name, kind, state));
        }
        Ok(all)
    }

    /// Forgets what groups have committed for a topic that is gone: another one of its name begins
    /// anew.
    pub(in crate::kafka) async fn forget_topic(self: &Arc<Self>, topic: &Topic) {
        if let Err(error) = self.try_forget_topic(topic).await {
            tracing::warn!(
                topic = %topic.name, %error,
                "offsets of a deleted topic remain; they lapse with their retention"
            );
        }
    }

    async fn try_forget_topic(self: &Arc<Self>, topic: &Topic) -> Result<(), MetaError> {
        let mut after: Option<String> = None;
        loop {
            let page = store::names(self.meta(), after.as_deref()).await?;
            for name in &page {
                self.meta()
                    .transact(|tx| async move {
                        let rows = stored::all_offsets(&tx, DEFAULT_TENANT, name).await?;
                        for (of, partition, _) in rows {
                            if of == *topic.name {
                                stored::delete_offset(&tx, DEFAULT_TENANT, name, &of, partition)?;
                            }
                        }
                        Ok::<_, MetaError>(())
                    })
                    .await?;
            }
            if page.len() < store::PAGE {
                return Ok(());
            }
            after = page.last().cloned();
        }
    }
}
