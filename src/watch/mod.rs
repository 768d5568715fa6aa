//! Watching the project folder.

pub mod watcher;
