//! A small FTP server that writes down all it hears and misbehaves as told, the way boards and
//! broken networks do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::log::{Log, text};
use super::server::bind_again;
use super::socket::{is_ahead, peek, reset};
use super::watched::Watched;

/// What the server does in place of, or on top of, the right thing.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Answers this and does nothing.
    Reply(&'static str),
    /// Does as asked and answers this; `{p1},{p2}` becomes the data port.
    Say(&'static str),
    /// STOR: says 150, takes the data to its end, keeps nothing and answers this.
    TakeThen(&'static str),
    /// STOR: says 150, drops the data connection unread and answers this.
    DropThen(&'static str),
    /// Closes the control connection.
    Close,
    /// Resets the control connection.
    Reset,
    /// STOR: says 150, resets both connections.
    CutData,
    /// Answers nothing more, and leaves the connection open.
    Silence,
    /// Sends exactly this and does nothing.
    Bytes(&'static [u8]),
    /// Sends this again and again, a gigabyte of it, and is silent then.
    Flood(&'static str),
    /// Sends this again and again, one byte every 50 ms.
    Drip(&'static str),
    /// Does as asked, answers, and says this unasked at the same moment.
    Babble(&'static str),
    /// Does as asked, but keeps the last reply back until [`Scripted::release`].
    Hold,
    /// STOR: keeps only half of the data, and answers 226 all the same.
    Truncate,
    /// STOR: takes the data, and resets its connection in place of closing it.
    ResetData,
    /// STOR: takes the data slowly.
    Crawl,
    /// PASV: opens the port of the one before once more.
    SamePort,
    /// Does as asked, and answers so much later. At `150`, it first takes what data there is, until
    /// nothing comes for so long: see [`Scripted::early`].
    Late(Duration),
}

/// How this server differs from the plain one: anonymous, and a refused STOR is 550 at once.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// The only user and password that may log in.
    pub account: Option<(&'static str, &'static str)>,
    /// What STOR does where the file's directory does not exist.
    pub missing_directory: Act,
    /// A second session gets 421 while the first one lives.
    pub one_session: bool,
    /// What RNTO to a name that is taken is answered; without it, the file there is replaced.
    pub rename_over: Option<&'static str>,
    /// It watches its data connections until STOR comes, which has to be first (pyftpdlib), and
    /// ends the session over a port that nobody has connected to for so long (the same).
    pub watches: Option<Duration>,
    /// One data port for all sessions: a file gets the connection that has waited there longest,
    /// whoever made it (uftpd).
    pub one_port: bool,
}

impl Dialect {
    pub const PLAIN: Dialect = Dialect {
        account: None,
        missing_directory: Act::Reply("550 No such directory"),
        one_session: false,
        rename_over: None,
        watches: None,
        one_port: false,
    };

    /// It minds what cannot be seen on the wire of an ordinary one. A loaded machine connects within
    /// a second.
    pub const WATCHFUL: Dialect =
        Dialect { watches: Some(Duration::from_secs(1)), ..Dialect::PLAIN };
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect::PLAIN
    }
}

/// `starts` is compared with the beginning of the command line; a new connection is the command
/// `greeting`, and the two answers to STOR are `150` and `226`.
struct Rule {
    starts: String,
    times: usize,
    act: Act,
}

#[derive(Default)]
struct Record {
    /// Its offences are what no client may do to a board: two commands in flight, or one in
    /// pieces, or an RNTO that does not follow a good RNFR.
    log: Log,
    open_sessions: usize,
    directories: BTreeSet<String>,
    /// What it holds now.
    files: BTreeMap<String, Vec<u8>>,
    /// Every state that a file was in, in order; `None` is gone.
    history: Vec<(String, Option<Vec<u8>>)>,
    rules: Vec<Rule>,
    /// How many bytes of each file came before a late 150.
    early: Vec<(String, usize)>,
    /// How many bytes came for each STOR that was refused.
    wasted: Vec<usize>,
    /// How many data connections came before their STOR, and how many of these ended before it.
    ahead: usize,
    given_up: usize,
    /// The one that waits is to end: with a reset?
    cut: Option<bool>,
    released: bool,
    stopped: bool,
    connections: Vec<Weak<TcpStream>>,
}

impl AsRef<Log> for Record {
    fn as_ref(&self) -> &Log {
        &self.log
    }
}

impl Record {
    /// All that ever happens to a file.
    fn change(&mut self, path: &str, bytes: Option<Vec<u8>>) {
        match &bytes {
            Some(bytes) => drop(self.files.insert(path.to_owned(), bytes.clone())),
            None => drop(self.files.remove(path)),
        }
        self.history.push((path.to_owned(), bytes));
    }

    fn is_empty_directory(&self, path: &str) -> bool {
        let within = |other: &String| parent(other) == path;
        self.directories.contains(path)
            && !self.directories.iter().any(within)
            && !self.files.keys().any(within)
    }
}

pub struct Scripted {
    address: SocketAddr,
    dialect: Dialect,
    record: Arc<Watched<Record>>,
    /// The one of [`Dialect::one_port`].
    port: Option<Arc<TcpListener>>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub fn start() -> Scripted {
        Scripted::with(Dialect::default())
    }

    pub fn with(dialect: Dialect) -> Scripted {
        Scripted::listen(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), dialect)
    }

    pub fn listen(listener: TcpListener, dialect: Dialect) -> Scripted {
        let address = listener.local_addr().unwrap();
        let port = dialect.one_port.then(|| listen_beside(address));
        let record = Arc::default();
        let mut server = Scripted { address, dialect, record, port, thread: None };
        server.serve(listener);
        server
    }

    /// As `autoftp` wants it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on, commands that start like this get this answer. The latest rule that fits wins.
    pub fn on(&self, starts: &str, act: Act) {
        self.times(usize::MAX, starts, act);
    }

    /// The same, but only so often.
    pub fn times(&self, times: usize, starts: &str, act: Act) {
        self.record.update(|record| {
            record.rules.push(Rule { starts: starts.to_owned(), times, act });
        });
    }

    /// Ends every rule.
    pub fn behave(&self) {
        self.record.update(|record| record.rules.clear());
    }

    /// Lets go of what [`Act::Hold`] holds, now and later.
    pub fn release(&self) {
        self.record.update(|record| record.released = true);
    }

    /// Forgets what clients have done that no client may do.
    pub fn forgive(&self) {
        self.record.update(|record| record.log.offences.clear());
    }

    pub fn make_directory(&self, path: &str) {
        self.record.update(|record| record.directories.insert(path.to_owned()));
    }

    pub fn directories(&self) -> Vec<String> {
        self.record.read(|record| record.directories.iter().cloned().collect())
    }

    /// Somebody else puts a file there, where its directory is.
    pub fn put(&self, path: &str, content: &str) {
        self.record.update(|record| record.change(path, Some(content.into())));
    }

    /// Somebody else removes a file there, or a power cut undoes it.
    pub fn lose(&self, path: &str) {
        self.record.update(|record| record.change(path, None));
    }

    /// What it holds, sorted by path.
    pub fn files(&self) -> Vec<(String, String)> {
        self.record.read(|record| {
            let files = record.files.iter();
            files.map(|(path, bytes)| (path.clone(), text(bytes))).collect()
        })
    }

    /// Every content that a path ever had there, in order; `None` where it was gone again.
    pub fn history(&self, path: &str) -> Vec<Option<String>> {
        self.record.read(|record| {
            let states = record.history.iter().filter(|(name, _)| name == path);
            states.map(|(_, bytes)| bytes.as_deref().map(text)).collect()
        })
    }

    /// Waits until it holds this content under this path.
    pub fn wait_file(&self, path: &str, content: &str) {
        let is_there = |record: &Record| {
            (record.files.get(path).is_some_and(|bytes| bytes == content.as_bytes())).then_some(())
        };
        let came = self.record.wait(is_there);
        assert!(came.is_some(), "{path} is not {content:?}; there are {:?}", self.files());
    }

    /// Waits until it holds nothing under this path.
    pub fn wait_no_file(&self, path: &str) {
        let gone = self.record.wait(|record| (!record.files.contains_key(path)).then_some(()));
        assert!(gone.is_some(), "{path} is still there");
    }

    /// How many bytes of each file came before a late 150, in order.
    pub fn early(&self) -> Vec<(String, usize)> {
        self.record.read(|record| record.early.clone())
    }

    /// A watchful server: how many bytes came for each STOR that was refused.
    pub fn wasted(&self) -> Vec<usize> {
        self.record.read(|record| record.wasted.clone())
    }

    /// A watchful server: waits until so many data connections have come before their STOR.
    pub fn wait_ahead(&self, times: usize) {
        let came = self.record.wait(|record| (record.ahead >= times).then_some(()));
        let ahead = self.ahead();
        assert!(came.is_some(), "{times} data connections did not come ahead, but {ahead}");
    }

    pub fn ahead(&self) -> usize {
        self.record.read(|record| record.ahead)
    }

    /// How many of them the client has ended without a STOR.
    pub fn given_up(&self) -> usize {
        self.record.read(|record| record.given_up)
    }

    /// A watchful server: ends the data connection that waits for its STOR, or resets it.
    pub fn cut_ahead(&self, with_reset: bool) {
        self.record.update(|record| record.cut = Some(with_reset));
        let cut = self.record.wait(|record| record.cut.is_none().then_some(()));
        assert!(cut.is_some(), "no data connection waits");
    }

    pub fn sessions(&self) -> usize {
        self.record.sessions()
    }

    pub fn wait_sessions(&self, times: usize) {
        self.record.wait_sessions(times);
    }

    /// See [`Watched::commands`], and so on.
    pub fn commands(&self, starts: &str) -> Vec<String> {
        self.record.commands(starts)
    }

    pub fn stored(&self) -> Vec<(String, String)> {
        self.record.stored()
    }

    pub fn wait_any_stored(&self, path: &str) -> bool {
        self.record.wait_any_stored(path)
    }

    pub fn wait_stored(&self, path: &str, content: impl AsRef<[u8]>) {
        self.record.wait_stored(path, content);
    }

    pub fn wait_commands(&self, times: usize, starts: &str) {
        self.record.wait_commands(times, starts);
    }

    /// Cuts every connection and refuses new ones.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.record.update(|record| record.stopped = true);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        thread.join().unwrap();
        let connections = self.record.update(|record| std::mem::take(&mut record.connections));
        for connection in connections.iter().filter_map(Weak::upgrade) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Serves again, on the same port, with the same rules.
    pub fn restart(&mut self) {
        self.stop();
        self.record.update(|record| record.stopped = false);
        self.serve(bind_again(self.address));
    }

    fn serve(&mut self, listener: TcpListener) {
        let (dialect, record, port) = (self.dialect, Arc::clone(&self.record), self.port.clone());
        self.thread = Some(thread::spawn(move || {
            while let Ok((control, _)) = listener.accept() {
                if record.read(|record| record.stopped) {
                    return;
                }
                let control = track(&record, control);
                let mut session = Session::new(control, dialect, Arc::clone(&record));
                session.port.clone_from(&port);
                thread::spawn(move || {
                    session.serve();
                    session.record.update(|record| record.open_sessions -= 1);
                });
            }
        }));
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop();
        self.record.judge(self.address);
    }
}

fn listen_beside(address: SocketAddr) -> Arc<TcpListener> {
    Arc::new(TcpListener::bind((address.ip(), 0)).unwrap())
}

fn track(record: &Watched<Record>, connection: TcpStream) -> Arc<TcpStream> {
    connection.set_nodelay(true).unwrap();
    let connection = Arc::new(connection);
    record.update(|record| record.connections.push(Arc::downgrade(&connection)));
    connection
}

/// So long after it came, the client has seen it stand: one that ends before is a refusal.
const STANDS: Duration = Duration::from_millis(100);

struct Session {
    control: Arc<TcpStream>,
    dialect: Dialect,
    record: Arc<Watched<Record>>,
    port: Option<Arc<TcpListener>>,
    passive: Option<Arc<TcpListener>>,
    /// The listener of the PASV before.
    last_passive: Option<Arc<TcpListener>>,
    /// The data connection that came before its STOR.
    ahead: Option<Arc<TcpStream>>,
    /// When.
    ahead_since: Instant,
    /// What came from it before STOR, or that STOR has come, was noted.
    is_noted: bool,
    /// Where the client awaits the data connection.
    active: Option<SocketAddr>,
    directory: String,
    user: String,
    logged_in: bool,
    /// What a good RNFR named, for the RNTO that has to be next.
    renaming: Option<String>,
}

/// The session is over.
struct Over;

impl Session {
    fn new(control: Arc<TcpStream>, dialect: Dialect, record: Arc<Watched<Record>>) -> Session {
        record.update(|record| {
            record.log.sessions += 1;
            record.open_sessions += 1;
        });
        let (directory, user) = (String::new(), String::new());
        Session {
            control,
            dialect,
            record,
            port: None,
            passive: None,
            last_passive: None,
            ahead: None,
            ahead_since: Instant::now(),
            is_noted: false,
            active: None,
            directory,
            user,
            logged_in: false,
            renaming: None,
        }
    }

    fn serve(&mut self) {
        let full = self.dialect.one_session && self.record.read(|record| record.open_sessions > 1);
        let greeting = match self.dialect.watches {
            _ if full => "421 Another session is open",
            // Known to open a port for each transfer.
            Some(_) if !self.dialect.one_port => "220 pyftpdlib 2.2.0 ready.",
            _ => "220 Scripted",
        };
        let mut going = self.obey("greeting", greeting);
        while going.is_ok() && !full {
            let Some(line) = self.hear() else { return };
            self.record.update(|record| record.log.commands.push(line.clone()));
            going = self.obey(&line, "");
        }
    }

    /// One command; it must come as one segment, and nothing behind it.
    fn hear(&mut self) -> Option<String> {
        if let Some(patience) = self.dialect.watches {
            self.watch(patience).ok()?;
        }
        let mut buffer = [0; 8192];
        let count = (&*self.control).read(&mut buffer).ok().filter(|count| *count > 0)?;
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        match text.strip_suffix("\r\n") {
            Some(line) if !line.contains(['\r', '\n']) => Some(line.to_owned()),
            _ => {
                self.record.update(|record| {
                    record.log.offences.push(format!("not one command: {text:?}"));
                });
                None
            }
        }
    }

    /// Minds the data connection that is to be, until there is a command.
    fn watch(&mut self, patience: Duration) -> Result<(), Over> {
        let begun = Instant::now();
        loop {
            self.accept_ahead();
            // In this order: what has come before a command that has not come was sent before it.
            let seen = self.ahead.as_ref().filter(|_| !self.is_noted).and_then(|data| peek(data));
            if peek(&self.control).is_some() {
                self.accept_ahead();
                return Ok(());
            }
            let is_awaited = self.passive.is_some() && self.ahead.is_none() && !self.is_noted;
            if let Some(count) = seen {
                self.is_noted = true;
                self.record.update(|record| match count {
                    0 => record.given_up += 1,
                    _ => record.log.offences.push("data came before STOR".to_owned()),
                });
            } else if is_awaited && begun.elapsed() > patience {
                self.record.update(|record| {
                    let offence = "nobody connects to the port of a PASV".to_owned();
                    record.log.offences.push(offence);
                });
                return self.say("421 Passive data channel timed out");
            } else if let Some(data) = self.ahead.as_ref().filter(|_| !self.is_noted)
                && self.ahead_since.elapsed() > STANDS
                && let Some(with_reset) = self.record.update(|record| record.cut.take())
            {
                if with_reset {
                    reset(data);
                }
                (self.ahead, self.passive) = (None, None);
            }
            // Little enough to catch the order of two writes now and then.
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn accept_ahead(&mut self) {
        let is_due = self.ahead.is_none() && !self.is_noted;
        let Some(listener) = self.passive.as_ref().filter(|_| is_due) else { return };
        listener.set_nonblocking(true).unwrap();
        if let Ok((data, _)) = listener.accept() {
            data.set_nonblocking(false).unwrap();
            self.ahead = Some(track(&self.record, data));
            self.ahead_since = Instant::now();
            self.record.update(|record| record.ahead += 1);
        }
        listener.set_nonblocking(false).unwrap();
    }

    fn rule(&self, line: &str) -> Option<Act> {
        self.record.update(|record| {
            let rule = record
                .rules
                .iter_mut()
                .rev()
                .find(|rule| rule.times > 0 && line.starts_with(&rule.starts))?;
            rule.times -= 1;
            Some(rule.act)
        })
    }

    /// Does what the line asks, or what the rules say instead. `greeting` is the one line with an
    /// answer of its own.
    fn obey(&mut self, line: &str, greeting: &str) -> Result<(), Over> {
        let act = self.rule(line);
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        // FTPdLite ends the session over an RNTO that it does not expect.
        if (verb == "RNTO") != self.renaming.is_some() {
            self.record.update(|record| {
                record.log.offences.push(format!("{line:?} after RNFR {:?}", self.renaming));
            });
        }
        let renaming = self.renaming.take();
        if verb == "STOR" {
            // One that ended before is no empty file.
            if self.ahead.as_ref().is_some_and(|_| self.is_noted) {
                let offence = format!("{line:?} over a data connection that was given up or used");
                self.record.update(|record| record.log.offences.push(offence));
            }
            self.is_noted = true;
        }
        if !matches!(act, Some(Act::SamePort)) && verb == "PASV" {
            self.last_passive = None;
        }
        if let Some(result) = act.and_then(|act| self.instead(act)) {
            return result;
        }
        let reply = if verb == "STOR" {
            self.store(argument, act)?
        } else if verb == "greeting" {
            greeting.to_owned()
        } else if verb == "RNTO" {
            self.rename(renaming, argument).to_owned()
        } else {
            self.answer(verb, argument)
        };
        if let Some(Act::Hold) = act {
            self.record.wait(|record| (record.released || record.stopped).then_some(()));
        }
        if let Some(Act::Late(delay)) = act {
            thread::sleep(delay);
        }
        let reply = match act {
            Some(Act::Say(reply)) => self.with_port(reply),
            Some(Act::Babble(more)) => format!("{reply}\r\n{more}"),
            _ => reply,
        };
        let point = if reply.starts_with("226 Stored") { "226" } else { "answered" };
        self.say_at(point, &reply)?;
        if verb == "QUIT" { Err(Over) } else { Ok(()) }
    }

    /// What is done without a look at the command; `None` when the command has to be looked at.
    fn instead(&self, act: Act) -> Option<Result<(), Over>> {
        match act {
            Act::Reply(reply) => return Some(self.say(reply)),
            Act::Bytes(bytes) => {
                return Some((&*self.control).write_all(bytes).map_err(|_| Over));
            }
            Act::Close => {}
            Act::Reset => reset(&self.control),
            Act::Silence => self.be_silent(),
            Act::Flood(piece) => {
                let pieces = piece.repeat(64 * 1024 / piece.len());
                let mut left = 1 << 30;
                while left > 0 && (&*self.control).write_all(pieces.as_bytes()).is_ok() {
                    left -= pieces.len().min(left);
                }
                self.be_silent();
            }
            Act::Drip(drops) => {
                let mut drops = drops.bytes().cycle();
                while let Some(drop) = drops.next()
                    && (&*self.control).write_all(&[drop]).is_ok()
                {
                    thread::sleep(Duration::from_millis(50));
                }
            }
            _ => return None,
        }
        Some(Err(Over))
    }

    fn be_silent(&self) {
        let mut ignored = [0; 8192];
        while (&*self.control).read(&mut ignored).is_ok_and(|count| count > 0) {}
    }

    /// Says one of the two answers to STOR, or what the rules say instead.
    fn say_at(&self, point: &str, reply: &str) -> Result<(), Over> {
        self.say_as(self.rule(point), reply)
    }

    fn say_as(&self, act: Option<Act>, reply: &str) -> Result<(), Over> {
        match act {
            Some(Act::Late(delay)) => {
                thread::sleep(delay);
                self.say(reply)
            }
            Some(Act::Babble(more)) => self.say(&format!("{reply}\r\n{more}")),
            Some(Act::Say(reply)) => self.say(reply),
            Some(act) => self.instead(act).unwrap_or(Ok(())),
            None => self.say(reply),
        }
    }

    fn say(&self, reply: &str) -> Result<(), Over> {
        if is_ahead(&self.control) {
            self.record.update(|record| {
                record.log.offences.push(format!("a command came before {reply:?}"));
            });
        }
        (&*self.control).write_all(format!("{reply}\r\n").as_bytes()).map_err(|_| Over)?;
        if reply.starts_with("421") { Err(Over) } else { Ok(()) }
    }

    fn answer(&mut self, verb: &str, argument: &str) -> String {
        let account = self.dialect.account;
        let path = self.resolve(argument);
        let reply = match verb {
            "USER" => {
                argument.clone_into(&mut self.user);
                "331 Password?"
            }
            "PASS" => {
                self.logged_in =
                    account.is_none_or(|account| account == (self.user.as_str(), argument));
                if self.logged_in { "230 Welcome" } else { "530 Login incorrect" }
            }
            "QUIT" => "221 Bye",
            _ if account.is_some() && !self.logged_in => "530 Please log in",
            "TYPE" | "NOOP" => "200 OK",
            "SITE" => "250 OK",
            "PWD" => return format!("257 \"/{}\"", self.directory),
            "PASV" => {
                self.open_passive();
                return self.with_port("227 Entering Passive Mode (127,0,0,1,{p1},{p2}).");
            }
            "EPSV" => {
                let port = self.open_passive();
                return format!("229 Entering Extended Passive Mode (|||{port}|)");
            }
            "PORT" | "EPRT" => {
                self.active = announced(verb, argument);
                if self.active.is_some() { "200 OK" } else { "501 No address" }
            }
            "CWD" if self.has_directory(&path) => {
                self.directory = path;
                "250 OK"
            }
            "MKD" if self.has_directory(&path) => "550 It exists",
            "MKD" if self.has_directory(parent(&path)) => {
                self.record.update(|record| record.directories.insert(path.clone()));
                return format!("257 \"/{path}\" created");
            }
            "RMD" if self.record.read(|record| record.is_empty_directory(&path)) => {
                self.record.update(|record| record.directories.remove(&path));
                "250 Removed"
            }
            "SIZE" => {
                let size = self.record.read(|record| record.files.get(&path).map(Vec::len));
                return size.map_or("550 No such file".to_owned(), |size| format!("213 {size}"));
            }
            "DELE" if self.has_file(&path) => {
                self.record.update(|record| record.change(&path, None));
                "250 Deleted"
            }
            "RNFR" if self.has_file(&path) => {
                self.renaming = Some(path);
                "350 To what?"
            }
            "RMD" if self.has_directory(&path) => "550 It is not empty",
            "CWD" | "MKD" | "DELE" | "RMD" | "RNFR" => "550 No such file or directory",
            _ => "502 Not implemented",
        };
        reply.to_owned()
    }

    fn rename(&mut self, from: Option<String>, to: &str) -> &'static str {
        let to = self.resolve(to);
        let Some(from) = from else { return "503 What?" };
        if !self.has_directory(parent(&to)) {
            return "553 No such directory";
        }
        if let Some(refusal) = self.dialect.rename_over.filter(|_| self.has_file(&to)) {
            return refusal;
        }
        self.record.update(|record| {
            let bytes = record.files.get(&from).cloned();
            record.change(&from, None);
            record.change(&to, bytes);
        });
        "250 Renamed"
    }

    fn store(&mut self, argument: &str, act: Option<Act>) -> Result<String, Over> {
        let path = self.resolve(argument);
        let can_open = self.has_directory(parent(&path));
        let act = if can_open { act } else { Some(self.dialect.missing_directory) };
        if let Some(Act::Reply(reply)) = act {
            return Ok(reply.to_owned());
        }
        let (active, passive, ahead) = (self.active.take(), self.passive.take(), self.ahead.take());
        if active.is_none() && passive.is_none() {
            return Ok("425 No data connection".to_owned());
        }
        // Servers empty the file first, so that a transfer that comes to nothing destroys it.
        if can_open {
            self.record.update(|record| record.change(&path, Some(Vec::new())));
        }
        let open = || match (active, &ahead, passive) {
            (Some(client), ..) => TcpStream::connect(client).map(|data| track(&self.record, data)),
            (_, Some(data), _) => Ok(Arc::clone(data)),
            (.., listener) => listener.unwrap().accept().map(|(data, _)| track(&self.record, data)),
        };
        let mut bytes = Vec::new();
        let connected = match self.rule("150") {
            Some(Act::Late(patience)) => {
                let connected = open();
                if let Ok(data) = &connected {
                    take_early(data, patience, &mut bytes);
                }
                self.record.update(|record| record.early.push((path.clone(), bytes.len())));
                self.say("150 Go on")?;
                connected
            }
            act => {
                self.say_as(act, "150 Go on")?;
                open()
            }
        };
        let Ok(data) = connected else {
            return Ok("425 No way to there".to_owned());
        };
        match act {
            Some(Act::DropThen(reply)) => return Ok(reply.to_owned()),
            Some(Act::CutData) => {
                reset(&data);
                reset(&self.control);
                return Err(Over);
            }
            _ => {}
        }
        let mut buffer = vec![0; 65536];
        loop {
            match (&*data).read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(_) => return Ok("426 Connection closed".to_owned()),
            }
            if let Some(Act::Crawl) = act {
                thread::sleep(Duration::from_millis(20));
            }
        }
        match act {
            Some(Act::TakeThen(reply)) => {
                if can_open {
                    self.record.update(|record| record.change(&path, None));
                }
                return Ok(reply.to_owned());
            }
            Some(Act::Truncate) => bytes.truncate(bytes.len() / 2),
            Some(Act::ResetData) => reset(&data),
            _ => {}
        }
        self.record.update(|record| {
            record.change(&path, Some(bytes.clone()));
            record.log.stored.push((path, bytes));
        });
        Ok("226 Stored".to_owned())
    }

    fn open_passive(&mut self) -> u16 {
        let here = self.control.local_addr().unwrap();
        let kept = self.port.clone().or_else(|| self.last_passive.take());
        let listener = kept.unwrap_or_else(|| listen_beside(here));
        if let Some(used) = self.ahead.take().filter(|_| self.is_noted) {
            let mut bytes = Vec::new();
            take_early(&used, Duration::from_secs(1), &mut bytes);
            self.record.update(|record| record.wasted.push(bytes.len()));
        }
        self.is_noted = false;
        let port = listener.local_addr().unwrap().port();
        self.last_passive = Some(Arc::clone(&listener));
        self.passive = Some(listener);
        port
    }

    fn with_port(&self, reply: &str) -> String {
        let port =
            self.passive.as_ref().map_or(0, |listener| listener.local_addr().unwrap().port());
        reply.replace("{p1},{p2}", &format!("{},{}", port >> 8, port & 0xff))
    }

    /// A path from the server's root, without a leading slash.
    fn resolve(&self, argument: &str) -> String {
        let base = if argument.starts_with('/') { "" } else { &self.directory };
        let parts = base.split('/').chain(argument.split('/'));
        parts.filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
    }

    fn has_directory(&self, path: &str) -> bool {
        path.is_empty() || self.record.read(|record| record.directories.contains(path))
    }

    fn has_file(&self, path: &str) -> bool {
        self.record.read(|record| record.files.contains_key(path))
    }
}

/// Takes what comes, until nothing comes for so long, or no more can.
fn take_early(mut data: &TcpStream, patience: Duration, bytes: &mut Vec<u8>) {
    data.set_read_timeout(Some(patience)).unwrap();
    let _ = data.read_to_end(bytes);
    data.set_read_timeout(None).unwrap();
}

/// The address in `PORT h1,h2,h3,h4,p1,p2` (RFC 959) or `EPRT |2|::1|port|` (RFC 2428).
fn announced(verb: &str, argument: &str) -> Option<SocketAddr> {
    if verb == "EPRT" {
        let mut fields = argument.split('|').skip(2);
        return Some((fields.next()?.parse::<IpAddr>().ok()?, fields.next()?.parse().ok()?).into());
    }
    let bytes: Result<Vec<u8>, _> = argument.split(',').map(str::parse).collect();
    let [a, b, c, d, high, low] = bytes.ok()?.try_into().ok()?;
    Some(([a, b, c, d], u16::from_be_bytes([high, low])).into())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
