//! ApiVersions: read from the table of routes.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use crate::kafka::broker::Broker;
use crate::kafka::frame;
use crate::kafka::route::{Outcome, Refusal, Request, decode, encode, routes};

pub(in crate::kafka) fn answer(_: &Broker, request: &Request) -> Result<Outcome, Refusal> {
    let mut answer = ApiVersionsResponse::default().with_api_keys(served());
    let known = frame::served_versions(ApiKey::ApiVersions)
        .is_some_and(|versions| versions.contains(&request.version));
    if !known {
        // In the oldest form, which every client reads (KIP-511).
        answer.error_code = ResponseError::UnsupportedVersion.code();
        return Ok(Outcome::Body(encode(&answer, 0)?));
    }
    let asked: ApiVersionsRequest = decode(request)?;
    let is_software = |text: &str| {
        let is_end = |end: Option<char>| end.is_some_and(|c| c.is_ascii_alphanumeric());
        is_end(text.chars().next())
            && is_end(text.chars().next_back())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
    };
    if request.version >= 3
        && !(is_software(&asked.client_software_name)
            && is_software(&asked.client_software_version))
    {
        answer =
            ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    Ok(Outcome::Body(encode(&answer, request.version)?))
}

/// Every served API with its versions.
fn served() -> Vec<ApiVersion> {
    let mut served: Vec<ApiVersion> = routes()
        .iter()
        .filter_map(|route| {
            let versions = frame::served_versions(route.api)?;
            Some(
                ApiVersion::default()
                    .with_api_key(route.api as i16)
                    .with_min_version(*versions.start())
                    .with_max_version(*versions.end()),
            )
        })
        .collect();
    served.sort_by_key(|version| version.api_key);
    served
}
