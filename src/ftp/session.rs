//! One FTP session (RFC 959), run by suppaftp; uploads go through [`Uploader`].

use std::collections::HashSet;
use std::io::{self, Read};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use suppaftp::FtpError;

use crate::ftp::connect::{self, ConnectError, Dialled, Stream, TlsFacts};
use crate::ftp::control::{ControlConnection, quick_ack};
use crate::ftp::error::{Broken, TOO_LONG, TransferError};
use crate::ftp::profile::{Board, is_known};
use crate::ftp::reply::Reply;
use crate::ftp::tls::{self, Secure, Trust};
use crate::ftp::trace::Trace;
use crate::ftp::uploader::{DataOptions, DataSeen, Uploader};
use crate::ftp::watchdog::Watchdog;
use crate::local::file::Source;
use crate::model::encoding::Encoding;
use crate::model::path::RelPath;
use crate::model::send_mode::{SendChoice, SendMode};
use crate::settings::config::Config;
use crate::settings::credentials::Login;
use crate::settings::host::Host;

/// Some servers refuse SIZE to an account that may well upload: with 550, as if nothing was there.
/// Some do not rename over a file, or do not take temporary names. So many refusals in a row are understood as that.
const REFUSALS: u32 = 2;

/// After so many uploads in a row that went wrong the fast way, a session is plain from its start.
const MISSES: u32 = 2;

/// How long a data connection may take that nobody waits for yet: its first segment may be lost
/// twice.
const READY_WITHIN: Duration = Duration::from_secs(4);

/// How long to wait for a server's last words.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the server said of itself.
#[derive(Debug)]
pub struct Welcome {
    /// Its greeting.
    pub greeting: String,
    /// Its working directory, where files go; some boards do not say it.
    pub dir: Option<String>,
    /// How it is encrypted; `None` in the clear.
    pub tls: Option<String>,
}

/// The bytes of a command besides its path.
const LONGEST_VERB: usize = "STOR ".len() + "\r\n".len();

/// FTPdLite without accounts lets everybody in, and only this user write.
const FTPDLITE_ADMIN: &str = "ftpadmin";

/// What has been learnt of a server, beyond one session.
#[derive(Debug, Default)]
pub struct ServerFacts {
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
    /// Its data connections have to resume the session of the control connection.
    demands_resumption: bool,
    /// Whether its data ports differ, as far as was seen.
    varies_ports: Option<bool>,
    /// The file whose upload went wrong the fast way last: it goes the plain way next.
    missed: Option<String>,
    /// How many have in a row.
    misses: u32,
}

impl ServerFacts {
    /// A refusal may have been of its moment: what follows from it is learnt anew.
    pub fn begin_session(&mut self) {
        if self.tells_size == Some(false) {
            self.tells_size = None;
            self.sizes_refused = REFUSALS - 1;
        }
        self.refused_over = self.refused_over.min(REFUSALS - 1);
        self.in_place = self.in_place.min(REFUSALS - 1);
    }

    /// An upload went wrong the fast way.
    pub fn is_missed(&mut self, name: &str) {
        self.missed = Some(name.to_owned());
        self.is_unlucky();
    }

    /// A data connection that was made ahead did no good.
    pub fn is_unlucky(&mut self) {
        self.misses = MISSES.min(self.misses + 1);
    }

    /// One went well.
    pub fn is_hit(&mut self, name: &str, way: SendMode) {
        self.missed.take_if(|missed| missed == name);
        if way != SendMode::Serial {
            self.misses = 0;
        }
    }

    /// Whether it is known that SIZE tells what is stored.
    pub fn tells_size(&self) -> bool {
        self.tells_size == Some(true)
    }

    /// Whether SIZE has never been refused.
    pub fn has_refused_no_size(&self) -> bool {
        self.tells_size.is_none() && self.sizes_refused == 0
    }

    /// Whether it has been seen to rename over a file.
    pub fn renames_over(&self) -> bool {
        self.renames_over
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
    /// Another file is waiting.
    pub more: bool,
}

/// A file that is there.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Its size in bytes.
    pub bytes: u64,
    /// When the server said so, or renamed it; after that, its size was confirmed.
    pub when: Instant,
}

