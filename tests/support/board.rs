//! The FTP servers of MicroPython boards, answering as the real ones were measured to: the same
//! words, the same order, the same faults. They keep what they are sent in a directory.
//!
//! What makes a real board misbehave does so here, too, and fails the test at its end.

mod ftpdlite;
mod link;
mod uftpd;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;
use tempfile::TempDir;

use super::log::Log;
use super::server::bind_again;
use super::watched::Watched;
use ftpdlite::FtpdLite;
use link::{Link, Lost};
use uftpd::Uftpd;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Uftpd(uftpd::Port),
    FtpdLite(ftpdlite::Class),
}

/// What a client notices of the connections it had when a board lost its power.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Leaves {
    /// The board is up again: it answers what comes on them with a reset.
    #[default]
    Resets,
    /// Nothing ever again.
    Silence,
}

#[derive(Default)]
struct Record {
    log: Log,
    /// How often the power was lost: connections of before belong to nobody.
    outages: usize,
    leaves: Leaves,
    off: bool,
    /// The test is over.
    over: bool,
    /// How many more bytes the disk takes.
    room: Option<usize>,
    /// How long the flash takes for each piece that is written.
    flash: Duration,
    /// How much of the uploads has been written, in bytes.
    written: usize,
    /// uftpd: so many commands more that begin like this are answered `400 Device busy.`
    busy: (usize, String),
    /// uftpd: what the board's Python raises an exception over.
    raises: Vec<String>,
    /// FTPdLite: the addresses that it believes to have a session.
    places: Vec<IpAddr>,
    /// FTPdLite: how many PASV there were, and which ports out of 255 are never closed.
    passive: usize,
    leaked: HashSet<usize>,
    /// What the board forgets to close.
    kept: Vec<TcpStream>,
    kept_listeners: Vec<TcpListener>,
}

impl AsRef<Log> for Record {
    fn as_ref(&self) -> &Log {
        &self.log
    }
}

/// What all sessions of a board share.
struct Shared {
    root: TempDir,
    record: Watched<Record>,
    /// uftpd: one command at a time runs, whoever's it is.
    processor: Mutex<()>,
    /// uftpd: the one listener for everybody's data connections.
    data: Mutex<Option<TcpListener>>,
}

pub struct Board {
    kind: Kind,
    address: SocketAddr,
    data_address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Board {
    /// uftpd on lwIP as it is on most boards.
    pub fn uftpd() -> Board {
        Board::start(Kind::Uftpd(uftpd::Port::Lwip))
    }

    /// uftpd on an ESP32: slower, and busy while it serves somebody else.
    pub fn uftpd_on_esp32() -> Board {
        Board::start(Kind::Uftpd(uftpd::Port::Esp32))
    }

    /// FTPdLite's class `FTPd`, without accounts: only `ftpadmin` may write.
    pub fn ftpdlite() -> Board {
        Board::start(Kind::FtpdLite(ftpdlite::Class::Full { account: None }))
    }

    /// The same with one account, who may write.
    pub fn ftpdlite_for(user: &'static str, password: &'static str) -> Board {
        Board::start(Kind::FtpdLite(ftpdlite::Class::Full { account: Some((user, password)) }))
    }

    /// FTPdLite's class `FTPdLite`, which knows only the least.
    pub fn ftpdlite_minimal() -> Board {
        Board::start(Kind::FtpdLite(ftpdlite::Class::Minimal))
    }

    fn start(kind: Kind) -> Board {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (listener, data) = (listen(), listen());
        let mut board = Board {
            kind,
            address: listener.local_addr().unwrap(),
            data_address: data.local_addr().unwrap(),
            shared: Arc::new(Shared {
                root: TempDir::with_prefix("autoftp-board-").unwrap(),
                record: Watched::default(),
                processor: Mutex::default(),
                data: Mutex::default(),
            }),
            thread: None,
        };
        board.serve(listener, data);
        board
    }

    /// As `autoftp` wants it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The power fails for a moment: nothing that was open is served any more, and new sessions
    /// are, at once.
    pub fn lose_power(&self, leaves: Leaves) {
        self.shared.lose_power(leaves);
    }

    /// The power fails and stays away.
    pub fn turn_off(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.lose_power(Leaves::Resets);
        self.shared.record.update(|record| record.off = true);
        self.shared.data.lock().unwrap().take();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        thread.join().unwrap();
    }

    pub fn turn_on(&mut self) {
        let data = bind_again(self.data_address);
        self.serve(bind_again(self.address), data);
    }

    /// The disk takes so many bytes more and then no others, or as many as come.
    pub fn has_room(&self, bytes: Option<usize>) {
        self.shared.record.update(|record| record.room = bytes);
    }

    /// Writing to the flash takes so long for each piece (512 or 1024 bytes).
    pub fn writes_slowly(&self, each: Duration) {
        self.shared.record.update(|record| record.flash = each);
    }

    /// uftpd: the next commands that begin like this are answered `400 Device busy.`
    pub fn is_busy(&self, times: usize, starts: &str) {
        self.shared.record.update(|record| record.busy = (times, starts.to_owned()));
    }

    /// uftpd: a remote command that contains this raises an exception.
    pub fn raises_over(&self, code: &str) {
        self.shared.record.update(|record| record.raises.push(code.to_owned()));
    }

    /// Somebody else makes a file or a directory there.
    pub fn root(&self) -> &Path {
        self.shared.root.path()
    }

    /// What is there under this path.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.root().join(path)).ok()
    }

