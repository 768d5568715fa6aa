//! What the test's servers write down of what clients do.

use std::thread;

use super::watched::Watched;

#[derive(Default)]
pub struct Log {
    pub sessions: usize,
    pub commands: Vec<String>,
    /// Every completed upload, in order.
    pub stored: Vec<(String, Vec<u8>)>,
    /// What no client may do.
    pub offences: Vec<String>,
}

impl Log {
    fn count(&self, starts: &str) -> usize {
        self.commands.iter().filter(|line| line.starts_with(starts)).count()
    }
}

impl<T: AsRef<Log>> Watched<T> {
    pub fn sessions(&self) -> usize {
        self.read(|record| record.as_ref().sessions)
    }

    pub fn wait_sessions(&self, times: usize) {
        let came = self.wait(|record| (record.as_ref().sessions >= times).then_some(()));
        assert!(came.is_some(), "{times} sessions did not come");
    }

    /// Every command line that starts like this, in order.
    pub fn commands(&self, starts: &str) -> Vec<String> {
        let fits = |line: &&String| line.starts_with(starts);
        self.read(|record| record.as_ref().commands.iter().filter(fits).cloned().collect())
    }

    /// Waits until a command line that starts like this has come so often.
    pub fn wait_commands(&self, times: usize, starts: &str) {
        let came = self.wait(|record| (record.as_ref().count(starts) >= times).then_some(()));
        assert!(came.is_some(), "{starts} did not come {times} times");
    }

    /// Every completed upload, in order.
    pub fn stored(&self) -> Vec<(String, String)> {
        let stored = |(path, bytes): &(String, Vec<u8>)| (path.clone(), text(bytes));
        self.read(|record| record.as_ref().stored.iter().map(stored).collect())
    }

    /// Whether anything comes to be stored under this path.
    pub fn wait_any_stored(&self, path: &str) -> bool {
        let is_stored = |log: &Log| log.stored.iter().any(|(name, _)| name == path);
        self.wait(|record| is_stored(record.as_ref()).then_some(())).is_some()
    }

    /// Waits until this content has been stored under this path.
    pub fn wait_stored(&self, path: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        let is_it = |(name, bytes): &(String, Vec<u8>)| name == path && bytes == content;
        let arrived = self.wait(|record| record.as_ref().stored.iter().any(is_it).then_some(()));
        assert!(arrived.is_some(), "{path} was not stored");
    }

    /// At the end of a test: fails it for what clients did, or explains why it failed.
    pub fn judge(&self, server: impl std::fmt::Display) {
        self.read(|record| {
            let Log { commands, offences, .. } = record.as_ref();
            if thread::panicking() {
                eprintln!("\nthe server at {server} heard {commands:#?}\nand minded {offences:?}");
            } else {
                assert!(offences.is_empty(), "the server at {server} minded {offences:?}");
            }
        });
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
