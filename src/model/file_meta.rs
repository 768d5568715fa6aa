//! What tells one state of a file from another.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// File systems advance their time stamps in steps of up to 10 ms: within this time, a change may
/// leave them as they were.
pub const STEP: Duration = Duration::from_millis(20);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The inode; 0 where there is none.
    file_id: u64,
    /// The size in bytes.
    pub len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// The state that `metadata` describes.
    pub fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let file_id = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let file_id = 0;
        Self { file_id, len: metadata.len(), modified: metadata.modified().ok() }
    }

    /// Whether the file was modified so shortly before `now` that a further change could leave
    /// the same stamp (see [`STEP`]).
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        // Network shares and FAT count in seconds, or two.
        const COARSE_STEP: Duration = Duration::from_secs(2);
        let since_epoch = self.modified.and_then(|then| then.duration_since(UNIX_EPOCH).ok());
        let is_coarse = since_epoch.is_some_and(|since| since.subsec_nanos() == 0);
        let age = self.modified.and_then(|then| now.duration_since(then).ok());
        age.is_none_or(|age| age < if is_coarse { COARSE_STEP } else { STEP })
    }

    /// Whether the file claims to have been modified later than `now`: any change of it shows.
    pub fn is_ahead(&self, now: SystemTime) -> bool {
        self.modified.is_some_and(|then| then > now)
    }
}
