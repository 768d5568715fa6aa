//! Certificates, good and bad, made anew for each server that shows one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// The name that the servers are called by.
pub const NAME: &str = "localhost";

/// The name in certificates that are for somebody else.
pub const OTHER_NAME: &str = "example.com";

/// What is wrong with the certificate that a server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Good,
    /// And for [`OTHER_NAME`], as in many a small setup.
    SelfSigned,
    WrongName,
    Expired,
}

/// Where they are, in PEM.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whom to trust: the issuer of those that are not self-signed.
    pub issuer: PathBuf,
}

impl Files {
    pub fn make(directory: &Path, shown: Shown) -> Files {
        let write = |name: &str, content: String| {
            let path = directory.join(name);
            fs::write(&path, content).unwrap();
            // Servers refuse a key that others may read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let issuer_key = KeyPair::generate().unwrap();
        let mut issuer = CertificateParams::default();
        issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        issuer.distinguished_name.push(DnType::CommonName, "the testers' authority");
        let issuer_certificate = issuer.self_signed(&issuer_key).unwrap();
        let issuer = Issuer::new(issuer, issuer_key);

        let names = match shown {
            Shown::Good | Shown::Expired => vec![NAME.to_owned(), "127.0.0.1".to_owned()],
            Shown::SelfSigned | Shown::WrongName => vec![OTHER_NAME.to_owned()],
        };
        let key = KeyPair::generate().unwrap();
        let mut server = CertificateParams::new(names).unwrap();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if shown == Shown::Expired {
            server.not_after = date_time_ymd(2020, 2, 29);
        }
        let certificate = match shown {
            Shown::SelfSigned => server.self_signed(&key),
            _ => server.signed_by(&key, &issuer),
        };
        Files {
            certificate: write("certificate.pem", certificate.unwrap().pem()),
            key: write("key.pem", key.serialize_pem()),
            issuer: write("issuer.pem", issuer_certificate.pem()),
        }
    }
}
