//! A limit for whole replies: a socket's own time limit bounds each read, and a server that sends a
//! byte now and then would never reach it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How much longer than said it waits.
const GRACE: Duration = Duration::from_millis(250);

/// Shuts a connection down when what is being waited for takes too long.
pub struct Watchdog(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// When the connection is shut down.
    deadline: Option<Instant>,
    /// Until when the thread sleeps, unless it is woken.
    sleeps_until: Option<Instant>,
    has_bitten: bool,
    is_over: bool,
}

impl Watchdog {
    /// Watches a connection until it is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(connection: TcpStream) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = shared.clone();
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watched.watch(&connection))?;
        Ok(Self(shared))
    }

    /// Does what may take so long; says whether it took longer, and was cut short. A socket's own
    /// limit of the same length comes first, to tell silence apart.
    pub fn within<T>(&self, limit: Duration, what: impl FnOnce() -> T) -> (T, bool) {
        let deadline = Instant::now() + limit + GRACE;
        let mut state = self.0.lock();
        state.deadline = Some(deadline);
        // Nearly always it wakes early enough by itself.
        if state.sleeps_until.is_none_or(|until| until > deadline) {
            self.0.changed.notify_one();
        }
        drop(state);
        let result = what();
        let mut state = self.0.lock();
        state.deadline = None;
        (result, state.has_bitten)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, connection: &TcpStream) {
        let mut state = self.lock();
        while !state.is_over {
            let now = Instant::now();
            state.sleeps_until = state.deadline;
            state = match state.deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) if deadline > now => {
                    let slept = self.changed.wait_timeout(state, deadline - now);
                    slept.unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    state.has_bitten = true;
                    state.deadline = None;
                    let _ = connection.shutdown(Shutdown::Both);
                    state
                }
            };
        }
    }
}
