//! The servers: what they answer, and what follows from it.

mod control;
pub mod dial;
pub mod ftp;
pub mod tls;
mod watchdog;
mod wire;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;

/// A server's answer to a command (RFC 959, 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The reply code, 100 to 599. Servers choose different ones for one cause: compare classes.
    pub code: u16,
    /// Its lines without the codes; raw.
    pub text: String,
}

impl Reply {
    /// Reads a complete reply, of one line or several; `None` if it is none.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let code = code_of(lines.last()?.as_bytes())?;
        let lines: Vec<&str> = (lines.iter())
            .map(|line| match code_of(line.as_bytes()) {
                Some(found) if found == code => line.get(4..).unwrap_or_default(),
                _ => line,
            })
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        Some(Self { code, text: lines.join("\n") })
    }

    /// 1xx: the server goes on and will reply again.
    fn is_preliminary(&self) -> bool {
        self.code / 100 == 1
    }

    /// 2xx: done.
    pub fn is_completion(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: so far so good, the next command completes it.
    fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// What is wrong with one that answers something else than was asked.
    fn misfit(&self) -> String {
        format!("an answer that does not fit: {self}")
    }

    /// Whether it is about encryption that is not there.
    fn wants_tls(&self) -> bool {
        let said = self.text.to_ascii_lowercase();
        self.code / 100 >= 4
            && ["tls", "ssl", "encrypt", "cleartext"].iter().any(|word| said.contains(word))
    }

    /// The server does not know the command, or not with such arguments. It will not learn it.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self.code, 500..=502 | 504) && !self.text.starts_with("OOPS")
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.replace('\n', " ");
        write!(f, "{} {}", self.code, text.trim_end_matches('.'))
    }
}

/// The three digits a reply line begins with.
fn code_of(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    digits.iter().try_fold(0, |code, digit| {
        digit.is_ascii_digit().then(|| code * 10 + u16::from(digit - b'0'))
    })
}

/// How a file is sent. The later ones save round trips, and are not safe everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, clap::ValueEnum)]
pub enum Transfer {
    /// Each step waits for the answer to the one before
    Plain,
    /// The data goes out along with STOR
    Eager,
    /// The same, over a data connection that was made beforehand
    Ready,
}

/// How a session sends files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How.
    pub transfer: Transfer,
    /// Why not a faster way; empty if there is none.
    pub why: String,
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.transfer {
            Transfer::Plain => "plain: each step waits for its answer",
            Transfer::Eager => "eager: the data goes out along with STOR",
            Transfer::Ready => "ready: a save takes one round trip",
        })?;
        if self.why.is_empty() { Ok(()) } else { write!(f, " ({})", self.why) }
    }
}

/// Why a file was not stored, by what is to be done about it.
#[derive(Debug)]
pub enum TransferError {
    /// Try again later.
    Transient(String),
    /// Try again at once in a new session, where it will work; if not, why.
    Again(String),
    /// Try again later in a new session: this one works, but what it would do next is not certain.
    Reconnect(String),
    /// The session is over: try again in the next one, as often as it takes.
    Disconnected(String),
    /// Do not try again until the file changes.
    Permanent(String),
    /// The file could not be read: try again later.
    Local(io::Error),
}

impl TransferError {
    /// The one table of what follows from a refusal.
    ///
    /// | reply                    | what it is about          | what is done                       |
    /// |--------------------------|---------------------------|------------------------------------|
    /// | 421, `500 OOPS`          | the session               | a new one, at once                 |
    /// | 426, 451, a wrong size   | the transfer, and perhaps the next | later, in a new session   |
    /// | 503, 530                 | the order of commands, the login   | later, in a new session   |
    /// | other 4xx                | the moment                | later                              |
    /// | 550, 552, 553            | the file: a server may say this of a full or busy disk, uftpd of everything | later |
    /// | 532, other 5xx           | us                        | nothing until the file changes     |
    /// | what is no refusal       | the dialogue is out of step | a new session, at once           |
    ///
    /// *Later* is a bounded number of times, with growing pauses; after that, once more when
    /// another file went through, and in each new session.
    fn refused(reply: &Reply) -> Self {
        let said = |remedy: &str| format!("{reply}{remedy}");
        match reply.code {
            421 => Self::Disconnected(said("")),
            // vsftpd's last words in a session.
            500 if reply.text.starts_with("OOPS") => Self::Disconnected(said("")),
            // FTPdLite may store the previous upload's bytes after one of the first two.
            426 | 451 | 503 | 530 => Self::Reconnect(said("")),
            400 => Self::Transient(said(" (the board is busy)")),
            425 => Self::Transient(said(" (is a firewall between here and its data port?)")),
            452 | 552 => Self::Transient(said(" (is there space left on it?)")),
            550 | 553 => {
                Self::Transient(said(" (may this account write there, and is there space left?)"))
            }
            401..=499 => Self::Transient(said("")),
            532 => Self::Permanent(said(
                " (it wants an account for that: try --account, or another --user)",
            )),
            500..=599 => Self::Permanent(said("")),
            _ => Self::Disconnected(reply.misfit()),
        }
    }

