//! Asking the person at the terminal.
//!
//! While a question waits for its answer nothing else is printed, and if the program ends meanwhile
//! the terminal is put back as it was.

use std::io::{self, ErrorKind, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by whoever uses the screen.
static SCREEN: Mutex<()> = Mutex::new(());

/// Keeps the screen to oneself: no question is asked, and none is on it.
pub fn screen() -> MutexGuard<'static, ()> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for a password, or another word that is not shown.
///
/// # Errors
/// [`ErrorKind::Interrupted`] after Ctrl-C; others where there is nobody to ask.
pub fn ask(question: &str) -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return Err(ErrorKind::NotConnected.into());
    }
    let _screen = screen();
    attributes::remember();
    let answer = rpassword::prompt_password(question);
    attributes::forget();
    answer
}

/// Asks a question that is answered by yes or no; anything but a yes is a no.
///
/// # Errors
/// As [`ask`]; what is typed is not shown here either, but a Ctrl-C is heard.
pub fn confirm(question: &str) -> io::Result<bool> {
    let answer = ask(question)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Undoes what a question that nobody has answered did to the terminal.
pub fn restore() {
    attributes::restore();
}

#[cfg(unix)]
mod attributes {
    use std::fs::File;
    use std::sync::{Mutex, PoisonError};

    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

    static ASKING: Mutex<Option<(File, Termios)>> = Mutex::new(None);

    fn set(state: Option<(File, Termios)>) -> Option<(File, Termios)> {
        let mut asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut asking, state)
    }

    pub fn remember() {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok();
        set(tty.and_then(|tty| tcgetattr(&tty).ok().map(|attributes| (tty, attributes))));
    }

    pub fn forget() {
        set(None);
    }

    pub fn restore() {
        if let Some((tty, attributes)) = set(None) {
            let _ = tcsetattr(&tty, OptionalActions::Now, &attributes);
        }
    }
}

#[cfg(not(unix))]
mod attributes {
    pub fn remember() {}
    pub fn forget() {}
    pub fn restore() {}
}
