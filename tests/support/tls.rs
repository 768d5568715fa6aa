//! TLS for the scripted server: a front that takes the client's connections, encrypted, and passes
//! all that is said on to the server. It misbehaves as told, too.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ALL_VERSIONS, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use socket2::SockRef;
use tempfile::TempDir;

use super::Scripted;
use super::certificates::{Files, Shown};
use super::socket::reset;
use super::watched::Watched;

/// What it does in place of the right thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Agrees to AUTH TLS and goes on in the clear.
    StaysInTheClear,
    /// Says this behind its agreement to AUTH TLS, as somebody in between could.
    Injects(&'static str),
    /// Answers PROT P so.
    RefusesProtection(&'static str),
    /// Ends the connection when a handshake begins.
    CutsHandshake,
    /// At this command, `greeting`, `handshake` or `data handshake`, sends a long record byte by
    /// byte.
    Drips(&'static str),
    /// Makes no handshake on the data connection.
    ClearData,
    /// Says that nothing more comes on the data connection, and takes nothing more from it.
    HalfClosesData,
    /// Takes the beginning of what comes on the data connection slowly.
    CrawlsOnData,
    /// Says that nothing comes on the data connection, and takes what does.
    SaysNothingOnData,
}

type Versions = &'static [&'static SupportedProtocolVersion];
pub static TLS_1_2: Versions = &[&TLS12];
pub static TLS_1_3: Versions = &[&TLS13];

/// What it speaks.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// TLS begins at once, without AUTH.
    pub implicit: bool,
    pub versions: Versions,
    pub shown: Shown,
    /// Whether data connections show a certificate of their own, of the same kind, that nobody has
    /// been told to trust.
    pub other_on_data: bool,
    /// Whether clients have to show a certificate.
    pub wants_client: bool,
    /// How many data connections a session is good for: in TLS 1.3, the tickets that the control
    /// connection is given. Without it, one that resumes nothing is as good as any.
    pub tickets: Option<usize>,
}

impl Manner {
    pub const EXPLICIT: Manner = Manner {
        implicit: false,
        versions: ALL_VERSIONS,
        shown: Shown::Good,
        other_on_data: false,
        wants_client: false,
        tickets: None,
    };

    pub const IMPLICIT: Manner = Manner { implicit: true, ..Manner::EXPLICIT };
}

/// Longer than any test waits: one byte of a record every 100 ms.
const LONG: usize = 10_000;
const DROP_BY_DROP: Duration = Duration::from_millis(100);

/// 16 kB a second, for so many bytes.
const CRAWLS: Duration = Duration::from_millis(500);
const CRAWLS_FOR: usize = 72 * 1024;

struct Shared {
    server: SocketAddr,
    manner: Manner,
    control: Arc<ServerConfig>,
    data: Arc<ServerConfig>,
    faults: Mutex<Vec<(usize, Fault)>>,
    /// What clients said in the clear.
    in_the_clear: Watched<Vec<String>>,
    /// Connections that are open and not looked at.
    ignored: Mutex<Vec<TcpStream>>,
    is_over: AtomicBool,
    has_dripped: Watched<bool>,
}

pub struct Front {
    files: Files,
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Front {
    /// Goes in front of this server, which it has to be dropped before.
    pub fn start(server: &Scripted, manner: Manner) -> Front {
        let directory = TempDir::with_prefix("autoftp-test-").unwrap();
        // That it is not trusted is another authority's doing.
        let other = directory.path().join("other");
        std::fs::create_dir(&other).unwrap();
        let (files, other) =
            (Files::make(directory.path(), manner.shown), Files::make(&other, manner.shown));
        let control = config(&files, &manner);
        let mut data = if manner.other_on_data { config(&other, &manner) } else { control.clone() };
        if manner.tickets.is_some() {
            data.send_tls13_tickets = 0;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: server.host().parse().unwrap(),
            manner,
            control: Arc::new(control),
            data: Arc::new(data),
            faults: Mutex::default(),
            in_the_clear: Watched::default(),
            ignored: Mutex::default(),
            is_over: AtomicBool::new(false),
            has_dripped: Watched::default(),
        });
        let accepting = Arc::clone(&shared);
        let thread = Some(thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if accepting.is_over() {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(client));
            }
        }));
        Front { files, address, shared, thread, _directory: directory }
    }

    /// From now on.
    pub fn on(&self, fault: Fault) {
        self.times(usize::MAX, fault);
    }

    /// The same, but only so often.
    pub fn times(&self, times: usize, fault: Fault) {
        self.shared.faults.lock().unwrap().push((times, fault));
    }

    /// As `autoftp` wants it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Waits until a record drips.
    pub fn wait_dripping(&self) {
        let drips = self.shared.has_dripped.wait(|drips| drips.then_some(()));
        assert!(drips.is_some(), "nothing drips");
    }

    /// Waits until a client has said something in the clear.
    pub fn wait_in_the_clear(&self) {
        let said = self.shared.in_the_clear.wait(|said| (!said.is_empty()).then_some(()));
        assert!(said.is_some(), "nothing was said");
    }

    /// What clients said in the clear.
    pub fn in_the_clear(&self) -> Vec<String> {
        self.shared.in_the_clear.read(Clone::clone)
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shared.manner)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().unwrap().join();
    }
}

