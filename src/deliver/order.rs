//! What a lane is told.

use crate::model::event::Ticket;
use crate::model::path::RelPath;

/// What a lane is told.
#[derive(Debug)]
pub enum Order {
    /// Send this file as it is when its turn comes.
    Upload {
        /// The file.
        path: RelPath,
        /// The order's number.
        ticket: Ticket,
        /// Why.
        origin: Origin,
    },
    /// The file is gone: remove it there, too.
    Remove(RelPath, Ticket),
    /// A directory may be gone: see whether it is to be removed there, too.
    Tidy,
    /// Somebody is at work in the directory: a save may follow.
    Stir,
    /// Send what is pending if there is a session, then end.
    Drain,
}

/// Why a file is to be sent.
#[derive(Debug)]
pub enum Origin {
    /// It was saved.
    Save {
        /// What it was named before, if it was renamed and that is to be mirrored.
        renamed_from: Option<RelPath>,
    },
    /// All files are looked at.
    Listing,
}
