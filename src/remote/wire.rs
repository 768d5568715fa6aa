//! Uploads, spoken directly on the control connection's socket.
//!
//! suppaftp runs the session; its reader holds nothing between two of its commands, so that PASV
//! and STOR can be spoken on a clone of the socket. Here each wait has a deadline, a reply's text
//! is kept, and the order of sending is ours.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{AWAY, Broken, Reply, TransferError, explain};
use crate::remote::ftp::Trace;
use crate::source::Source;
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

/// The control connection, as far as uploads need it.
pub struct Wire {
    control: TcpStream,
    timeout: Duration,
    /// What came after a complete reply: an unasked-for reply, such as a 421.
    surplus: Vec<u8>,
}

impl Wire {
    /// Takes a clone of the session's socket.
    pub fn new(control: TcpStream, timeout: Duration) -> Self {
        Self { control, timeout, surplus: Vec::new() }
    }

    /// Whether the session still stands, as far as can be told without asking: the server has
    /// neither closed it nor said anything unasked.
    pub fn is_quiet(&self) -> bool {
        let quiet = || -> io::Result<bool> {
            self.control.set_nonblocking(true)?;
            let seen = self.control.peek(&mut [0]);
            self.control.set_nonblocking(false)?;
            Ok(matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
        };
        self.surplus.is_empty() && quiet().unwrap_or(false)
    }

    /// Whether this computer still has the address that the session was made from.
    pub fn is_at_home(&self) -> bool {
        let address = self.control.local_addr().map(|mut address| {
            address.set_port(0);
            address
        });
        let bound = address.and_then(UdpSocket::bind);
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    }

    /// Sends one file the plain way: PASV, connect, STOR, data, one after the other. Returns the
    /// number of bytes.
    ///
    /// # Errors
    /// See [`TransferError`]; the server's own words win over errors of the data connection.
    pub fn store(
        &mut self,
        name: &str,
        source: &mut Source,
        trace: &Trace,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, TransferError> {
        let data = self.open_data(trace)?;
        self.send(&format!("STOR {name}"), trace)?;
        let reply = self.reply(trace)?;
        if !reply.is_preliminary() {
            return Err(TransferError::refused(&reply));
        }
        let pumped = self.pump(&data, source, progress)?;
        // The end of the file; the socket itself stays until the server has spoken, because
        // closing it with an unread byte would reset it.
        let _ = data.shutdown(Shutdown::Write);
        let reply = self.reply(trace)?;
        if reply.is_completion() { pumped } else { Err(TransferError::refused(&reply)) }
    }

    /// Copies the file to the data connection; returns the number of bytes.
    fn pump(
        &self,
        data: &TcpStream,
        source: &mut Source,
        progress: &mut dyn FnMut(u64),
    ) -> Pumped<u64> {
        let whole = usize::try_from(source.stamp().len).unwrap_or(CHUNK);
        let mut buffer = vec![0; CHUNK.min(whole + 1)];
        let mut sent = 0;
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => return Ok(Ok(sent)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(TransferError::Local(error))),
            };
            if let Err(error) = self.write_all(data, &buffer[..read], &mut || progress(sent))? {
                return Ok(Err(error));
            }
            sent += read as u64;
            progress(sent);
        }
    }

