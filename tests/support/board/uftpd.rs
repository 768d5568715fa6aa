//! uftpd (robert-hh/FTP-Server-for-ESP8266-ESP32-and-PYBD): all clients share one processor and one
//! data port.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::link::{Link, Lost};
use super::{Leaves, Record};

/// How long it waits for a data connection, and on lwIP for more data.
const DATA_TIMEOUT: Duration = Duration::from_secs(10);

/// It takes data in such pieces, in bytes.
const PIECE: usize = 1024;

/// No segment is longer, in bytes.
const SEGMENT: usize = 1460;

/// How long an ESP32 takes to look at its sockets again.
const POLL: Duration = Duration::from_millis(80);

/// Which network stack MicroPython runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Port {
    /// A callback for each segment that arrives.
    Lwip,
    /// Sockets are looked at again and again, also while a command runs.
    Esp32,
}

pub struct Uftpd {
    control: Link,
    port: Port,
    directory: String,
    renaming: Option<String>,
    /// Where to connect to, in active mode; otherwise the client connects.
    active: Option<SocketAddr>,
    /// What has arrived and was not read yet.
    arrived: Vec<u8>,
    segments: usize,
    ended: bool,
}

/// The session is over.
enum Over {
    Closed,
    Power,
}

impl From<Lost> for Over {
    fn from(lost: Lost) -> Over {
        match lost {
            Lost::Power => Over::Power,
            Lost::Peer => Over::Closed,
        }
    }
}

impl Uftpd {
    pub fn new(control: Link, port: Port) -> Uftpd {
        // Without PASV or PORT it connects to the client's port 20.
        let active = Some((Ipv4Addr::LOCALHOST, 20).into());
        Uftpd {
            control,
            port,
            directory: "/".to_owned(),
            renaming: None,
            active,
            arrived: Vec::new(),
            segments: 0,
            ended: false,
        }
    }

    pub fn serve(mut self) {
        let _ = self.converse();
    }

    fn converse(&mut self) -> Result<(), Over> {
        let shared = Arc::clone(&self.control.shared);
        let turn = shared.processor.lock().unwrap_or_else(PoisonError::into_inner);
        self.control.say("220 Hello, this is the esp32.")?;
        drop(turn);
        loop {
            self.pull()?;
            if !self.arrived.is_empty() && !is_one_command(&self.arrived) {
                let all = String::from_utf8_lossy(&self.arrived);
                shared.mind(format!("not one command: {all:?}"));
            }
            match self.port {
                Port::Lwip => {
                    while self.segments > 0 {
                        self.segments -= 1;
                        let turn = shared.processor.lock();
                        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
                        let line = self.read_line()?;
                        self.take(&line)?;
                    }
                }
                Port::Esp32 => {
                    while self.ended || !self.arrived.is_empty() {
                        let line = self.read_line()?;
                        match shared.processor.try_lock() {
                            Ok(_turn) => self.take(&line)?,
                            Err(_) if line.is_empty() => return Err(Over::Closed),
                            Err(_) => self.control.say("400 Device busy.")?,
                        }
                    }
                    thread::sleep(POLL);
                }
            }
        }
    }

    /// Waits for one segment.
    fn pull(&mut self) -> Result<(), Over> {
        let mut buffer = [0; SEGMENT];
        match self.control.recv(&mut buffer, None) {
            Ok(count) => {
                self.arrived.extend_from_slice(&buffer[..count]);
                self.ended |= count == 0;
            }
            Err(Lost::Peer) => self.ended = true,
            Err(Lost::Power) => return Err(Over::Power),
        }
        self.segments += 1;
        Ok(())
    }

