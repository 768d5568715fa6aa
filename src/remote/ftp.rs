//! One FTP session (RFC 959), run by suppaftp; uploads go through [`Wire`].

use std::collections::HashSet;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use suppaftp::{FtpError, FtpStream};

use super::wire::{Wire, quick_ack};
use super::{Broken, Reply, TransferError, explain};
use crate::credentials::Login;
use crate::host::Host;
use crate::path::RelPath;
use crate::source::Source;

/// Some servers refuse SIZE to an account that may well upload: with 550, as if nothing was there.
/// Some do not rename over a file, or do not take temporary names. So many refusals in a row are understood as that.
const REFUSALS: u32 = 2;

/// How long to wait for a server's last words.
const FAREWELL: Duration = Duration::from_millis(500);

/// Who gets to see the dialogue on the control connection.
pub struct Trace(pub Option<Box<dyn Fn(bool, String) + Send>>);

impl Trace {
    /// We said `line`.
    pub fn sent(&self, line: &str) {
        if let Some(show) = &self.0 {
            let secret = line.starts_with("PASS ");
            show(true, if secret { "PASS ****".to_owned() } else { line.to_owned() });
        }
    }

    /// The server said these lines.
    pub fn received(&self, bytes: &[u8]) {
        if let Some(show) = &self.0 {
            for line in String::from_utf8_lossy(bytes).lines() {
                show(false, line.to_owned());
            }
        }
    }
}

/// Why there is no session.
#[derive(Debug)]
pub enum ConnectError {
    /// It may work later.
    Later(String),
    /// The server is there, or its name is not, and it will not work with what was given.
    Unusable(String),
}

impl From<Broken> for ConnectError {
    fn from(Broken(cause): Broken) -> Self {
        Self::Later(cause)
    }
}

/// What the server said of itself.
#[derive(Debug)]
pub struct Welcome {
    /// Its greeting.
    pub greeting: String,
    /// Its working directory, where files go; some boards do not say it.
    pub dir: Option<String>,
}

/// What has been learnt of a server, beyond one session.
#[derive(Debug, Default)]
pub struct Lore {
    /// It does not survive a STOR into a directory that is not there (FTPdLite): make it first.
    make_first: bool,
    /// Whether SIZE tells what is stored; `None` as long as that is not known.
    tells_size: Option<bool>,
    /// How many SIZE of a file that must be there were refused since one was answered.
    sizes_refused: u32,
    /// It has renamed over a file.
    renames_over: bool,
    /// How many times in a row it renamed only when the name was no longer taken.
    refused_over: u32,
    /// It does not know how to rename.
    cannot_rename: bool,
    /// How many files in a row it took only under their own names.
    in_place: u32,
}

impl Lore {
    /// A refusal may have been of its moment: what follows from it is learnt anew.
    pub fn begin_session(&mut self) {
        if self.tells_size == Some(false) {
            self.tells_size = None;
            self.sizes_refused = REFUSALS - 1;
        }
        self.refused_over = self.refused_over.min(REFUSALS - 1);
        self.in_place = self.in_place.min(REFUSALS - 1);
    }

    /// Whether it is known that SIZE tells what is stored.
    pub fn tells_size(&self) -> bool {
        self.tells_size == Some(true)
    }

    /// A file went out under a temporary name.
    pub fn is_stored_by_renaming(&mut self) {
        self.in_place = 0;
    }

    /// A file went out only under its own name; returns whether that is all that works there. Once
    /// may be chance.
    pub fn is_stored_in_place(&mut self) -> bool {
        self.in_place += 1;
        self.cannot_rename()
    }

    /// Whether files cannot be renamed there, or temporary names are not taken.
    pub fn cannot_rename(&self) -> bool {
        self.cannot_rename || self.in_place >= REFUSALS
    }
}

/// What SIZE tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Its size in bytes.
    Bytes(u64),
    /// It is not there.
    Missing,
    /// Nothing.
    Untold,
}

/// How a file is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// Under which path.
    pub path: &'a RelPath,
    /// First under this name, which is then renamed.
    pub temporary: Option<&'a str>,
    /// It was refused before.
    pub again: bool,
    /// A file of this name is known to be there.
    pub replaces: bool,
}

