//! Stands between `autoftp` and a real server, and does to them what networks, boards and servers
//! do.
//!
//! One thread serves one session after the other, as many boards do. Whatever is passed on to the
//! server has been carried out and answered before anything else happens, whoever gets to hear the
//! answer: what the server ends up with never hangs on which of two connections it reads first.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::journal::Journal;
use super::random::Random;
use super::support::server::bind_again;

/// How long to wait for those who always answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was written longer ago survives a crash of the server.
const FLUSHED: Duration = Duration::from_secs(30);

/// The commands that may get an answer out of place.
const REFUSED: [&str; 12] =
    ["PASV", "EPSV", "STOR", "SIZE", "MKD", "NOOP", "RNFR", "RNTO", "DELE", "TYPE", "PWD", "USER"];

/// These answers; the last one is none.
const REFUSALS: [&str; 10] = [
    "421 Too many sessions",
    "425 No data connection",
    "426 Connection closed",
    "450 File busy",
    "451 Local error",
    "452 No space left",
    "550 Failed",
    "552 Disk full",
    "400 Device busy.",
    "MicroPython v1.22.0 on 2023-12-27; type \"help()\" for more information.",
];

pub struct Relay {
    address: SocketAddr,
    switches: Arc<Switches>,
}

#[derive(Default)]
struct Switches {
    rages: AtomicBool,
    stopped: AtomicBool,
}

impl Relay {
    /// Passes everything on to `server`, which serves `root`; no faults yet.
    pub fn start(server: String, root: PathBuf, random: Random, journal: Journal) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay { address: listener.local_addr().unwrap(), switches: Arc::default() };
        let weather = Weather {
            server,
            root,
            random,
            journal,
            switches: Arc::clone(&relay.switches),
            held: Vec::new(),
            last_write: None,
            rename_from: None,
        };
        thread::spawn(move || weather.serve(listener));
        relay
    }

    /// As `autoftp` wants it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn rage(&self) {
        self.switches.rages.store(true, Ordering::Relaxed);
    }

    /// No more faults.
    pub fn calm(&self) {
        self.switches.rages.store(false, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.switches.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Reset,
    /// Half-open: nothing is ever heard of it again.
    Silent,
    /// The server crashes and comes back.
    Restart,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Closed
    }
}

/// What happens to a command.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The server never sees it; this is the answer.
    Answer(&'static str),
    /// The session ends, and the server never sees it.
    Before(End),
    /// The server has done it when the session ends, and nobody hears the answer.
    After(End),
    /// The answer comes late.
    Delay(Duration),
    /// STOR: 150, the data goes nowhere, then 550, as uftpd does.
    Refuse,
    /// STOR: the same, and then 226.
    Lie,
    /// STOR: this happens after so many bytes.
    Data(usize, DataFault),
}

#[derive(Clone, Copy, Debug)]
enum DataFault {
    /// The server gets no more, and takes it for the end of the file.
    Truncate,
    /// The data connection is closed, and the session goes on.
    Close,
    /// The data connection is reset, and the session goes on.
    Reset,
    /// Both connections end.
    End(End),
}

/// All that outlives a session.
struct Weather {
    server: String,
    root: PathBuf,
    random: Random,
    journal: Journal,
    switches: Arc<Switches>,
    /// The half-open connections. Closing them would say something.
    held: Vec<TcpStream>,
    /// What a crash may lose.
    last_write: Option<(PathBuf, Instant)>,
    rename_from: Option<PathBuf>,
}

impl Weather {
    fn serve(mut self, mut listener: TcpListener) {
        let address = listener.local_addr().unwrap();
        while let Ok((client, _)) = listener.accept() {
            if self.switches.stopped.load(Ordering::Relaxed) {
                return;
            }
            match Session::run(&mut self, &client) {
                End::Closed => {}
                End::Reset => reset(&client),
                End::Silent => self.held.push(client),
                End::Restart => {
                    drop(client);
                    drop(listener);
                    self.crash();
                    listener = bind_again(address);
                }
            }
        }
    }

    /// The server goes away and comes back. A store may not have reached its disk.
    fn crash(&mut self) {
        let last_write = self.last_write.take().filter(|(_, at)| at.elapsed() < FLUSHED);
        if let Some((path, _)) = last_write
            && self.random.percent(50)
        {
            // Only the size tells, so never to another content of the same length.
            let file = self.root.join(&path);
            let len = fs::metadata(&file).map_or(0, |metadata| metadata.len());
            let keep = self.random.pick(&[None, Some(len / 2), Some(0)]);
            let lost = match keep {
                None => fs::remove_file(file),
                Some(len) => File::options().write(true).open(file).and_then(|f| f.set_len(len)),
            };
            self.journal.warn(format!(
                "relay: FAULT the crash leaves {keep:?} of {len} bytes of {} ({lost:?})",
                path.display()
            ));
        }
        thread::sleep(Duration::from_millis(self.random.below(300) as u64));
    }

