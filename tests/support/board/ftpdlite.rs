//! FTPdLite (DavesCodeMusings/ftpdlite): one session for each address, and whoever leaves without a
//! word has it for ever.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::link::{Link, Lost};
use crate::support::log::text;

/// One recv, one command, in bytes.
const BUFFER: usize = 512;

/// It has so many data ports and takes them in turn.
const PORTS: usize = 255;

/// How long it gives a data connection that it has not accepted yet when STOR comes.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// How long its event loop takes to come by.
const TURN: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    /// `FTPdLite`.
    Minimal,
    /// `FTPd`, with at most one account.
    Full { account: Option<(&'static str, &'static str)> },
}

pub struct FtpdLite {
    control: Link,
    class: Class,
    address: IpAddr,
    user: String,
    is_admin: bool,
    directory: String,
    renaming: Option<String>,
    /// For the next transfer, with its place in the row of ports.
    listener: Option<(usize, TcpListener)>,
    /// Those that had no transfer before another PASV came: never closed.
    leaked: Vec<TcpListener>,
    data: Option<Link>,
    /// Data connections that others came after.
    forgotten: Vec<Link>,
}

/// How a session ends.
enum Over {
    Closed,
    /// Its task died of an exception: the connection stays open, and the session is counted.
    Died,
    Power,
}

impl From<Lost> for Over {
    fn from(lost: Lost) -> Over {
        match lost {
            Lost::Power => Over::Power,
            Lost::Peer => Over::Died,
        }
    }
}

impl FtpdLite {
    pub fn new(control: Link, address: IpAddr, class: Class) -> FtpdLite {
        FtpdLite {
            control,
            class,
            address,
            user: "nobody".to_owned(),
            is_admin: false,
            directory: "/".to_owned(),
            renaming: None,
            listener: None,
            leaked: Vec::new(),
            data: None,
            forgotten: Vec::new(),
        }
    }

    pub fn serve(mut self) {
        let is_first = self.control.shared.record.update(|record| {
            let is_first = !record.places.contains(&self.address);
            if is_first {
                record.places.push(self.address);
            }
            is_first
        });
        if !is_first {
            let _ = self.control.say("421 Too many connections.");
            return self.control.keep();
        }
        match self.converse() {
            Ok(()) | Err(Over::Closed) => {
                self.close_data();
                let (place, leaked) = (self.address, std::mem::take(&mut self.leaked));
                self.control.shared.record.update(|record| {
                    record.places.retain(|other| *other != place);
                    record.kept_listeners.extend(leaked);
                });
            }
            Err(Over::Died) => self.control.keep(),
            Err(Over::Power) => {}
        }
    }

    fn converse(&mut self) -> Result<(), Over> {
        self.control.say("220 FTPdLite (MicroPython)")?;
        loop {
            let mut buffer = [0; BUFFER];
            let count = loop {
                self.accept_data();
                if let Some(count) = self.control.try_recv(&mut buffer, TURN)? {
                    break count;
                }
            };
            if count == 0 {
                // Whoever is back within this turn is heard first, and refused.
                thread::sleep(TURN);
            }
            self.take(&buffer[..count])?;
        }
    }

    /// What its event loop does between two commands.
    fn accept_data(&mut self) {
        let listener = self.listener.iter().map(|(_, listener)| listener);
        for listener in self.leaked.iter().chain(listener) {
            if let Ok((stream, _)) = listener.accept() {
                let before = self.data.replace(Link::new(stream, &self.control.shared));
                self.forgotten.extend(before);
            }
        }
    }

