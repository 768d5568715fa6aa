//! Opening the control connection, in the clear or through TLS, up to the greeting.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use suppaftp::{FtpError, FtpResult, ImplFtpStream, TlsConnector};

use crate::ftp::control::{ControlConnection, quick_ack};
use crate::ftp::error::{Broken, TOO_LONG};
use crate::ftp::fault::{Fault, explain, explain_tls, is_slow};
use crate::ftp::reply::Reply;
use crate::ftp::tls::{Secure, Trust};
use crate::ftp::trace::Trace;
use crate::ftp::watchdog::Watchdog;
use crate::model::encoding::Encoding;
use crate::settings::host::{FTPS_PORT, Host};

/// suppaftp's session, over our connection.
pub type Stream = ImplFtpStream<ControlConnection>;

/// A server that has not greeted for so long waits for TLS, where it may.
const GREETS_WITHIN: Duration = Duration::from_secs(2);

/// How long a server that is not ready for the handshake is given.
const READY_AFTER: Duration = Duration::from_millis(100);

/// Why there is no session.
#[derive(Debug)]
pub enum ConnectError {
    /// It may work later.
    Later(String),
    /// A person may now answer otherwise.
    Again(String),
    /// The server is there, or its name is not, and it will not work with what was given.
    Unusable(String),
}

impl From<Broken> for ConnectError {
    fn from(Broken(cause): Broken) -> Self {
        Self::Later(cause)
    }
}

fn later(error: &io::Error) -> ConnectError {
    ConnectError::Later(explain(error))
}

/// How a server was found to speak TLS.
#[derive(Debug, Default)]
pub struct TlsFacts {
    /// It does not speak 1.2, and may speak 1.3.
    newer: bool,
    /// The next session is tried in the other version.
    tries_other: bool,
    /// Whether it wants TLS from the start, as far as was seen last.
    implicit: Option<bool>,
    /// It is not ready for the handshake when it says so (ftp-srv).
    is_slow: bool,
}

impl TlsFacts {
    /// What follows from a handshake that failed. Returns whether there is another way, to be tried
    /// at once.
    fn learn(&mut self, fault: &Fault, implicit: bool, host: &Host) -> bool {
        match fault {
            Fault::Version => {
                self.newer = !self.newer;
                self.newer
            }
            Fault::Garbled if !implicit => !std::mem::replace(&mut self.is_slow, true),
            // It was only slow to greet.
            Fault::Garbled => {
                self.implicit = Some(false);
                host.port != FTPS_PORT
            }
            // That is how some refuse a version, and how connections break.
            Fault::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.tries_other = !self.tries_other;
                self.tries_other
            }
            Fault::Broken(_) | Fault::Untrusted(_) | Fault::Foreign(_) => false,
        }
    }
}

/// A connection to a server that has greeted.
pub struct Dialled {
    /// For suppaftp.
    pub stream: Stream,
    /// Another handle on the same connection.
    pub control: ControlConnection,
    /// For its data connections.
    pub secure: Option<Secure>,
    /// Bounds what suppaftp waits for.
    pub watchdog: Watchdog,
    /// What it said.
    pub greeting: String,
    /// It is still to be asked to encrypt data connections.
    pub unprotected: bool,
}

