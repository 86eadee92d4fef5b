//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{check_name, identity, name, own, text};
use crate::kafka::broker::Broker;
use crate::kafka::groups::core::{Answer, Identity, Join, Joined, Ms, Name, Sync};
use crate::kafka::route::Request;

/// As much of a client's name goes into the ids of its members.
const CLIENT_ID_CHARS: usize = 255;

pub(in crate::kafka) async fn join(
    broker: &Broker,
    request: &Request,
    asked: JoinGroupRequest,
) -> JoinGroupResponse {
    let version = request.version;
    let who = identity(&asked.member_id, asked.group_instance_id.as_ref());
    match try_join(broker, request, &asked, who.clone()).await {
        Ok(Answer::Joined(joined)) => accepted(version, joined),
        Ok(Answer::NotJoined(error, member)) => refused(version, error, &member),
        // The reply was dropped, which only the end of the process does.
        Ok(_) => refused(version, ResponseError::CoordinatorNotAvailable, &who.member),
        Err(error) => refused(version, error, &who.member),
    }
}

async fn try_join(
    broker: &Broker,
    request: &Request,
    asked: &JoinGroupRequest,
    who: Identity,
) -> Result<Answer, ResponseError> {
    let group = asked.group_id.as_str();
    check_name(group)?;
    let config = &broker.config;
    let session_ms = u64::try_from(asked.session_timeout_ms)
        .ok()
        .filter(|ms| {
            (config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms).contains(ms)
        })
        .ok_or(ResponseError::InvalidSessionTimeout)?;
    if !broker.groups.has_room(request.body.len()) {
        return Err(ResponseError::CoordinatorNotAvailable);
    }
    let client_id: String = request.client_id.chars().take(CLIENT_ID_CHARS).collect();
    let (reply, answer) = oneshot::channel();
    let instance = who.instance.clone();
    let creates = who.member.is_empty();
    let join = Join {
        fresh_id: fresh_id(instance.as_deref().unwrap_or(&client_id)),
        client_id: client_id.as_str().into(),
        client_host: format!("/{}", request.peer.address.ip()).into(),
        session_ms,
        rebalance_ms: Ms::try_from(asked.rebalance_timeout_ms).unwrap_or(session_ms),
        protocol_type: name(&asked.protocol_type),
        protocols: asked.protocols.iter().map(|p| (name(&p.name), own(&p.metadata))).collect(),
        requires_known_id: request.version >= 4,
        can_skip_assignment: request.version >= 9,
        who,
        reply,
    };
    let groups = &broker.groups;
    let found = groups
        .with(group, creates, |_, state, out| {
            state.join(groups.now(), groups.settings(), join, out);
        })
        .await?;
    found.ok_or(ResponseError::UnknownMemberId)?;
    answer.await.map_err(|_| ResponseError::CoordinatorNotAvailable)
}

fn fresh_id(prefix: &str) -> Name {
    let prefix: String = prefix.chars().take(CLIENT_ID_CHARS).collect();
    format!("{prefix}-{}", Uuid::new_v4()).into()
}

fn accepted(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member))
            .with_group_instance_id(
                member.instance.filter(|_| version >= 5).map(|name| text(&name)),
            )
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= 7).map(|name| text(&name)))
        .with_protocol_name(Some(text(&joined.protocol.unwrap_or_default())))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(&joined.member))
        .with_members(members.collect())
}

fn refused(version: i16, error: ResponseError, member: &str) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        // Older versions can't say "none".
        .with_protocol_name((version < 7).then(|| text("")))
        .with_member_id(text(member))
}

pub(in crate::kafka) async fn sync(
    broker: &Broker,
    request: &Request,
    asked: SyncGroupRequest,
) -> SyncGroupResponse {
    let answer = try_sync(broker, request, &asked).await;
    match answer {
        Ok(Answer::Synced(synced)) => {
            let shown =
                |name: Option<Name>| name.filter(|_| request.version >= 5).map(|name| text(&name));
            SyncGroupResponse::default()
                .with_protocol_type(shown(synced.protocol_type))
                .with_protocol_name(shown(synced.protocol))
                .with_assignment(synced.assignment)
        }
        Ok(Answer::NotSynced(error)) | Err(error) => {
            SyncGroupResponse::default().with_error_code(error.code())
        }
        Ok(_) => SyncGroupResponse::default()
            .with_error_code(ResponseError::CoordinatorNotAvailable.code()),
    }
}

