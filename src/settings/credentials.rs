//! Who to log in as, and where the password comes from: the address, a file, a command,
//! `AUTOFTP_PASSWORD`, netrc, or the person at the terminal; never an option's value.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use netrc::{Authenticator, Netrc};

use crate::settings::host::Host;
use crate::terminal;

/// The user name of whoever has no account (RFC 1635).
const ANONYMOUS: &str = "anonymous";

/// The environment variable that may hold the password.
pub const PASSWORD_VARIABLE: &str = "AUTOFTP_PASSWORD";

/// A password file of more bytes is none.
const LONGEST_FILE: u64 = 64 * 1024;

/// The pause between two looks whether the command has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// How often a person may try.
const TRIES: u32 = 3;

/// What the options say of logging in.
#[derive(Debug, Default)]
pub struct CredentialOptions {
    /// Who, where HOST does not say it.
    pub user: Option<String>,
    /// The password is the first line of this file.
    pub password_file: Option<PathBuf>,
    /// The password is the first line that this program prints.
    pub password_command: Option<Vec<String>>,
    /// How long that may take: a person may have to unlock something.
    pub command_timeout: Duration,
    /// What to answer a server that asks for an account (ACCT).
    pub account: Option<String>,
    /// Whether a password may go unencrypted to a public address.
    pub allow_plaintext: bool,
}

/// An account on one host.
#[derive(Debug)]
pub struct Login {
    /// The account's name.
    pub user: String,
    /// What to answer a server that asks for an account (ACCT).
    pub account: Option<String>,
    /// What is not right with where the password comes from, and good to know.
    pub notice: Option<String>,
    host: String,
    /// What is wrong with netrc, if that could be why there is no password.
    netrc_fault: Option<String>,
    source: Source,
    allow_plaintext: bool,
    /// Where it is written down that somebody allowed it.
    consents: Option<PathBuf>,
    password: Mutex<Password>,
}

/// Where a password comes from.
#[derive(Debug)]
enum Source {
    Address,
    File(PathBuf),
    /// A program with its arguments, where to run it, and how long it may take.
    Command(Vec<String>, PathBuf, Duration),
    Environment,
    Netrc,
    /// It is for those who have no account.
    Nobody,
    /// Whoever is at the terminal.
    Person,
}

#[derive(Debug, Default)]
struct Password {
    known: Option<String>,
    /// How many times it was asked for.
    asked: u32,
}

impl Login {
    /// Finds the account for `host`. Commands are run in `root`; what a person allows is remembered
    /// in `state_dir`.
    ///
    /// # Errors
    /// When a file cannot be read, or a name or password cannot be sent.
    pub fn find(
        host: &Host,
        means: &CredentialOptions,
        root: &Path,
        state_dir: Option<&Path>,
    ) -> Result<Self> {
        let wanted = host.user.as_deref().or(means.user.as_deref());
        let (entry, netrc_fault) = match netrc_entry(&host.name) {
            Ok(entry) => (entry, None),
            Err(fault) => (None, Some(fault)),
        };
        let entry = entry.filter(|entry| wanted.is_none_or(|user| entry.login == user));
        let user = match (wanted, &entry) {
            (Some(user), _) => user.to_owned(),
            (None, Some(entry)) if !entry.login.is_empty() => entry.login.clone(),
            (None, _) => ANONYMOUS.to_owned(),
        };
        // What is set for all hosts is not for those whom nobody named.
        let is_named = user != ANONYMOUS || wanted.is_some();
        let file = means.password_file.as_ref().filter(|_| is_named);
        let command = means.password_command.as_ref().filter(|_| is_named);
        let from_env = env::var(PASSWORD_VARIABLE).ok().filter(|_| is_named);
        let from_netrc = entry.as_ref().map(|entry| entry.password.clone());
        let (source, known) = if let Some(password) = &host.password {
            (Source::Address, Some(password.clone()))
        } else if let Some(file) = file {
            (Source::File(file.clone()), Some(first_line_of(file)?))
        } else if let Some(command) = command {
            (Source::Command(command.clone(), root.to_owned(), means.command_timeout), None)
        } else if let Some(password) = from_env {
            (Source::Environment, Some(password))
        } else if let Some(password) = from_netrc.filter(|password| !password.is_empty()) {
            (Source::Netrc, Some(password))
        } else if user == ANONYMOUS {
            (Source::Nobody, Some("anonymous@".to_owned()))
        } else {
            (Source::Person, None)
        };
        let notice = match &source {
            Source::Nobody | Source::Person if entry.is_none() => netrc_fault.clone(),
            Source::File(file) => exposure(file),
            Source::Netrc => netrc_file().and_then(|file| exposure(&file)),
            _ => None,
        };
        let from_netrc = entry.map(|entry| entry.account).filter(|name| !name.is_empty());
        let account = means.account.clone().or(from_netrc);
        for (what, value) in [
            ("user name", Some(&user)),
            ("password", known.as_ref()),
            ("account", account.as_ref()),
        ] {
            ensure!(
                value.is_none_or(|value| is_one_line(value)),
                "the {what} for {host} has a line break or NUL in it, which FTP cannot send"
            );
        }
        Ok(Self {
            user,
            account,
            notice,
            host: host.to_string(),
            netrc_fault,
            source,
            allow_plaintext: means.allow_plaintext,
            consents: state_dir.map(|dir| dir.join("allowed-plaintext")),
            password: Mutex::new(Password { known, asked: 0 }),
        })
    }