    /// Waits until this is there under this path, and whoever sent it has been told.
    pub fn wait_file(&self, path: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        let came = self
            .shared
            .record
            .wait(|_| self.file(path).is_some_and(|bytes| bytes == content).then_some(()));
        assert!(came.is_some(), "{path} is not there as it should be");
    }

    /// Waits until nothing is there under this path.
    pub fn wait_gone(&self, path: &str) {
        let is_gone = || !self.root().join(path).exists();
        let gone = self.shared.record.wait(|_| is_gone().then_some(()));
        assert!(gone.is_some(), "{path} is still there");
    }

    /// Waits until so much of all uploads has been written.
    pub fn wait_written(&self, bytes: usize) {
        let came = self.shared.record.wait(|record| (record.written >= bytes).then_some(()));
        assert!(came.is_some(), "no {bytes} bytes were written");
    }

    pub fn sessions(&self) -> usize {
        self.shared.record.sessions()
    }

    /// See [`Watched::commands`], and so on.
    pub fn commands(&self, starts: &str) -> Vec<String> {
        self.shared.record.commands(starts)
    }

    pub fn wait_commands(&self, times: usize, starts: &str) {
        self.shared.record.wait_commands(times, starts);
    }

    pub fn stored(&self) -> Vec<(String, String)> {
        self.shared.record.stored()
    }

    pub fn wait_stored(&self, path: &str, content: impl AsRef<[u8]>) {
        self.shared.record.wait_stored(path, content);
    }

    fn serve(&mut self, listener: TcpListener, data: TcpListener) {
        let (kind, shared) = (self.kind, Arc::clone(&self.shared));
        if let Kind::Uftpd(_) = kind {
            for listener in [&listener, &data] {
                SockRef::from(listener).listen(1).unwrap();
            }
            data.set_nonblocking(true).unwrap();
            *shared.data.lock().unwrap() = Some(data);
        }
        shared.record.update(|record| record.off = false);
        self.thread = Some(thread::spawn(move || {
            while let Ok((control, peer)) = listener.accept() {
                if shared.record.read(|record| record.off) {
                    return;
                }
                shared.record.update(|record| record.log.sessions += 1);
                let control = Link::new(control, &shared);
                thread::spawn(move || match kind {
                    Kind::Uftpd(port) => Uftpd::new(control, port).serve(),
                    Kind::FtpdLite(class) => FtpdLite::new(control, peer.ip(), class).serve(),
                });
            }
        }));
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.shared.record.update(|record| record.over = true);
        self.turn_off();
        self.shared.record.judge(self.address);
    }
}

impl Shared {
    fn lose_power(&self, leaves: Leaves) {
        self.record.update(|record| {
            record.outages += 1;
            record.leaves = leaves;
            record.busy.0 = 0;
            record.places.clear();
            record.leaked.clear();
            record.kept_listeners.clear();
        });
    }

    /// What a client did that it must not do to a board.
    fn mind(&self, offence: String) {
        self.record.update(|record| record.log.offences.push(offence));
    }

    /// A board's path, which begins with a slash, on this computer.
    fn on_disk(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// SIZE of whatever has this name: a directory has one, too.
    fn size(&self, path: &str) -> Option<u64> {
        let metadata = fs::metadata(self.on_disk(path)).ok()?;
        Some(match path {
            "/" => 0,
            _ if metadata.is_dir() => 4096,
            _ => metadata.len(),
        })
    }

    /// Copies a data connection to a file in pieces; whether it was taken whole. With `patience`, the
    /// peer may be silent for so long.
    fn save(
        &self,
        path: &str,
        append: bool,
        data: &Link,
        piece: usize,
        patience: Option<Duration>,
    ) -> Result<bool, Lost> {
        let mut options = File::options();
        options.create(true).write(true).append(append).truncate(!append);
        let Ok(mut file) = options.open(self.on_disk(path)) else {
            return Ok(false);
        };
        let mut all = Vec::new();
        let mut buffer = vec![0; piece];
        loop {
            match data.recv(&mut buffer, patience) {
                Ok(0) => break,
                Ok(count) => {
                    thread::sleep(self.record.read(|record| record.flash));
                    let fits = self.record.update(|record| {
                        let fits = record.room.map_or(count, |room| room.min(count));
                        record.room = record.room.map(|room| room - fits);
                        record.written += fits;
                        fits
                    });
                    file.write_all(&buffer[..fits]).unwrap();
                    all.extend_from_slice(&buffer[..fits]);
                    if fits < count {
                        return Ok(false);
                    }
                }
                Err(Lost::Peer) => return Ok(false),
                Err(Lost::Power) => return Err(Lost::Power),
            }
        }
        let name = path.trim_start_matches('/').to_owned();
        self.record.update(|record| record.log.stored.push((name, all)));
        Ok(true)
    }
}
