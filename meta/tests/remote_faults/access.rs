//! Who is let in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use interflow_meta::{
    ClientTls, EmbeddedStore, Env, Meta, MetaError, RemoteOptions, RemoteStore, ServeOptions,
    ServerTls, Token,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::Served;

fn store() -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::in_memory(Env::default()).unwrap())
}

fn token(text: &str) -> Option<Token> {
    Some(Token::new(text).unwrap())
}

#[tokio::test]
async fn a_wrong_token_is_told_at_once_and_not_tried_again() {
    let options = ServeOptions { token: token("the-right-token-1"), tls: None };
    let server = Served::new(store(), options).await;
    let options = RemoteOptions::new("127.0.0.1", server.address.port());
    for (given, told) in
        [(None, "a token is needed"), (token("another-token-123"), "the token is wrong")]
    {
        let options = RemoteOptions { token: given, ..options.clone() };
        let refused = RemoteStore::connect(options.clone()).await.unwrap_err();
        assert_eq!(refused, MetaError::Refused(told.to_owned()));
        let store = Arc::new(RemoteStore::open(options).unwrap());
        let meta = Meta::new(store, Env::default(), "test");
        let began = Instant::now();
        let refused = meta.transact(|tx| async move { tx.set("k", "v") }).await;
        assert_eq!(refused, Err(MetaError::Refused(told.to_owned())));
        // The retry loop would go on for a minute.
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    let options = RemoteOptions { token: token("the-right-token-1"), ..options };
    RemoteStore::connect(options).await.unwrap();
}

#[test]
fn a_server_that_anybody_could_reach_does_not_start() {
    let anybody = ServeOptions::default();
    let with_token = ServeOptions { token: token("the-right-token-1"), tls: None };
    let tls = ServerTls { cert_pem: Vec::new(), key_pem: Vec::new(), client_ca_pem: None };
    let encrypted = ServeOptions { token: None, tls: Some(tls.clone()) };
    let tls = ServerTls { client_ca_pem: Some(Vec::new()), ..tls };
    let mutual = ServeOptions { token: None, tls: Some(tls) };
    for (options, address, starts) in [
        (&anybody, "127.0.0.1:1", true),
        (&anybody, "[::1]:1", true),
        (&anybody, "0.0.0.0:1", false),
        (&anybody, "[::]:1", false),
        (&encrypted, "10.0.0.1:1", false),
        (&with_token, "10.0.0.1:1", true),
        (&mutual, "10.0.0.1:1", true),
    ] {
        let checked = options.check(address.parse().unwrap());
        assert_eq!(checked.is_ok(), starts, "{address} {checked:?}");
    }
}

/// A certificate for `name`, by `issuer`, and its key.
fn certificate(name: &str, issuer: &Issuer<'_, KeyPair>) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
}

#[tokio::test]
async fn a_client_without_its_certificate_is_not_let_in() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca_pem = params.self_signed(&key).unwrap().pem().into_bytes();
    let issuer = Issuer::new(params, key);
    let (cert_pem, key_pem) = certificate("localhost", &issuer);
    let tls = ServerTls { cert_pem, key_pem, client_ca_pem: Some(ca_pem.clone()) };
    let server = Served::new(store(), ServeOptions { token: None, tls: Some(tls) }).await;

    let options = RemoteOptions::new("localhost", server.address.port());
    let known = ClientTls { ca_pem, identity_pem: Some(certificate("client", &issuer)) };
    let remote =
        RemoteStore::connect(RemoteOptions { tls: Some(known.clone()), ..options.clone() });
    let remote = Meta::new(Arc::new(remote.await.unwrap()), Env::default(), "test");
    remote.transact(|tx| async move { tx.set("k", "v") }).await.unwrap();

    let unknown = ClientTls { identity_pem: None, ..known };
    for tls in [Some(unknown), None] {
        let refused = RemoteStore::connect(RemoteOptions { tls, ..options.clone() }).await;
        assert!(matches!(refused, Err(MetaError::Unavailable(_))), "{refused:?}");
    }
}