    fn fault(&mut self, verb: &str) -> Option<Fault> {
        if !self.switches.rages.load(Ordering::Relaxed) {
            return None;
        }
        // Of a thousand commands.
        Some(match self.random.below(1000) {
            0..25 if REFUSED.contains(&verb) => Fault::Answer(self.random.pick(&REFUSALS)),
            25..29 => Fault::Before(self.end()),
            29..33 => Fault::After(self.end()),
            33..60 => {
                let longest = if self.random.percent(5) { 300 } else { 50 };
                Fault::Delay(Duration::from_millis(self.random.within(1..longest) as u64))
            }
            60..70 if verb == "STOR" => Fault::Refuse,
            70..80 if verb == "STOR" => Fault::Lie,
            80..120 if verb == "STOR" => {
                // Files are small more often than not.
                let longest = 1 << self.random.below(18);
                Fault::Data(self.random.below(longest), self.data_fault())
            }
            _ => return None,
        })
    }

    fn data_fault(&mut self) -> DataFault {
        match self.random.below(8) {
            0..3 => DataFault::Truncate,
            3..5 => DataFault::Close,
            5..7 => DataFault::Reset,
            _ => DataFault::End(self.random.pick(&[End::Silent, End::Restart])),
        }
    }

    fn end(&mut self) -> End {
        match self.random.below(10) {
            0..3 => End::Closed,
            3..6 => End::Reset,
            6..8 => End::Silent,
            _ => End::Restart,
        }
    }

    /// Follows what the server holds.
    fn follow(&mut self, verb: &str, path: &str, reply: &str) {
        let path = relative(path);
        match verb {
            "STOR" if reply.starts_with('2') => self.last_write = Some((path, Instant::now())),
            "RNFR" => self.rename_from = Some(path),
            "RNTO" if reply.starts_with('2') => {
                if let Some(from) = self.rename_from.take()
                    && let Some((last, _)) = &mut self.last_write
                    && let Ok(rest) = last.strip_prefix(from)
                {
                    // Joining nothing would add a slash.
                    *last = path.components().chain(rest.components()).collect();
                }
            }
            _ => {}
        }
    }
}

struct Session<'a> {
    weather: &'a mut Weather,
    client: BufReader<&'a TcpStream>,
    server: BufReader<TcpStream>,
    passive: Option<Passive>,
}

/// Where the client will connect to, and the connection to where the server told it to.
struct Passive {
    listener: TcpListener,
    server: TcpStream,
}