/// Where a session leads, and how.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The server.
    pub host: &'a Host,
    /// Who logs in.
    pub login: &'a Login,
    /// Where files are to go.
    pub dir: Option<&'a str>,
    /// Whom to trust; without it, all goes in the clear.
    pub trust: Option<&'a Trust>,
    /// The server makes the data connections.
    pub active: bool,
    /// How names are written.
    pub encoding: Encoding,
    /// How files are to be sent; without it, as fast as is safe there.
    pub transfer: Option<SendMode>,
    /// How long each wait takes at most.
    pub timeout: Duration,
}

impl<'a> Entry<'a> {
    /// What the settings say of the host of this number.
    pub fn of(config: &'a Config, id: usize) -> Self {
        let host = &config.hosts[id];
        Self {
            host,
            login: &config.logins[id],
            dir: host.dir.as_deref().or(config.remote_dir.as_deref()),
            trust: config.trust.as_ref().filter(|_| host.secure),
            active: config.active,
            encoding: config.encoding,
            transfer: config.transfer,
            timeout: config.timeout,
        }
    }
}

/// A session that is logged in, in binary mode, in the directory where files are to go.
pub struct FtpSession {
    stream: Stream,
    uploader: Uploader,
    /// The same connection as both of them have.
    control: ControlConnection,
    watchdog: Watchdog,
    timeout: Duration,
    trace: Trace,
    send_choice: SendChoice,
    /// Whether it is a server whose ways are known by its greeting.
    is_known: bool,
    /// Something went wrong in this session: its manner stays.
    is_careful: bool,
    /// What the person chose.
    chosen: Option<SendMode>,
    /// Whether the server takes names for UTF-8, as far as we can see to it. Boards do always.
    takes_utf8: bool,
    /// The directories that are known to be there.
    dirs: HashSet<String>,
}

impl FtpSession {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Says why in words for a person.
    pub fn open(
        entry: Entry,
        tls_facts: &mut TlsFacts,
        trace: Trace,
    ) -> Result<(Self, Welcome), ConnectError> {
        let Entry { host, login, dir, trust, active, encoding, transfer, timeout } = entry;
        let Dialled { stream, control, secure, watchdog, greeting, unprotected } =
            connect::dial(host, trust, tls_facts, timeout, encoding, &trace)?;
        let board = Board::of(&greeting);
        let is_guest = board == Some(Board::FtpdLite) && login.user != FTPDLITE_ADMIN;
        let is_known = board == Some(Board::FtpdLite) || is_known(&greeting);
        let options =
            DataOptions { secure, active, encoding, board, is_guest, varies_ports: is_known };
        let mut session = Self {
            stream,
            send_choice: options.send_choice(transfer),
            is_known,
            is_careful: false,
            chosen: transfer,
            uploader: Uploader::new(control.clone(), options, timeout),
            control,
            watchdog,
            timeout,
            trace,
            takes_utf8: board.is_some(),
            dirs: HashSet::new(),
        };
        let dir = (session.log_in(login))
            .and_then(|()| if unprotected { session.protect() } else { Ok(()) })
            .and_then(|()| session.settle(dir));
        let tls = session.control.version().map(|version| {
            let checked = trust.is_some_and(Trust::is_checking);
            let doubt = if checked { "" } else { " (the certificate is not checked)" };
            format!("{}{doubt}", tls::in_words(version))
        });
        match dir {
            Ok(dir) => Ok((session, Welcome { greeting, dir, tls })),
            Err(error) => {
                session.quit();
                Err(error)
            }
        }
    }

    /// Asks for encrypted data connections (RFC 4217, 9), after the login, which aioftp wants first.
    /// Where TLS began at once, some encrypt them without knowing of this.
    fn protect(&mut self) -> Result<(), ConnectError> {
        self.command("PBSZ 0")?;
        match self.command("PROT P")? {
            reply if reply.is_completion() || reply.is_unknown_command() => Ok(()),
            reply => Err(connect::unprotected(&reply)),
        }
    }

