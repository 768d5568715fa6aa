//! Watches a project folder and sends every save over one FTP session that it keeps alive.
//!
//! A save becomes a change ([`watch`]), a change gets a verdict ([`filter`]) and settles
//! ([`queue`]), is processed ([`process`]) or delivered to each host ([`deliver`], [`remote`]), where
//! a [`ledger`] knows what that has already, or is published for boards that fetch ([`serve`]), and
//! what became of it is an [`event`] that is shown ([`report`]). Data flows one way through these rooms; [`app`] joins them.

// What only the server does is not done then.
#![cfg_attr(not(feature = "serve"), allow(dead_code, missing_docs))]

mod app;
mod backoff;
mod books;
mod check;
mod cli;
mod config;
mod credentials;
mod deliver;
mod encoding;
mod event;
mod exit;
mod filter;
mod host;
mod ledger;
mod path;
mod process;
mod queue;
mod remote;
mod report;
#[cfg_attr(not(feature = "serve"), path = "serve/absent.rs")]
mod serve;
mod shutdown;
mod source;
mod terminal;
mod text;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use crate::cli::Cli;
use crate::config::Config;
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::from_args();
    let exit = match Config::resolve(cli, Path::new(".")) {
        Ok(config) => {
            let run = if config.check { check::run } else { app::run };
            run(config).unwrap_or_else(|error| report::fatal(&error, Exit::Failure))
        }
        Err(error) => report::fatal(&error, Exit::Usage),
    };
    exit.into()
}
