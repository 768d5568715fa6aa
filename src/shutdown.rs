//! Ctrl-C, SIGTERM and SIGHUP.

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, unbounded};

/// The person wants the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Finish what is under way first.
    Drain,
    /// Now.
    Abort,
}

/// Listens for signals: the first drains, each further one aborts.
///
/// # Errors
/// When the system does not let us listen.
pub fn listen() -> Result<Receiver<Stop>> {
    let (sender, receiver) = unbounded();
    let mut stop = Stop::Drain;
    ctrlc::set_handler(move || {
        // The receiver is gone only when the program is ending anyway.
        let _ = sender.send(stop);
        stop = Stop::Abort;
    })
    .context("Ctrl-C cannot be caught")?;
    Ok(receiver)
}