    fn take(&mut self, request: &[u8]) -> Result<(), Over> {
        let shared = &self.control.shared;
        let line = request.strip_suffix(b"\r\n").unwrap_or(request);
        if !request.is_empty() {
            if line.len() == request.len() || line.contains(&b'\n') {
                shared.mind(format!("not one command: {:?}", text(request)));
            } else if line.is_empty() {
                shared.mind("an empty line".to_owned());
            }
            shared.record.update(|record| record.log.commands.push(text(line)));
        }
        let request = std::str::from_utf8(request).unwrap_or_else(|_| {
            shared.mind(format!("not UTF-8: {:?}", text(request)));
            ""
        });
        let request = request.trim_end_matches(['\r', '\n']);
        if request.is_empty() {
            return self.obey("QUIT", None);
        }
        if !request.contains(' ') {
            return self.obey(&request.to_uppercase(), None);
        }
        let request = request.trim_ascii_start();
        let end = request.find(|c: char| c.is_ascii_whitespace()).unwrap_or(request.len());
        let (verb, argument) = request.split_at(end);
        self.obey(&verb.to_uppercase(), Some(argument.trim_ascii_start()))
    }

    fn obey(&mut self, verb: &str, argument: Option<&str>) -> Result<(), Over> {
        let is_known = match self.class {
            Class::Minimal => matches!(
                verb,
                "MODE"
                    | "NOOP"
                    | "PASS"
                    | "PASV"
                    | "PORT"
                    | "QUIT"
                    | "RETR"
                    | "STOR"
                    | "STRU"
                    | "TYPE"
                    | "USER"
            ),
            Class::Full { .. } => true,
        };
        if !is_known {
            return self.say("502 Command not implemented.");
        }
        match verb {
            "USER" => self.user(argument.unwrap_or("None")),
            "PASS" => self.pass(argument.unwrap_or("None")),
            "QUIT" => {
                self.say(format!("221 Bye, {}.", self.user))?;
                Err(Over::Closed)
            }
            "NOOP" | "ALLO" => self.say("200 Take your time. I'll wait."),
            "SYST" => self.say("215 UNIX Type: L8"),
            "FEAT" => self
                .say("211-Extensions supported:\r\n EPSV\r\n PASV\r\n SIZE\r\n UTF8\r\n211 End."),
            "PASV" | "EPSV" => self.passive(verb),
            "PWD" | "XPWD" => self.say(format!("257 \"{}\"", self.directory)),
            "CDUP" | "XCUP" => {
                let parent = self.directory.rsplit_once('/').map_or("", |(parent, _)| parent);
                self.directory = if parent.is_empty() { "/" } else { parent }.to_owned();
                self.say(format!("250 {}", self.directory))
            }
            "CWD" | "XCWD" => self.enter(argument),
            "RETR" | "LIST" | "NLST" | "STAT" | "HELP" => {
                self.control.shared.mind(format!("not imitated: {verb}"));
                self.say("502 Command not implemented.")
            }
            "TYPE" | "MODE" | "STRU" | "PORT" | "OPTS" | "SITE" => match argument {
                Some(argument) => self.set(verb, argument),
                None => self.die(verb),
            },
            "DELE" | "MKD" | "XMKD" | "RMD" | "XRMD" | "RNFR" | "RNTO" | "SIZE" | "STOR" => {
                match argument.filter(|argument| !argument.is_empty()) {
                    Some(argument) => self.act_on(verb, argument),
                    None => self.say("501 Missing parameter."),
                }
            }
            _ => self.say("502 Command not implemented."),
        }
    }

    fn say(&self, reply: impl AsRef<str>) -> Result<(), Over> {
        Ok(self.control.say(reply.as_ref())?)
    }

    /// An exception that nobody catches.
    fn die(&self, line: &str) -> Result<(), Over> {
        self.control.shared.mind(format!("the session died of {line:?}"));
        Err(Over::Died)
    }

    fn account(&self) -> Option<(&'static str, &'static str)> {
        match self.class {
            Class::Full { account } => account,
            Class::Minimal => None,
        }
    }

    fn user(&mut self, user: &str) -> Result<(), Over> {
        user.clone_into(&mut self.user);
        if self.account().is_some() {
            return self.say(format!("331 Password required for {user}."));
        }
        self.is_admin |= user == "ftpadmin";
        self.say(format!("230 User {user} logged in."))
    }

