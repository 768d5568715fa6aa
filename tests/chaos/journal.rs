//! Who did what when, to be read when a test has failed.

use std::sync::{Arc, Mutex};
use std::time::Instant;

#[derive(Clone)]
pub struct Journal {
    started: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

struct Entry {
    seconds: f32,
    /// Whether it matters whatever file one asks about.
    matters: bool,
    text: String,
}

impl Journal {
    pub fn new() -> Journal {
        Journal { started: Instant::now(), entries: Arc::default() }
    }

    /// Something happened to one file.
    pub fn note(&self, text: String) {
        self.add(false, text);
    }

    /// A fault, or something that happened to many files.
    pub fn warn(&self, text: String) {
        self.add(true, text);
    }

    /// How many entries have this in them.
    pub fn count(&self, what: &str) -> usize {
        self.entries.lock().unwrap().iter().filter(|entry| entry.text.contains(what)).count()
    }

    fn add(&self, matters: bool, text: String) {
        let seconds = self.started.elapsed().as_secs_f32();
        self.entries.lock().unwrap().push(Entry { seconds, matters, text });
    }

    /// Shows all faults, and all that concerns these paths.
    pub fn print(&self, paths: &[String]) {
        let concerns = |entry: &&Entry| {
            entry.matters || paths.iter().any(|path| entry.text.contains(path.as_str()))
        };
        for Entry { seconds, text, .. } in self.entries.lock().unwrap().iter().filter(concerns) {
            eprintln!("{seconds:8.3} {text}");
        }
    }
}
