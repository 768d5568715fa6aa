//! Uploads, spoken directly on the control connection's socket.
//!
//! suppaftp runs the session; its reader holds nothing between two of its commands, so that PASV
//! and STOR can be spoken on another handle of the connection. Here each wait has a deadline, a
//! reply's text is kept, and the order of sending is ours.

use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket,
};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};
use socket2::SockRef;

use crate::ftp::control::{ControlConnection, is_untouched, quick_ack};
use crate::ftp::error::{AWAY, Broken, TransferError};
use crate::ftp::fault::{Fault, explain, is_slow};
use crate::ftp::profile::Board;
use crate::ftp::reply::{Reply, code_of};
use crate::ftp::tls::Secure;
use crate::ftp::trace::Trace;
use crate::local::file::Source;
use crate::model::encoding::Encoding;
use crate::model::send_mode::{SendChoice, SendMode};
use crate::text::shortened;

/// What is handed to the data connection at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// What the system may hold of a file that is not on the wire yet, in bytes. Little, so that what
/// counts as sent has nearly arrived: progress is true, and a slow board has taken it all well
/// before the wait for its reply is over.
const UNSENT: u32 = 32 * 1024;

/// While the server takes no data or says nothing, how often to look whether it has said something,
/// and whether this computer is still where it was.
const GLANCE: Duration = Duration::from_millis(250);

/// Whether a write that timed out may be repeated. On Windows how much of it went out is not known.
const LOOKS_AGAIN: bool = cfg!(not(windows));

/// No reply of a server in use comes near this many bytes.
const LONGEST_REPLY: usize = 64 * 1024;

/// How long to wait for the end of what a server sends after a transfer: tickets for the next one.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long after the end of a short file's data connection a server says what it made of it.
const ENDED_WITHOUT_A_WORD: Duration = Duration::from_secs(1);

/// During a TLS handshake, how often to look whether the server has said something instead.
const BLINK: Duration = Duration::from_millis(20);

/// In active mode, the pause between two looks whether the server has connected.
const PAUSE: Duration = Duration::from_millis(2);

/// What uftpd on an ESP32 says while it serves another client; the command has not been looked at.
const BUSY: u16 = 400;

/// How long to wait then.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How long uftpd's data port may say nothing: its queue has room for one connection.
const QUEUE_IS_FULL: Duration = Duration::from_secs(2);

/// How long to wait for the end of a data connection whose end the server has confirmed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// How long a data connection that waits for its file is relied on. One that has died unnoticed
/// looks to the server like the end of an empty file; and some end the session over one that idles
/// (pyftpdlib, after 300 s).
const FRESH: Duration = Duration::from_secs(25);

/// How a session's data connections are made.
pub struct DataOptions {
    /// How they are secured; `None` in the clear.
    pub secure: Option<Secure>,
    /// The server connects to us (`PORT`, `EPRT`).
    pub active: bool,
    /// How names are written.
    pub encoding: Encoding,
    /// The server of a board, which has its own ways.
    pub board: Option<Board>,
    /// The account is one that FTPdLite lets read only.
    pub is_guest: bool,
    /// Its data ports are known to differ: each is for one transfer.
    pub varies_ports: bool,
}

/// Why each step waits at first: a server may have one data port for all its clients, and store what
/// waits there as another client's file, or as the next one if this one is refused. Asking for two
/// ports without using them would tell, but Twisted says nothing to a second PASV before there is a
/// connection to the first.
const PORTS_MAY_BE_SHARED: &str = "until its data ports are seen to differ";

impl DataOptions {
    /// Whether the server has its part in making a data connection, after STOR.
    pub fn is_joint(&self) -> bool {
        self.secure.is_some() || self.active
    }

    /// How to send files: as fast as is safe, or as the person chose.
    pub fn send_choice(&self, chosen: Option<SendMode>) -> SendChoice {
        let (most, why) = if self.is_guest {
            // Refused, a connection is kept for the next file: nothing may be in it.
            (SendMode::Serial, "this account may not write")
        } else if self.board == Some(Board::Uftpd) {
            (SendMode::Overlapped, "uftpd has one data port for all its clients")
        } else if self.secure.is_some() {
            (SendMode::Overlapped, "through TLS a data connection begins with STOR")
        } else if self.active {
            (SendMode::Overlapped, "in active mode a data connection begins with STOR")
        } else if !self.varies_ports && chosen.is_none() {
            (SendMode::Serial, PORTS_MAY_BE_SHARED)
        } else {
            (SendMode::Prepared, "")
        };
        match chosen {
            Some(transfer) if transfer < most => {
                SendChoice { mode: transfer, reason: "--transfer".to_owned() }
            }
            _ => SendChoice { mode: most, reason: why.to_owned() },
        }
    }
}