async fn try_sync(
    broker: &Broker,
    request: &Request,
    asked: &SyncGroupRequest,
) -> Result<Answer, ResponseError> {
    let group = asked.group_id.as_str();
    check_name(group)?;
    if !asked.assignments.is_empty() && !broker.groups.has_room(request.body.len()) {
        return Err(ResponseError::CoordinatorNotAvailable);
    }
    let (reply, answer) = oneshot::channel();
    let sync = Sync {
        who: identity(&asked.member_id, asked.group_instance_id.as_ref()),
        generation: asked.generation_id,
        protocol_type: asked.protocol_type.as_ref().map(name),
        protocol: asked.protocol_name.as_ref().map(name),
        assignments: asked
            .assignments
            .iter()
            .map(|share| (name(&share.member_id), own(&share.assignment)))
            .collect(),
        reply,
    };
    let groups = &broker.groups;
    let found = groups
        .with(group, false, |_, state, out| {
            state.sync(groups.now(), groups.settings(), sync, out);
        })
        .await;
    found?.ok_or(ResponseError::UnknownMemberId)?;
    answer.await.map_err(|_| ResponseError::CoordinatorNotAvailable)
}

pub(in crate::kafka) async fn heartbeat(
    broker: &Broker,
    _: &Request,
    asked: HeartbeatRequest,
) -> HeartbeatResponse {
    let who = identity(&asked.member_id, asked.group_instance_id.as_ref());
    let group = asked.group_id.as_str();
    let groups = &broker.groups;
    let mut outcome = check_name(group).and_then(|()| groups.check(group));
    if outcome.is_ok() {
        // A heartbeat only moves deadlines later, so nothing is to be scheduled.
        let beat =
            groups.peek(group, |state| state.heartbeat(groups.now(), &who, asked.generation_id));
        outcome = match beat {
            Some(outcome) => outcome,
            None => groups
                .with(group, false, |_, state, _| {
                    state.heartbeat(groups.now(), &who, asked.generation_id)
                })
                .await
                .and_then(|found| found.unwrap_or(Err(ResponseError::UnknownMemberId))),
        };
    }
    let code = outcome.err().map_or(0, |error| error.code());
    HeartbeatResponse::default().with_error_code(code)
}

pub(in crate::kafka) async fn leave(
    broker: &Broker,
    request: &Request,
    asked: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let group = asked.group_id.as_str();
    let is_batched = request.version >= 3;
    let members: Vec<Identity> = if is_batched {
        let of = |m: &kafka_protocol::messages::leave_group_request::MemberIdentity| {
            identity(&m.member_id, m.group_instance_id.as_ref())
        };
        asked.members.iter().map(of).collect()
    } else {
        vec![identity(&asked.member_id, None)]
    };
    let groups = &broker.groups;
    let outcome = match check_name(group) {
        Ok(()) => groups
            .with(group, false, |_, state, out| {
                state.leave(groups.now(), groups.settings(), &members, out)
            })
            .await
            .and_then(|found| {
                // Nobody is a member of a group that there isn't.
                let nobody = || Ok(vec![Err(ResponseError::UnknownMemberId); members.len()]);
                found.unwrap_or_else(nobody)
            }),
        Err(error) => Err(error),
    };
    let code = |outcome: &Result<(), ResponseError>| outcome.map_or_else(|e| e.code(), |()| 0);
    let mut answer = LeaveGroupResponse::default();
    match outcome {
        Err(error) => answer.error_code = error.code(),
        Ok(outcomes) if is_batched => {
            answer.members = asked
                .members
                .iter()
                .zip(&outcomes)
                .map(|(member, outcome)| {
                    MemberResponse::default()
                        .with_member_id(member.member_id.clone())
                        .with_group_instance_id(member.group_instance_id.clone())
                        .with_error_code(code(outcome))
                })
                .collect();
        }
        Ok(outcomes) => answer.error_code = outcomes.first().map_or(0, code),
    }
    answer
}
