//! What the test's servers do with a connection that ordinary ones do not.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

/// When it is closed, the peer gets a reset in place of a goodbye.
pub fn reset(connection: &TcpStream) {
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

/// Whether the peer has said something more. A client that does not wait for its answer would be
/// one command ahead of a board for ever after.
pub fn is_ahead(connection: &TcpStream) -> bool {
    matches!(peek(connection), Some(1..))
}

/// Whether something has come: 0 at its end.
pub fn peek(connection: &TcpStream) -> Option<usize> {
    connection.set_nonblocking(true).unwrap();
    let seen = connection.peek(&mut [0]);
    connection.set_nonblocking(false).unwrap();
    match seen {
        Ok(count) => Some(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(0),
    }
}
