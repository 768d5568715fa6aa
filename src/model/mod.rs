//! The words that all rooms speak: paths, events, verdicts, outcomes. Pure.

pub mod encoding;
pub mod event;
pub mod file_meta;
pub mod path;
pub mod send_mode;
pub mod verdict;
pub mod watch_event;