/// What a session has seen of its data connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct DataSeen {
    /// How they are made.
    pub mode: &'static str,
    /// The steps that each takes before STOR.
    pub steps: &'static str,
    /// What a file was refused with last.
    pub refusal: Option<u16>,
    /// Whether the account is one that FTPdLite lets read only.
    pub is_guest: bool,
    /// The address that the server says they have, if it is not its own.
    pub misannounced: Option<Ipv4Addr>,
}

/// The control connection, as far as uploads need it.
pub struct Uploader {
    control: ControlConnection,
    options: DataOptions,
    timeout: Duration,
    /// What came after a complete reply: an unasked-for reply, such as a 421.
    surplus: Vec<u8>,
    /// PASV is not known there, EPSV may be.
    knows_no_pasv: bool,
    /// The address that PASV brought last.
    announced: Option<Ipv4Addr>,
    /// What the server refused a file with last.
    refusal: Option<u16>,
    /// The data port that the server named last.
    last_port: Option<u16>,
    /// It has named two different ones: one that comes again does so by chance.
    has_ports: bool,
    /// The data port of uftpd, which stays the same for all its sessions.
    port: Option<u16>,
    /// A connection of ours waits in its queue that no file is to get.
    is_queued: bool,
    /// A data connection of ours was refused with its file.
    has_left_one: bool,
    /// A data connection that the server has not used, and when it was made.
    ready: Option<(TcpStream, Instant)>,
    /// The answer to a command was not waited for.
    is_out_of_step: bool,
}

impl Uploader {
    /// Takes a handle on the session's control connection.
    pub fn new(control: ControlConnection, options: DataOptions, timeout: Duration) -> Self {
        Self {
            control,
            options,
            timeout,
            surplus: Vec::new(),
            knows_no_pasv: false,
            announced: None,
            refusal: None,
            last_port: None,
            has_ports: false,
            port: None,
            is_queued: false,
            has_left_one: false,
            ready: None,
            is_out_of_step: false,
        }
    }

    /// How data connections are made.
    pub fn options(&self) -> &DataOptions {
        &self.options
    }

    /// What has been seen of data connections.
    pub fn data(&self) -> DataSeen {
        let peer = self.control.socket().peer_addr().map(|peer| peer.ip().to_canonical());
        let is_v6 = peer.as_ref().is_ok_and(IpAddr::is_ipv6);
        let (mode, steps) = match (self.options.active, is_v6) {
            (true, false) => ("active (PORT): the server connects to this computer", "PORT"),
            (true, true) => ("active (EPRT): the server connects to this computer", "EPRT"),
            (false, _) if self.port.is_some() => ("passive (PASV, once a session)", "connect"),
            (false, false) if !self.knows_no_pasv => ("passive (PASV)", "PASV, connect"),
            (false, _) => ("passive (EPSV)", "EPSV, connect"),
        };
        let misannounced = self.announced.filter(|address| peer.is_ok_and(|peer| peer != *address));
        let (refusal, is_guest) = (self.refusal, self.options.is_guest);
        DataSeen { mode, steps, refusal, is_guest, misannounced }
    }

    /// Whether the session still stands, as far as can be told without asking: the server has
    /// neither closed it nor said anything unasked.
    pub fn is_quiet(&self) -> bool {
        self.surplus.is_empty() && self.control.is_quiet()
    }

    /// Whether the next reply would be the one to the next command.
    pub fn is_in_step(&self) -> bool {
        !self.is_out_of_step && self.is_quiet()
    }

    /// Whether this computer still has the address that the session was made from.
    pub fn is_at_home(&self) -> bool {
        let address = self.control.socket().local_addr().map(|mut address| {
            address.set_port(0);
            address
        });
        let bound = address.and_then(UdpSocket::bind);
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    }