fn config(files: &Files, manner: &Manner) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(manner.versions)
        .unwrap();
    let config = if manner.wants_client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.issuer).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.session_storage = ServerSessionMemoryCache::new(1000);
    config.send_tls13_tickets = manner.tickets.unwrap_or(2);
    config
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn strikes(&self, fault: Fault) -> bool {
        self.fault(|other| other == fault).is_some()
    }

    fn fault(&self, fits: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (times, fault) = faults.iter_mut().find(|(times, fault)| *times > 0 && fits(*fault))?;
        *times -= 1;
        Some(*fault)
    }

    /// One session.
    fn serve(self: Arc<Shared>, client: TcpStream) {
        let client = Arc::new(End::new(client));
        if self.manner.implicit && self.shake_hands(&client).is_none() {
            return;
        }
        let Ok(server) = TcpStream::connect(self.server) else {
            return;
        };
        if self.manner.implicit && self.strikes(Fault::Drips("greeting")) {
            return client.drip(&self);
        }
        let replies = {
            let (shared, server) = (Arc::clone(&self), server.try_clone().unwrap());
            let client = Arc::clone(&client);
            thread::spawn(move || {
                while let Some(reply) = read(&server)
                    && client.write(&shared.announced(&reply)).is_ok()
                {}
                client.close();
            })
        };
        while let Some(command) = client.read() {
            if self.obey(&client, &server, &command).is_none() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        replies.join().unwrap();
        let _ = client.socket.shutdown(Shutdown::Both);
    }

    /// `None` at the end of the session.
    fn obey(
        self: &Arc<Shared>,
        client: &End,
        mut server: &TcpStream,
        command: &[u8],
    ) -> Option<()> {
        let line = String::from_utf8_lossy(command).trim_end().to_owned();
        if client.is_in_the_clear() {
            self.in_the_clear.update(|said| said.push(line.clone()));
        }
        let drips = |fault| matches!(fault, Fault::Drips(start) if line.starts_with(start));
        if !client.is_in_the_clear() && self.fault(drips).is_some() {
            client.drip(self);
            return None;
        }
        let answer = match line.as_str() {
            "AUTH TLS" => {
                if self.strikes(Fault::StaysInTheClear) {
                    client.write(b"234 Go ahead\r\n").ok()?;
                    while let Some(bytes) = client.read() {
                        let said = String::from_utf8_lossy(&bytes).into_owned();
                        self.in_the_clear.update(|all| all.push(said));
                        client.write(b"500 What?\r\n").ok()?;
                    }
                    return None;
                }
                let more = match self.fault(|fault| matches!(fault, Fault::Injects(_))) {
                    Some(Fault::Injects(more)) => more,
                    _ => "",
                };
                client.write(format!("234 Go ahead\r\n{more}").as_bytes()).ok()?;
                return self.shake_hands(client).map(drop);
            }
            "PBSZ 0" => "200 PBSZ=0",
            "PROT P" => match self.fault(|fault| matches!(fault, Fault::RefusesProtection(_))) {
                Some(Fault::RefusesProtection(reply)) => reply,
                _ => "200 Private",
            },
            _ if line.starts_with("PORT ") => {
                let command = diverted(&format!("{line}\r\n"), |port| self.divert(port, true));
                return server.write_all(command.as_bytes()).ok();
            }
            _ => return server.write_all(command).ok(),
        };
        client.write(format!("{answer}\r\n").as_bytes()).ok()
    }

    /// On a control connection.
    fn shake_hands(&self, client: &End) -> Option<HandshakeKind> {
        if self.strikes(Fault::CutsHandshake) {
            // Read, or the end would be a reset.
            read(&client.socket);
            let _ = client.socket.shutdown(Shutdown::Both);
            return None;
        }
        let drips = self.strikes(Fault::Drips("handshake"));
        client.shake_hands(&self.control, drips.then_some(self))
    }

    /// A reply, with a data port of ours in place of the server's.
    fn announced(self: &Arc<Shared>, reply: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(reply);
        if text.starts_with("227 ") {
            return diverted(&text, |port| self.divert(port, false)).into_bytes();
        }
        // What it makes of a connection that was cut below.
        if self.manner.tickets.is_some() {
            return text.replace("426 Connection closed", "425 Not resumed").into_bytes();
        }
        reply.to_vec()
    }

    /// Opens a data port that leads to this one, for the server or for the client; returns its
    /// number.
    fn divert(self: &Arc<Shared>, port: u16, for_server: bool) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // What the system takes for us counts as taken.
        let _ = SockRef::from(&listener).set_recv_buffer_size(8 * 1024);
        let own_port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let (here, _) = listener.accept().unwrap();
            let Ok(there) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                return;
            };
            let (client, server) = if for_server { (there, here) } else { (here, there) };
            shared.pass_data(End::new(client), server);
        });
        own_port
    }

    fn pass_data(&self, client: End, mut server: TcpStream) {
        if !self.strikes(Fault::ClearData) {
            let drips = self.strikes(Fault::Drips("data handshake"));
            let kind = client.shake_hands(&self.data, drips.then_some(self));
            let is_good = match kind {
                None => false,
                Some(HandshakeKind::Resumed) => true,
                Some(_) => self.manner.tickets.is_none(),
            };
            if !is_good {
                return reset(&server);
            }
        }
        if self.strikes(Fault::HalfClosesData) {
            let _ = client.socket.shutdown(Shutdown::Write);
            return self.ignored.lock().unwrap().push(client.socket);
        }
        let mut crawled = if self.strikes(Fault::CrawlsOnData) { 0 } else { CRAWLS_FOR };
        while crawled < CRAWLS_FOR
            && let Some(raw) = read_at_most(8 * 1024, &client.socket)
            && let Ok(bytes) = client.decrypted(&raw)
            && server.write_all(&bytes).is_ok()
        {
            crawled += raw.len();
            thread::sleep(CRAWLS);
        }
        if self.strikes(Fault::SaysNothingOnData) {
            client.close();
        }
        while let Some(bytes) = client.read() {
            if server.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
        // The server takes it to its end, and has no word to say on it.
        while read(&server).is_some() {}
        client.close();
    }
}