    /// Says of a session that ended what it ended with.
    pub fn during(self, what: fmt::Arguments<'_>) -> Self {
        match self {
            Self::Disconnected(cause) => Self::Disconnected(format!("{cause} ({what})")),
            other => other,
        }
    }

    /// Says of a refusal what was refused.
    pub fn of(self, what: &str) -> Self {
        let said = |cause: String| format!("{what}: {cause}");
        match self {
            Self::Transient(cause) => Self::Transient(said(cause)),
            Self::Reconnect(cause) => Self::Reconnect(said(cause)),
            Self::Permanent(cause) => Self::Permanent(said(cause)),
            other => other,
        }
    }

    /// Whether the cause may be that the file's directory is not there.
    fn may_lack_directory(&self) -> bool {
        matches!(self, Self::Permanent(_) | Self::Transient(_) | Self::Reconnect(_))
    }
}

/// The cause.
impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(cause)
            | Self::Again(cause)
            | Self::Reconnect(cause)
            | Self::Disconnected(cause)
            | Self::Permanent(cause) => f.write_str(cause),
            Self::Local(error) => write!(f, "it cannot be read here: {error}"),
        }
    }
}

/// What a session has seen of its data connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct DataSeen {
    /// How they are made.
    pub mode: &'static str,
    /// The steps that each takes before STOR.
    pub steps: &'static str,
    /// What a file was refused with last.
    pub refusal: Option<u16>,
    /// Whether the account is one that FTPdLite lets read only.
    pub is_guest: bool,
    /// The address that the server says they have, if it is not its own.
    pub misannounced: Option<Ipv4Addr>,
}

/// Why the control connection is of no use any more.
#[derive(Debug)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self(explain(&error))
    }
}

impl From<Broken> for TransferError {
    fn from(Broken(cause): Broken) -> Self {
        Self::Disconnected(cause)
    }
}

/// What is wrong with a session whose local address this computer does not have any more.
pub const AWAY: &str = "this computer's address has changed";

/// Whether it is only that the time for one try was up: which kind says so depends on the system.
fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What is wrong with a server that sends a reply bit by bit.
const TOO_LONG: &str = "its reply does not come to an end";

/// Says what an error of a connection means for a person.
fn explain(error: &io::Error) -> String {
    if let Some(cause) = tls::explain(error) {
        return cause;
    }
    use io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset,
        HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut, UnexpectedEof, WouldBlock,
    };
    let text = match error.kind() {
        ConnectionRefused => "it refuses the connection (is its FTP server running?)",
        TimedOut | WouldBlock => "no answer (is it on, and in reach?)",
        HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
            "no way to it (is this computer on its network?)"
        }
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
            "it closed the connection"
        }
        _ => return error.to_string(),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(u16, String)> {
        Reply::parse(text).map(|reply| (reply.code, reply.text))
    }

    #[test]
    fn replies() {
        assert_eq!(parse("226 Done.\r\n"), Some((226, "Done.".into())));
        assert_eq!(parse("226\r\n"), Some((226, String::new())));
        assert_eq!(
            parse("211-Free:\r\n 100 KB\r\n211-more\r\n211 End.\r\n"),
            Some((211, "Free:\n100 KB\nmore\nEnd.".into()))
        );
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n"), None);
        assert_eq!(parse("22"), None);
        assert_eq!(parse(""), None);
    }
}