    /// The password; asks for it on the terminal if nothing else gave it.
    ///
    /// # Errors
    /// When there is no terminal to ask on; says where to put the password.
    pub fn password(&self) -> Result<String, String> {
        let mut password = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &password.known {
            return Ok(known.clone());
        }
        if let Source::Command(command, root, timeout) = &self.source {
            let told = run(command, root, *timeout)
                .map_err(|cause| format!("--password-command '{}': {cause}", command.join(" ")))?;
            return Ok(password.known.insert(told).clone());
        }
        let question = format!("Password of {} on {}: ", self.user, self.host);
        match terminal::ask(&question) {
            Ok(answer) if is_one_line(&answer) => {
                password.asked += 1;
                Ok(password.known.insert(answer).clone())
            }
            Ok(_) => Err("the password has a control character in it".to_owned()),
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::UnexpectedEof) =>
            {
                Err("no password was given".to_owned())
            }
            Err(_) => {
                let fault = self.netrc_fault.as_ref();
                let fault = fault.map_or_else(String::new, |fault| format!(" ({fault})"));
                Err(format!(
                    "it wants the password of {}, and there is no terminal to ask on: use \
                     --password-file, or set AUTOFTP_PASSWORD, or add it to ~/.netrc{fault}",
                    self.user
                ))
            }
        }
    }

    /// Where the password comes from, for messages; empty if that is plain.
    pub fn source(&self) -> String {
        let source = match &self.source {
            Source::Address => "the address".to_owned(),
            Source::File(file) => format!("--password-file '{}'", file.display()),
            Source::Command(command, ..) => format!("--password-command '{}'", command.join(" ")),
            Source::Environment => PASSWORD_VARIABLE.to_owned(),
            Source::Netrc => "netrc".to_owned(),
            Source::Nobody | Source::Person => return String::new(),
        };
        format!(" (from {source})")
    }

    /// The server does not take the password. Says whether the person who gave it may try again. A
    /// command will be asked for a newer one.
    pub fn is_refused(&self) -> Option<String> {
        let mut password = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        let may_try = (1..TRIES).contains(&password.asked);
        if may_try || matches!(self.source, Source::Command(..)) {
            password.known = None;
        }
        may_try.then(|| format!("{} of {TRIES} tries", password.asked))
    }

    /// Whether the password may go to this address unencrypted: within the house; further only if
    /// somebody says so, once.
    ///
    /// # Errors
    /// Says what to do instead.
    pub fn allow_in_the_clear(&self, address: IpAddr) -> Result<(), String> {
        let is_secret = self.user != ANONYMOUS;
        let entry = format!("{}@{}", self.user, self.host);
        if !is_secret || self.allow_plaintext || !is_public(address) || self.is_allowed(&entry) {
            return Ok(());
        }
        let question = format!(
            "Send the password of {} to {} ({address}) unencrypted, over the internet? [y/N] ",
            self.user, self.host
        );
        match terminal::confirm(&question) {
            Ok(true) => {
                self.remember(&entry);
                Ok(())
            }
            _ => Err(format!(
                "the password of {} would go unencrypted to a public address ({address}): use --tls, \
                 or --allow-plaintext",
                self.user
            )),
        }
    }

    fn is_allowed(&self, entry: &str) -> bool {
        let known = self.consents.as_ref().and_then(|file| fs::read_to_string(file).ok());
        known.is_some_and(|known| known.lines().any(|line| line == entry))
    }

    fn remember(&self, entry: &str) {
        let Some(file) = &self.consents else { return };
        let append = || -> io::Result<()> {
            fs::create_dir_all(file.parent().unwrap_or(file))?;
            writeln!(OpenOptions::new().create(true).append(true).open(file)?, "{entry}")
        };
        // It will be asked again.
        let _ = append();
    }
}

