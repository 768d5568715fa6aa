//! Exit codes.

use std::process::ExitCode;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All that was to be sent has been sent.
    Success,
    /// Something is not delivered, or the program could not start its work.
    Failure,
    /// The command line or `.autoftp` is wrong.
    Usage,
    /// A second Ctrl-C: ended at once (128 + SIGINT).
    Aborted,
}

impl Exit {
    /// The number a shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Aborted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
