//! TLS for both of a session's connections (RFC 4217): who is trusted, and the handshake.
//!
//! Servers demand that a data connection resumes the TLS session of the control connection, so that
//! nobody else can take it (vsftpd and proftpd by default). With TLS 1.2 it can, as often as it
//! likes. With 1.3 each takes a ticket, of which there may be few: it is spoken only where 1.2 is not.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, NamedGroup,
    ProtocolVersion, RootCertStore, SignatureScheme,
};

use crate::ftp::fault::{Fault, broken_rule, is_slow};

/// What the user says of whom to trust.
#[derive(Debug, Default)]
pub struct Settings {
    /// Trust the certificates in this file instead of those the computer trusts.
    pub cacert: Option<PathBuf>,
    /// The name that the certificate has to be for, where HOST is another.
    pub server_name: Option<String>,
    /// Trust anybody.
    pub insecure: bool,
    /// Our own certificate, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Whom to trust, and who we are.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    server_name: Option<String>,
    is_checking: bool,
}

impl Trust {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// Says which file or name is of no use, and why.
    pub fn new(settings: &Settings) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let client = match &settings.client {
            None => None,
            Some((certificate, key)) => {
                let key_der = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| anyhow!("{}", unreadable(&error)))
                    .with_context(|| format!("--client-key '{}'", key.display()))?;
                Some((certificates("--client-cert", certificate)?, key_der))
            }
        };
        if let Some(name) = &settings.server_name {
            ServerName::try_from(name.as_str())
                .map_err(|_| anyhow!("--tls-server-name '{name}' is not a host name"))?;
        }
        let verifier: Arc<dyn ServerCertVerifier> = match &settings.cacert {
            _ if settings.insecure => Arc::new(Anybody),
            Some(file) => Arc::new(Given::new(file, provider.clone())?),
            None => {
                let platform = rustls_platform_verifier::Verifier::new(provider.clone());
                Arc::new(platform.map_err(|error| {
                    anyhow!(
                        "the certificates that this computer trusts cannot be used: {error}: \
                         install them (ca-certificates), or use --cacert FILE"
                    )
                })?)
            }
        };
        let server_name = settings.server_name.clone();
        let is_checking = !settings.insecure;
        let trust = Self { provider, verifier, client, server_name, is_checking };
        // A key that does not fit is found out now.
        trust.config(false).map_err(|error| match error {
            Error::InvalidCertificate(fault) => anyhow!("--client-cert: {}", broken_rule(&fault)),
            Error::InconsistentKeys(_) => {
                anyhow!(
                    "the key in --client-key does not belong to the certificate in --client-cert"
                )
            }
            error => anyhow!("--client-cert and --client-key: {error}"),
        })?;
        Ok(trust)
    }

    /// Whether certificates are checked.
    pub fn is_checking(&self) -> bool {
        self.is_checking
    }

    fn config(&self, newer: bool) -> Result<ClientConfig, Error> {
        let version = if newer { &TLS13 } else { &TLS12 };
        let config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[version])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone());
        Ok(match &self.client {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key())?,
        })
    }

    /// What a session with `host` needs, in TLS 1.3 if `newer`, else in 1.2. Nothing is remembered
    /// from one session to the next.
    ///
    /// # Errors
    /// When `host` cannot be in a certificate.
    pub fn secure(&self, host: &str, newer: bool) -> Result<Secure, Fault> {
        let host = self.server_name.as_deref().unwrap_or(host);
        let host = host.split('%').next().unwrap_or(host).trim_end_matches('.');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Fault::Untrusted(format!(
                "'{host}' cannot be the name in a certificate: use --tls-server-name NAME"
            ))
        })?;
        let mut config = self.config(newer).map_err(|error| Fault::of(&error))?;
        let tickets = Arc::new(Tickets::new());
        config.resumption = Resumption::store(tickets.clone());
        Ok(Secure { config: Arc::new(config), name, tickets: newer.then_some(tickets) })
    }
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let context = || format!("{option} '{}'", file.display());
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| anyhow!("{}", unreadable(&error)))
        .with_context(context)?;
    ensure!(
        !found.is_empty(),
        "{}: there is no certificate in it (PEM is wanted: openssl x509 -inform der -in FILE)",
        context()
    );
    Ok(found)
}

fn unreadable(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error::{Io, MissingSectionEnd, NoItemsFound};
    match error {
        Io(error) => error.to_string(),
        NoItemsFound => "there is nothing of use in it (PEM is wanted, without a passphrase: \
             openssl pkey -in FILE)"
            .to_owned(),
        MissingSectionEnd { .. } => "it is cut off".to_owned(),
        error => format!("{error} (PEM is wanted)"),
    }
}