fn is_one_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

/// Whether an address is out in the world, as opposed to in this house or computer.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            // Carriers' NAT (RFC 6598); overlay networks use it, too.
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

fn first_line_of(file: &Path) -> Result<String> {
    let mut text = String::new();
    (fs::File::open(file))
        .and_then(|file| file.take(LONGEST_FILE).read_to_string(&mut text))
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("--password-file '{}' cannot be read", file.display()))?;
    first_line(&text).with_context(|| format!("--password-file '{}'", file.display()))
}

fn first_line(text: &str) -> Result<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = text.lines().next().unwrap_or_default();
    ensure!(!line.is_empty(), "its first line is empty: that is where the password belongs");
    Ok(line.to_owned())
}

/// The first line that the command prints. It may use the terminal.
fn run(command: &[String], root: &Path, timeout: Duration) -> Result<String> {
    let _screen = terminal::screen();
    let deadline = Instant::now() + timeout;
    let (program, arguments) = command.split_first().context("it is empty")?;
    let child = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .env_remove(PASSWORD_VARIABLE)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| anyhow!("it cannot be run: {error}"))?;
    let mut running = Running::of(child);
    let (sender, told) = mpsc::channel();
    if let Some(stdout) = running.stdout() {
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout.take(LONGEST_FILE)).read_line(&mut line).map(|_| line);
            let _ = sender.send(read);
        });
    }
    // Then it has time to end.
    let line = told.recv_timeout(timeout);
    let status = loop {
        match running.status()? {
            None if line.is_ok() && Instant::now() < deadline => thread::sleep(PAUSE),
            status => break status,
        }
    };
    let (Ok(line), Some(status)) = (line, status) else {
        return Err(anyhow!("it does not end within {} s", timeout.as_secs_f32()));
    };
    ensure!(status.success(), "it failed ({status})");
    let password = first_line(&line.context("what it prints is not text")?)?;
    ensure!(is_one_line(&password), "it prints a NUL");
    Ok(password)
}

/// The command that is being run for a password: ended when it is not waited for any more, or when
/// the program ends.
static RUNNING: Mutex<Option<Child>> = Mutex::new(None);

struct Running;

impl Running {
    fn of(child: Child) -> Self {
        *Self::child() = Some(child);
        Self
    }

    fn child() -> MutexGuard<'static, Option<Child>> {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stdout(&mut self) -> Option<ChildStdout> {
        Self::child().as_mut()?.stdout.take()
    }

    fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        match Self::child().as_mut() {
            Some(child) => child.try_wait(),
            None => Err(ErrorKind::Interrupted.into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end_command();
    }
}

/// Ends the command that is being run for a password, if there is one.
pub fn end_command() {
    if let Some(mut child) = Running::child().take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The file that NETRC names, or `~/.netrc`.
pub fn netrc_file() -> Option<PathBuf> {
    Netrc::get_file()
}

/// The entry for `host` in that file; else its default entry.
///
/// # Errors
/// Says what is wrong with the file; that need not concern us.
fn netrc_entry(host: &str) -> Result<Option<Authenticator>, String> {
    let Some(path) = netrc_file() else {
        return Ok(None);
    };
    // Only the one that somebody names has to be there.
    if !path.exists() && env::var_os("NETRC").is_none() {
        return Ok(None);
    }
    let mut netrc = Netrc::from_file(&path)
        .map_err(|error| format!("netrc '{}' is not used: {error}", path.display()))?;
    Ok(netrc.hosts.remove(host).or_else(|| netrc.hosts.remove("default")))
}

/// Says so if others can read the file.
fn exposure(path: &Path) -> Option<String> {
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(path)
        && std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077 != 0
    {
        let path = path.display();
        return Some(format!("others can read the passwords in {path}: chmod 600 '{path}'"));
    }
    let _ = path;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.4.1",
            "169.254.1.1",
            "100.127.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:192.168.1.1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }
}
