//! How a lock is taken.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ignores poisoning: the data stays consistent if a holder panics.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
