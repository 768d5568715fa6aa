//! How a file is sent.

use std::fmt;

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