/// Connects, and takes the greeting. With `trust`, through TLS or not at all.
///
/// # Errors
/// Says why in words for a person.
pub fn dial(
    host: &Host,
    trust: Option<&Trust>,
    tls_facts: &mut TlsFacts,
    timeout: Duration,
    encoding: Encoding,
    trace: &Trace,
) -> Result<Dialled, ConnectError> {
    let socket = connect(host, timeout)?;
    let Some(trust) = trust else {
        check_greeting(&socket, false)?;
        return Ok(greet(socket, timeout, encoding, trace)?);
    };
    let implicit = match tls_facts.implicit {
        _ if host.port == FTPS_PORT => true,
        Some(implicit) => implicit,
        None => !has_greeted(&socket, timeout.min(GREETS_WITHIN)),
    };
    // Another version is tried without waiting for a greeting again.
    tls_facts.implicit = Some(implicit);
    let newer = tls_facts.newer != tls_facts.tries_other;
    let secure = trust.secure(&host.name, newer).map_err(|fault| unusable(&fault))?;
    let pause = if tls_facts.is_slow { READY_AFTER } else { Duration::ZERO };
    let handshaker = Handshaker { secure, timeout, pause, outcome: Arc::default() };
    let dialled = if implicit {
        handshaker.enter_at_once(socket, encoding, trace)
    } else {
        check_greeting(&socket, true)?;
        let dialled = greet(socket, timeout, encoding, trace)?;
        handshaker.enter(dialled, encoding, trace)
    };
    match dialled {
        Ok(dialled) => {
            tls_facts.tries_other = false;
            Ok(dialled)
        }
        Err(Refused::Said(reply)) if reply.code / 100 == 4 => {
            Err(ConnectError::Later(format!("TLS is not to be had now: {}", no_service(&reply))))
        }
        Err(Refused::Said(reply)) if reply.code / 100 != 5 => {
            Err(ConnectError::Later(reply.misfit()))
        }
        Err(Refused::Said(reply)) => Err(ConnectError::Unusable(format!(
            "it offers no TLS: {reply}: turn it on there, or leave out --tls (with ftp:// for ftps://) \
             to go unencrypted"
        ))),
        Err(Refused::Unprotected(reply)) => Err(unprotected(&reply)),
        Err(Refused::Tls(fault)) => {
            let is_worth_a_try = tls_facts.learn(&fault, implicit, host);
            if !is_worth_a_try {
                return Err(match fault {
                    fault @ Fault::Broken(_) => {
                        ConnectError::Later(format!("the TLS handshake: {fault}"))
                    }
                    fault => unusable(&fault),
                });
            }
            trace.received(format!("({fault}; trying in another way)").as_bytes());
            dial(host, Some(trust), tls_facts, timeout, encoding, trace)
        }
        Err(Refused::Other(error)) => Err(error),
    }
}

fn unusable(fault: &Fault) -> ConnectError {
    ConnectError::Unusable(fault.to_string())
}

/// Tries every address the name has.
fn connect(host: &Host, timeout: Duration) -> Result<TcpStream, ConnectError> {
    // With further addresses to try, a silent one gets less time.
    const SHORT: Duration = Duration::from_secs(2);
    let mut addresses = resolve(host)?.into_iter().peekable();
    let mut failure = None;
    while let Some(address) = addresses.next() {
        let patience = if addresses.peek().is_some() { timeout.min(SHORT) } else { timeout };
        match TcpStream::connect_timeout(&address, patience)
            .and_then(|socket| prepare(socket, timeout))
        {
            Ok(socket) => return Ok(socket),
            Err(error) if host.secure && host.port == FTPS_PORT => {
                failure = Some(ConnectError::Later(format!(
                    "port {FTPS_PORT}: {} (for AUTH TLS on port 21 use --tls, or ftps://HOST:21)",
                    explain(&error)
                )));
            }
            Err(error) => failure = Some(later(&error)),
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::Later("it has no address".to_owned())))
}

fn resolve(host: &Host) -> Result<Vec<SocketAddr>, ConnectError> {
    match (host.name.as_str(), host.port).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        // A board that is off has no name on the local link (mDNS).
        Err(_) if host.name.to_ascii_lowercase().trim_end_matches('.').ends_with(".local") => {
            Err(ConnectError::Later("its name is not known yet (is it on?)".to_owned()))
        }
        Err(_) => Err(ConnectError::Unusable(
            "no such host: check the name, and that this computer is on the network".to_owned(),
        )),
    }
}

fn prepare(socket: TcpStream, timeout: Duration) -> io::Result<TcpStream> {
    // The system notices within half a minute that an idle server is gone.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    quick_ack(&socket);
    Ok(socket)
}

/// Whether the server says something within `patience`, without taking it.
fn has_greeted(socket: &TcpStream, patience: Duration) -> bool {
    let usual = socket.read_timeout().ok().flatten();
    let _ = socket.set_read_timeout(Some(patience));
    let greeted = socket.peek(&mut [0]);
    let _ = socket.set_read_timeout(usual);
    !greeted.is_err_and(|error| is_slow(&error))
}