    fn log_in(&mut self, login: &Login) -> Result<(), ConnectError> {
        let user = &login.user;
        if !self.uploader.options().encoding.can_write(user) {
            return Err(ConnectError::Unusable(format!("--encoding latin1 cannot write '{user}'")));
        }
        let mut reply = self.command(&format!("USER {user}"))?;
        if reply.code == 331 {
            self.may_confide(login)?;
            let password = login.password().map_err(ConnectError::Unusable)?;
            reply = self.confide("PASS", &password)?;
        }
        if reply.code == 332 {
            let Some(account) = &login.account else {
                return Err(ConnectError::Unusable(format!(
                    "it asks for an account besides the user and password: {reply}: use --account NAME"
                )));
            };
            self.may_confide(login)?;
            reply = self.confide("ACCT", account)?;
        }
        match reply.code {
            200 | 202 | 230..=239 => Ok(()),
            // FTPdLite says 430 of a wrong password (RFC 2389 does not know it).
            400..=499 if self.uploader.is_lacking_tls(&reply) => Err(ConnectError::Unusable(
                format!("login as {} refused: {reply}: {}", login.user, remedy(true, login)),
            )),
            400..=429 | 431..=499 => Err(ConnectError::Later(connect::no_service(&reply))),
            331 | 430 | 500..=599 => {
                let refused = format!("login as {} refused: {reply}", login.user);
                Err(match login.is_refused() {
                    Some(tries) => ConnectError::Again(format!("{refused} ({tries})")),
                    None => {
                        let remedy = remedy(self.uploader.is_lacking_tls(&reply), login);
                        ConnectError::Unusable(format!("{refused}: {remedy}"))
                    }
                })
            }
            _ => Err(ConnectError::Later(reply.misfit())),
        }
    }

    /// Whether secrets may go out as they would now.
    fn may_confide(&self, login: &Login) -> Result<(), ConnectError> {
        if self.uploader.options().secure.is_some() {
            return Ok(());
        }
        let peer = self.control.socket().peer_addr().map_err(Broken::from)?;
        login.allow_in_the_clear(peer.ip()).map_err(ConnectError::Unusable)
    }

    /// Binary mode, and the directory; returns its name.
    fn settle(&mut self, dir: Option<&str>) -> Result<Option<String>, ConnectError> {
        let reply = self.command("TYPE I")?;
        // Who knows of no types has but one.
        if !reply.is_completion() && !reply.is_unknown_command() {
            return Err(ConnectError::Later(format!("no binary transfers: {reply}")));
        }
        if let Some(dir) = dir {
            if !self.uploader.options().encoding.can_write(dir) {
                return Err(ConnectError::Unusable(format!(
                    "the remote directory '{dir}' has characters that --encoding latin1 lacks"
                )));
            }
            let reply = self.command(&format!("CWD {}", prefixed(dir)))?;
            if !reply.is_completion() {
                return Err(ConnectError::Unusable(format!(
                    "the remote directory '{dir}' cannot be used: {reply}: make it there, or correct it in HOST or --remote-dir"
                )));
            }
        }
        let reply = self.command("PWD")?;
        Ok(quoted(&reply.text).filter(|_| reply.code == 257))
    }

    /// Stores one file, making its directories if it must, and has the server confirm its size.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub fn store(
        &mut self,
        upload: Upload,
        source: &mut Source,
        facts: &mut ServerFacts,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Stored, TransferError> {
        let Upload { path, temporary, again, replaces, more } = upload;
        self.reconsider(facts);
        let target = self.name(path.as_str())?;
        let name = temporary.map_or(Ok(target.clone()), |name| self.name(name))?;
        let must_stay_missing = self.look_without_blank(&target, facts)?;
        let is_there = path.parent().is_none_or(|parent| self.dirs.contains(parent));
        if facts.make_first && !is_there {
            self.make_directories(path)?;
        }
        let may_lack_directory = path.parent().is_some() && (again || !is_there);
        let sent = match self.send(&name, source, more, facts, progress) {
            Err(refusal)
                if may_lack_directory
                    && refusal.may_lack_directory()
                    && self.uploader.is_in_step() =>
            {
                let made = self.make_directories(path)?;
                match refusal {
                    TransferError::Reconnect(cause) if made => {
                        facts.make_first = true;
                        return Err(TransferError::Again(cause));
                    }
                    TransferError::Reconnect(_) => Err(refusal),
                    _ => {
                        source.rewind().map_err(TransferError::Local)?;
                        self.send(&name, source, more, facts, progress)
                    }
                }
            }
            sent => sent,
        };
        let mut stored = sent.map_err(|error| self.judge(&name, error, facts))?;
        self.dirs.extend(path.parent().map(ToOwned::to_owned));
        if temporary.is_some() {
            self.rename(&name, &target, replaces, facts)?;
            stored.when = Instant::now();
        }
        if let Some(without_blank) = must_stay_missing
            && matches!(self.size_of(&without_blank, facts)?, Size::Bytes(_))
        {
            self.command(&format!("DELE {without_blank}"))?;
            return Err(drops_blank());
        }
        Ok(stored)
    }

