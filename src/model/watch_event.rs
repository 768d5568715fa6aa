//! What the watcher tells.

use crate::model::event::Event;
use crate::model::path::RelPath;

/// What was seen to happen to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It came into being and may still be empty.
    Created,
    /// Its content changed and may change further.
    Modified,
    /// A writer closed it, or a finished file was renamed to its name: the save is complete.
    Complete,
    /// A scan came upon it; whether somebody still writes to it is not known.
    Found,
    /// It was removed, or renamed to another name.
    Gone,
    /// The same, before it was ever complete.
    Dropped,
}

/// What a watcher sees.
#[derive(Debug)]
pub enum Seen {
    /// Something happened to a file.
    Change(RelPath, Signal),
    /// A file or directory was renamed; the changes that this makes follow.
    Renamed {
        /// What it was named before.
        from: RelPath,
        /// What it is named now.
        to: RelPath,
    },
    /// The whole directory is gone: what was told to be gone just now went with it.
    RootGone,
    /// Nothing is left of the files that the rules select.
    Emptied,
    /// All files that the rules select, with their sizes in bytes: when watching begins with
    /// `--sync`, and whenever the app asks for a list.
    Listing(Vec<(RelPath, u64)>),
    /// Something for the person.
    Event(Event),
    /// All that happened before the app asked for a mark has been told.
    Mark,
}