/// Looks at the greeting without taking it, to tell what is no FTP server from one that is.
fn check_greeting(socket: &TcpStream, is_secure: bool) -> Result<(), ConnectError> {
    const TLS_ALERT: u8 = 21;
    const TLS_HANDSHAKE: u8 = 22;
    let mut start = [0; 80];
    let cause = match socket.peek(&mut start) {
        Ok(0) => "it closed the connection without a greeting".to_owned(),
        // SMTP's greeting has the same code.
        Ok(read)
            if start[0].is_ascii_digit() && !start[..read].windows(4).any(|w| w == b"SMTP") =>
        {
            return Ok(());
        }
        Ok(_) if matches!(start[0], TLS_ALERT | TLS_HANDSHAKE) => {
            "it wants TLS from the start: use ftps://".to_owned()
        }
        Ok(read) => {
            let said = String::from_utf8_lossy(&start[..read]);
            let said = said.lines().next().unwrap_or_default();
            format!("this is no FTP server, it says '{said}': check the host and the port")
        }
        Err(error) if !is_slow(&error) => explain(&error),
        Err(_) if is_secure => {
            "it accepts the connection but does not greet (is it an FTP server, or busy?)"
                .to_owned()
        }
        Err(_) => {
            "it accepts the connection but does not greet (is it an FTP server, or busy? if it \
             wants TLS from the start, use ftps://)"
                .to_owned()
        }
    };
    Err(ConnectError::Later(cause))
}

/// Takes the greeting, in the clear.
fn greet(
    socket: TcpStream,
    timeout: Duration,
    encoding: Encoding,
    trace: &Trace,
) -> Result<Dialled, Refused> {
    let other = |error: io::Error| Refused::Other(later(&error));
    let clones = socket.try_clone().and_then(|first| Ok((first, socket.try_clone()?)));
    let (first, second) = clones.map_err(other)?;
    let control = ControlConnection::new(first);
    let watchdog = Watchdog::start(second).map_err(other)?;
    let (greeted, too_long) = watchdog.within(timeout, || Stream::connect_with_stream(socket));
    let mut stream = greeted.map_err(|error| refusal(error, too_long, encoding, trace))?;
    stream.set_encoding(encoding);
    let greeting = welcome(&stream, trace);
    Ok(Dialled { stream, control, secure: None, watchdog, greeting, unprotected: false })
}

fn welcome(stream: &Stream, trace: &Trace) -> String {
    let greeting = stream.get_welcome_msg().unwrap_or_default();
    trace.received(greeting.as_bytes());
    Reply::parse(greeting).map_or_else(String::new, |reply| reply.text)
}

/// What a refusal before the login means.
pub fn no_service(reply: &Reply) -> String {
    match reply.code {
        421 => format!(
            "{reply} (another client has its place, or the board still holds an old session: \
             if this lasts, reset it)"
        ),
        _ => reply.to_string(),
    }
}

/// Where the session is encrypted and files would not be.
pub fn unprotected(reply: &Reply) -> ConnectError {
    ConnectError::Unusable(format!(
        "it does not encrypt data connections (PBSZ 0, PROT P): {reply}"
    ))
}

/// Why suppaftp has no session.
enum Refused {
    Said(Reply),
    /// After the handshake.
    Unprotected(Reply),
    Tls(Fault),
    Other(ConnectError),
}

/// What it means before there is TLS to speak of.
impl From<Refused> for ConnectError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Said(reply) | Refused::Unprotected(reply) => Self::Later(no_service(&reply)),
            Refused::Tls(fault) => Self::Later(fault.to_string()),
            Refused::Other(error) => error,
        }
    }
}