/// How the connections of one session are secured.
#[derive(Clone, Debug)]
pub struct Secure {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// In TLS 1.3, what data connections resume the session with.
    tickets: Option<Arc<Tickets>>,
}

impl Secure {
    /// Whether no further data connection can resume the session.
    pub fn is_spent(&self) -> bool {
        self.tickets.as_ref().is_some_and(|tickets| tickets.left.load(Ordering::Relaxed) == 0)
    }

    /// Makes the handshake on a socket whose reads and writes end after a while. `look` is asked
    /// each time one does whether to go on.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn handshake(
        &self,
        mut socket: &TcpStream,
        timeout: Duration,
        look: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<ClientConnection, Fault> {
        let deadline = Instant::now() + timeout;
        let mut tls = ClientConnection::new(self.config.clone(), self.name.clone())
            .map_err(|error| Fault::of(&error))?;
        while tls.is_handshaking() || tls.wants_write() {
            let moved = if tls.wants_write() {
                tls.write_tls(&mut socket)
            } else {
                tls.read_tls(&mut socket)
            };
            match moved {
                Ok(0) => return Err(Fault::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_slow(&error) => look().map_err(Fault::Broken)?,
                Err(error) => return Err(Fault::Broken(error)),
            }
            if let Err(error) = tls.process_new_packets() {
                // It is told why.
                let _ = tls.write_tls(&mut socket);
                return Err(Fault::of(&error));
            }
            if Instant::now() >= deadline {
                return Err(Fault::Broken(io::ErrorKind::TimedOut.into()));
            }
        }
        Ok(tls)
    }
}

/// The name of a version.
pub fn in_words(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLS 1.2",
        ProtocolVersion::TLSv1_3 => "TLS 1.3",
        _ => "TLS",
    }
}

/// What is remembered of a session, for its data connections.
#[derive(Debug)]
struct Tickets {
    memory: ClientSessionMemoryCache,
    /// Tickets that are left.
    left: AtomicUsize,
}

impl Tickets {
    fn new() -> Self {
        Self { memory: ClientSessionMemoryCache::new(1), left: AtomicUsize::new(0) }
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.memory.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.memory.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.memory.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.memory.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.memory.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.memory.insert_tls13_ticket(server_name, value);
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        let ticket = self.memory.take_tls13_ticket(server_name);
        // The memory forgets the oldest of many.
        let left = if ticket.is_some() { self.left.load(Ordering::Relaxed) } else { 1 };
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        ticket
    }
}

/// Trusts the certificates of a file, and those that they signed.
#[derive(Debug)]
struct Given {
    certificates: Vec<CertificateDer<'static>>,
    rules: Arc<WebPkiServerVerifier>,
}

impl Given {
    fn new(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self> {
        let certificates = certificates("--cacert", file)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| {
                let cause = match &error {
                    Error::InvalidCertificate(fault) => fault.to_string(),
                    error => error.to_string(),
                };
                anyhow!("--cacert '{}': a certificate in it is of no use: {cause}", file.display())
            })?;
        }
        let rules = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| anyhow!("--cacert '{}': {error}", file.display()))?;
        Ok(Self { certificates, rules })
    }
}

impl ServerCertVerifier for Given {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.rules.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match &verdict {
            // `openssl req -x509` makes a self-signed certificate an authority too, and one need not
            // be signed by anybody to be the one that was given. Dates were checked before.
            Err(Error::InvalidCertificate(
                CertificateError::Other(_)
                | CertificateError::UnknownIssuer
                | CertificateError::NotValidForNameContext { .. },
            )) if self.certificates.iter().any(|given| given == end_entity) => {}
            _ => return verdict,
        }
        let named = verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
        match (named, common_name(end_entity)) {
            // It names its server the old way (RFC 6125, 6.4.4).
            (
                Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                    expected,
                    presented,
                })),
                Some(name),
            ) if presented.is_empty() => match name.eq_ignore_ascii_case(&server_name.to_str()) {
                true => Ok(ServerCertVerified::assertion()),
                false => {
                    let presented = vec![name];
                    Err(CertificateError::NotValidForNameContext { expected, presented }.into())
                }
            },
            (named, _) => named.map(|()| ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.supported_verify_schemes()
    }
}

/// The common name (2.5.4.3) of a certificate's subject.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    const OID: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let mut roots = RootCertStore::empty();
    // What a root is known by is its subject.
    roots.add(certificate.clone().into_owned()).ok()?;
    let subject = roots.roots.first()?.subject.as_ref();
    let at = subject.windows(OID.len()).position(|window| window == OID)?;
    // A string of whichever kind, and its length.
    let [_, len, rest @ ..] = subject.get(at + OID.len()..)? else { return None };
    String::from_utf8(rest.get(..usize::from(*len))?.to_vec()).ok()
}

/// Trusts whoever is there (`--insecure`).
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
