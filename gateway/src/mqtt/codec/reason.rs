//! Reason codes of MQTT 5, and what becomes of them in 3.1.1.

/// A reason code of MQTT 5. Codes that share a value share a variant: 0x00 is success, granted
/// QoS 0 and normal disconnection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's, §2.4")]
pub enum Reason {
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdInUse = 0x91,
    PacketIdNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdsNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl Reason {
    /// The reason with this code; `None` for a code that the specification doesn't have.
    pub fn from_code(code: u8) -> Option<Self> {
        use Reason::*;
        const ALL: [Reason; 43] = [
            Success,
            GrantedQoS1,
            GrantedQoS2,
            DisconnectWithWill,
            NoMatchingSubscribers,
            NoSubscriptionExisted,
            ContinueAuthentication,
            ReAuthenticate,
            UnspecifiedError,
            MalformedPacket,
            ProtocolError,
            ImplementationSpecificError,
            UnsupportedProtocolVersion,
            ClientIdNotValid,
            BadUserNameOrPassword,
            NotAuthorized,
            ServerUnavailable,
            ServerBusy,
            Banned,
            ServerShuttingDown,
            BadAuthenticationMethod,
            KeepAliveTimeout,
            SessionTakenOver,
            TopicFilterInvalid,
            TopicNameInvalid,
            PacketIdInUse,
            PacketIdNotFound,
            ReceiveMaximumExceeded,
            TopicAliasInvalid,
            PacketTooLarge,
            MessageRateTooHigh,
            QuotaExceeded,
            AdministrativeAction,
            PayloadFormatInvalid,
            RetainNotSupported,
            QoSNotSupported,
            UseAnotherServer,
            ServerMoved,
            SharedSubscriptionsNotSupported,
            ConnectionRateExceeded,
            MaximumConnectTime,
            SubscriptionIdsNotSupported,
            WildcardSubscriptionsNotSupported,
        ];
        ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Its code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Codes from 0x80 say that it failed.
    pub fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// The CONNACK return code of 3.1 and 3.1.1. What has none becomes "server unavailable".
    pub fn connack_v3(self) -> u8 {
        use Reason::*;
        match self {
            Success => 0,
            UnsupportedProtocolVersion => 1,
            ClientIdNotValid => 2,
            BadUserNameOrPassword | BadAuthenticationMethod => 4,
            NotAuthorized | Banned => 5,
            _ => 3,
        }
    }

    /// The SUBACK return code of 3.1.1: the granted QoS or 0x80 [MQTT-3.9.3-2].
    pub fn suback_v3(self) -> u8 {
        if self.is_error() { 0x80 } else { self.code() }
    }
}

impl From<super::QoS> for Reason {
    /// The reason "granted this QoS".
    fn from(qos: super::QoS) -> Self {
        match qos {
            super::QoS::AtMostOnce => Reason::Success,
            super::QoS::AtLeastOnce => Reason::GrantedQoS1,
            super::QoS::ExactlyOnce => Reason::GrantedQoS2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn every_code_maps_to_itself_or_to_nothing() {
        let known: Vec<u8> = (0..=u8::MAX)
            .filter(|code| {
                Reason::from_code(*code)
                    .inspect(|reason| assert_eq!(reason.code(), *code))
                    .is_some()
            })
            .collect();
        assert_eq!(known.len(), 43);
        assert!(!known.contains(&0x03) && !known.contains(&0xA3));
    }

    #[test]
    fn return_codes_of_3_1_1() {
        let map = [(0x84, 1), (0x85, 2), (0x88, 3), (0x89, 3), (0x97, 3), (0x9F, 3)];
        for (code, v3) in map.into_iter().chain([(0x86, 4), (0x8C, 4), (0x87, 5), (0x8A, 5)]) {
            assert_eq!(Reason::from_code(code).unwrap().connack_v3(), v3, "{code:#x}");
        }
    }
}
