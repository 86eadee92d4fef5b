//! MQTT 3.1, 3.1.1 and 5.0 on the wire: bytes in, borrowed packets out, and back.
//!
//! ```text
//!   bytes ─► frame: type, flags, length ─► packet: Packet<'_> ─► the session
//!                                             connect publish ack subscribe disconnect auth
//!                                             property: v5 properties, checked once, read lazily
//!   the session ─► connack ack suback disconnect auth, publish_out (one encoding, many receivers)
//! ```
//!
//! Decoders are strict and borrow from the buffer: nothing is allocated by what a peer sent. A
//! packet that breaks a rule gives a [`DecodeError`] with the reason code to close with.

mod ack;
mod auth;
pub mod client;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod packet;
mod property;
mod publish;
mod publish_out;
mod reader;
mod reason;
mod suback;
mod subscribe;
#[cfg(test)]
mod tests;
mod version;
mod writer;

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, ConnectError, Will};
pub use disconnect::Disconnect;
pub use error::{DecodeError, EncodeError};
pub use frame::{Frame, FrameHeader, FrameRules, PacketId, PacketKind};
pub use packet::{Packet, write_pingresp};
pub use property::{Diagnostics, PayloadFormat, UserProperties, UserPropertiesBuf};
pub use publish::{Publish, PublishProperties, SubscriptionIds};
pub use publish_out::{AliasForm, EncodedPublish, PublishOut, Variant};
pub use reason::Reason;
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{
    RetainHandling, Subscribe, Subscription, SubscriptionOptions, Subscriptions, Unsubscribe,
    UnsubscribeFilters,
};
pub use version::{QoS, Receiver, Version};
