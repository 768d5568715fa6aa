//! The control connection's bytes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{ClientConnection, ProtocolVersion, Stream};
use suppaftp::{FtpError, FtpResult, TlsStream};

use crate::model::encoding::Encoding;

/// A control connection, in the clear or through TLS. Clones are handles on the same one: suppaftp
/// has one, and [`crate::ftp::uploader::Uploader`] another.
#[derive(Clone, Debug)]
pub struct ControlConnection {
    socket: Arc<TcpStream>,
    tls: Option<Arc<Mutex<ClientConnection>>>,
}

impl ControlConnection {
    /// In the clear.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket: Arc::new(socket), tls: None }
    }

    /// Through TLS, whose handshake is done.
    pub fn secured(socket: TcpStream, tls: ClientConnection) -> Self {
        Self { socket: Arc::new(socket), tls: Some(Arc::new(Mutex::new(tls))) }
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The version of TLS; `None` in the clear.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.tls.as_ref().and_then(|tls| locked(tls).protocol_version())
    }

    /// Whether the session still stands, as far as can be told without asking: the server has
    /// neither closed it nor said anything unasked.
    pub fn is_quiet(&self) -> bool {
        without_waiting(&self.socket, || match &self.tls {
            None => has_nothing(&self.socket),
            Some(tls) => self.is_silent(&mut locked(tls)),
        })
    }

    /// TLS has messages of its own, such as tickets: takes what has come, to tell them from replies.
    fn is_silent(&self, tls: &mut ClientConnection) -> bool {
        // Who sends so much without a reply is not silent.
        const MANY: usize = 16;
        for _ in 0..MANY {
            match tls.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                _ => return false,
            }
            match tls.read_tls(&mut &*self.socket) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// Says that nothing more will come from us.
    pub fn close(&self) {
        if let Some(tls) = &self.tls {
            let mut tls = locked(tls);
            tls.send_close_notify();
            let _ = tls.write_tls(&mut &*self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

impl Read for ControlConnection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        quick_ack(&self.socket);
        match &self.tls {
            None => (&*self.socket).read(buffer),
            Some(tls) => read_step(&mut locked(tls), &self.socket, buffer),
        }
    }
}

/// Reads once from the socket, so that whoever waits can look at the clock between a server's
/// bytes: [`io::ErrorKind::Interrupted`] says that what came is no text yet.
fn read_step(
    tls: &mut ClientConnection,
    mut socket: &TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    if tls.process_new_packets().map_err(invalid)?.plaintext_bytes_to_read() == 0 {
        let read = tls.read_tls(&mut socket)?;
        let state = tls.process_new_packets();
        // An alert, or the answer to a request for new keys.
        while tls.wants_write() && tls.write_tls(&mut socket)? > 0 {}
        let state = state.map_err(invalid)?;
        if read > 0 && state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    tls.reader().read(buffer)
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Write for ControlConnection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => (&*self.socket).write(bytes),
            Some(tls) => Stream::new(&mut *locked(tls), &mut &*self.socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.tls {
            None => Ok(()),
            Some(tls) => Stream::new(&mut *locked(tls), &mut &*self.socket).flush(),
        }
    }
}

impl TlsStream for ControlConnection {
    type InnerStream = Self;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        self.socket.try_clone().map_err(FtpError::ConnectionError)
    }

    fn get_ref(&self) -> &TcpStream {
        &self.socket
    }

    fn mut_ref(&mut self) -> &mut Self {
        self
    }
}

impl suppaftp::Encoding for Encoding {
    fn decode(&self, bytes: &[u8]) -> String {
        self.read(bytes)
    }

    fn encode(&self, text: &str) -> io::Result<Vec<u8>> {
        self.write(text).ok_or_else(|| io::Error::other("it cannot be written in latin1"))
    }
}

/// Whether nothing has come on a connection, not even its end.
pub fn is_untouched(socket: &TcpStream) -> bool {
    without_waiting(socket, || has_nothing(socket))
}

/// The same of a socket that does not wait.
fn has_nothing(socket: &TcpStream) -> bool {
    socket.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Has a look at what has come; what cannot be looked at has not gone well.
fn without_waiting(socket: &TcpStream, look: impl FnOnce() -> bool) -> bool {
    socket.set_nonblocking(true).is_ok() && {
        let seen = look();
        socket.set_nonblocking(false).is_ok() && seen
    }
}

fn locked(tls: &Mutex<ClientConnection>) -> MutexGuard<'_, ClientConnection> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the next segment acknowledged at once. A server with Nagle's algorithm on holds a reply's
/// second half back until then: 40 ms an upload (libunftp, boards). The system forgets the setting,
/// so it is made before each read.
pub fn quick_ack(control: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(control).set_tcp_quickack(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = control;
}
