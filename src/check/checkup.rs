//! `--check`: tries out what a server can do, and tells what to mend.

use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{bounded, select};

use crate::exit::Exit;
use crate::ftp::connect::{ConnectError, TlsFacts};
use crate::ftp::error::TransferError;
use crate::ftp::profile::Board;
use crate::ftp::session::{Entry, FtpSession, ServerFacts, Upload};
use crate::ftp::uploader::DataSeen;
use crate::local::file::Source;
use crate::model::event::HostId;
use crate::model::path::RelPath;
use crate::model::send_mode::SendMode;
use crate::pending::backoff;
use crate::report::text::Page;
use crate::settings::config::Config;
use crate::settings::credentials;
use crate::settings::host::Host;
use crate::shutdown::{self, Stop};
use crate::terminal;

/// How much is uploaded, in bytes: about what a script has.
const SAMPLE: usize = 2000;

/// How many times a further session is tried.
const TRIES: u32 = 3;

/// How many times the round trip is measured.
const ROUND_TRIPS: usize = 5;

/// Tries out every host. Succeeds if files can be uploaded to all of them.
///
/// # Errors
/// When it cannot begin.
pub fn run(config: Config) -> Result<Exit> {
    let stops = shutdown::listen()?;
    let is_stopped = Arc::new(AtomicBool::new(false));
    let has_made = Arc::new(AtomicBool::new(false));
    let (sender, done) = bounded(1);
    let (stopped, made) = (is_stopped.clone(), has_made.clone());
    let page = Page::new(config.screen.color);
    thread::Builder::new()
        .name("check".to_owned())
        .spawn(move || {
            let mut all_work = true;
            for id in 0..config.hosts.len() {
                let mut checkup = Checkup::new(&config, id, &stopped, &made);
                all_work &= checkup.run();
            }
            let _ = sender.send(all_work);
        })
        .context("no thread for the check")?;
    let exit = loop {
        select! {
            recv(done) -> all_work => {
                break if all_work.unwrap_or(false) { Exit::Success } else { Exit::Failure };
            }
            recv(stops) -> stop => match stop {
                Ok(Stop::Drain) if has_made.load(Ordering::Relaxed) => {
                    is_stopped.store(true, Ordering::Relaxed);
                    page.finding("stopping", "what was made is removed; Ctrl-C again to end at once");
                }
                Ok(Stop::Drain) => break Exit::Failure,
                Ok(Stop::Abort) | Err(_) => break Exit::Aborted,
            },
        }
    };
    credentials::end_command();
    terminal::restore();
    Ok(exit)
}

/// Why a checkup goes no further.
enum Ended {
    /// What was found out last decides it.
    Decided,
    /// Ctrl-C.
    Stopped,
}

/// A directory that we may have made.
enum Made {
    Perhaps(String),
    Surely(String),
}

struct Checkup<'a> {
    config: &'a Config,
    id: HostId,
    host: &'a Host,
    page: Page,
    is_stopped: &'a AtomicBool,
    /// Whether there may be something of ours there.
    has_made: &'a AtomicBool,
    tls_facts: TlsFacts,
    facts: ServerFacts,
    session: Option<FtpSession>,
    data: DataSeen,
    transfer: SendMode,
    /// How long the last file took until it was stored.
    took: Duration,
    /// What may be there of ours, and has to be removed: files, and after them a directory.
    files: Vec<String>,
    directory: Option<Made>,
    /// What is to be mended.
    remedies: Vec<String>,
}

impl<'a> Checkup<'a> {
    fn new(
        config: &'a Config,
        id: HostId,
        is_stopped: &'a AtomicBool,
        has_made: &'a AtomicBool,
    ) -> Self {
        Self {
            config,
            id,
            host: &config.hosts[id],
            page: Page::new(config.screen.color),
            is_stopped,
            has_made,
            tls_facts: TlsFacts::default(),
            facts: ServerFacts::default(),
            session: None,
            data: DataSeen::default(),
            transfer: SendMode::Serial,
            took: Duration::ZERO,
            files: Vec::new(),
            directory: None,
            remedies: Vec::new(),
        }
    }

