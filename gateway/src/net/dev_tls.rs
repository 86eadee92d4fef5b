//! A throw-away certificate authority and a server certificate for this machine: for trying
//! things out, never for others to trust.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::TlsFiles;

/// How long the certificates are valid.
const VALID_DAYS: u64 = 3650;

/// The names and addresses that the server certificate is for.
const SUBJECTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The throw-away files in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevTls {
    /// What clients are to trust.
    pub ca: PathBuf,
    /// The server certificate and its key.
    pub server: TlsFiles,
}

/// The certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DevTlsError {
    /// A file can't be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates can't be signed.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// The files in `folder`, made if one of them is missing. The CA's key is not kept, so nothing
/// else is ever signed by it.
///
/// # Errors
/// See [`DevTlsError`].
pub fn ensure(folder: &Path) -> Result<DevTls, DevTlsError> {
    let files = DevTls {
        ca: folder.join("ca.pem"),
        server: TlsFiles {
            certificates: folder.join("server.pem"),
            key: folder.join("server.key"),
            client_ca: None,
        },
    };
    let all = [&files.ca, &files.server.certificates, &files.server.key];
    if !all.into_iter().all(|path| path.exists()) {
        make(folder, &files)?;
    }
    Ok(files)
}

fn make(folder: &Path, files: &DevTls) -> Result<(), DevTlsError> {
    let mut ca = params(vec![], "Interflow throw-away CA")?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut server = params(SUBJECTS.map(str::to_owned).to_vec(), "localhost")?;
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let server_certificate = server.signed_by(&server_key, &issuer)?;

    fs::create_dir_all(folder)
        .map_err(|source| DevTlsError::File { path: folder.to_owned(), source })?;
    write(&files.server.key, 0o600, &server_key.serialize_pem())?;
    write(&files.server.certificates, 0o644, &server_certificate.pem())?;
    write(&files.ca, 0o644, &ca_certificate.pem())
}

fn params(subjects: Vec<String>, name: &str) -> Result<CertificateParams, DevTlsError> {
    let mut params = CertificateParams::new(subjects)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = Duration::from_secs(86_400);
    // From yesterday on: clocks differ.
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(day);
    params.not_after =
        date_time_ymd(1970, 1, 1) + since_1970 + Duration::from_secs(VALID_DAYS * 86_400);
    Ok(params)
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), DevTlsError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| DevTlsError::File { path: path.to_owned(), source })
}
