//! Who to log in as, and where the password comes from: the address, `AUTOFTP_PASSWORD`, netrc,
//! or the person at the terminal; never the command line.

use std::env;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use netrc::{Authenticator, Netrc};

use crate::host::Host;
use crate::terminal;

/// The user name of whoever has no account (RFC 1635).
const ANONYMOUS: &str = "anonymous";

/// An account on one host.
#[derive(Debug)]
pub struct Login {
    /// The account's name.
    pub user: String,
    host: String,
    /// What is wrong with netrc, if that could be why there is no password.
    netrc_fault: Option<String>,
    /// Asked for when the server first wants it, then remembered.
    password: Mutex<Option<String>>,
}

impl Login {
    /// Finds the account for `host`; `user` is what the options say.
    ///
    /// # Errors
    /// When a name or password cannot be sent.
    pub fn find(host: &Host, user: Option<&str>) -> Result<Self> {
        let wanted = host.user.as_deref().or(user);
        let (entry, netrc_fault) = match netrc_entry(&host.name) {
            Ok(entry) => (entry, None),
            Err(fault) => (None, Some(fault)),
        };
        let entry = entry.filter(|entry| wanted.is_none_or(|user| entry.login == user));
        let user = match (wanted, &entry) {
            (Some(user), _) => user.to_owned(),
            (None, Some(entry)) if !entry.login.is_empty() => entry.login.clone(),
            (None, _) => ANONYMOUS.to_owned(),
        };
        // It is not for those whom nobody named.
        let from_env =
            env::var("AUTOFTP_PASSWORD").ok().filter(|_| user != ANONYMOUS || wanted.is_some());
        let from_netrc = entry.map(|entry| entry.password).filter(|word| !word.is_empty());
        let nobody = (user == ANONYMOUS).then(|| "anonymous@".to_owned());
        let password = (host.password.clone()).or(from_env).or(from_netrc).or(nobody);
        for (what, value) in [("user name", Some(&user)), ("password", password.as_ref())] {
            ensure!(
                value.is_none_or(|value| !value.contains(['\r', '\n', '\0'])),
                "the {what} for {host} has a line break or NUL in it, which FTP cannot send"
            );
        }
        Ok(Self { user, host: host.to_string(), netrc_fault, password: Mutex::new(password) })
    }

    /// The password; asks for it on the terminal if nothing else gave it.
    ///
    /// # Errors
    /// When there is no terminal to ask on; says where to put the password.
    pub fn password(&self) -> Result<String, String> {
        let mut known = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(password) = &*known {
            return Ok(password.clone());
        }
        let question = format!("Password of {} on {}: ", self.user, self.host);
        match terminal::ask(&question) {
            Ok(password) => Ok(known.insert(password).clone()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                Err("no password was given".to_owned())
            }
            Err(_) => {
                let fault = self.netrc_fault.as_ref();
                let fault = fault.map_or_else(String::new, |fault| format!(" ({fault})"));
                Err(format!(
                    "it wants the password of {}, and there is no terminal to ask on: \
                     set AUTOFTP_PASSWORD or add it to ~/.netrc{fault}",
                    self.user
                ))
            }
        }
    }
}

/// The entry for `host` in the file NETRC names, or `~/.netrc`; else its default entry.
///
/// # Errors
/// Says what is wrong with the file; that need not concern us.
fn netrc_entry(host: &str) -> Result<Option<Authenticator>, String> {
    let Some(path) = Netrc::get_file() else {
        return Ok(None);
    };
    let mut netrc = Netrc::from_file(&path).map_err(|error| error.to_string())?;
    Ok(netrc.hosts.remove(host).or_else(|| netrc.hosts.remove("default")))
}