impl Session<'_> {
    fn run(weather: &mut Weather, client: &TcpStream) -> End {
        let Ok(server) = connect(&weather.server) else {
            return End::Closed;
        };
        if client.set_nodelay(true).is_err() {
            return End::Closed;
        }
        let (client, server) = (BufReader::new(client), BufReader::new(server));
        let mut session = Session { weather, client, server, passive: None };
        let Err(end) = session.converse();
        // The server is through with this session before the next one begins.
        session.passive = None;
        let _ = session.server.get_ref().shutdown(Shutdown::Write);
        let _ = io::copy(&mut session.server, &mut io::sink());
        end
    }

    fn converse(&mut self) -> Result<Infallible, End> {
        let greeting = self.reply()?;
        self.say(&greeting)?;
        loop {
            let line = self.hear()?;
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let fault = self.weather.fault(verb);
            if let Some(fault) = &fault {
                self.weather.journal.warn(format!("relay: FAULT {fault:?} for {line}"));
            }
            match fault {
                Some(Fault::Answer(answer)) => self.say(answer)?,
                Some(Fault::Before(end)) => return Err(end),
                Some(Fault::Refuse) => self.swallow(argument, false)?,
                Some(Fault::Lie) => self.swallow(argument, true)?,
                _ => self.pass_on(&line, verb, argument, fault)?,
            }
        }
    }

    /// One command line; or the end, which may come while the session is idle.
    fn hear(&mut self) -> Result<String, End> {
        let rages = self.weather.switches.rages.load(Ordering::Relaxed);
        let strikes = rages && self.weather.random.percent(2);
        let patience = Duration::from_millis(self.weather.random.within(1..50) as u64);
        self.client.get_ref().set_read_timeout(strikes.then_some(patience))?;
        let mut line = String::new();
        match self.client.read_line(&mut line) {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
            // The data connection that waits for a file may be what ends.
            Err(_) if strikes && self.passive.is_some() && self.weather.random.percent(70) => {
                self.end_passive();
                self.hear()
            }
            Err(_) if strikes => {
                let end = self.weather.end();
                self.weather.journal.warn(format!("relay: FAULT {end:?} while idle"));
                if let End::Closed = end {
                    self.say("421 Timeout")?;
                }
                Err(end)
            }
            Err(_) => Err(End::Closed),
        }
    }

    fn say(&mut self, reply: &str) -> Result<(), End> {
        self.client.get_mut().write_all(format!("{reply}\r\n").as_bytes())?;
        if reply.starts_with("421") { Err(End::Closed) } else { Ok(()) }
    }

    /// The server's reply, of one line or several.
    fn reply(&mut self) -> io::Result<String> {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            if self.server.read_line(&mut reply)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = &reply.as_bytes()[start..];
            if line.iter().take(3).all(u8::is_ascii_digit) && line.get(3) != Some(&b'-') {
                return Ok(reply.trim_end().to_owned());
            }
        }
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.server.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    fn pass_on(
        &mut self,
        line: &str,
        verb: &str,
        argument: &str,
        fault: Option<Fault>,
    ) -> Result<(), End> {
        let mut reply = self.ask(line)?;
        let mut cut = Ok(());
        if reply.starts_with('1') {
            cut = self.say(&reply).and_then(|()| self.transfer(fault));
            // Ends the file, if it has no end yet.
            self.passive = None;
            reply = self.reply()?;
        } else if matches!(verb, "PASV" | "EPSV") && reply.starts_with('2') {
            reply = self.redirect(verb, &reply)?;
        }
        let note = format!("relay: {line} -> {reply}");
        match verb {
            "MKD" | "RMD" => self.weather.journal.warn(note),
            _ => self.weather.journal.note(note),
        }
        self.weather.follow(verb, argument, &reply);
        cut?;
        match fault {
            Some(Fault::After(end)) => return Err(end),
            Some(Fault::Delay(delay)) => thread::sleep(delay),
            _ => {}
        }
        self.say(&reply)
    }

    /// Puts a port of our own in place of the server's.
    fn redirect(&mut self, verb: &str, reply: &str) -> Result<String, End> {
        let numbers: Vec<u16> =
            reply[4..].split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect();
        let port = match (verb, numbers.as_slice()) {
            ("PASV", [_, _, _, _, high, low]) => high << 8 | low,
            ("EPSV", [port]) => *port,
            _ => return Err(End::Closed),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // For accept, where the system knows it.
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
        let ours = listener.local_addr()?.port();
        let mut server = self.server.get_ref().peer_addr()?;
        server.set_port(port);
        self.passive = Some(Passive { listener, server: connect(server)? });
        Ok(match verb {
            "PASV" => format!("227 Passive (127,0,0,1,{},{})", ours >> 8, ours & 0xff),
            _ => format!("229 Extended passive (|||{ours}|)"),
        })
    }

    /// Ends the client's data connection, or resets it. A server takes that for the end of a file.
    fn end_passive(&mut self) {
        let Some(Passive { listener, .. }) = self.passive.take() else {
            return;
        };
        let is_reset = self.weather.random.percent(50);
        let what = if is_reset { "reset" } else { "ended" };
        self.weather.journal.warn(format!("relay: FAULT the idle data connection is {what}"));
        if !is_reset {
            drop(listener.accept());
        }
    }

    /// Copies the file from the client to the server.
    fn transfer(&mut self, fault: Option<Fault>) -> Result<(), End> {
        let Some(Passive { listener, mut server }) = self.passive.take() else {
            return Ok(());
        };
        let (mut client, _) = listener.accept()?;
        client.set_read_timeout(Some(PATIENCE))?;
        let (mut left, fault) = match fault {
            Some(Fault::Data(count, fault)) => (count, Some(fault)),
            _ => (usize::MAX, None),
        };
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = client.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let passed = count.min(left);
            if server.write_all(&buffer[..passed]).is_err() {
                // It has refused the file, and will say so.
                reset(&client);
                return Ok(());
            }
            left -= passed;
            if passed < count {
                break;
            }
        }
        drop(server);
        match fault {
            Some(DataFault::Truncate) => drop(io::copy(&mut client, &mut io::sink())?),
            Some(DataFault::Reset) => reset(&client),
            Some(DataFault::End(end)) => {
                if let End::Silent = end {
                    self.weather.held.push(client);
                }
                return Err(end);
            }
            Some(DataFault::Close) | None => {}
        }
        Ok(())
    }

    /// Takes a file into nothing.
    fn swallow(&mut self, path: &str, lie: bool) -> Result<(), End> {
        let Some(Passive { listener, .. }) = self.passive.take() else {
            return self.say("425 No data connection");
        };
        self.say("150 Go on")?;
        let (mut client, _) = listener.accept()?;
        client.set_read_timeout(Some(PATIENCE))?;
        let taken = io::copy(&mut client, &mut io::sink())?;
        // Nobody could tell what it has from what it should have, if the size is the same.
        let has = fs::metadata(self.weather.root.join(relative(path))).map(|file| file.len());
        let caught =
            has.is_ok_and(|len| len != taken) || !self.weather.root.join(relative(path)).exists();
        self.say(if lie && caught { "226 Stored" } else { "550 Not stored" })
    }
}

fn connect(address: impl std::net::ToSocketAddrs) -> io::Result<TcpStream> {
    let server = TcpStream::connect(address)?;
    server.set_nodelay(true)?;
    server.set_read_timeout(Some(PATIENCE))?;
    Ok(server)
}

/// The peer gets a reset in place of a goodbye, when this is closed.
fn reset(connection: &TcpStream) {
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

/// A path on the server as one from its root: `/./-x.py` and `-x.py` are one file.
fn relative(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}