    /// Sends one file: STOR and the data, over a data connection that is ready, or is made now.
    /// Only in the plain way the data waits for the server's word on STOR; otherwise what a socket
    /// takes at once goes along with it. Returns the number of bytes.
    ///
    /// # Errors
    /// See [`TransferError`]; the server's own words win over errors of the data connection.
    pub fn store(
        &mut self,
        way: SendMode,
        name: &str,
        source: &mut Source,
        trace: &Trace,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, TransferError> {
        let is_joint = self.options.is_joint();
        let prepared = self.prepare_data(way, trace)?;
        // STOR comes first: pyftpdlib loses data that comes before it.
        let mut stor = PendingStor::new(format!("STOR {name}"));
        self.send(&stor.command, trace)?;
        if way == SendMode::Serial && !is_joint {
            let refusal = self.await_answer(&mut stor, trace)?.clone();
            if !refusal.is_preliminary() {
                self.has_left_one = true;
                self.keep(prepared, &refusal);
                return Err(self.refused(way, &refusal));
            }
        }
        let opened = self.open_data(prepared, &mut stor, trace)?;
        // It has come by now where the server had its part in that, but for some (ftp-srv).
        if way == SendMode::Serial || is_joint || opened.is_err() {
            self.await_answer(&mut stor, trace)?;
        }
        let mut data = None;
        let pumped = match opened {
            Ok(opened) if !stor.is_refused() => {
                let data = data.insert(opened);
                let pumped = self.pump(data, source, &mut stor, trace, progress)?;
                if pumped.is_err() {
                    // Without TLS's word that this was all.
                    let _ = data.socket.shutdown(Shutdown::Write);
                }
                pumped
            }
            Ok(_) => Ok(0),
            Err(error) => Err(error),
        };
        let answer = self.await_answer(&mut stor, trace)?.clone();
        if !answer.is_preliminary() {
            self.has_left_one = true;
            self.is_queued = answer.code == BUSY && self.options.board == Some(Board::Uftpd);
            return Err(self.refused(way, &answer));
        }
        // The socket itself stays until the server has spoken, because closing it with an unread
        // byte would reset it.
        // Where STOR was answered before there was data, its end is no sign of anything; and what is
        // longer may take its time to be written.
        let is_short = source.stamp().len <= CHUNK as u64;
        let reply = match &data {
            Some(data) if way != SendMode::Serial && !is_joint && is_short => {
                self.last_word(data, trace)?
            }
            _ => self.reply(trace)?,
        };
        if !reply.is_completion() {
            return Err(self.refused(way, &reply));
        }
        let Some(mut data) = data else {
            return pumped;
        };
        if self.may_queue() && !data.is_closed_there() {
            drop(data);
            self.empty_queue(trace)?;
            let cause = "it took another data connection for this file's".to_owned();
            return Err(TransferError::Again(cause));
        }
        data.hear_out();
        pumped
    }

    /// Keeps what the server refused to use: FTPdLite has a port open for it until it is used, and
    /// 255 of them. Elsewhere the next file gets a fresh one: vsftpd and pure-ftpd would store the
    /// bytes of the one before.
    fn keep(&mut self, prepared: Prepared, refusal: &Reply) {
        if let Prepared::Connected(socket) = prepared
            && self.options.board == Some(Board::FtpdLite)
            && !matches!(TransferError::refused(refusal), TransferError::Reconnect(_))
        {
            self.ready = Some((socket, Instant::now()));
        }
    }

    /// Whether the server may have taken what waited in the queue of its data port.
    fn may_queue(&self) -> bool {
        let options = &self.options;
        let is_likely = self.has_left_one && !options.is_joint() && !options.varies_ports;
        options.board == Some(Board::Uftpd) || is_likely
    }

    /// uftpd accepts what waits in the queue of its one data port, whoever it is from: one that was
    /// given up gets into the next file, and each file's own into the one after. Has it taken.
    fn empty_queue(&mut self, trace: &Trace) -> Result<(), TransferError> {
        const NOWHERE: &str = ".autoftp-none";
        if self.port.is_none() {
            self.ask("PASV", trace)?;
        }
        let answer = self.ask(&format!("STOR {NOWHERE}"), trace)?;
        if answer.code == BUSY {
            return Err(TransferError::refused(&answer));
        }
        if answer.is_preliminary() {
            self.reply(trace)?;
        }
        self.ask(&format!("DELE {NOWHERE}"), trace)?;
        self.is_queued = false;
        Ok(())
    }

    /// Waits for the server's first word on STOR.
    fn await_answer<'a>(
        &mut self,
        stor: &'a mut PendingStor,
        trace: &Trace,
    ) -> Result<&'a Reply, Broken> {
        while stor.answer.is_none() {
            self.hear(stor, trace)?;
        }
        stor.answer.as_ref().ok_or_else(|| Broken("no answer".to_owned()))
    }

    /// Waits for the server's last word on a short file, as long as one can come: it has none on a data
    /// connection that it ended before STOR (pyftpdlib, when STOR got lost and comes after the data).
    fn last_word(&mut self, data: &Data, trace: &Trace) -> Result<Reply, TransferError> {
        let deadline = Instant::now() + self.timeout;
        let mut ended: Option<Instant> = None;
        while self.surplus.is_empty() && Instant::now() < deadline && self.is_silent_for(GLANCE)? {
            if ended.is_some_and(|then| then.elapsed() >= ENDED_WITHOUT_A_WORD) {
                self.is_out_of_step = true;
                let cause = "it ended the data connection without a word".to_owned();
                return Err(TransferError::Reconnect(cause));
            }
            if !self.is_at_home() {
                return Err(TransferError::Disconnected(AWAY.to_owned()));
            }
            if ended.is_none() && !is_untouched(&data.socket) {
                ended = Some(Instant::now());
            }
        }
        Ok(self.reply_by(deadline, trace)?)
    }

    /// Whether nothing comes on the control connection for so long.
    fn is_silent_for(&self, time: Duration) -> Result<bool, Broken> {
        let socket = self.control.socket();
        socket.set_read_timeout(Some(time.min(self.timeout)))?;
        quick_ack(socket);
        Ok(socket.peek(&mut [0]).is_err_and(|error| is_slow(&error)))
    }

    /// Takes a reply to STOR.
    fn hear(&mut self, stor: &mut PendingStor, trace: &Trace) -> Result<(), Broken> {
        let reply = self.reply(trace)?;
        // A connection that waits at uftpd's one data port would be taken for the next file's: it is
        // used for this one, once the board has time.
        let is_busy = reply.code == BUSY && !self.options.varies_ports;
        if is_busy && stor.made.elapsed() < self.timeout {
            thread::sleep(BUSY_PAUSE);
            return self.send(&stor.command, trace);
        }
        stor.answer = Some(reply);
        Ok(())
    }

    /// Whether what the server minds is that nothing is encrypted.
    pub fn is_lacking_tls(&self, reply: &Reply) -> bool {
        self.options.secure.is_none() && reply.wants_tls()
    }

    /// What a refused transfer means.
    fn refused(&mut self, way: SendMode, reply: &Reply) -> TransferError {
        self.refusal = Some(reply.code);
        match reply.code {
            _ if self.is_lacking_tls(reply) => {
                TransferError::Permanent(format!("{reply} (it wants encryption: use --tls)"))
            }
            // Its session for the data connection may be used up; a new session begins with one.
            425 | 522 if self.options.secure.is_some() => TransferError::Again(format!(
                "{reply} (over TLS: does it demand that sessions are resumed, and forget them?)"
            )),
            425 if self.options.active => TransferError::Transient(format!(
                "{reply} (can it connect to this computer? leave out --active if there is a firewall here)"
            )),
            425 if way != SendMode::Serial => TransferError::Reconnect(reply.to_string()),
            // It takes what it was sent for the next file's.
            _ if way != SendMode::Serial && self.options.board == Some(Board::FtpdLite) => {
                TransferError::Reconnect(reply.to_string())
            }
            550 if self.options.is_guest => TransferError::Transient(format!(
                "{reply} (anonymous may not write: try --user ftpadmin)"
            )),
            _ => TransferError::refused(reply),
        }
    }

    /// Copies the file to the data connection; returns the number of bytes.
    fn pump(
        &mut self,
        data: &mut Data,
        source: &mut Source,
        stor: &mut PendingStor,
        trace: &Trace,
        progress: &mut dyn FnMut(u64),
    ) -> Pumped<u64> {
        let whole = usize::try_from(source.stamp().len).unwrap_or(CHUNK);
        let mut buffer = vec![0; CHUNK.min(whole + 1)];
        let mut sent = 0;
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => {
                    let mut stalled = || progress(sent);
                    let ended = self.patiently(stor, trace, &mut stalled, || data.finish())?;
                    return Ok(ended.map(|()| sent));
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(TransferError::Local(error))),
            };
            let mut bytes = &buffer[..read];
            while !bytes.is_empty() {
                let mut stalled = || progress(sent);
                match self.patiently(stor, trace, &mut stalled, || data.write(bytes))? {
                    Ok(written) => bytes = &bytes[written..],
                    Err(error) => return Ok(Err(error)),
                }
            }
            sent += read as u64;
            progress(sent);
            // What is longer than the socket holds anyway is not poured out for nothing.
            if !source.is_at_end() && !self.await_answer(stor, trace)?.is_preliminary() {
                return given_up();
            }
        }
    }

    /// Does something with the data connection, again and again while the server is slow.
    fn patiently<T>(
        &mut self,
        stor: &mut PendingStor,
        trace: &Trace,
        stalled: &mut dyn FnMut(),
        mut what: impl FnMut() -> io::Result<T>,
    ) -> Pumped<T> {
        let mut moved = Instant::now();
        loop {
            let error = match what() {
                Ok(done) => return Ok(Ok(done)),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => moved = Instant::now(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    // A board that gave up leaves the data connection open, and says so only on the
                    // control connection.
                    if !self.look(stor, trace)? {
                        return given_up();
                    }
                    if !LOOKS_AGAIN || moved.elapsed() >= self.timeout {
                        let cause = "it takes no data and says nothing".to_owned();
                        return Err(TransferError::Disconnected(cause));
                    }
                    stalled();
                }
                _ => {
                    let cause = format!("the data connection broke: {}", explain(&error));
                    return Ok(Err(TransferError::Reconnect(cause)));
                }
            }
        }
    }

    /// Makes ready for a data connection: connects to the server, unless that was done before, or
    /// waits for it to connect.
    fn prepare_data(&mut self, way: SendMode, trace: &Trace) -> Result<Prepared, TransferError> {
        if self.options.active {
            return self.await_data(trace).map(Prepared::Awaited);
        }
        let is_lite = self.options.board == Some(Board::FtpdLite);
        self.give_up_stale();
        // Where another file may be given it, it is not left behind either.
        let is_used = way == SendMode::Prepared || is_lite || !self.options.varies_ports;
        let ready = self.ready.take().filter(|_| is_used);
        if let Some((socket, _)) = ready.filter(|(socket, _)| is_untouched(socket)) {
            return Ok(Prepared::Connected(socket));
        }
        let socket = self.connect_data(trace)?;
        if is_lite {
            // It waits for 200 ms if STOR comes before it has come to accept the connection, and
            // may take an older one.
            self.ask("NOOP", trace)?;
        }
        Ok(Prepared::Connected(socket))
    }

    /// Opens a port, and tells the server of it.
    fn await_data(&mut self, trace: &Trace) -> Result<TcpListener, TransferError> {
        let here = self.control.socket().local_addr().map_err(Broken::from)?;
        let mut any_port = here;
        any_port.set_port(0);
        let listen = || -> io::Result<(TcpListener, u16)> {
            let listener = TcpListener::bind(any_port)?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        };
        let (listener, port) = listen().map_err(|error| {
            TransferError::Transient(format!("this computer opens no port for --active: {error}"))
        })?;
        let command = match here.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                format!("PORT {a},{b},{c},{d},{},{}", port >> 8, port & 0xff)
            }
            IpAddr::V6(ip) => format!("EPRT |2|{ip}|{port}|"),
        };
        // Some connect before they answer (pyftpdlib).
        let reply = self.ask(&command, trace).map_err(|Broken(cause)| {
            TransferError::Disconnected(format!(
                "{cause}: if it cannot connect to this computer (is there a firewall?), leave out --active"
            ))
        })?;
        if reply.is_completion() {
            return Ok(listener);
        }
        Err(match reply.code {
            500..=599 => TransferError::Permanent(format!("{reply}: leave out --active")),
            _ => TransferError::refused(&reply),
        })
    }

    /// Completes the data connection after STOR. Where that takes the server's part, some say 150
    /// before it and some after it (ftp-srv).
    fn open_data(
        &mut self,
        prepared: Prepared,
        stor: &mut PendingStor,
        trace: &Trace,
    ) -> Pumped<Data> {
        let socket = match prepared {
            Prepared::Connected(socket) => socket,
            Prepared::Awaited(listener) => match self.accept(&listener, stor, trace) {
                Ok(socket) => socket,
                Err(error) => {
                    let failed = TransferError::Reconnect(format!(
                        "it did not connect to this computer: {error}: leave out --active if there \
                         is a firewall here"
                    ));
                    // Who was stopped on the way will say nothing for long.
                    self.is_out_of_step = error.kind() == io::ErrorKind::TimedOut;
                    return if self.is_out_of_step { Err(failed) } else { Ok(Err(failed)) };
                }
            },
        };
        let Some(secure) = self.options.secure.clone() else {
            return Ok(Ok(Data { socket, tls: None }));
        };
        socket.set_read_timeout(Some(BLINK)).map_err(Broken::from)?;
        let timeout = self.timeout;
        match secure.handshake(&socket, timeout, &mut || self.look_on(stor, trace)) {
            Ok(tls) => {
                if let (Some(version), Some(kind)) = (tls.protocol_version(), tls.handshake_kind())
                {
                    let resumed = if kind == HandshakeKind::Resumed { "" } else { "not " };
                    trace.received(format!("({version:?}, {resumed}resumed)").as_bytes());
                }
                Ok(Ok(Data { socket, tls: Some(Box::new(tls)) }))
            }
            // Whatever the control connection says to that, this is what is wrong.
            Err(fault @ Fault::Untrusted(_)) => Err(TransferError::Disconnected(format!(
                "somebody else answers its data connections: {fault}"
            ))),
            Err(fault) => {
                Ok(Err(TransferError::Reconnect(format!("its data connection, in TLS: {fault}"))))
            }
        }
    }

    /// While the data connection makes us wait: takes the answer to STOR if it has come. Returns
    /// whether there is something to wait for.
    fn look(&mut self, stor: &mut PendingStor, trace: &Trace) -> Result<bool, Broken> {
        if !self.is_at_home() {
            return Err(Broken(AWAY.to_owned()));
        }
        if self.is_quiet() {
            return Ok(true);
        }
        if stor.answer.is_none() {
            self.hear(stor, trace)?;
            return Ok(!stor.is_refused());
        }
        Ok(false)
    }

    /// The same as an error.
    fn look_on(&mut self, stor: &mut PendingStor, trace: &Trace) -> io::Result<()> {
        match self.look(stor, trace) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other("the server gave it up")),
            Err(Broken(cause)) => Err(io::Error::other(cause)),
        }
    }

    /// The connection that the server makes; those of others are closed.
    fn accept(
        &mut self,
        listener: &TcpListener,
        stor: &mut PendingStor,
        trace: &Trace,
    ) -> io::Result<TcpStream> {
        let server = self.control.socket().peer_addr()?.ip();
        let begun = Instant::now();
        loop {
            match listener.accept() {
                Ok((socket, peer)) if peer.ip() == server => {
                    socket.set_nonblocking(false)?;
                    return self.prepare(socket);
                }
                Ok(_) => {}
                Err(_) if begun.elapsed() >= self.timeout => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
                }
                Err(_) => {
                    self.look_on(stor, trace)?;
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Asks for a data port and connects to it.
    fn connect_data(&mut self, trace: &Trace) -> Result<TcpStream, TransferError> {
        let address = self.data_address(trace)?;
        let is_uftpd = self.options.board == Some(Board::Uftpd);
        if self.is_queued {
            self.empty_queue(trace)?;
        }
        let patience = if is_uftpd { self.timeout.min(QUEUE_IS_FULL) } else { self.timeout };
        let mut connected = TcpStream::connect_timeout(&address, patience);
        if connected.is_err() && is_uftpd {
            self.empty_queue(trace)?;
            connected = TcpStream::connect_timeout(&address, patience);
        }
        connected.and_then(|socket| self.prepare(socket)).map_err(|error| {
            let (port, cause) = (address.port(), blocked(&error));
            TransferError::Reconnect(format!("its data port {port}: {cause}"))
        })
    }

    /// Where to connect for data: always at the control connection's peer, because boards announce
    /// addresses that lead nowhere, and so that no server sends us elsewhere.
    fn data_address(&mut self, trace: &Trace) -> Result<SocketAddr, TransferError> {
        let mut address = self.control.socket().peer_addr().map_err(Broken::from)?;
        let port = match self.port {
            Some(port) => port,
            None => self.ask_for_port(address.is_ipv4(), trace)?,
        };
        // One PASV a session is enough there.
        self.port = Some(port).filter(|_| self.options.board == Some(Board::Uftpd));
        address.set_port(port);
        Ok(address)
    }

    /// Asks for a data port while there is time, to know it or to connect to it: see
    /// [`Self::has_ready`].
    ///
    /// # Errors
    /// See [`TransferError`].
    pub fn ask_ahead(&mut self, trace: &Trace) -> Result<SocketAddr, TransferError> {
        self.ready = None;
        self.data_address(trace)
    }

    /// Takes a connection to what [`Self::ask_ahead`] said. STOR and the data can then go out at
    /// once.
    ///
    /// # Errors
    /// As the system says.
    pub fn have_ready(&mut self, connected: io::Result<TcpStream>) -> io::Result<()> {
        let socket = self.prepare(connected?)?;
        self.ready = Some((socket, Instant::now()));
        Ok(())
    }

    /// Whether there is what can be made for the next file ahead of it: a data connection, or the
    /// knowledge of its port.
    pub fn has_ready(&self) -> bool {
        self.ready.is_some() || self.port.is_some()
    }

    /// Until when the data connection that is ready is relied on; `None` if there is none, or no
    /// limit: FTPdLite never closes the port of one that is given up, and has 255 of them.
    pub fn ready_until(&self) -> Option<Instant> {
        let lasts = self.options.board == Some(Board::FtpdLite);
        self.ready.as_ref().filter(|_| !lasts).map(|(_, made)| *made + FRESH)
    }

    /// Gives up the data connection that is ready if it is not relied on any more.
    pub fn give_up_stale(&mut self) {
        if self.ready_until().is_some_and(|until| Instant::now() >= until) {
            self.ready = None;
        }
    }

    /// Gives up the data connection that is ready.
    pub fn give_up_ready(&mut self) {
        self.ready = None;
    }

    /// Has the server open a port for data.
    fn ask_for_port(&mut self, is_v4: bool, trace: &Trace) -> Result<u16, TransferError> {
        if is_v4 && !self.knows_no_pasv {
            let reply = self.ask("PASV", trace)?;
            self.knows_no_pasv = reply.is_unknown_command();
            if !self.knows_no_pasv {
                let address = pasv_address(&reply.text);
                self.announced = address.map(|address| *address.ip());
                return self.note_port(&reply, address.map(|address| address.port()));
            }
        }
        let reply = self.ask("EPSV", trace)?;
        if reply.is_unknown_command() {
            return Err(TransferError::Permanent(format!(
                "it has no passive mode: {reply}: try --active"
            )));
        }
        self.note_port(&reply, epsv_port(&reply.text))
    }

    fn note_port(&mut self, reply: &Reply, port: Option<u16>) -> Result<u16, TransferError> {
        let port = port_in(reply, port)?;
        if let Some(last) = self.last_port.replace(port) {
            self.has_ports |= last != port;
            self.options.varies_ports = self.has_ports;
        }
        Ok(port)
    }

    /// Goes by what was learnt of the server's data ports in an earlier session.
    pub fn take_up(&mut self, varies_ports: bool) {
        self.options.varies_ports = varies_ports;
    }

    fn prepare(&self, data: TcpStream) -> io::Result<TcpStream> {
        data.set_nodelay(true)?;
        let glance = if LOOKS_AGAIN { self.timeout.min(GLANCE) } else { self.timeout };
        data.set_write_timeout(Some(glance))?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&data).set_tcp_notsent_lowat(UNSENT);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = SockRef::from(&data).set_send_buffer_size(8 * UNSENT as usize);
        Ok(data)
    }

    /// Sends a command, and waits for its answer.
    fn ask(&mut self, line: &str, trace: &Trace) -> Result<Reply, Broken> {
        self.send(line, trace)?;
        self.reply(trace)
    }

    /// Sends one command in one write: two in a segment, or one in two, confuse boards.
    fn send(&mut self, line: &str, trace: &Trace) -> Result<(), Broken> {
        trace.sent(line);
        let mut bytes = suppaftp::Encoding::encode(&self.options.encoding, line)?;
        bytes.extend_from_slice(b"\r\n");
        Ok(self.control.write_all(&bytes)?)
    }

    /// Waits for one complete reply.
    ///
    /// # Errors
    /// When there is none, or none that ends.
    pub fn reply(&mut self, trace: &Trace) -> Result<Reply, Broken> {
        self.reply_by(Instant::now() + self.timeout, trace)
    }

    fn reply_by(&mut self, deadline: Instant, trace: &Trace) -> Result<Reply, Broken> {
        let bytes = self.read_reply(deadline)?;
        let reply = Reply::parse(&self.options.encoding.read(&bytes)).ok_or_else(|| {
            let said = String::from_utf8_lossy(&bytes);
            Broken(format!("no FTP reply: '{}'", shortened(said.trim())))
        })?;
        trace.received(&bytes);
        Ok(reply)
    }

    fn read_reply(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.surplus);
        let result = loop {
            if let Some(end) = end_of_reply(&bytes) {
                self.surplus = bytes.split_off(end);
                break Ok(bytes);
            }
            if bytes.len() > LONGEST_REPLY {
                break Err(io::Error::other("its reply has no end"));
            }
            match self.read_some(deadline) {
                Ok(more) => bytes.extend_from_slice(&more),
                Err(error) => break Err(error),
            }
        };
        self.control.socket().set_read_timeout(Some(self.timeout))?;
        result
    }

    fn read_some(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.control.socket().set_read_timeout(Some(left.min(GLANCE)))?;
            match self.control.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => return Ok(buffer[..read].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !is_slow(&error) => return Err(error),
                Err(_) if self.is_at_home() => {}
                Err(_) => return Err(io::Error::other(AWAY)),
            }
        }
    }
}