/// `PORT 127,0,0,1,p1,p2`, or what PASV is answered, with another port.
fn diverted(text: &str, divert: impl FnOnce(u16) -> u16) -> String {
    const ADDRESS: &str = "127,0,0,1,";
    let (start, rest) = text.split_once(ADDRESS).unwrap();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap();
    let (high, low) = rest[..end].split_once(',').unwrap();
    let port = divert(u16::from_be_bytes([high.parse().unwrap(), low.parse().unwrap()]));
    format!("{start}{ADDRESS}{},{}{}", port >> 8, port & 0xff, &rest[end..])
}

/// What has come; `None` at the end.
fn read(socket: &TcpStream) -> Option<Vec<u8>> {
    read_at_most(64 * 1024, socket)
}

fn read_at_most(limit: usize, mut socket: &TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let count = socket.read(&mut bytes).ok().filter(|count| *count > 0)?;
    bytes.truncate(count);
    Some(bytes)
}

/// The client's end of a connection, in the clear until the handshake: one thread reads while
/// another writes.
struct End {
    socket: TcpStream,
    tls: Mutex<Option<ServerConnection>>,
}

impl End {
    fn new(socket: TcpStream) -> End {
        socket.set_nodelay(true).unwrap();
        End { socket, tls: Mutex::default() }
    }

    fn is_in_the_clear(&self) -> bool {
        self.tls.lock().unwrap().is_none()
    }

    /// `None` if nothing comes of it. With `drips`, our part of it comes byte by byte.
    fn shake_hands(
        &self,
        config: &Arc<ServerConfig>,
        drips: Option<&Shared>,
    ) -> Option<HandshakeKind> {
        let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
        if let Some(shared) = drips {
            tls.read_tls(&mut &self.socket).ok()?;
            tls.process_new_packets().ok()?;
            self.drip_out(&mut tls, shared);
            return None;
        }
        tls.complete_io(&mut &self.socket).ok()?;
        let kind = tls.handshake_kind();
        *self.tls.lock().unwrap() = Some(tls);
        kind
    }

    /// What has come, decrypted; `None` at its end.
    fn read(&self) -> Option<Vec<u8>> {
        // Some may have come with the handshake.
        let mut text = self.decrypted(&[]).ok()?;
        while text.is_empty() {
            text = self.decrypted(&read(&self.socket)?).ok()?;
        }
        Some(text)
    }

    fn decrypted(&self, mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut guard = self.tls.lock().unwrap();
        let Some(tls) = &mut *guard else {
            return Ok(bytes.to_vec());
        };
        let mut text = Vec::new();
        loop {
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let (old, new) = (text.len(), state.plaintext_bytes_to_read());
            text.resize(old + new, 0);
            tls.reader().read_exact(&mut text[old..])?;
            if bytes.is_empty() {
                return Ok(text);
            }
            tls.read_tls(&mut bytes)?;
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut socket = &self.socket;
        match &mut *self.tls.lock().unwrap() {
            None => socket.write_all(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                while tls.wants_write() {
                    tls.write_tls(&mut socket)?;
                }
                Ok(())
            }
        }
    }

    /// Says that nothing more comes.
    fn close(&self) {
        if let Some(tls) = &mut *self.tls.lock().unwrap() {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut &self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Sends one long record byte by byte, until the client has enough of it.
    fn drip(&self, shared: &Shared) {
        let mut guard = self.tls.lock().unwrap();
        let tls = guard.as_mut().unwrap();
        tls.writer().write_all(&[b'2'; LONG]).unwrap();
        self.drip_out(tls, shared);
    }

    fn drip_out(&self, tls: &mut ServerConnection, shared: &Shared) {
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
        shared.has_dripped.update(|drips| *drips = true);
        for byte in bytes {
            if shared.is_over() || (&self.socket).write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(DROP_BY_DROP);
        }
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
