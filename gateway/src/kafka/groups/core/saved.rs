//! What of a group outlives the process: generation, members and assignments.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::group::{Group, State};
use super::member::Member;
use super::types::{Ms, Name, Protocols};

/// A group as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<Name>,
    pub(crate) protocol: Option<Name>,
    pub(crate) leader: Option<Name>,
    pub(crate) members: Vec<SavedMember>,
}

/// A member as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedMember {
    pub(crate) member: Name,
    pub(crate) instance: Option<Name>,
    pub(crate) client_id: Name,
    pub(crate) client_host: Name,
    pub(crate) session_ms: Ms,
    pub(crate) rebalance_ms: Ms,
    pub(crate) protocols: Protocols,
    pub(crate) assignment: Bytes,
}

/// The layout of [`Saved::encode_members`].
const LAYOUT: u8 = 1;

impl<R> Group<R> {
    pub(super) fn snapshot(&self) -> Saved {
        let members = self.members.iter().map(|(id, member)| SavedMember {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_ms: member.session_ms,
            rebalance_ms: member.rebalance_ms,
            protocols: member.protocols.clone(),
            assignment: member.assignment.clone(),
        });
        Saved {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.collect(),
        }
    }

    /// The group as it was stored. Members have a session's time to be heard from.
    pub(crate) fn restore(now: Ms, saved: Saved) -> Self {
        let mut group = Self::new();
        group.generation = saved.generation;
        group.protocol_type = saved.protocol_type;
        if saved.members.is_empty() {
            group.emptied_at = Some(now);
            return group;
        }
        group.state = State::Stable;
        group.protocol = saved.protocol;
        for member in saved.members {
            if let Some(instance) = &member.instance {
                group.instances.insert(instance.clone(), member.member.clone());
            }
            group.members.insert(
                member.member,
                Member {
                    instance: member.instance,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    session_ms: member.session_ms,
                    rebalance_ms: member.rebalance_ms,
                    protocols: member.protocols,
                    assignment: member.assignment,
                    join: None,
                    sync: None,
                    is_new: false,
                    expires_at: now.saturating_add(member.session_ms),
                },
            );
        }
        group.leader = saved
            .leader
            .filter(|leader| group.members.contains_key(leader))
            .or_else(|| group.members.keys().next().cloned());
        group
    }
}

impl Saved {
    /// The members as bytes.
    pub(crate) fn encode_members(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(LAYOUT);
        put_len(&mut out, self.members.len());
        for member in &self.members {
            put(&mut out, member.member.as_bytes());
            out.put_u8(u8::from(member.instance.is_some()));
            put(&mut out, member.instance.as_deref().unwrap_or_default().as_bytes());
            put(&mut out, member.client_id.as_bytes());
            put(&mut out, member.client_host.as_bytes());
            out.put_u64(member.session_ms);
            out.put_u64(member.rebalance_ms);
            put_len(&mut out, member.protocols.len());
            for (name, metadata) in &member.protocols {
                put(&mut out, name.as_bytes());
                put(&mut out, metadata);
            }
            put(&mut out, &member.assignment);
        }
        out.freeze()
    }

    /// Reads what [`encode_members`](Saved::encode_members) wrote; `None` if it can't be that.
    pub(crate) fn decode_members(bytes: &[u8]) -> Option<Vec<SavedMember>> {
        let mut buf = bytes;
        if buf.is_empty() {
            return Some(Vec::new());
        }
        if buf.try_get_u8().ok()? != LAYOUT {
            return None;
        }
        let count = buf.try_get_u32().ok()?;
        let mut members = Vec::new();
        for _ in 0..count {
            let member = name(&mut buf)?;
            let is_static = buf.try_get_u8().ok()? != 0;
            let instance = Some(name(&mut buf)?).filter(|_| is_static);
            let (client_id, client_host) = (name(&mut buf)?, name(&mut buf)?);
            let (session_ms, rebalance_ms) = (buf.try_get_u64().ok()?, buf.try_get_u64().ok()?);
            let mut protocols = Vec::new();
            for _ in 0..buf.try_get_u32().ok()? {
                let protocol = name(&mut buf)?;
                protocols.push((protocol, Bytes::copy_from_slice(slice(&mut buf)?)));
            }
            let assignment = Bytes::copy_from_slice(slice(&mut buf)?);
            members.push(SavedMember {
                member,
                instance,
                client_id,
                client_host,
                session_ms,
                rebalance_ms,
                protocols,
                assignment,
            });
        }
        buf.is_empty().then_some(members)
    }
}

fn put_len(out: &mut BytesMut, len: usize) {
    // Everything in here came in frames that are far below 4 GiB.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.put_slice(bytes);
}

fn slice<'a>(buf: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(buf.try_get_u32().ok()?).ok()?;
    let (head, tail) = buf.split_at_checked(len)?;
    *buf = tail;
    Some(head)
}

fn name(buf: &mut &[u8]) -> Option<Name> {
    std::str::from_utf8(slice(buf)?).ok().map(Name::from)
}
