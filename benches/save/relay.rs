//! A relay in front of an FTP server that is as far away as it is told to be, in user space.
//!
//! Everything that passes is delivered half a round trip after it set out, in both directions and
//! in order; how much is under way is not limited. Data ports that the server announces become ports
//! of the relay.
//!
//! A connection to the relay is there at once, where a real one takes a round trip of handshake.
//! That is charged: what the client sends within one round trip after it connected sets out only
//! when the handshake would have ended, on the new connection, and for a data connection so does
//! STOR on the control connection. Who waits for the handshake thus pays what it costs, one round
//! trip; who connected long before pays nothing; who asks for something else meanwhile is not held
//! up. Who would send STOR without waiting is charged too much. The server hears of a connection when the client's first word after the
//! handshake arrives, so that its greeting is there two round trips after the client began.
//!
//! The slow start of TCP is not part of it: on a real network, a file of more than ten segments
//! (about 14 kB) takes more round trips, with every tool.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::watched::Watched;

/// The threads that see a new connection and the words that follow it do not wake up in order: what
/// was said so shortly before the connection was seen was said after it was made.
const AT_ONCE: Duration = Duration::from_millis(2);

/// A line that a client said on a control connection.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    pub line: String,
}

/// What all connections share.
struct Shared {
    server: SocketAddr,
    /// In microseconds.
    round_trip: AtomicU64,
    heard: Watched<Vec<Heard>>,
}

impl Shared {
    fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
    }
}