/// A session that is logged in, in binary mode, in the directory where files are to go.
pub struct Session {
    stream: FtpStream,
    wire: Wire,
    /// The same socket as both of them have.
    socket: TcpStream,
    trace: Trace,
    /// The directories that are known to be there.
    dirs: HashSet<String>,
}

impl Session {
    /// Connects and logs in. Each wait takes at most `timeout`.
    ///
    /// # Errors
    /// Says why in words for a person.
    pub fn open(
        host: &Host,
        login: &Login,
        dir: Option<&str>,
        timeout: Duration,
        trace: Trace,
    ) -> Result<(Self, Welcome), ConnectError> {
        let socket = connect(host, timeout)?;
        let later = |error: io::Error| ConnectError::Later(explain(&error));
        check_greeting(&socket).map_err(ConnectError::Later)?;
        quick_ack(&socket);
        let clones = socket.try_clone().and_then(|a| Ok((a, socket.try_clone()?)));
        let (first, second) = clones.map_err(later)?;
        let stream = greet(first, &trace)?;
        let greeting = stream.get_welcome_msg().unwrap_or_default().as_bytes();
        let greeting = Reply::parse(greeting).map_or_else(String::new, |reply| reply.text);
        let wire = Wire::new(second, timeout);
        let mut session = Self { stream, wire, socket, trace, dirs: HashSet::new() };
        let dir = session.log_in(login).and_then(|()| session.settle(dir));
        match dir {
            Ok(dir) => Ok((session, Welcome { greeting, dir })),
            Err(error) => {
                session.quit();
                Err(error)
            }
        }
    }

    fn log_in(&mut self, login: &Login) -> Result<(), ConnectError> {
        let mut reply = self.command(&format!("USER {}", login.user))?;
        if reply.code == 331 {
            let password = login.password().map_err(ConnectError::Unusable)?;
            reply = self.command(&format!("PASS {password}"))?;
        }
        match reply.code {
            200..=299 => Ok(()),
            332 => Err(ConnectError::Unusable(format!(
                "it wants an ACCT account, which is not supported: {reply}"
            ))),
            400..=429 | 431..=499 => Err(ConnectError::Later(no_service(&reply))),
            _ => Err(ConnectError::Unusable(format!(
                "login as {} refused: {reply}: check --user and the password (AUTOFTP_PASSWORD or netrc)",
                login.user
            ))),
        }
    }

    /// Binary mode, and the directory; returns its name.
    fn settle(&mut self, dir: Option<&str>) -> Result<Option<String>, ConnectError> {
        let reply = self.command("TYPE I")?;
        if !reply.is_completion() {
            return Err(ConnectError::Later(format!("no binary transfers: {reply}")));
        }
        if let Some(dir) = dir {
            let reply = self.command(&format!("CWD {}", prefixed(dir)))?;
            if !reply.is_completion() {
                return Err(ConnectError::Unusable(format!(
                    "the remote directory '{dir}' cannot be used: {reply}: make it there, or correct --remote-dir"
                )));
            }
        }
        let reply = self.command("PWD")?;
        Ok(quoted(&reply.text).filter(|_| reply.code == 257))
    }

    /// Stores one file, making its directories if it must, and has the server confirm its size;
    /// returns the number of bytes.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub fn store(
        &mut self,
        upload: Upload,
        source: &mut Source,
        lore: &mut Lore,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, TransferError> {
        let Upload { path, temporary, again, replaces } = upload;
        let target = prefixed(path.as_str());
        let name = temporary.map_or(target.clone(), prefixed);
        let is_there = path.parent().is_none_or(|parent| self.dirs.contains(parent));
        if lore.make_first && !is_there {
            self.make_directories(path)?;
        }
        let bytes = match self.wire.store(&name, source, &self.trace, progress) {
            Err(refusal)
                if refusal.may_lack_directory()
                    && path.parent().is_some()
                    && (again || !is_there) =>
            {
                let made = self.make_directories(path)?;
                match refusal {
                    TransferError::Reconnect(cause) if made => {
                        lore.make_first = true;
                        return Err(TransferError::Again(cause));
                    }
                    TransferError::Reconnect(_) => return Err(refusal),
                    _ => {}
                }
                source.rewind().map_err(TransferError::Local)?;
                self.wire.store(&name, source, &self.trace, progress)?
            }
            result => result?,
        };
        self.dirs.extend(path.parent().map(ToOwned::to_owned));
        self.confirm(&name, bytes, lore)?;
        if temporary.is_some() {
            self.rename(&name, &target, replaces, lore)?;
        }
        Ok(bytes)
    }