    /// Returns whether files can be uploaded.
    fn run(&mut self) -> bool {
        self.page.heading(&format!("{}: trying out", self.host));
        if let Some(notice) = &self.config.logins[self.id].notice {
            self.page.finding("note", notice);
        }
        let ended = self.examine();
        self.clean_up();
        if let Some(session) = self.session.take() {
            session.quit();
        }
        for remedy in &self.remedies {
            self.page.problem(&format!("{}: {remedy}", self.host));
        }
        match ended {
            Ok(verdict) => {
                self.page.heading(&format!("{}: {verdict}", self.host));
                true
            }
            Err(Ended::Decided) => false,
            Err(Ended::Stopped) => {
                self.page.problem(&format!("{}: stopped before the end", self.host));
                false
            }
        }
    }

    fn examine(&mut self) -> Result<String, Ended> {
        let board = self.connect()?;
        self.measure()?;
        self.upload()?;
        self.go_on()?;
        self.replace()?;
        self.go_on()?;
        self.directory()?;
        self.describe_transfer();
        self.go_on()?;
        self.remote_command(board);
        let steps = match self.transfer {
            SendMode::Serial => format!("{}, STOR, data", self.data.steps),
            SendMode::Overlapped => format!("{}, STOR with the data", self.data.steps),
            SendMode::Prepared => "STOR with the data".to_owned(),
        };
        let trips = match steps.split(", ").count() {
            1 => "1 round trip".to_owned(),
            more => format!("{more} round trips"),
        };
        Ok(format!("uploads work; a save takes {trips} ({steps})"))
    }

    fn go_on(&self) -> Result<(), Ended> {
        if self.is_stopped.load(Ordering::Relaxed) { Err(Ended::Stopped) } else { Ok(()) }
    }

    fn connect(&mut self) -> Result<Option<Board>, Ended> {
        loop {
            self.go_on()?;
            let entry = Entry::of(self.config, self.id);
            match FtpSession::open(
                entry,
                &mut self.tls_facts,
                self.page.trace(self.config.screen.debug),
            ) {
                Ok((session, welcome)) => {
                    self.session = Some(session);
                    let board = Board::of(&welcome.greeting);
                    let name = match board {
                        Some(Board::Uftpd) => "uftpd, on a board with MicroPython: ",
                        Some(Board::FtpdLite) => "FTPdLite, on a board with MicroPython: ",
                        None => "",
                    };
                    let greeting = welcome.greeting.lines().next().unwrap_or_default();
                    self.page.finding("server", &format!("{name}{greeting}"));
                    let encryption = welcome.tls.unwrap_or_else(|| self.why_none(board));
                    self.page.finding("encryption", &encryption);
                    let user = &self.config.logins[self.id].user;
                    let dir =
                        welcome.dir.map_or_else(String::new, |dir| format!(", files go to {dir}"));
                    self.page.finding("login", &format!("as {user}{dir}"));
                    return Ok(board);
                }
                Err(ConnectError::Again(cause)) => self.page.problem(&cause),
                Err(ConnectError::Later(cause) | ConnectError::Unusable(cause)) => {
                    self.remedies.push(cause);
                    return Err(Ended::Decided);
                }
            }
        }
    }

    fn why_none(&mut self, board: Option<Board>) -> String {
        let offered = (self.session.as_mut())
            .filter(|_| board.is_none())
            .is_some_and(|session| session.offers_tls().unwrap_or(false));
        let none = "none: the password and the files can be read on the way";
        if offered { format!("{none}; it offers TLS: use --tls") } else { none.to_owned() }
    }

    fn measure(&mut self) -> Result<(), Ended> {
        let mut times = Vec::new();
        for _ in 0..ROUND_TRIPS {
            self.go_on()?;
            let Some(session) = &mut self.session else { return Err(Ended::Decided) };
            let begun = Instant::now();
            if let Err(broken) = session.keep_alive() {
                return self.broke(&broken.to_string());
            }
            times.push(begun.elapsed());
        }
        times.sort();
        self.page.finding("round trip", &milliseconds(times[ROUND_TRIPS / 2]));
        Ok(())
    }