/// A STOR on its way.
struct PendingStor {
    command: String,
    made: Instant,
    /// The server's first word on it.
    answer: Option<Reply>,
}

impl PendingStor {
    fn new(command: String) -> Self {
        Self { command, made: Instant::now(), answer: None }
    }

    fn is_refused(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_preliminary())
    }
}

/// A data connection before STOR.
enum Prepared {
    /// We have connected.
    Connected(TcpStream),
    /// The server will.
    Awaited(TcpListener),
}

/// A data connection.
struct Data {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Data {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => {
                push(tls, &mut self.socket)?;
                let taken = tls.writer().write(bytes)?;
                match push(tls, &mut self.socket) {
                    // What was taken goes out with the next.
                    Err(error)
                        if !is_slow(&error) && error.kind() != io::ErrorKind::Interrupted =>
                    {
                        Err(error)
                    }
                    _ => Ok(taken),
                }
            }
        }
    }

    /// Says that this was the end of the file.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            push(tls, &mut self.socket)?;
            tls.send_close_notify();
            push(tls, &mut self.socket)?;
        }
        // What is wrong with it, the server will say.
        let _ = self.socket.shutdown(Shutdown::Write);
        Ok(())
    }

    /// Whether the server has ended it, too: uftpd does before it says that it stored the file.
    fn is_closed_there(&self) -> bool {
        let _ = self.socket.set_read_timeout(Some(CLOSED_WITHIN));
        match self.socket.peek(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => !is_slow(&error),
        }
    }

    /// Takes what the server sends to its end: with TLS 1.3, the ticket for the next data
    /// connection.
    fn hear_out(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return;
        }
        let begun = Instant::now();
        while begun.elapsed() < LAST_WORDS
            && self.socket.set_read_timeout(Some(LAST_WORDS)).is_ok()
            && tls.read_tls(&mut self.socket).is_ok_and(|count| count > 0)
            && tls.process_new_packets().is_ok()
        {}
    }
}

