//! The schemas against kafka-protocol's decoders, and the bounds of the walk.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::random::{random_body, rng};
use super::schema::SCHEMAS;
use super::*;

fn each_version(mut each: impl FnMut(ApiKey, i16)) {
    for schema in SCHEMAS {
        for version in served_versions(schema.api).unwrap() {
            each(schema.api, version);
        }
    }
}

#[test]
fn what_the_schema_writes_the_decoder_consumes_exactly_and_the_other_way_round() {
    let mut rng = rng();
    each_version(|api, version| {
        for _ in 0..60 {
            let body = random_body(api, version, &mut rng);
            check(api, version, &body).unwrap_or_else(|e| panic!("{api:?} v{version}: {e}"));
            let mut rest = body.clone();
            let request = RequestKind::decode(api, &mut rest, version)
                .unwrap_or_else(|e| panic!("{api:?} v{version}: {e}"));
            assert!(rest.is_empty(), "{api:?} v{version} leaves {} bytes", rest.len());
            let mut again = BytesMut::new();
            request.encode(&mut again, version).unwrap();
            let behind =
                check(api, version, &again).unwrap_or_else(|e| panic!("{api:?} v{version}: {e}"));
            assert_eq!(behind, 0, "{api:?} v{version}");
            let mut rest = again.freeze();
            let back = RequestKind::decode(api, &mut rest, version).unwrap();
            assert_eq!(back, request);
        }
    });
}