    fn pass(&mut self, password: &str) -> Result<(), Over> {
        if self.account() != Some((self.user.as_str(), password)) {
            thread::sleep(Duration::from_secs(1));
            self.say("430 Invalid username or password.")?;
            return Err(Over::Closed);
        }
        self.is_admin = true;
        self.say(format!("230 User {} logged in.", self.user))
    }

    fn enter(&mut self, argument: Option<&str>) -> Result<(), Over> {
        let path = self.absolute(argument);
        let disk = self.control.shared.on_disk(&path);
        if !disk.exists() {
            return self.say("550 No such file or directory.");
        }
        if !disk.is_dir() {
            return self.say("550 Not a directory.");
        }
        self.directory = path;
        self.say(format!("250 Working directory is now: {}", self.directory))
    }

    fn set(&mut self, verb: &str, argument: &str) -> Result<(), Over> {
        let upper = argument.to_uppercase();
        let reply = match verb {
            "TYPE" if ["A", "A N", "I", "L 8"].contains(&upper.as_str()) => {
                "200 Always in binary mode."
            }
            "TYPE" => "504 Invalid type.",
            "MODE" if upper == "S" => "200 OK.",
            "MODE" => "504 Transfer mode not supported.",
            "STRU" if upper == "F" => "200 OK.",
            "STRU" => "504 Structure not supported.",
            "OPTS" if upper == "UTF8 ON" => "200 Always in UTF8 mode.",
            "OPTS" => "501 Unknown option.",
            "PORT" => self.connect_data(argument),
            _ => return self.site(argument),
        };
        self.say(reply)
    }

    fn act_on(&mut self, verb: &str, argument: &str) -> Result<(), Over> {
        let path = self.absolute(Some(argument));
        let shared = &self.control.shared;
        let disk = shared.on_disk(&path);
        let missing = "550 No such file or directory.";
        match verb {
            "SIZE" => {
                let size = shared.size(&path);
                return self.say(size.map_or(missing.to_owned(), |size| format!("213 {size}")));
            }
            "RNFR" if disk.exists() => {
                self.renaming = Some(path);
                return self.say("350 RNFR accepted.");
            }
            "RNFR" => return self.say(missing),
            _ if !self.is_admin => return self.say("550 No access."),
            _ => {}
        }
        let reply = match verb {
            "STOR" => return self.store(&path),
            "DELE" if fs::remove_file(&disk).is_ok() => "250 OK.",
            "DELE" => missing,
            "RMD" | "XRMD" if fs::remove_dir(&disk).is_ok() => "250 OK.",
            "RMD" | "XRMD" => "550 No such directory or directory not empty.",
            "RNTO" => {
                let Some(from) = self.renaming.take() else {
                    self.say("550 Rename failed.")?;
                    return self.die("RNTO");
                };
                if fs::rename(shared.on_disk(&from), disk).is_ok() {
                    return self.say(format!("250 Renamed \"{from}\" to \"{path}\""));
                }
                "550 Rename failed."
            }
            _ if fs::create_dir(disk).is_ok() => {
                return self.say(format!("257 \"{path}\" directory created."));
            }
            _ => "550 Failed to create directory.",
        };
        self.say(reply)
    }

