//! How servers differ.

/// The servers that boards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// robert-hh's uftpd for MicroPython, and its predecessors.
    Uftpd,
    /// DavesCodeMusings' FTPdLite.
    FtpdLite,
}

impl Board {
    /// Which of them greets so.
    pub fn of(greeting: &str) -> Option<Self> {
        if greeting.contains("FTPdLite") {
            Some(Self::FtpdLite)
        } else if greeting.starts_with("Hello, this is the") {
            Some(Self::Uftpd)
        } else {
            None
        }
    }

    /// How long a command may be, in bytes with its line's end: they take what one read brings.
    pub fn longest_command(self) -> usize {
        match self {
            Self::Uftpd => 1024,
            Self::FtpdLite => 512,
        }
    }
}

/// Whether it is a server that opens a port for each transfer and tells sizes, as far as is known.
pub fn is_known(greeting: &str) -> bool {
    ["vsFTPd", "ProFTPD", "Pure-FTPd", "pyftpdlib"].iter().any(|name| greeting.contains(name))
}
