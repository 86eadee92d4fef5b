//! Authentication: SASL/PLAIN (RFC 4616), its token in SaslAuthenticate or, after a handshake of
//! version 0, as a bare frame.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::broker::Broker;
use super::route::{Outcome, Refusal, Request, decode, encode};
use crate::auth::{Principal, Refused};
use crate::net::Peer;

const MECHANISM: &str = "PLAIN";

pub(super) fn handshake(request: &Request) -> Result<Outcome, Refusal> {
    let asked: SaslHandshakeRequest = decode(request)?;
    let mut answer = SaslHandshakeResponse::default()
        .with_mechanisms(vec![StrBytes::from_static_str(MECHANISM)]);
    if asked.mechanism.as_str() == MECHANISM {
        let body = encode(&answer, request.version)?;
        Ok(Outcome::Handshaken(body, request.version == 0))
    } else {
        answer.error_code = ResponseError::UnsupportedSaslMechanism.code();
        Ok(Outcome::LastBody(encode(&answer, request.version)?))
    }
}

pub(super) async fn authenticate(broker: &Broker, request: &Request) -> Result<Outcome, Refusal> {
    let asked: SaslAuthenticateRequest = decode(request)?;
    let mut answer = SaslAuthenticateResponse::default();
    match verify(broker, &asked.auth_bytes, &request.peer).await {
        Ok(principal) => Ok(Outcome::Authenticated(encode(&answer, request.version)?, principal)),
        Err(refused) => {
            answer.error_code = ResponseError::SaslAuthenticationFailed.code();
            answer.error_message = Some(StrBytes::from_string(match refused {
                Refused::BadCredentials => {
                    "Authentication failed: Invalid username or password".to_owned()
                }
                Refused::Unavailable => format!("Authentication failed: {refused}"),
            }));
            Ok(Outcome::LastBody(encode(&answer, request.version)?))
        }
    }
}

/// Checks a PLAIN token.
pub(super) async fn verify(
    broker: &Broker,
    token: &[u8],
    peer: &Peer,
) -> Result<Principal, Refused> {
    let outcome = match plain(token) {
        Some((user, password)) => broker.auth.verify(Some(user), Some(password), peer).await,
        None => Err(Refused::BadCredentials),
    };
    if outcome.is_err() {
        broker.metrics.failed_authentications.add(1);
    }
    outcome
}

/// `[authzid] NUL authcid NUL passwd`. Acting as somebody else (an authzid of its own) is not
/// served.
fn plain(token: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = token.splitn(3, |byte| *byte == 0);
    let (as_whom, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let user = std::str::from_utf8(user).ok().filter(|user| !user.is_empty())?;
    let is_self = as_whom.is_empty() || as_whom == user.as_bytes();
    (is_self && !password.is_empty()).then_some((user, password))
}

/// Reads any bytes as a PLAIN token: for fuzzing.
pub fn fuzz_plain(token: &[u8]) {
    let Some((user, password)) = plain(token) else { return };
    let bare = [b"\0", user.as_bytes(), b"\0", password].concat();
    assert!(token == bare || token == [user.as_bytes(), &bare].concat(), "nothing is left over");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tokens_are_three_parts() {
        assert_eq!(plain(b"\0u\0p"), Some(("u", &b"p"[..])));
        assert_eq!(plain(b"u\0u\0p\0q"), Some(("u", &b"p\0q"[..])));
        for bad in [&b""[..], b"u", b"u\0p", b"other\0u\0p", b"\0\0p", b"\0u\0", b"\0\xff\0p"] {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
    }
}