    /// No code says that the parent directory is missing, and none that it exists: makes what can
    /// be made; the next answer will be the truth. Returns whether there was something to make.
    fn make_directories(&mut self, path: &RelPath) -> Result<bool, Broken> {
        let mut made = false;
        for dir in path.ancestors() {
            made |= self.command(&format!("MKD {}", prefixed(dir)))?.is_completion();
            self.dirs.insert(dir.to_owned());
        }
        Ok(made)
    }

    /// A 226 can be a lie: a data connection that died looks like the end of the file.
    fn confirm(&mut self, name: &str, bytes: u64, lore: &mut Lore) -> Result<(), TransferError> {
        let size = self.size_of(name, lore)?;
        if size == Size::Missing && !lore.tells_size() {
            lore.sizes_refused += 1;
            if lore.sizes_refused >= REFUSALS {
                lore.tells_size = Some(false);
                return Ok(());
            }
        }
        match size {
            Size::Bytes(stored) if stored != bytes => Err(TransferError::Reconnect(format!(
                "the server stored {stored} of {bytes} bytes"
            ))),
            Size::Missing => Err(TransferError::Reconnect(
                "the server said that it stored it, and does not have it".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// What the server has under this path.
    ///
    /// # Errors
    /// See [`TransferError`]; an answer that leaves it open is a transient one.
    pub fn size(&mut self, path: &RelPath, lore: &mut Lore) -> Result<Size, TransferError> {
        let size = self.size_of(&prefixed(path.as_str()), lore)?;
        let is_doubtful = lore.sizes_refused > 0 && !lore.tells_size();
        Ok(if size == Size::Missing && is_doubtful { Size::Untold } else { size })
    }

    fn size_of(&mut self, name: &str, lore: &mut Lore) -> Result<Size, TransferError> {
        if lore.tells_size == Some(false) {
            return Ok(Size::Untold);
        }
        let reply = self.command(&format!("SIZE {name}"))?;
        match (reply.code, reply.text.trim().parse()) {
            (213, Ok(bytes)) => {
                lore.tells_size = Some(true);
                lore.sizes_refused = 0;
                Ok(Size::Bytes(bytes))
            }
            (550, _) => Ok(Size::Missing),
            // RFC 3659 is younger than many a server.
            _ if reply.is_unknown_command() || reply.code == 213 => {
                lore.tells_size = Some(false);
                Ok(Size::Untold)
            }
            _ => Err(TransferError::refused(&reply)),
        }
    }

    /// Renames over whatever has the new name, making directories if it must.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub fn move_to(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        lore: &mut Lore,
    ) -> Result<(), TransferError> {
        if to.parent().is_some_and(|parent| !self.dirs.contains(parent)) {
            self.make_directories(to)?;
        }
        self.rename(&prefixed(from.as_str()), &prefixed(to.as_str()), false, lore)
    }

    /// `replaces` says that the new name is known to be taken.
    fn rename(
        &mut self,
        from: &str,
        to: &str,
        replaces: bool,
        lore: &mut Lore,
    ) -> Result<(), TransferError> {
        if lore.refused_over < REFUSALS {
            let reply = self.try_rename(from, to, lore)?;
            if reply.is_completion() {
                lore.refused_over = 0;
                lore.renames_over |= replaces;
                return Ok(());
            }
            if reply.code / 100 != 5 || lore.renames_over {
                return Err(TransferError::refused(&reply));
            }
        }
        // RFC 959 leaves open whether RNTO replaces a file.
        let deleted = self.command(&format!("DELE {to}"))?;
        let reply = self.try_rename(from, to, lore)?;
        if !reply.is_completion() {
            return Err(TransferError::refused(&reply));
        }
        lore.refused_over += u32::from(deleted.is_completion());
        Ok(())
    }

    /// Returns the answer to RNTO. It follows only a good RNFR: FTPdLite ends the session otherwise.
    fn try_rename(
        &mut self,
        from: &str,
        to: &str,
        lore: &mut Lore,
    ) -> Result<Reply, TransferError> {
        let reply = self.command(&format!("RNFR {from}"))?;
        if reply.is_unknown_command() {
            lore.cannot_rename = true;
            return Err(TransferError::Transient(format!("it cannot rename files: {reply}")));
        }
        if !reply.is_intermediate() {
            return Err(TransferError::refused(&reply));
        }
        Ok(self.command(&format!("RNTO {to}"))?)
    }

    /// Removes a file; returns whether it was there.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub fn remove(&mut self, path: &str, lore: &mut Lore) -> Result<bool, TransferError> {
        let name = prefixed(path);
        let reply = self.command(&format!("DELE {name}"))?;
        if reply.is_completion() {
            return Ok(true);
        }
        // No code says that there is no such file.
        match reply.code {
            550 if !matches!(self.size_of(&name, lore)?, Size::Bytes(_)) => Ok(false),
            _ => Err(TransferError::refused(&reply)),
        }
    }

    /// Removes a directory if it is empty: servers refuse to if it is not. Returns whether it did.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn remove_directory(&mut self, dir: &str) -> Result<bool, Broken> {
        self.dirs.remove(dir);
        Ok(self.command(&format!("RMD {}", prefixed(dir)))?.is_completion())
    }

    /// Runs a command of the server's own (`SITE`); NUL in it is allowed.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn site(&mut self, command: &str) -> Result<Reply, Broken> {
        self.command(&format!("SITE {command}"))
    }