/// Runs until the process ends.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// Leads to this server, without a delay at first.
    pub fn start(server: SocketAddr) -> io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { server, round_trip: AtomicU64::new(0), heard: Watched::default() });
        let all = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                pass(client, all.server, Role::Control, &Arc::default(), &all);
            }
        });
        Ok(Relay { address, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts for all that sets out from now on.
    pub fn set_round_trip(&self, round_trip: Duration) {
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.shared.round_trip.store(micros, Ordering::Relaxed);
    }

    /// What clients have said on control connections since then.
    pub fn heard_since(&self, since: Instant) -> Vec<Heard> {
        self.shared.heard.read(|heard| {
            let first = heard.partition_point(|heard| heard.at < since);
            heard[first..].to_vec()
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Control,
    Data,
}

/// The handshakes that would be under way, as begun and ended.
#[derive(Default)]
struct Handshakes(Mutex<Vec<(Instant, Instant)>>);

impl Handshakes {
    fn add(&self, begun: Instant, ended: Instant) {
        let mut all = self.0.lock().unwrap();
        all.retain(|(_, ended)| ended.elapsed() < Duration::from_secs(1));
        all.push((begun, ended));
    }

    /// When something set out that was sent at this time.
    fn set_out(&self, sent: Instant) -> Instant {
        let all = self.0.lock().unwrap();
        let waited_for = all.iter().filter(|(begun, _)| *begun <= sent + AT_ONCE);
        waited_for.map(|(_, ended)| *ended).fold(sent, Instant::max)
    }
}

/// Something that is under way.
struct Parcel {
    sent: Instant,
    takes: Duration,
    /// `None` is the end of what is sent.
    bytes: Option<Vec<u8>>,
}

/// Passes a client's new connection on. `control` are the handshakes that its control connection
/// waits for.
fn pass(
    client: TcpStream,
    server: SocketAddr,
    role: Role,
    control: &Arc<Handshakes>,
    shared: &Arc<Shared>,
) {
    let begun = Instant::now();
    let round_trip = shared.round_trip();
    let established = begun + round_trip;
    control.add(begun, established);
    let handshakes = match role {
        Role::Control => Arc::clone(control),
        Role::Data => {
            let own = Handshakes::default();
            own.add(begun, established);
            Arc::new(own)
        }
    };
    let (control, shared) = (Arc::clone(control), Arc::clone(shared));
    thread::spawn(move || -> io::Result<()> {
        client.set_nodelay(true)?;
        let (parcels, queue) = mpsc::channel();
        let (from, all) = (client.try_clone()?, Arc::clone(&shared));
        thread::spawn(move || collect_from_client(&from, &parcels, role, &all));
        sleep_until(established + round_trip / 2);
        let upstream = TcpStream::connect(server).inspect_err(|_| {
            let _ = client.shutdown(Shutdown::Both);
        })?;
        upstream.set_nodelay(true)?;
        let from = upstream.try_clone()?;
        let (parcels, replies) = mpsc::channel();
        thread::spawn(move || collect_from_server(&from, &parcels, role, &control, &shared));
        thread::spawn(move || deliver(&replies, &client, &|sent, _| sent));
        let waits = |bytes: &[u8]| role == Role::Data || bytes.starts_with(b"STOR ");
        deliver(&queue, &upstream, &|sent, bytes| match bytes {
            Some(bytes) if !waits(bytes) => sent,
            _ => handshakes.set_out(sent),
        });
        Ok(())
    });
}

fn collect_from_client(from: &TcpStream, parcels: &Sender<Parcel>, role: Role, shared: &Shared) {
    let mut lines = Lines::default();
    collect(from, parcels, shared, |bytes| {
        if role == Role::Control {
            let at = Instant::now();
            for line in lines.complete(&bytes) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                shared.heard.update(|heard| heard.push(Heard { at, line }));
            }
        }
        bytes
    });
}

fn collect_from_server(
    from: &TcpStream,
    parcels: &Sender<Parcel>,
    role: Role,
    control: &Arc<Handshakes>,
    shared: &Arc<Shared>,
) {
    let mut lines = Lines::default();
    collect(from, parcels, shared, |bytes| match role {
        Role::Data => bytes,
        Role::Control => {
            let rewritten = |line| announced(line, |port| open_data_port(port, control, shared));
            lines.complete(&bytes).into_iter().flat_map(rewritten).collect()
        }
    });
}

/// Sends off whatever comes, as `change` makes it, up to the end.
fn collect(
    mut from: &TcpStream,
    parcels: &Sender<Parcel>,
    shared: &Shared,
    mut change: impl FnMut(Vec<u8>) -> Vec<u8>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        let (sent, takes) = (Instant::now(), shared.round_trip() / 2);
        let bytes = (count > 0).then(|| change(buffer[..count].to_vec()));
        if parcels.send(Parcel { sent, takes, bytes }).is_err() || count == 0 {
            return;
        }
    }
}

/// Hands over what has been under way for long enough; `set_out` tells since when.
fn deliver(
    queue: &Receiver<Parcel>,
    mut to: &TcpStream,
    set_out: &dyn Fn(Instant, Option<&[u8]>) -> Instant,
) {
    for Parcel { sent, takes, bytes } in queue {
        // Meanwhile a handshake may have turned out to be in the way.
        while !sleep_until(set_out(sent, bytes.as_deref()) + takes) {}
        let delivered = match bytes {
            Some(bytes) => to.write_all(&bytes),
            None => to.shutdown(Shutdown::Write),
        };
        if delivered.is_err() {
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Returns whether it was that late already.
fn sleep_until(due: Instant) -> bool {
    let left = due.saturating_duration_since(Instant::now());
    thread::sleep(left);
    left.is_zero()
}

/// Opens a port that leads to this port of the server; returns its number.
fn open_data_port(port: u16, control: &Arc<Handshakes>, shared: &Arc<Shared>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let own_port = listener.local_addr().unwrap().port();
    let (control, shared) = (Arc::clone(control), Arc::clone(shared));
    thread::spawn(move || {
        if let Ok((client, _)) = listener.accept() {
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            pass(client, server, Role::Data, &control, &shared);
        }
    });
    own_port
}

/// A reply's line, with a port of ours in place of the one that it announces. What cannot be
/// rewritten would lead past the relay, so it must not happen.
fn announced(line: Vec<u8>, open: impl FnOnce(u16) -> u16) -> Vec<u8> {
    if !line.starts_with(b"227 ") && !line.starts_with(b"229 ") {
        return line;
    }
    let text = String::from_utf8_lossy(&line);
    let diverted = diverted(&text, open);
    diverted.unwrap_or_else(|| panic!("no port is announced in {text:?}")).into_bytes()
}

/// The same for `227 ... (127,0,0,1,high,low)` and `229 ... (|||port|)`.
fn diverted(line: &str, open: impl FnOnce(u16) -> u16) -> Option<String> {
    let (start, rest) = line.split_once('(')?;
    let (inside, end) = rest.split_once(')')?;
    let inside = if let Some(port) = inside.strip_prefix("|||") {
        format!("|||{}|", open(port.strip_suffix('|')?.parse().ok()?))
    } else {
        let (high, low) = inside.strip_prefix("127,0,0,1,")?.split_once(',')?;
        let [high, low] =
            open(u16::from_be_bytes([high.parse().ok()?, low.parse().ok()?])).to_be_bytes();
        format!("127,0,0,1,{high},{low}")
    };
    Some(format!("{start}({inside}){end}"))
}

/// Puts lines together.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are complete with these bytes, each with its end.
    fn complete(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let complete: Vec<u8> = self.rest.drain(..end).collect();
        complete.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }
}
