//! What is wrong with a connection, in the clear or through TLS.

use std::fmt;
use std::io;

use chrono::{DateTime, Local};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use crate::text::first_few;

/// Why there is no secure connection.
#[derive(Debug)]
pub enum Fault {
    /// Who is there is not who should be.
    Untrusted(String),
    /// It does not speak this version.
    Version,
    /// We do not come to terms.
    Foreign(String),
    /// What it says is not TLS.
    Garbled,
    /// The connection broke, or nothing came.
    Broken(io::Error),
}

impl Fault {
    pub fn of(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(fault) => Self::Untrusted(untrusted(fault)),
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(_) => Self::Version,
            Error::InvalidMessage(_) => Self::Garbled,
            Error::NoCertificatesPresented => Self::Untrusted("it shows no certificate".to_owned()),
            error => Self::Foreign(foreign(error)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(cause) | Self::Foreign(cause) => f.write_str(cause),
            Self::Version => {
                f.write_str("it speaks only versions of TLS that are too old to be safe")
            }
            Self::Garbled => f.write_str("it does not speak TLS here: check the port"),
            Self::Broken(error) => f.write_str(&explain(error)),
        }
    }
}

/// Whether it is only that the time for one try was up: which kind says so depends on the system.
pub fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Says what an error of a connection means for a person.
pub fn explain(error: &io::Error) -> String {
    if let Some(cause) = explain_tls(error) {
        return cause;
    }
    use io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset,
        HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut, UnexpectedEof, WouldBlock,
    };
    let text = match error.kind() {
        ConnectionRefused => "it refuses the connection (is its FTP server running?)",
        TimedOut | WouldBlock => "no answer (is it on, and in reach?)",
        HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
            "no way to it (is this computer on its network?)"
        }
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
            "it closed the connection"
        }
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// What is wrong with a certificate, and what to do about it.
fn untrusted(fault: &CertificateError) -> String {
    let day = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        DateTime::from_timestamp(seconds, 0)
            .map_or_else(String::new, |time| time.with_timezone(&Local).format("%F").to_string())
    };
    match fault {
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "its certificate has expired on {}: it needs a new one (or is this computer's clock wrong?)",
            day(not_after)
        ),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "its certificate is not valid before {}: is this computer's clock right?",
            day(not_before)
        ),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "its certificate does not say in today's way (subjectAltName) which server it is for: if \
             this is the right one, use --cacert FILE with its certificate"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            // As in `DnsName("example.com")`, `IpAddress(127.0.0.1)`.
            let bare = |name: &String| {
                let name = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
                name.trim_end_matches(')').trim_matches('"').to_owned()
            };
            const NAMED: usize = 3;
            let names: Vec<String> = presented.iter().map(bare).collect();
            let usable = names.iter().find(|name| !name.contains('*'));
            format!(
                "its certificate is for {}, not for {expected}: if this is the right server, use \
                 --tls-server-name {}",
                first_few(&names, NAMED),
                usable.map_or("NAME", String::as_str)
            )
        }
        CertificateError::UnknownIssuer => "its certificate is from an issuer that is not trusted \
             (self-signed?): if this is the right server, use --cacert FILE with its certificate or \
             the issuer's"
            .to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not meant for servers: it needs another one".to_owned()
        }
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate has a signature that is too weak, or not its issuer's (has that a new \
             certificate, for --cacert?)"
                .to_owned()
        }
        other => match broken_rule(other).as_str() {
            "CaUsedAsEndEntity" => "its certificate is self-signed, and not trusted: if this is the \
                 right server, use --cacert FILE with its certificate"
                .to_owned(),
            rule => format!("its certificate cannot be accepted: {rule}: it needs another one"),
        },
    }
}

/// Which rule a certificate breaks.
pub fn broken_rule(fault: &CertificateError) -> String {
    let rule = match fault {
        CertificateError::Other(inner) => inner.0.to_string(),
        other => other.to_string(),
    };
    match rule.as_str() {
        "UnsupportedCertVersion" => "it is of the old version 1".to_owned(),
        "EndEntityUsedAsCa" => {
            "what its issuer has is no certificate to issue others with".to_owned()
        }
        _ => rule,
    }
}

/// Why two do not understand each other.
fn foreign(error: &Error) -> String {
    use AlertDescription as Alert;
    match error {
        Error::AlertReceived(Alert::HandshakeFailure) => {
            "it ends the TLS handshake: it wants a certificate of ours (--client-cert), or knows no \
             encryption that is safe today"
                .to_owned()
        }
        Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => "it refuses our certificate, or the lack of one: use --client-cert and --client-key"
            .to_owned(),
        error => format!("TLS failed: {error}"),
    }
}

/// Says what an error of TLS that came as one of the connection means; `None` if it is none.
pub fn explain_tls(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    Some(Fault::of(inner).to_string())
}
