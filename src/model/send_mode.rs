//! How a file is sent.

use std::fmt;

/// How a file is sent. The later ones save round trips, and are not safe everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, clap::ValueEnum)]
pub enum SendMode {
    /// Each step waits for the reply to the one before
    #[value(alias = "plain")]
    Serial,
    /// The data goes out along with STOR
    #[value(alias = "eager")]
    Overlapped,
    /// The same, over a data connection that was made beforehand
    #[value(alias = "ready")]
    Prepared,
}

/// How a session sends files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendChoice {
    pub mode: SendMode,
    /// Why no faster mode is used; empty if there is none.
    pub reason: String,
}

impl fmt::Display for SendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            SendMode::Serial => "serial: each step waits for its answer",
            SendMode::Overlapped => "overlapped: the data goes out along with STOR",
            SendMode::Prepared => "prepared: a save takes one round trip",
        })?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}