    fn passive(&mut self, verb: &str) -> Result<(), Over> {
        let shared = &self.control.shared;
        let (port, is_taken) = shared.record.update(|record| {
            let port = record.passive % PORTS;
            record.passive += 1;
            // Until a transfer with it succeeds.
            (port, !record.leaked.insert(port))
        });
        if is_taken {
            return self.die("EADDRINUSE: so many PASV without a transfer");
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let number = listener.local_addr().unwrap().port();
        let before = self.listener.replace((port, listener));
        self.leaked.extend(before.map(|(_, listener)| listener));
        self.say(if verb == "PASV" {
            format!("227 Entering passive mode. (127,0,0,1,{},{})", number >> 8, number & 0xff)
        } else {
            format!("229 Entering extended passive mode. (|||{number}|)")
        })
    }

    fn connect_data(&mut self, argument: &str) -> &'static str {
        let numbers: Vec<u8> = argument.split(',').map_while(|it| it.parse().ok()).collect();
        let [a, b, c, d, high, low] = numbers[..] else { return "451 Invalid parameter." };
        let port = u16::from_be_bytes([high, low]);
        // It does not wait to see whether that works.
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)));
        let new = stream.ok().map(|stream| Link::new(stream, &self.control.shared));
        self.forgotten.extend(std::mem::replace(&mut self.data, new));
        "200 PORT command successful."
    }

    fn store(&mut self, path: &str) -> Result<(), Over> {
        if self.data.is_none() {
            thread::sleep(SECOND_LOOK);
            self.accept_data();
        }
        let Some(data) = &self.data else {
            return self.say("426 Data connection closed. Transfer aborted.");
        };
        self.say("150 Transferring file.")?;
        // What is refused stays open, and the next transfer takes what is left in it.
        if !self.control.shared.save(path, false, data, BUFFER, None)? {
            return self.say("451 Error writing file.");
        }
        self.say("226 Transfer finished.")?;
        self.close_data();
        Ok(())
    }

    fn close_data(&mut self) {
        self.data = None;
        if let Some((port, _)) = self.listener.take() {
            self.control.shared.record.update(|record| record.leaked.remove(&port));
        }
    }

    fn site(&mut self, line: &str) -> Result<(), Over> {
        let (command, argument) = match line.split_once(' ') {
            Some((command, argument)) => (command, argument.trim_ascii_start()),
            None => (line, ""),
        };
        let reply = match (command.to_lowercase().as_str(), argument) {
            ("df", _) => {
                "211-Filesystem        Size        Used       Avail      Use%\r\n\
                 211-/                2.00M     123.00K       1.88M        6%\r\n\
                 211 End."
            }
            ("free", _) => {
                "211-         Total       Used      Avail\r\n\
                 211-Mem:   108.58K     40.29K     68.29K\r\n\
                 211 End."
            }
            ("gc", _) => "211 Additional 12.50K available.",
            ("help", _) => {
                "214-Available commands:\r\n\
                 214-  df         free       gc         hashpass   help     \r\n\
                 214-  kick       shutdown   uptime     who      \r\n\
                 214 End."
            }
            ("who", _) => {
                return self.say(format!(
                    "211-Current FTP users:\r\n211-{}  {}  Jan  1 00:00\r\n211 End.",
                    self.user, self.address
                ));
            }
            ("uptime", _) => "211 Jan  1 00:00 up 0 days, 0:01, 1 users",
            ("shutdown" | "kick", _) if !self.is_admin => "550 Not authorized.",
            ("shutdown", "-r") => {
                // It counts to two, and is gone without an answer.
                thread::sleep(Duration::from_secs(2));
                self.control.shared.lose_power(super::Leaves::Resets);
                return Err(Over::Power);
            }
            ("shutdown", _) => {
                thread::sleep(Duration::from_secs(1));
                "501 Usage: shutdown -h (halt) or shutdown -r (reboot)"
            }
            ("kick", "") => "501 Usage: kick <username> or kick <ip address>",
            ("kick" | "hashpass", _) => {
                self.control.shared.mind(format!("not imitated: SITE {line}"));
                "504 Parameter not supported."
            }
            _ => "504 Parameter not supported.",
        };
        self.say(reply)
    }

    /// An argument that begins with a dash is taken for an option and ignored.
    fn absolute(&self, argument: Option<&str>) -> String {
        let Some(argument) = argument.filter(|argument| !argument.starts_with('-')) else {
            return self.directory.clone();
        };
        let mut path =
            if argument.starts_with('/') { String::new() } else { self.directory.clone() };
        for part in argument.split('/') {
            match part {
                "." | "" => {}
                ".." => path.truncate(path.rfind('/').unwrap_or(0)),
                _ if path.ends_with('/') => path.push_str(part),
                _ => path = format!("{path}/{part}"),
            }
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }
}
