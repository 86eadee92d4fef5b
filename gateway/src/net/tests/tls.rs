//! TLS: certificates that change, client certificates, the throw-away ones.

use super::*;

#[tokio::test]
async fn tls_takes_new_certificates_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[]);
    let mut server = Server::unlimited(TransportSpec::Tls(Arc::clone(&tls_server)));
    let mut old = connect_tls(&server, &client).await;
    exchange(&mut old, b"hello").await;
    assert_eq!(server.event().await, Event::Came(Transport::Tls));

    std::fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(tls_server.reload(), Err(TlsError::File { .. })));
    let mut still_old = connect_tls(&server, &client).await;
    exchange(&mut still_old, b"the old one stays").await;

    let (_, new_client) = tls(folder.path(), &[]);
    tls_server.reload().unwrap();
    let mut new = connect_tls(&server, &new_client).await;
    exchange(&mut new, b"new").await;
    exchange(&mut old, b"open connections go on").await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = "localhost".try_into().unwrap();
    assert!(connector.connect(name, server.connect().await).await.is_err(), "another CA");
    drop((old, still_old, new));
    server.stop().await;
}

#[tokio::test]
async fn tls_with_a_client_ca_refuses_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let (_, client) = tls(folder.path(), &[]);
    let mut files = dev_tls::ensure(folder.path()).unwrap();
    files.server.client_ca = Some(files.ca.clone());
    let server = Server::unlimited(TransportSpec::Tls(Tls::load(files.server).unwrap()));
    // With TLS 1.3 the client learns of it when it reads.
    let mut stream = connect_tls(&server, &client).await;
    assert!(stream.read(&mut [0]).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn tls_with_a_client_ca_takes_those_it_signed() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = dev_tls::ensure(folder.path()).unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let client_ca = folder.path().join("client-ca.pem");
    std::fs::write(&client_ca, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["device".to_owned()]).unwrap().signed_by(&key, &issuer);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate.unwrap().der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    files.server.client_ca = Some(client_ca);
    let server = Server::unlimited(TransportSpec::Tls(Tls::load(files.server).unwrap()));
    exchange(&mut connect_tls(&server, &client).await, b"known").await;
    server.stop().await;
}

#[tokio::test]
async fn a_hangup_signal_loads_certificates_again() {
    // From here on the signal doesn't end the process.
    let _hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, _) = tls(folder.path(), &[]);
    let server = Server::unlimited(TransportSpec::Tls(Arc::clone(&tls_server)));
    let shutdown = CancellationToken::new();
    let reloading = tokio::spawn(reload_on_hangup(vec![tls_server], shutdown.clone()));
    std::fs::remove_dir_all(folder.path()).unwrap();
    let (_, client) = tls(folder.path(), &[]);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    loop {
        let pid = std::process::id().to_string();
        let killed = tokio::process::Command::new("kill").args(["-HUP", &pid]).status().await;
        assert!(killed.unwrap().success());
        let name = "localhost".try_into().unwrap();
        if connector.connect(name, server.connect().await).await.is_ok() {
            break;
        }
    }
    shutdown.cancel();
    reloading.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test]
async fn garbage_in_a_handshake_ends_that_connection_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (tls_server, client) = tls(folder.path(), &[]);
    let server = Server::unlimited(TransportSpec::Tls(tls_server));
    let mut garbage = server.connect().await;
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer).await;
    exchange(&mut connect_tls(&server, &client).await, b"fine").await;
    server.stop().await;
}

#[test]
fn throw_away_certificates_are_kept_and_the_key_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let files = dev_tls::ensure(folder.path()).unwrap();
    let before = std::fs::read(&files.ca).unwrap();
    assert_eq!(dev_tls::ensure(folder.path()).unwrap(), files);
    assert_eq!(std::fs::read(&files.ca).unwrap(), before);
    let mode = std::fs::metadata(&files.server.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
