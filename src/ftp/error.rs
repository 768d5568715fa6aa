//! Why a session or a transfer failed.

use std::fmt;
use std::io;

use crate::ftp::fault::explain;
use crate::ftp::reply::Reply;

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
    pub fn refused(reply: &Reply) -> Self {
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
    pub fn may_lack_directory(&self) -> bool {
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

/// Why the control connection is of no use any more.
#[derive(Debug)]
pub struct Broken(pub String);

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

/// What is wrong with a server that sends a reply bit by bit.
pub const TOO_LONG: &str = "its reply does not come to an end";