    fn write_all(
        &self,
        mut data: &TcpStream,
        mut bytes: &[u8],
        stalled: &mut dyn FnMut(),
    ) -> Pumped<()> {
        let ended = |cause: String| Ok(Err(TransferError::Reconnect(cause)));
        let mut moved = Instant::now();
        while !bytes.is_empty() {
            match data.write(bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    moved = Instant::now();
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        // A board that gave up leaves the data connection open, and says so only
                        // on the control connection.
                        if !self.is_quiet() {
                            return ended("it stopped taking data".to_owned());
                        }
                        if !self.is_at_home() {
                            return Err(Broken(AWAY.to_owned()));
                        }
                        if !LOOKS_AGAIN || moved.elapsed() >= self.timeout {
                            return Err(Broken("it takes no data and says nothing".to_owned()));
                        }
                        stalled();
                    }
                    _ => return ended(format!("the data connection broke: {error}")),
                },
            }
        }
        Ok(Ok(()))
    }

    /// Asks for a data port and connects to it: always at the control connection's peer, because
    /// boards announce addresses that lead nowhere, and so that no server sends us elsewhere.
    fn open_data(&mut self, trace: &Trace) -> Result<TcpStream, TransferError> {
        let peer = self.control.peer_addr().map_err(Broken::from)?;
        let command = if peer.is_ipv4() { "PASV" } else { "EPSV" };
        self.send(command, trace)?;
        let reply = self.reply(trace)?;
        if !reply.is_completion() {
            return Err(TransferError::refused(&reply));
        }
        let port = if peer.is_ipv4() { pasv_port(&reply.text) } else { epsv_port(&reply.text) };
        let port = port.ok_or_else(|| {
            TransferError::Disconnected(format!("{command} brought no port: {reply}"))
        })?;
        let mut address = peer;
        address.set_port(port);
        self.connect_data(address).map_err(|error| {
            TransferError::Reconnect(format!("its data port {port}: {}", explain(&error)))
        })
    }

    fn connect_data(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let data = TcpStream::connect_timeout(&address, self.timeout)?;
        data.set_nodelay(true)?;
        data.set_write_timeout(Some(if LOOKS_AGAIN {
            self.timeout.min(GLANCE)
        } else {
            self.timeout
        }))?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&data).set_tcp_notsent_lowat(UNSENT);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = SockRef::from(&data).set_send_buffer_size(8 * UNSENT as usize);
        Ok(data)
    }

    /// Sends one command in one write: two in a segment, or one in two, confuse boards.
    fn send(&mut self, line: &str, trace: &Trace) -> Result<(), Broken> {
        trace.sent(line);
        Ok((&self.control).write_all(format!("{line}\r\n").as_bytes())?)
    }

    /// Waits for one complete reply.
    fn reply(&mut self, trace: &Trace) -> Result<Reply, Broken> {
        let bytes = self.read_reply()?;
        let reply = Reply::parse(&bytes).ok_or_else(|| {
            let said = String::from_utf8_lossy(&bytes);
            Broken(format!("no FTP reply: '{}'", shortened(said.trim())))
        })?;
        trace.received(&bytes);
        Ok(reply)
    }

    fn read_reply(&mut self) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
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
        self.control.set_read_timeout(Some(self.timeout))?;
        result
    }

    fn read_some(&self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.control.set_read_timeout(Some(left.min(GLANCE)))?;
            quick_ack(&self.control);
            match (&self.control).read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => return Ok(buffer[..read].to_vec()),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if self.is_at_home() => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Err(io::Error::other(AWAY));
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Has the next segment acknowledged at once. A server with Nagle's algorithm on holds a reply's
/// second half back until then: 40 ms an upload (libunftp, boards). The system forgets the setting,
/// so it is made before each read.
pub fn quick_ack(control: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(control).set_tcp_quickack(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = control;
}

/// The inner error is what to make of a data connection that ended early if the server says no
/// more about it; the outer one is of a server that will say nothing.
type Pumped<T> = Result<Result<T, TransferError>, Broken>;

/// Where the first complete reply in `bytes` ends: after a line of three digits and a blank
/// (RFC 959, 4.2; some boards leave the blank out).
fn end_of_reply(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    let mut opening = None;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let line = bytes[start..at].trim_ascii_end();
        let code = super::code_of(line);
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

/// The port in `227 Entering Passive Mode (h1,h2,h3,h4,p1,p2)`; RFC 1123 (4.1.2.6) warns that the
/// parentheses may be missing.
fn pasv_port(text: &str) -> Option<u16> {
    let numbers: Vec<u8> = text
        .split(|c: char| !c.is_ascii_digit() && c != ',')
        .find(|word| word.matches(',').count() == 5)?
        .split(',')
        .map(str::parse::<u8>)
        .collect::<Result<_, _>>()
        .ok()?;
    let port = u16::from_be_bytes([numbers[4], numbers[5]]);
    (port != 0).then_some(port)
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
        assert_eq!(pasv_port("Entering Passive Mode (10,0,0,1,52,21)."), Some(13333));
        assert_eq!(pasv_port("Entering Passive Mode 10,0,0,1,52,21"), Some(13333));
        assert_eq!(pasv_port("=127,0,0,1,4,1"), Some(1025));
        for bad in ["", "(1,2,3,4,5)", "(1,2,3,4,5,256)", "(1,2,3,4,0,0)", "(,,,,,)"] {
            assert_eq!(pasv_port(bad), None, "{bad}");
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