    /// Sends a file, and has its size confirmed. Meanwhile the data connection for the next one is
    /// made, if there are `more`.
    fn send(
        &mut self,
        name: &str,
        source: &mut Source,
        more: bool,
        facts: &mut ServerFacts,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Stored, TransferError> {
        let way = self.way(name, facts);
        let bytes = self.uploader.store(way, name, source, &self.trace, progress)?;
        let when = Instant::now();
        if more && way == SendMode::Prepared {
            self.make_ready_beside(|session| session.confirm(name, bytes, facts))??;
        } else {
            self.confirm(name, bytes, facts)?;
        }
        facts.is_hit(name, way);
        Ok(Stored { bytes, when })
    }

    /// How a file is to be sent now.
    fn way(&self, name: &str, facts: &ServerFacts) -> SendMode {
        match &facts.missed {
            Some(missed) if missed == name => SendMode::Serial,
            _ => self.send_choice.mode,
        }
    }

    /// What follows for the server from an upload that went wrong. If it was not sent the plain way,
    /// it is next, at once; in a new session, because what this one would do next is not certain.
    fn judge(&self, name: &str, error: TransferError, facts: &mut ServerFacts) -> TransferError {
        let options = self.uploader.options();
        if let TransferError::Again(_) = error {
            facts.demands_resumption |= options.secure.is_some();
        }
        if self.way(name, facts) == SendMode::Serial || options.is_joint() {
            return error;
        }
        match error {
            TransferError::Reconnect(cause) => {
                facts.is_missed(name);
                // It may well be missing: the second try tells.
                facts.sizes_refused = facts.sizes_refused.saturating_sub(1);
                TransferError::Again(cause)
            }
            TransferError::Disconnected(_) => {
                facts.is_missed(name);
                error
            }
            _ => error,
        }
    }

    fn be_careful(&mut self, transfer: SendMode, why: String) {
        self.uploader.give_up_ready();
        self.is_careful = true;
        self.send_choice = SendChoice { mode: transfer, reason: why };
    }

    /// How files are sent.
    pub fn send_choice(&self) -> &SendChoice {
        &self.send_choice
    }

    /// Goes by what was learnt in earlier sessions.
    pub fn take_up(&mut self, facts: &mut ServerFacts) {
        facts.begin_session();
        if let Some(varies_ports) = facts.varies_ports {
            self.uploader.take_up(varies_ports);
        }
        if facts.misses >= MISSES && self.send_choice.mode != SendMode::Serial {
            // The session after this one may try again.
            facts.misses -= 1;
            self.be_careful(SendMode::Serial, "faster ways failed before".to_owned());
        }
    }

    /// Goes by what has been seen of the server.
    fn reconsider(&mut self, facts: &mut ServerFacts) {
        let options = self.uploader.options();
        facts.varies_ports = Some(options.varies_ports);
        if self.is_careful {
            return;
        }
        self.send_choice = options.send_choice(self.chosen);
        // A connection that dies while it waits looks like the end of an empty file.
        let is_checked = facts.tells_size() || (self.is_known && facts.has_refused_no_size());
        if self.send_choice.mode == SendMode::Prepared && self.chosen.is_none() && !is_checked {
            let why = "it does not tell what it has stored".to_owned();
            self.send_choice = SendChoice { mode: SendMode::Overlapped, reason: why };
        }
    }

    /// Whether files may be sent over several sessions at once.
    pub fn allows_more(&self) -> bool {
        let options = self.uploader.options();
        options.board.is_none() && (options.varies_ports || options.active)
    }

    /// Makes what the next file need not wait for then: a data connection, as long as somebody
    /// `is_at_work`. Returns whether there was something to do.
    ///
    /// # Errors
    /// When the session is over.
    pub fn make_ready(
        &mut self,
        is_at_work: bool,
        facts: &mut ServerFacts,
    ) -> Result<bool, Broken> {
        self.uploader.give_up_stale();
        self.reconsider(facts);
        let is_uftpd = self.uploader.options().board == Some(Board::Uftpd);
        let is_wanted = match self.send_choice.mode {
            SendMode::Serial => false,
            SendMode::Overlapped => is_uftpd,
            SendMode::Prepared => is_at_work,
        };
        if !is_wanted || self.is_careful || self.uploader.has_ready() {
            return Ok(false);
        }
        match self.uploader.ask_ahead(&self.trace) {
            Ok(_) if is_uftpd => {}
            Ok(address) => {
                let connected = TcpStream::connect_timeout(&address, self.patience());
                if connected.is_err() {
                    facts.is_unlucky();
                }
                self.have_ready(connected);
            }
            Err(TransferError::Disconnected(cause)) => return Err(Broken(cause)),
            Err(error) => self.be_careful(SendMode::Overlapped, error.to_string()),
        }
        Ok(true)
    }

    /// Makes the data connection for the next file, and does something else on the control
    /// connection while that takes its time.
    fn make_ready_beside<T>(
        &mut self,
        what: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, TransferError> {
        let patience = self.patience();
        let connecting = match self.uploader.ask_ahead(&self.trace) {
            Ok(address) => thread::Builder::new()
                .spawn(move || TcpStream::connect_timeout(&address, patience))
                .ok(),
            Err(error @ TransferError::Disconnected(_)) => return Err(error),
            Err(_) => None,
        };
        let done = what(self);
        if let Some(connected) = connecting.and_then(|thread| thread.join().ok()) {
            self.have_ready(connected);
        }
        Ok(done)
    }

    fn patience(&self) -> Duration {
        self.timeout.min(READY_WITHIN)
    }

    fn have_ready(&mut self, connected: io::Result<TcpStream>) {
        if let Err(error) = self.uploader.have_ready(connected) {
            // An upload will say more.
            self.be_careful(SendMode::Overlapped, format!("its data port: {error}"));
        }
    }

    /// Gives up the data connection for the next file.
    pub fn give_up_ready(&mut self) {
        self.uploader.give_up_ready();
    }

    /// When there will be something to do for [`Self::make_ready`] again.
    pub fn ready_until(&self) -> Option<Instant> {
        self.uploader.ready_until()
    }

    /// Some servers drop a blank at the end of a name (aioftp): another file would be overwritten.
    /// Returns the name without it if that is not there, and must not be afterwards.
    fn look_without_blank(
        &mut self,
        name: &str,
        facts: &mut ServerFacts,
    ) -> Result<Option<String>, TransferError> {
        let without_blank = name.trim_end_matches(' ');
        if without_blank == name {
            return Ok(None);
        }
        match (self.size_of(without_blank, facts)?, self.size_of(name, facts)?) {
            (Size::Missing, _) => Ok(Some(without_blank.to_owned())),
            (Size::Bytes(one), Size::Bytes(other)) if one != other => Ok(None),
            (Size::Bytes(_), Size::Missing) => Ok(None),
            _ => Err(drops_blank()),
        }
    }

    /// A path as the server is to read it.
    fn name(&mut self, path: &str) -> Result<String, TransferError> {
        if !path.is_ascii() {
            let encoding = self.uploader.options().encoding;
            if !encoding.can_write(path) {
                return Err(TransferError::Permanent(
                    "its name has characters that --encoding latin1 lacks: rename it".to_owned(),
                ));
            }
            if encoding == Encoding::Utf8 && !std::mem::replace(&mut self.takes_utf8, true) {
                self.offer_utf8()?;
            }
        }
        let name = prefixed(path);
        // What is longer, the board reads as two commands, the first of which names another file.
        match self.uploader.options().board.map(Board::longest_command) {
            Some(most) if LONGEST_VERB + name.len() > most => Err(TransferError::Permanent(
                format!("its path is too long: the board reads commands of at most {most} bytes"),
            )),
            _ => Ok(name),
        }
    }

    /// Some servers take names for UTF-8 only when told so (RFC 2640 leaves it open), and announce
    /// that they can be.
    fn offer_utf8(&mut self) -> Result<(), Broken> {
        let features = self.command("FEAT")?;
        let announced = (features.text.lines())
            .any(|line| line.trim().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("UTF8")));
        if features.is_completion() && announced {
            self.command("OPTS UTF8 ON")?;
        }
        Ok(())
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
    fn confirm(
        &mut self,
        name: &str,
        bytes: u64,
        facts: &mut ServerFacts,
    ) -> Result<(), TransferError> {
        let size = self.size_of(name, facts)?;
        if size == Size::Missing && !facts.tells_size() {
            facts.sizes_refused += 1;
            if facts.sizes_refused >= REFUSALS {
                facts.tells_size = Some(false);
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
    pub fn size(&mut self, path: &RelPath, facts: &mut ServerFacts) -> Result<Size, TransferError> {
        let name = self.name(path.as_str())?;
        let size = self.size_of(&name, facts)?;
        let is_doubtful = facts.sizes_refused > 0 && !facts.tells_size();
        Ok(if size == Size::Missing && is_doubtful { Size::Untold } else { size })
    }

    fn size_of(&mut self, name: &str, facts: &mut ServerFacts) -> Result<Size, TransferError> {
        if facts.tells_size == Some(false) {
            return Ok(Size::Untold);
        }
        let reply = self.command(&format!("SIZE {name}"))?;
        match (reply.code, reply.text.trim().parse()) {
            (213, Ok(bytes)) => {
                facts.tells_size = Some(true);
                facts.sizes_refused = 0;
                Ok(Size::Bytes(bytes))
            }
            (550, _) => Ok(Size::Missing),
            // RFC 3659 is younger than many a server.
            _ if reply.is_unknown_command() || reply.is_completion() => {
                facts.tells_size = Some(false);
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
        facts: &mut ServerFacts,
    ) -> Result<(), TransferError> {
        if to.parent().is_some_and(|parent| !self.dirs.contains(parent)) {
            self.make_directories(to)?;
        }
        let (from, to) = (self.name(from.as_str())?, self.name(to.as_str())?);
        if to.ends_with(' ') {
            return Err(drops_blank());
        }
        self.rename(&from, &to, false, facts)
    }

    /// `replaces` says that the new name is known to be taken.
    fn rename(
        &mut self,
        from: &str,
        to: &str,
        replaces: bool,
        facts: &mut ServerFacts,
    ) -> Result<(), TransferError> {
        if facts.refused_over < REFUSALS {
            let reply = self.try_rename(from, to, facts)?;
            if reply.is_completion() {
                facts.refused_over = 0;
                facts.renames_over |= replaces;
                return Ok(());
            }
            if reply.code / 100 != 5 || facts.renames_over {
                return Err(TransferError::refused(&reply));
            }
        }
        // RFC 959 leaves open whether RNTO replaces a file.
        let deleted = self.command(&format!("DELE {to}"))?;
        let reply = self.try_rename(from, to, facts)?;
        if !reply.is_completion() {
            return Err(TransferError::refused(&reply));
        }
        facts.refused_over += u32::from(deleted.is_completion());
        Ok(())
    }

    /// Returns the answer to RNTO. It follows only a good RNFR: FTPdLite ends the session otherwise.
    fn try_rename(
        &mut self,
        from: &str,
        to: &str,
        facts: &mut ServerFacts,
    ) -> Result<Reply, TransferError> {
        let reply = self.command(&format!("RNFR {from}"))?;
        if reply.is_unknown_command() {
            facts.cannot_rename = true;
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
    pub fn remove(&mut self, path: &str, facts: &mut ServerFacts) -> Result<bool, TransferError> {
        let name = self.name(path)?;
        let reply = self.command(&format!("DELE {name}"))?;
        if reply.is_completion() {
            return Ok(true);
        }
        // No code says that there is no such file.
        match reply.code {
            550 if !matches!(self.size_of(&name, facts)?, Size::Bytes(_)) => Ok(false),
            _ => Err(TransferError::refused(&reply)),
        }
    }

    /// Removes a directory if it is empty: servers refuse to if it is not. Returns whether it did.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn remove_directory(&mut self, dir: &str) -> Result<bool, Broken> {
        self.dirs.remove(dir);
        if !self.uploader.options().encoding.can_write(dir) {
            return Ok(false);
        }
        Ok(self.command(&format!("RMD {}", prefixed(dir)))?.is_completion())
    }

    /// Whether the server says that it can encrypt.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn offers_tls(&mut self) -> Result<bool, Broken> {
        let features = self.command("FEAT")?;
        Ok(features.is_completion() && features.text.to_ascii_uppercase().contains("AUTH TLS"))
    }

    /// Runs a command of the server's own (`SITE`); NUL in it is allowed.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn site(&mut self, command: &str) -> Result<Reply, Broken> {
        self.command(&format!("SITE {command}"))
    }

    /// What has been seen of data connections.
    pub fn data(&self) -> DataSeen {
        self.uploader.data()
    }

    /// Whether a file can go out only in a new session: with TLS 1.3, proftpd gives tickets for two.
    pub fn is_spent(&self, facts: &ServerFacts) -> bool {
        let secure = &self.uploader.options().secure;
        facts.demands_resumption && secure.as_ref().is_some_and(Secure::is_spent)
    }

    /// Whether the session still stands, as far as can be told without asking.
    pub fn is_quiet(&self) -> bool {
        self.uploader.is_quiet()
    }

    /// Whether this computer still has the address that the session was made from.
    pub fn is_at_home(&self) -> bool {
        self.uploader.is_at_home()
    }

    /// Asks for a sign of life within `patience`; what the answer is does not matter.
    ///
    /// # Errors
    /// When there is none.
    pub fn probe(&mut self, patience: Duration) -> Result<(), Broken> {
        match self.command_within(patience, "NOOP")? {
            reply if reply.code == 421 => Err(Broken(reply.to_string())),
            _ => Ok(()),
        }
    }

    /// Asks for a sign of life; what the answer is does not matter.
    ///
    /// # Errors
    /// When there is none.
    pub fn keep_alive(&mut self) -> Result<(), Broken> {
        self.probe(self.timeout)
    }

    /// Ends the session politely.
    pub fn quit(mut self) {
        // Who is in the midst of saying something is not waited for.
        if self.uploader.is_in_step() {
            let _ = self.command_within(FAREWELL, "QUIT");
        }
        self.hang_up();
    }

    /// Ends a session that is out of step: says that we are done and hears the server out, because
    /// closing with an unread byte would reset the connection, and FTPdLite then lets nobody in
    /// until the board is restarted.
    pub fn hang_up(self) {
        self.control.close();
        let mut socket = self.control.socket();
        let until = Instant::now() + FAREWELL;
        let mut rest = [0; 1024];
        while Instant::now() < until
            && socket.set_read_timeout(Some(FAREWELL)).is_ok()
            && matches!(socket.read(&mut rest), Ok(1..))
        {}
    }

    fn command(&mut self, line: &str) -> Result<Reply, Broken> {
        self.command_within(self.timeout, line)
    }

    fn command_within(&mut self, limit: Duration, line: &str) -> Result<Reply, Broken> {
        self.trace.sent(line);
        let body = self.exchange(limit, line)?;
        self.trace.received(&body);
        self.parse(&body)
    }

    /// Sends a secret. An answer that repeats it is not shown.
    fn confide(&mut self, verb: &str, secret: &str) -> Result<Reply, Broken> {
        self.trace.sent(&format!("{verb} ****"));
        let body = self.exchange(self.timeout, &format!("{verb} {secret}"))?;
        let mut reply = self.parse(&body)?;
        if !secret.is_empty() && reply.text.contains(secret) {
            reply.text = "(the server's words repeat what was sent, and are not shown)".to_owned();
        }
        self.trace.received(reply.to_string().as_bytes());
        Ok(reply)
    }

    fn parse(&self, body: &[u8]) -> Result<Reply, Broken> {
        Reply::parse(&self.uploader.options().encoding.read(body))
            .ok_or_else(|| Broken("no FTP reply".to_owned()))
    }

    fn exchange(&mut self, limit: Duration, line: &str) -> Result<Vec<u8>, Broken> {
        if !self.uploader.is_quiet() {
            let unasked = self.uploader.reply(&self.trace)?;
            return Err(Broken(format!("unasked it said {unasked}")));
        }
        let socket = self.control.socket();
        socket.set_read_timeout(Some(limit))?;
        quick_ack(socket);
        // With no reply code expected, suppaftp hands every reply over as it is.
        let (result, too_long) =
            self.watchdog.within(limit, || self.stream.custom_command(line, &[]));
        match result {
            Ok(response) | Err(FtpError::UnexpectedResponse(response)) => Ok(response.body),
            Err(FtpError::ConnectionError(_)) if too_long => Err(Broken(TOO_LONG.to_owned())),
            Err(FtpError::ConnectionError(error)) => Err(error.into()),
            Err(error) => Err(Broken(error.to_string())),
        }
    }
}

/// Why a name that ends in a blank is not sent.
fn drops_blank() -> TransferError {
    TransferError::Permanent(
        "its name ends in a blank, which the server seems to drop: rename it".to_owned(),
    )
}

/// What to do about a refused login.
fn remedy(lacks_tls: bool, login: &Login) -> String {
    match lacks_tls {
        true => "it wants encryption: use --tls".to_owned(),
        false => format!("check --user and the password{}", login.source()),
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
