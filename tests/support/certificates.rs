//! Certificates, good and bad, made anew for each server that shows one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
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
    /// As `openssl req -x509` makes it: an authority as well, and for the right name.
    Authority,
    /// The same for [`OTHER_NAME`].
    OtherAuthority,
    /// Self-signed, with nothing but a common name to say whom it is for: this one.
    CommonName(&'static str),
    WrongName,
    Expired,
    NotYetValid,
}

/// Where they are, in PEM.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whom to trust: the issuer of those that are not self-signed.
    pub issuer: PathBuf,
    /// For who connects, from the same issuer.
    pub client: PathBuf,
    pub client_key: PathBuf,
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
        // Each is somebody else.
        let name = format!("the testers' authority {:02x?}", &issuer_key.public_key_raw()[1..9]);
        issuer.distinguished_name.push(DnType::CommonName, name);
        let issuer_certificate = issuer.self_signed(&issuer_key).unwrap();
        let issuer = Issuer::new(issuer, issuer_key);

        let names = match shown {
            Shown::Good | Shown::Authority | Shown::Expired | Shown::NotYetValid => {
                vec![NAME.to_owned(), "127.0.0.1".to_owned()]
            }
            Shown::SelfSigned | Shown::OtherAuthority | Shown::WrongName => {
                vec![OTHER_NAME.to_owned()]
            }
            Shown::CommonName(_) => Vec::new(),
        };
        let key = KeyPair::generate().unwrap();
        let mut server = CertificateParams::new(names).unwrap();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        match shown {
            Shown::Expired => server.not_after = date_time_ymd(2020, 2, 29),
            Shown::NotYetValid => server.not_before = date_time_ymd(2090, 2, 28),
            Shown::Authority | Shown::OtherAuthority => {
                server.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                server.extended_key_usages.clear();
            }
            Shown::CommonName(name) => {
                server.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                server.extended_key_usages.clear();
                server.distinguished_name = DistinguishedName::new();
                server.distinguished_name.push(DnType::CommonName, name);
            }
            Shown::Good | Shown::SelfSigned | Shown::WrongName => {}
        }
        let certificate = match shown {
            Shown::Good | Shown::WrongName | Shown::Expired | Shown::NotYetValid => {
                server.signed_by(&key, &issuer)
            }
            _ => server.self_signed(&key),
        };
        let client_key = KeyPair::generate().unwrap();
        let mut client = CertificateParams::default();
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = client.signed_by(&client_key, &issuer);
        Files {
            certificate: write("certificate.pem", certificate.unwrap().pem()),
            key: write("key.pem", key.serialize_pem()),
            issuer: write("issuer.pem", issuer_certificate.pem()),
            client: write("client.pem", client.unwrap().pem()),
            client_key: write("client-key.pem", client_key.serialize_pem()),
        }
    }
}
