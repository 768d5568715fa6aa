//! A value that one thread changes and another waits on.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// How long a wait may last: far more than a loaded machine needs, so that only a real fault runs
/// into it.
pub const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.value.lock().unwrap());
        self.changed.notify_all();
        result
    }

    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value.lock().unwrap())
    }

    /// What `find` finds, as soon as there is something to find; `None` after the deadline.
    pub fn wait<R>(&self, mut find: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let mut found = None;
        let guard = self.value.lock().unwrap();
        let waited = self.changed.wait_timeout_while(guard, DEADLINE, |value| {
            found = find(value);
            found.is_none()
        });
        drop(waited.unwrap());
        found
    }
}