#[test]
fn cut_bodies_are_refused_and_bytes_behind_are_left() {
    let mut rng = rng();
    each_version(|api, version| {
        let body = random_body(api, version, &mut rng);
        for len in 0..body.len() {
            assert!(check(api, version, &body[..len]).is_err(), "{api:?} v{version} cut at {len}");
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(check(api, version, &longer), Ok(1), "{api:?} v{version}");
    });
}

#[test]
fn mutated_bodies_are_refused_or_decode() {
    let mut rng = rng();
    each_version(|api, version| {
        for _ in 0..300 {
            let mut body = BytesMut::from(&random_body(api, version, &mut rng)[..]);
            for _ in 0..1 + rng.next_u64() % 4 {
                if !body.is_empty() {
                    let at = rng.next_u64() as usize % body.len();
                    let extreme = [0, 0x7f, 0x80, 0xff][rng.next_u64() as usize % 4];
                    body[at] = if rng.next_u64().is_multiple_of(2) {
                        extreme
                    } else {
                        rng.next_u64() as u8
                    };
                }
            }
            if let Ok(behind) = check(api, version, &body) {
                let mut rest = body.freeze();
                if RequestKind::decode(api, &mut rest, version).is_ok() {
                    assert_eq!(rest.len(), behind, "{api:?} v{version}");
                }
            }
        }
    });
}

#[test]
fn every_served_api_has_a_schema_and_every_schema_a_version() {
    for key in 0..200_i16 {
        let Ok(api) = ApiKey::try_from(key) else { continue };
        assert_eq!(served_versions(api).is_some(), schema::of(api).is_some(), "{api:?}");
        for version in -1..30 {
            let served = served_versions(api).is_some_and(|served| served.contains(&version));
            let refused = check(api, version, &[]) == Err(FrameError::NotServed);
            assert_eq!(served, !refused, "{api:?} v{version}");
            if let Some(schema) = schema::of(api)
                && served
            {
                let flexible = api.request_header_version(version) == 2;
                assert_eq!(flexible, version >= schema.flexible_since, "{api:?} v{version}");
            }
        }
    }
    assert_eq!(served_versions(ApiKey::OffsetCommit), Some(2..=9));
    assert_eq!(served_versions(ApiKey::OffsetFetch), Some(1..=9));
    assert_eq!(served_versions(ApiKey::InitProducerId), Some(0..=5));
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused() {
    // The frames that make kafka-protocol reserve hundreds of gigabytes.
    assert_eq!(check(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes()), Err(FrameError::Count));
    let compact = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    assert_eq!(check(ApiKey::Metadata, 12, &compact), Err(FrameError::Count));
    assert_eq!(check(ApiKey::Metadata, 1, &(-2_i32).to_be_bytes()), Err(FrameError::Length));
    assert_eq!(check(ApiKey::DeleteGroups, 0, &(-1_i32).to_be_bytes()), Err(FrameError::Length));
}

#[test]
fn tiny_elements_are_bounded() {
    let names = |count: u32| {
        let mut body = BytesMut::new();
        body.put_u32(count);
        body.put_bytes(0, 2 * count as usize);
        check(ApiKey::DeleteGroups, 0, &body)
    };
    assert_eq!(names(10_000), Ok(0));
    assert_eq!(names(1_000_000), Err(FrameError::TooMany));
    // Real names pass in any number.
    let mut body = BytesMut::new();
    body.put_u32(200_000);
    for n in 0..200_000 {
        let name = format!("a-group-{n}");
        body.put_u16(name.len() as u16);
        body.put_slice(name.as_bytes());
    }
    assert_eq!(check(ApiKey::DeleteGroups, 0, &body), Ok(0));
}

#[test]
fn unknown_tags_are_bounded() {
    let body = |tags: u8| {
        let mut body = BytesMut::new();
        body.put_slice(&[1, 1, tags]);
        for tag in 0..tags {
            body.put_slice(&[tag, 0]);
        }
        check(ApiKey::ApiVersions, 3, &body)
    };
    assert_eq!(body(64), Ok(0));
    assert_eq!(body(65), Err(FrameError::TooMany));
}

#[test]
fn a_tags_content_must_be_of_its_size() {
    let mut request = FetchRequest::default();
    request.cluster_id = Some(StrBytes::from_static_str("abc"));
    let mut body = BytesMut::new();
    request.encode(&mut body, 12).unwrap();
    assert_eq!(check(ApiKey::Fetch, 12, &body), Ok(0));
    let size_at = body.len() - 5;
    assert_eq!(&body[size_at..], b"\x04\x04abc");
    body[size_at] = 3;
    assert_eq!(check(ApiKey::Fetch, 12, &body), Err(FrameError::Tag));
}

#[test]
fn headers_are_those_of_kafka_protocol() {
    each_version(|api, version| {
        for client_id in [None, Some("kcat"), Some("")] {
            let header = kafka_protocol::messages::RequestHeader::default()
                .with_request_api_key(api as i16)
                .with_request_api_version(version)
                .with_correlation_id(77)
                .with_client_id(client_id.map(StrBytes::from_static_str));
            let mut frame = BytesMut::new();
            header.encode(&mut frame, api.request_header_version(version)).unwrap();
            frame.put_slice(b"body");
            let (ours, body) = parse_header(&frame.freeze()).unwrap();
            assert_eq!(ours.api_key, api as i16);
            assert_eq!((ours.version, ours.correlation_id), (version, 77));
            assert_eq!(ours.client_id.as_deref(), client_id);
            assert_eq!(&body[..], b"body");
        }
    });
}

#[test]
fn broken_headers_are_refused() {
    let good = b"\0\x12\0\x04\0\0\0\x07\0\x02ab\0";
    assert!(parse_header(&Bytes::from_static(good)).is_ok());
    for len in 0..good.len() {
        let cut = Bytes::copy_from_slice(&good[..len]);
        assert_eq!(parse_header(&cut).unwrap_err(), FrameError::Truncated);
    }
    let negative = Bytes::from_static(b"\0\x12\0\x04\0\0\0\x07\xff\xfeab\0");
    assert_eq!(parse_header(&negative).unwrap_err(), FrameError::Length);
    let latin = Bytes::from_static(b"\0\x12\0\x04\0\0\0\x07\0\x02\xe4b\0");
    assert_eq!(parse_header(&latin).unwrap_err(), FrameError::ClientId);
    let unknown = Bytes::from_static(b"\x7f\x7f\0\x04\0\0\0\x07\xff\xff");
    assert_eq!(parse_header(&unknown).unwrap().0.correlation_id, 7);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_frame(&bytes);
        for schema in SCHEMAS {
            for version in served_versions(schema.api).unwrap() {
                let _ = check(schema.api, version, &bytes);
            }
        }
    }
}
