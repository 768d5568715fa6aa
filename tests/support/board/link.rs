//! One connection of a board.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Leaves, Shared};
use crate::support::socket::{is_ahead, reset};

/// How often somebody who waits looks whether there is power.
const GLANCE: Duration = Duration::from_millis(20);

#[derive(Debug, PartialEq)]
pub enum Lost {
    /// There is nobody on this side any more.
    Power,
    /// There is nobody on the other side any more, or it was silent for too long.
    Peer,
}

pub struct Link {
    /// Empty when it has been given away.
    stream: Option<TcpStream>,
    pub shared: Arc<Shared>,
    /// The outages before it began.
    outages: usize,
}

impl Link {
    pub fn new(stream: TcpStream, shared: &Arc<Shared>) -> Link {
        // On some systems it is as the listener is.
        stream.set_nonblocking(false).unwrap();
        let outages = shared.record.read(|record| record.outages);
        Link { stream: Some(stream), shared: Arc::clone(shared), outages }
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.as_ref().unwrap()
    }

    pub fn has_power(&self) -> bool {
        self.shared.record.read(|record| record.outages == self.outages && !record.over)
    }

    /// What comes within `patience`: one recv, 0 at the end; `None` when nothing came.
    pub fn try_recv(&self, buffer: &mut [u8], patience: Duration) -> Result<Option<usize>, Lost> {
        self.stream().set_read_timeout(Some(patience)).unwrap();
        let result = self.stream().read(buffer);
        if !self.has_power() {
            return Err(Lost::Power);
        }
        match result {
            Ok(count) => Ok(Some(count)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
                _ => Err(Lost::Peer),
            },
        }
    }

    /// One recv, 0 at the end; waits for ever, or not for longer than `patience`.
    pub fn recv(&self, buffer: &mut [u8], patience: Option<Duration>) -> Result<usize, Lost> {
        let begun = Instant::now();
        loop {
            if let Some(count) = self.try_recv(buffer, GLANCE)? {
                return Ok(count);
            }
            if patience.is_some_and(|patience| begun.elapsed() > patience) {
                return Err(Lost::Peer);
            }
        }
    }

    /// Says one reply. Boards find out at their next look whether anybody heard it.
    pub fn say(&self, reply: &str) -> Result<(), Lost> {
        if !self.has_power() {
            return Err(Lost::Power);
        }
        if is_ahead(self.stream()) {
            self.shared.mind(format!("a command came before {reply:?}"));
        }
        let _ = self.stream().write_all(format!("{reply}\r\n").as_bytes());
        // Whoever waits for a file looks again.
        self.shared.record.update(|_| ());
        Ok(())
    }

    /// The board forgets it, open.
    pub fn keep(mut self) {
        let stream = self.stream.take();
        self.shared.record.update(|record| record.kept.extend(stream));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take().filter(|_| !self.has_power()) else {
            return;
        };
        match self.shared.record.read(|record| record.leaves) {
            Leaves::Silence => self.shared.record.update(|record| record.kept.push(stream)),
            Leaves::Resets => {
                let shared = Arc::clone(&self.shared);
                thread::spawn(move || {
                    // A board that is up again says nothing until it is spoken to.
                    stream.set_read_timeout(Some(GLANCE)).unwrap();
                    while !shared.record.read(|record| record.over)
                        && stream.peek(&mut [0]).is_err_and(|error| {
                            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                        })
                    {}
                    reset(&stream);
                });
            }
        }
    }
}