    fn upload(&mut self) -> Result<(), Ended> {
        let file = scratch();
        let stored = self.store(&file, SAMPLE, false);
        let time = milliseconds(self.took);
        self.describe_data();
        let Err(error) = stored else {
            self.page.finding("upload", &format!("works: {SAMPLE} bytes in {time}"));
            let confirmed = match self.facts.tells_size() {
                true => "SIZE tells what is stored: each upload is checked",
                false => "SIZE is not answered: what the server says of an upload is believed",
            };
            self.page.finding("checking", confirmed);
            return Ok(());
        };
        self.describe_transfer();
        self.page.finding("upload", &format!("does not work: {error}"));
        // What has no room for a file has room for an empty one.
        let is_refused = self.data.refusal.is_some();
        let is_full = is_refused && self.store(&file, 0, false).is_ok();
        let is_forbidden = matches!(self.data.refusal, Some(550..=553)) && !self.data.is_guest;
        self.remedies.push(match error {
            TransferError::Transient(_) | TransferError::Reconnect(_) if is_full => format!(
                "its disk is full: an empty file can be stored there, a longer one not: {error}"
            ),
            TransferError::Transient(_) if is_forbidden => {
                format!("nothing can be stored there: try another --user, or --remote-dir: {error}")
            }
            error => error.to_string(),
        });
        Err(Ended::Decided)
    }

    fn describe_transfer(&mut self) {
        let send_choice = self.session.as_ref().map(|session| session.send_choice().clone());
        if let Some(send_choice) = send_choice {
            self.page.finding("transfer", &send_choice.to_string());
            self.transfer = send_choice.mode;
        }
    }

    fn describe_data(&mut self) {
        self.page.finding("data", self.data.mode);
        if let Some(announced) = self.data.misannounced {
            self.remedies.push(format!(
                "it says that its data connections are at {announced}, where it is not; autoftp goes \
                 by the address that it has, other programs may fail: set the server's passive \
                 (masquerade) address"
            ));
        }
    }

    fn replace(&mut self) -> Result<(), Ended> {
        let Some(file) = self.files.first().cloned() else { return Ok(()) };
        let text = match self.store(&file, SAMPLE / 2, true) {
            Ok(()) if self.facts.renames_over() => {
                "replaces a file: with --atomic nobody sees half of one"
            }
            Ok(()) => "does not replace a file: with --atomic a file is gone for a moment",
            Err(TransferError::Disconnected(cause)) => return self.broke(&cause),
            Err(_) => "does not work: with --atomic files are stored in place",
        };
        self.page.finding("renaming", text);
        Ok(())
    }

    fn directory(&mut self) -> Result<(), Ended> {
        let directory = format!("{}.d", scratch());
        self.directory = Some(Made::Perhaps(directory.clone()));
        match self.store(&format!("{directory}/x"), SAMPLE, false) {
            Ok(()) => {
                self.directory = Some(Made::Surely(directory));
                self.page.finding("directories", "are made as needed");
            }
            Err(TransferError::Disconnected(cause)) => return self.broke(&cause),
            Err(error) => {
                self.page.finding("directories", "cannot be made");
                self.remedies.push(format!("files in new directories cannot be sent: {error}"));
            }
        }
        Ok(())
    }

    fn remote_command(&mut self, board: Option<Board>) {
        // What uftpd is sent it runs as Python.
        let harmless = if board == Some(Board::Uftpd) { "pass" } else { "HELP" };
        let Some(session) = &mut self.session else { return };
        match session.site(harmless) {
            Ok(reply) if reply.is_completion() && board == Some(Board::Uftpd) => {
                self.page.finding("remote command", "SITE runs Python there (-r)");
            }
            Ok(reply) if reply.is_unknown_command() && reply.code != 504 => {
                self.page.finding("remote command", "SITE is not known: -r is of no use there");
            }
            Ok(_) => {
                self.page.finding("remote command", "SITE has commands of the server's own (-r)");
            }
            Err(_) => {
                self.page
                    .finding("remote command", "SITE ended the session: -r is of no use there");
                self.session = None;
                self.reopen();
            }
        }
    }