/// Writes what TLS has to say. [`io::ErrorKind::Interrupted`] says that a part of it went out.
fn push(tls: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    let mut has_moved = false;
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => has_moved = true,
            Err(error) if has_moved && LOOKS_AGAIN && is_slow(&error) => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says what it means that a data port cannot be reached, where the control connection can.
fn blocked(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "no answer (is a firewall in between? open the server's passive ports, or try --active)"
                .to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "it refuses the connection (is a firewall or NAT in between? open the server's passive \
             ports, or try --active)"
                .to_owned()
        }
        _ => explain(error),
    }
}

/// The inner error is what to make of a data connection that ended early if the server says no
/// more about it; after the outer one its words are not waited for.
type Pumped<T> = Result<Result<T, TransferError>, TransferError>;

/// The server has spoken before it had all data.
fn given_up<T>() -> Pumped<T> {
    Ok(Err(TransferError::Reconnect("it stopped taking data".to_owned())))
}

/// The port that was asked for.
fn port_in(reply: &Reply, port: Option<u16>) -> Result<u16, TransferError> {
    if !reply.is_completion() {
        return Err(TransferError::refused(reply));
    }
    port.ok_or_else(|| TransferError::Disconnected(format!("no data port in {reply}")))
}

/// Where the first complete reply in `bytes` ends: after a line of three digits and a blank
/// (RFC 959, 4.2; some boards leave the blank out).
fn end_of_reply(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    let mut opening = None;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let line = bytes[start..at].trim_ascii_end();
        let code = code_of(line);
        let closes = code.is_some() && line.get(3).is_none_or(|byte| *byte == b' ');
        // What is no reply at all is handed over at its first line, to be shown.
        if closes || (opening.is_none() && code.is_none()) {
            return Some(at + 1);
        }
        opening = opening.or(code);
        start = at + 1;
    }
    None
}