    /// Whether the session still stands, as far as can be told without asking.
    pub fn is_quiet(&self) -> bool {
        self.wire.is_quiet()
    }

    /// Whether this computer still has the address that the session was made from.
    pub fn is_at_home(&self) -> bool {
        self.wire.is_at_home()
    }

    /// Asks for a sign of life within `patience`; what the answer is does not matter.
    ///
    /// # Errors
    /// When there is none.
    pub fn probe(&mut self, patience: Duration) -> Result<(), Broken> {
        let usual = self.socket.read_timeout()?;
        self.socket.set_read_timeout(Some(patience))?;
        let alive = self.keep_alive();
        self.socket.set_read_timeout(usual)?;
        alive
    }

    /// Asks for a sign of life; what the answer is does not matter.
    ///
    /// # Errors
    /// When there is none.
    pub fn keep_alive(&mut self) -> Result<(), Broken> {
        match self.command("NOOP")? {
            reply if reply.code == 421 => Err(Broken(reply.to_string())),
            _ => Ok(()),
        }
    }

    /// Ends the session politely.
    pub fn quit(mut self) {
        if self.is_quiet() && self.socket.set_read_timeout(Some(FAREWELL)).is_ok() {
            let _ = self.command("QUIT");
        }
        self.hang_up();
    }

    /// Ends a session that is out of step: says that we are done and hears the server out, because
    /// closing with an unread byte would reset the connection, and FTPdLite then lets nobody in
    /// until the board is restarted.
    pub fn hang_up(self) {
        let mut socket = &self.socket;
        let _ = socket.shutdown(Shutdown::Write);
        let until = Instant::now() + FAREWELL;
        let mut rest = [0; 1024];
        while Instant::now() < until
            && socket.set_read_timeout(Some(FAREWELL)).is_ok()
            && matches!(socket.read(&mut rest), Ok(1..))
        {}
    }

    fn command(&mut self, line: &str) -> Result<Reply, Broken> {
        self.trace.sent(line);
        quick_ack(&self.socket);
        // With no reply code expected, suppaftp hands every reply over as it is.
        match self.stream.custom_command(line, &[]) {
            Ok(response) | Err(FtpError::UnexpectedResponse(response)) => {
                self.trace.received(&response.body);
                Reply::parse(&response.body).ok_or_else(|| Broken("no FTP reply".to_owned()))
            }
            Err(FtpError::ConnectionError(error)) => Err(error.into()),
            Err(error) => Err(Broken(error.to_string())),
        }
    }
}

/// Boards strip a leading blank or take a leading dash for an option, and desktop servers expand
/// `~`; `./` in front mends all three.
fn prefixed(path: &str) -> String {
    if path.starts_with([' ', '-', '~']) { format!("./{path}") } else { path.to_owned() }
}