    /// Removes what was made, and says what could not be.
    fn clean_up(&mut self) {
        let files = std::mem::take(&mut self.files);
        let directory = self.directory.take();
        if files.is_empty() || !self.reopen() {
            return self.is_left(&files);
        }
        let mut left = Vec::new();
        for file in files {
            let removed =
                self.session.as_mut().map(|session| session.remove(&file, &mut self.facts));
            if !matches!(removed, Some(Ok(_))) {
                left.push(file);
            }
        }
        if let Some(Made::Perhaps(name) | Made::Surely(name)) = &directory {
            let removed = self.session.as_mut().map(|session| session.remove_directory(name));
            let is_gone = match removed {
                // Refused, it is not there, or not empty.
                Some(Ok(removed)) => removed || !matches!(directory, Some(Made::Surely(_))),
                _ => false,
            };
            if !is_gone {
                left.push(name.clone());
            }
        }
        self.has_made.store(false, Ordering::Relaxed);
        self.is_left(&left);
    }

    fn is_left(&mut self, names: &[String]) {
        if !names.is_empty() {
            let names = names.join(", ");
            self.remedies
                .push(format!("could not be removed there again, if it was made: {names}"));
        }
    }

    fn broke(&mut self, cause: &str) -> Result<(), Ended> {
        self.session = None;
        self.remedies.push(cause.to_owned());
        Err(Ended::Decided)
    }

    /// Makes sure that there is a session that is in step.
    fn reopen(&mut self) -> bool {
        if self.session.as_mut().is_some_and(|session| session.keep_alive().is_ok()) {
            return true;
        }
        self.session = None;
        for failures in 1..=TRIES {
            let entry = Entry::of(self.config, self.id);
            let trace = self.page.trace(self.config.screen.debug);
            if let Ok((session, _)) = FtpSession::open(entry, &mut self.tls_facts, trace) {
                self.session = Some(session);
                return true;
            }
            // A board may not have noticed yet that the last session has ended.
            thread::sleep(backoff::delay(failures));
        }
        false
    }

    /// Uploads `len` bytes, first under another name if it is to be `renamed`.
    fn store(&mut self, name: &str, len: usize, renamed: bool) -> Result<(), TransferError> {
        self.has_made.store(true, Ordering::Relaxed);
        let temporary = renamed.then(|| format!("{name}.new"));
        for made in temporary.iter().map(String::as_str).chain([name]) {
            if !self.files.iter().any(|file| file == made) {
                self.files.push(made.to_owned());
            }
        }
        let path = RelPath::new(Path::new(name))
            .map_err(|bad| TransferError::Permanent(format!("'{name}' is no path: {bad:?}")))?;
        let temporary = temporary.as_deref();
        let upload =
            Upload { path: &path, temporary, again: false, replaces: renamed, more: false };
        match self.attempt(upload, len) {
            Err(TransferError::Again(_)) => self.attempt(upload, len),
            result => result,
        }
    }

    fn attempt(&mut self, upload: Upload, len: usize) -> Result<(), TransferError> {
        let mut source = sample(len).map_err(TransferError::Local)?;
        if self.session.is_none() {
            self.reopen();
        }
        let Some(session) = &mut self.session else {
            return Err(TransferError::Disconnected("there is no session any more".to_owned()));
        };
        let ready = session.make_ready(true, &mut self.facts);
        let begun = Instant::now();
        let stored = ready
            .map_err(TransferError::from)
            .and_then(|_| session.store(upload, &mut source, &mut self.facts, &mut |_| ()));
        if let Ok(stored) = &stored {
            self.took = stored.when - begun;
        }
        self.data = session.data();
        if let Err(
            TransferError::Again(_) | TransferError::Reconnect(_) | TransferError::Disconnected(_),
        ) = &stored
            && let Some(session) = self.session.take()
        {
            session.quit();
        }
        stored.map(drop)
    }
}

/// A name that nobody else has.
fn scratch() -> String {
    format!("autoftp-check-{}", std::process::id())
}

fn sample(len: usize) -> std::io::Result<Source> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&vec![b'#'; len])?;
    file.rewind()?;
    Source::of(file)
}

fn milliseconds(time: Duration) -> String {
    const TENTH: Duration = Duration::from_micros(100);
    match time {
        time if time < TENTH => "less than 0.1 ms".to_owned(),
        time => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
    }
}
