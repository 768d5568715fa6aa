//! autoftp watches a project folder and sends every save over one FTP session that it keeps alive.
//!
//! This library is the program: `main.rs` only calls [`run`]. Each folder of `src` is a room, and
//! data flows through the rooms in one direction:
//!
//! ```text
//! watch ─▶ rules ─▶ pending ─▶ deliver (one worker a host) ─▶ ftp ─▶ server
//!                      ├─▶ process (scripts)         └─ Event ─▶ report ─▶ screen
//!                      └─▶ serve (boards that fetch over HTTP)
//! ```
//!
//! | room | holds |
//! |---|---|
//! | [`model`] | the words that all rooms speak: paths, events, verdicts, outcomes |
//! | [`rules`] | patterns and the verdict on a path |
//! | [`settings`] | the command line, `.autoftp`, hosts and credentials, folded into one order |
//! | [`local`] | local files: opened safely, hashed, deleted |
//! | [`watch`] | what changes below the watched directory |
//! | [`pending`] | what waits: the queue, retry times, bursts |
//! | [`journal`] | what each host has, kept across runs |
//! | [`process`] | the scripts that run on files |
//! | [`ftp`] | the servers: replies, how they differ, and the session |
//! | [`deliver`] | one worker a host: what is sent, removed, renamed there |
//! | [`serve`] | boards that fetch |
//! | [`report`] | the screen, the only place where causes become words |
//! | [`check`] | `--check` |
//! | [`app`] | threads, channels and the one loop |

pub mod app;
pub mod check;
pub mod deliver;
pub mod exit;
pub mod ftp;
pub mod journal;
pub mod local;
pub mod model;
pub mod pending;
pub mod process;
pub mod report;
pub mod rules;
pub mod serve;
pub mod settings;
pub mod shutdown;
pub mod terminal;
pub mod text;
pub mod watch;

use std::path::Path;

use crate::exit::Exit;
use crate::settings::cli::Cli;
use crate::settings::config::Config;

/// Runs the program in the working directory with the arguments of this process, and returns how
/// it ended.
pub fn run() -> Exit {
    let cli = Cli::from_args();
    match Config::resolve(cli, Path::new(".")) {
        Ok(config) => {
            let run = if config.check { check::checkup::run } else { app::run };
            run(config).unwrap_or_else(|error| report::text::fatal(&error, Exit::Failure))
        }
        Err(error) => report::text::fatal(&error, Exit::Usage),
    }
}