/// The name in `257 "name" is the current directory`, where `""` stands for `"` (RFC 959).
fn quoted(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('"')?;
    let (name, _) = rest.rsplit_once('"')?;
    Some(name.replace("\"\"", "\""))
}

/// Tries every address the name has.
fn connect(host: &Host, timeout: Duration) -> Result<TcpStream, ConnectError> {
    // With further addresses to try, a silent one gets less time.
    const SHORT: Duration = Duration::from_secs(2);
    let mut addresses = resolve(host)?.into_iter().peekable();
    let mut failure = None;
    while let Some(address) = addresses.next() {
        let patience = if addresses.peek().is_some() { timeout.min(SHORT) } else { timeout };
        match TcpStream::connect_timeout(&address, patience)
            .and_then(|socket| prepare(socket, timeout))
        {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = Some(explain(&error)),
        }
    }
    Err(ConnectError::Later(failure.unwrap_or_else(|| "it has no address".to_owned())))
}

fn resolve(host: &Host) -> Result<Vec<SocketAddr>, ConnectError> {
    match (host.name.as_str(), host.port).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        // A board that is off has no name on the local link (mDNS).
        Err(_) if host.name.to_ascii_lowercase().trim_end_matches('.').ends_with(".local") => {
            Err(ConnectError::Later("its name is not known yet (is it on?)".to_owned()))
        }
        Err(_) => Err(ConnectError::Unusable(
            "no such host: check the name, and that this computer is on the network".to_owned(),
        )),
    }
}

fn prepare(socket: TcpStream, timeout: Duration) -> io::Result<TcpStream> {
    // The system notices within half a minute that an idle server is gone.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket)
}

/// Takes the greeting.
fn greet(socket: TcpStream, trace: &Trace) -> Result<FtpStream, ConnectError> {
    let error = match FtpStream::connect_with_stream(socket) {
        Ok(stream) => {
            trace.received(stream.get_welcome_msg().unwrap_or_default().as_bytes());
            return Ok(stream);
        }
        Err(error) => error,
    };
    Err(ConnectError::Later(match error {
        FtpError::UnexpectedResponse(response) => {
            trace.received(&response.body);
            match Reply::parse(&response.body) {
                Some(reply) => no_service(&reply),
                None => "no FTP reply".to_owned(),
            }
        }
        FtpError::ConnectionError(error) => explain(&error),
        error => error.to_string(),
    }))
}

/// What a refusal before the login means.
fn no_service(reply: &Reply) -> String {
    match reply.code {
        421 => format!(
            "{reply} (another client has its place, or the board still holds an old session: \
             if this lasts, reset it)"
        ),
        _ => reply.to_string(),
    }
}

/// Looks at the greeting without taking it, to tell what is no FTP server from one that is.
fn check_greeting(socket: &TcpStream) -> Result<(), String> {
    let mut start = [0; 80];
    match socket.peek(&mut start) {
        Ok(0) => Err("it closed the connection without a greeting".to_owned()),
        Ok(_) if start[0].is_ascii_digit() => Ok(()),
        Ok(read) => {
            let said = String::from_utf8_lossy(&start[..read]);
            let said = said.lines().next().unwrap_or_default();
            Err(format!("this is no FTP server, it says '{said}': check the host and the port"))
        }
        Err(error) => Err(match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                "it accepts the connection but does not greet (is it an FTP server, or busy?)"
                    .to_owned()
            }
            _ => explain(&error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_directories() {
        assert_eq!(quoted("\"/\""), Some("/".into()));
        assert_eq!(quoted("\"/a \"\"b\"\"\" is current"), Some("/a \"b\"".into()));
        assert_eq!(quoted("Not implemented."), None);
    }

    #[test]
    fn names_that_boards_would_misread_are_prefixed() {
        let name = |path: &str| prefixed(path);
        assert_eq!(name("-x.py"), "./-x.py");
        assert_eq!(name(" x.py"), "./ x.py");
        assert_eq!(name("~x/y.py"), "./~x/y.py");
        assert_eq!(name("lib/-x.py"), "lib/-x.py");
    }
}
