//! Who may call: a shared token, and the number of the protocol, on every call.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

const TOKEN_KEY: &str = "authorization";
/// The shortest token; a random one of this length can't be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// What is spoken: every call says it in its header.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// The header, in small letters.
    pub header: &'static str,
    /// Another number is refused.
    pub number: u32,
}

/// A secret that server and clients share. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// Why a text can't be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Shorter than 16 bytes.
    #[error("a token has at least {MIN_TOKEN_BYTES} characters")]
    TooShort,
    /// With something else than visible ASCII characters.
    #[error("a token is made of visible ASCII characters, without spaces")]
    NotVisible,
}

impl Token {
    /// The token `text`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::NotVisible);
        }
        if text.len() < MIN_TOKEN_BYTES {
            return Err(TokenError::TooShort);
        }
        Ok(Self(text.into()))
    }

    fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a client puts on its calls.
#[derive(Clone, Debug)]
pub struct Credentials {
    header: &'static str,
    protocol: MetadataValue<Ascii>,
    token: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    /// For calls of `protocol`, with the token if there is one.
    #[must_use]
    pub fn new(protocol: Protocol, token: Option<&Token>) -> Self {
        // A token is visible ASCII, so it always makes a value.
        let token = token.and_then(|token| token.header().parse().ok()).map(
            |mut value: MetadataValue<Ascii>| {
                value.set_sensitive(true);
                value
            },
        );
        Self { header: protocol.header, protocol: protocol.number.into(), token }
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(self.header, self.protocol.clone());
        if let Some(token) = &self.token {
            metadata.insert(TOKEN_KEY, token.clone());
        }
        Ok(request)
    }
}

/// What a server demands of each call, before anything of it is decoded.
#[derive(Clone, Debug)]
pub struct Gate {
    protocol: Protocol,
    token: Option<Token>,
}

impl Gate {
    /// Lets in calls of `protocol`, with the token if there is one.
    #[must_use]
    pub fn new(protocol: Protocol, token: Option<Token>) -> Self {
        Self { protocol, token }
    }
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata();
        if let Some(token) = &self.token {
            let expected = token.header();
            let given = metadata.get(TOKEN_KEY).map(|value| value.as_encoded_bytes());
            let is_right = given.is_some_and(|given| given.ct_eq(expected.as_bytes()).into());
            if !is_right {
                return Err(Status::unauthenticated(match given {
                    Some(_) => "the token is wrong",
                    None => "a token is needed",
                }));
            }
        }
        let Protocol { header, number } = self.protocol;
        let spoken = metadata.get(header).and_then(|value| value.to_str().ok());
        if spoken != Some(number.to_string().as_str()) {
            return Err(Status::failed_precondition(format!(
                "the server speaks protocol {number}, the client {}",
                spoken.unwrap_or("none")
            )));
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const TEST: Protocol = Protocol { header: "interflow-test-protocol", number: 1 };

    fn asked(credentials: &Credentials, gate: &Gate) -> Result<(), Status> {
        let request = credentials.clone().call(Request::new(()))?;
        gate.clone().call(request).map(|_| ())
    }

    #[test]
    fn only_the_right_token_passes() {
        let right =
            Token::new("a token of visible characters!".replace(' ', "-").as_str()).unwrap();
        let wrong = Token::new("another-token-of-its-kind!!!!!").unwrap();
        let gate = Gate::new(TEST, Some(right.clone()));
        asked(&Credentials::new(TEST, Some(&right)), &gate).unwrap();
        for refused in [Some(&wrong), None] {
            let status = asked(&Credentials::new(TEST, refused), &gate).unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated);
        }
        asked(&Credentials::new(TEST, Some(&wrong)), &Gate::new(TEST, None)).unwrap();
        assert!(!format!("{right:?}").contains("visible"));
    }

    #[test]
    fn another_protocol_is_refused_by_name() {
        let mut credentials = Credentials::new(TEST, None);
        credentials.protocol = 99.into();
        let status = asked(&credentials, &Gate::new(TEST, None)).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "the server speaks protocol 1, the client 99");
        let status = Gate::new(TEST, None).call(Request::new(())).unwrap_err();
        assert!(status.message().ends_with("the client none"));
    }

    #[test]
    fn a_token_is_long_and_visible() {
        assert_eq!(Token::new("short"), Err(TokenError::TooShort));
        assert_eq!(Token::new("with a space in the middle"), Err(TokenError::NotVisible));
        assert_eq!(Token::new("sixteen-letters\n"), Err(TokenError::NotVisible));
    }
}