    /// Up to a line's end: whoever sends half a line has the board wait for the rest.
    fn read_line(&mut self) -> Result<Vec<u8>, Over> {
        loop {
            let end = self.arrived.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            if let Some(end) = end.or(self.ended.then_some(self.arrived.len())) {
                return Ok(self.arrived.drain(..end).collect());
            }
            self.pull()?;
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Over> {
        let shared = &self.control.shared;
        let Ok(line) = std::str::from_utf8(line) else {
            // Its exception handler says nothing.
            shared.mind(format!("not UTF-8: {:?}", String::from_utf8_lossy(line)));
            return Ok(());
        };
        if !line.is_empty() && line.trim_end_matches(['\r', '\n']).is_empty() {
            shared.mind("an empty line".to_owned());
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Err(Over::Closed);
        }
        let is_busy = shared.record.update(|record| {
            record.log.commands.push(line.to_owned());
            let is_busy = record.busy.0 > 0 && line.starts_with(&record.busy.1);
            record.busy.0 -= usize::from(is_busy);
            is_busy
        });
        if is_busy {
            return Ok(self.control.say("400 Device busy.")?);
        }
        self.obey(line)
    }

    fn obey(&mut self, line: &str) -> Result<(), Over> {
        let Some(verb) = line.split_ascii_whitespace().next() else {
            return Ok(());
        };
        let argument = line.get(verb.len()..).unwrap_or_default();
        let argument = argument.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let path = self.absolute(argument);
        let done = |done: bool| if done { "250 OK" } else { "550 Fail" };
        let shared = &self.control.shared;
        let disk = shared.on_disk(&path);
        let reply = match verb.to_ascii_uppercase().as_str() {
            "USER" | "PASS" => "230 Logged in.",
            "SYST" => "215 UNIX Type: L8",
            "TYPE" | "NOOP" | "ABOR" => "200 OK",
            "QUIT" => {
                self.control.say("221 Bye.")?;
                return Err(Over::Closed);
            }
            "PWD" | "XPWD" => return self.say(format!("257 \"{}\"", self.directory)),
            "CWD" | "XCWD" => {
                let is_there = disk.is_dir();
                if is_there {
                    self.directory = path;
                }
                done(is_there)
            }
            "CDUP" | "XCUP" => {
                self.directory = self.absolute("..");
                "250 OK"
            }
            "PASV" => {
                self.active = None;
                return self.say(self.passive());
            }
            "PORT" => match port(argument) {
                Some(address) => {
                    self.active = Some(address);
                    "200 OK"
                }
                None => "504 Fail",
            },
            "STOR" => return self.store(&path, false),
            "APPE" => return self.store(&path, true),
            "SIZE" => {
                let size = shared.size(&path);
                return self.say(size.map_or("550 Fail".to_owned(), |size| format!("213 {size}")));
            }
            "DELE" => done(fs::remove_file(disk).is_ok()),
            "RNFR" if disk.exists() => {
                self.renaming = Some(path);
                "350 Rename from"
            }
            "RNFR" => "550 Fail",
            "RNTO" => {
                let from = self.renaming.take();
                done(from.is_some_and(|from| fs::rename(shared.on_disk(&from), disk).is_ok()))
            }
            "RMD" | "XRMD" => done(fs::remove_dir(disk).is_ok()),
            "MKD" | "XMKD" => done(fs::create_dir(disk).is_ok()),
            "SITE" => {
                // NUL is its line break.
                let code = argument.replace('\0', "\n");
                if code.contains("machine.reset()") {
                    shared.lose_power(Leaves::Resets);
                    return Err(Over::Power);
                }
                let raises = |record: &Record| record.raises.iter().any(|it| code.contains(it));
                done(!shared.record.read(raises))
            }
            "LIST" | "NLST" | "RETR" | "MDTM" | "STAT" => {
                shared.mind(format!("not imitated: {line:?}"));
                "550 Fail"
            }
            _ => "502 Unsupported command.",
        };
        self.say(reply)
    }

    fn say(&self, reply: impl AsRef<str>) -> Result<(), Over> {
        Ok(self.control.say(reply.as_ref())?)
    }

    /// The address of the first interface that is up, which need not be the one that is meant.
    fn passive(&self) -> String {
        let data = self.control.shared.data.lock().unwrap();
        let port = data.as_ref().map_or(0, |data| data.local_addr().unwrap().port());
        format!("227 Entering Passive Mode (127,0,0,1,{},{}).", port >> 8, port & 0xff)
    }

    fn open_data(&self) -> Result<Option<Link>, Lost> {
        let shared = &self.control.shared;
        if let Some(address) = self.active {
            let stream = TcpStream::connect_timeout(&address, DATA_TIMEOUT).ok();
            return Ok(stream.map(|stream| Link::new(stream, shared)));
        }
        let begun = Instant::now();
        while begun.elapsed() < DATA_TIMEOUT {
            let accepted = match &*shared.data.lock().unwrap() {
                Some(data) => data.accept(),
                None => return Err(Lost::Power),
            };
            if let Ok((stream, _)) = accepted {
                return Ok(Some(Link::new(stream, shared)));
            }
            if !self.control.has_power() {
                return Err(Lost::Power);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    fn store(&mut self, path: &str, append: bool) -> Result<(), Over> {
        let Some(data) = self.open_data()? else {
            return self.say("550 Fail");
        };
        self.say("150 Opened data connection.")?;
        let patience = (self.port == Port::Lwip).then_some(DATA_TIMEOUT);
        if self.control.shared.save(path, append, &data, PIECE, patience)? {
            drop(data);
            self.say("226 Done.")
        } else {
            self.say("550 Fail")
        }
    }

    fn absolute(&self, argument: &str) -> String {
        let mut path = if argument.starts_with('/') { "/" } else { &self.directory }.to_owned();
        for part in argument.split('/') {
            match part {
                ".." => {
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    path = if parent.is_empty() { "/" } else { parent }.to_owned();
                }
                "." | "" => {}
                _ if path == "/" => path.push_str(part),
                _ => path = format!("{path}/{part}"),
            }
        }
        path
    }
}

fn is_one_command(bytes: &[u8]) -> bool {
    bytes.strip_suffix(b"\r\n").is_some_and(|line| !line.contains(&b'\n'))
}

fn port(argument: &str) -> Option<SocketAddr> {
    let numbers: Vec<u8> = argument.split(',').map_while(|number| number.parse().ok()).collect();
    let [a, b, c, d, high, low] = numbers[..] else { return None };
    Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into())
}