fn refusal(error: FtpError, too_long: bool, encoding: Encoding, trace: &Trace) -> Refused {
    Refused::Other(match error {
        FtpError::UnexpectedResponse(response) => {
            trace.received(&response.body);
            match Reply::parse(&encoding.read(&response.body)) {
                Some(reply) => return Refused::Said(reply),
                None => ConnectError::Later("no FTP reply".to_owned()),
            }
        }
        FtpError::ConnectionError(_) if too_long => ConnectError::Later(TOO_LONG.to_owned()),
        FtpError::ConnectionError(error) => match explain_tls(&error) {
            Some(cause) => ConnectError::Unusable(cause),
            None => later(&error),
        },
        FtpError::BadResponse => ConnectError::Later("no FTP reply".to_owned()),
        error => ConnectError::Later(error.to_string()),
    })
}

/// Makes the TLS handshake where suppaftp wants it, and keeps what came of it.
#[derive(Clone, Debug)]
struct Handshaker {
    secure: Secure,
    timeout: Duration,
    /// After the server's word that it is ready.
    pause: Duration,
    outcome: Arc<Mutex<Option<Result<ControlConnection, Fault>>>>,
}

impl Handshaker {
    /// After AUTH TLS, which the server has to agree to.
    fn enter(
        self,
        dialled: Dialled,
        encoding: Encoding,
        trace: &Trace,
    ) -> Result<Dialled, Refused> {
        let Dialled { stream, watchdog, greeting, .. } = dialled;
        trace.sent("AUTH TLS");
        let (entered, too_long) =
            watchdog.within(3 * self.timeout, || stream.into_secure(self.clone(), ""));
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        let control = outcome.transpose().map_err(Refused::Tls)?;
        let stream = entered.map_err(|error| {
            match (refusal(error, too_long, encoding, trace), control.is_some()) {
                (Refused::Said(reply), true) => Refused::Unprotected(reply),
                (refused, _) => refused,
            }
        })?;
        let Some(control) = control else {
            let cause = "the handshake was left out".to_owned();
            return Err(Refused::Other(ConnectError::Later(cause)));
        };
        let secure = Some(self.secure);
        Ok(Dialled { stream, control, secure, watchdog, greeting, unprotected: false })
    }

    /// From the start.
    fn enter_at_once(
        self,
        socket: TcpStream,
        encoding: Encoding,
        trace: &Trace,
    ) -> Result<Dialled, Refused> {
        let other = |error: io::Error| Refused::Other(later(&error));
        let watchdog = socket.try_clone().and_then(Watchdog::start).map_err(other)?;
        let control = self.shake_hands(socket).map_err(Refused::Tls)?;
        // suppaftp connects by itself here, without a time limit: it gets a door that is always
        // open, and behind it the connection that is there.
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let open = door.and_then(|door| door.local_addr().map(|address| (door, address)));
        let (_door, address) = open.map_err(|error| {
            let cause = format!("TLS from the start needs this computer's loopback: {error}");
            Refused::Other(ConnectError::Later(cause))
        })?;
        let (greeted, too_long) = watchdog.within(self.timeout, || {
            Stream::connect_secure_implicit(address, Behind(control.clone()), "")
        });
        let mut stream = greeted.map_err(|error| refusal(error, too_long, encoding, trace))?;
        stream.set_encoding(encoding);
        let greeting = welcome(&stream, trace);
        let secure = Some(self.secure);
        Ok(Dialled { stream, control, secure, watchdog, greeting, unprotected: true })
    }

    fn shake_hands(&self, socket: TcpStream) -> Result<ControlConnection, Fault> {
        let tls = self.secure.handshake(&socket, self.timeout, &mut || Ok(()))?;
        Ok(ControlConnection::secured(socket, tls))
    }
}

impl TlsConnector for Handshaker {
    type Stream = ControlConnection;

    fn connect(&self, _: &str, socket: TcpStream) -> FtpResult<ControlConnection> {
        thread::sleep(self.pause);
        let control = self.shake_hands(socket);
        let given = control.as_ref().map(Clone::clone);
        let given = given.map_err(|fault| FtpError::SecureError(fault.to_string()));
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(control);
        given
    }
}

/// Brings a connection that is there already.
#[derive(Debug)]
struct Behind(ControlConnection);

impl TlsConnector for Behind {
    type Stream = ControlConnection;

    fn connect(&self, _: &str, _: TcpStream) -> FtpResult<ControlConnection> {
        Ok(self.0.clone())
    }
}