/// The address in `227 Entering Passive Mode (h1,h2,h3,h4,p1,p2)`; RFC 1123 (4.1.2.6) warns that the
/// parentheses may be missing.
fn pasv_address(text: &str) -> Option<SocketAddrV4> {
    let numbers: Vec<u8> = text
        .split(|c: char| !c.is_ascii_digit() && c != ',')
        .find(|word| word.matches(',').count() == 5)?
        .split(',')
        .map(str::parse::<u8>)
        .collect::<Result<_, _>>()
        .ok()?;
    let [a, b, c, d, high, low] = numbers.try_into().ok()?;
    let port = u16::from_be_bytes([high, low]);
    (port != 0).then(|| SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port))
}

/// The port in `229 Entering Extended Passive Mode (|||port|)` (RFC 2428).
fn epsv_port(text: &str) -> Option<u16> {
    let inner = text.rsplit_once('(')?.1.split_once(')')?.0;
    let mut fields = inner.chars();
    let delimiter = fields.next()?;
    fields.as_str().split(delimiter).nth(2)?.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let pasv = |text: &str| pasv_address(text).map(|address| address.to_string());
        let board = Some("10.0.0.1:13333".to_owned());
        assert_eq!(pasv("Entering Passive Mode (10,0,0,1,52,21)."), board);
        assert_eq!(pasv("Entering Passive Mode 10,0,0,1,52,21"), board);
        assert_eq!(pasv("=127,0,0,1,4,1"), Some("127.0.0.1:1025".to_owned()));
        for bad in ["", "(1,2,3,4,5)", "(1,2,3,4,5,256)", "(1,2,3,4,0,0)", "(,,,,,)"] {
            assert_eq!(pasv(bad), None, "{bad}");
        }
        assert_eq!(epsv_port("Entering Extended Passive Mode (|||49152|)"), Some(49152));
        for bad in ["", "(|||)", "(|||x|)", "(|||0|)", "|||1|"] {
            assert_eq!(epsv_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn replies_end_where_they_end() {
        assert_eq!(end_of_reply(b"226 Done\r\n421 bye\r\n"), Some(10));
        assert_eq!(end_of_reply(b"226\r\n"), Some(5));
        assert_eq!(end_of_reply(b"150-a\r\n 12\r\n150 b\r\n"), Some(19));
        assert_eq!(end_of_reply(b"150-a\r\n 12\r\n150"), None);
        assert_eq!(end_of_reply(b"hello\r\n226 Done\r\n"), Some(7));
    }
}
