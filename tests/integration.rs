//! Drives the real `autoftp` binary against a real FTP server (libunftp) and against a scripted one
//! that can misbehave.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

#[path = "integration/atomic.rs"]
mod atomic;
#[path = "integration/boards.rs"]
mod boards;
#[path = "integration/check.rs"]
mod check;
#[path = "integration/cli.rs"]
mod cli;
#[path = "integration/credentials.rs"]
mod credentials;
#[path = "integration/data.rs"]
mod data;
#[path = "integration/deciding.rs"]
mod deciding;
#[path = "integration/delivering.rs"]
mod delivering;
#[path = "integration/hostile.rs"]
mod hostile;
#[path = "integration/hosts.rs"]
mod hosts;
#[cfg(unix)]
#[path = "integration/mirror.rs"]
mod mirror;
#[path = "integration/names.rs"]
mod names;
#[cfg(unix)]
#[path = "integration/order.rs"]
mod order;
#[path = "integration/parallel.rs"]
mod parallel;
#[cfg(unix)]
#[path = "integration/pulling.rs"]
mod pulling;
#[path = "integration/ready.rs"]
mod ready;
#[path = "integration/remote_command.rs"]
mod remote_command;
#[path = "integration/resilience.rs"]
mod resilience;
#[path = "integration/screen.rs"]
mod screen;
#[cfg(unix)]
#[path = "integration/scripts.rs"]
mod scripts;
#[cfg(unix)]
#[path = "integration/serve.rs"]
mod serve;
#[cfg(unix)]
#[path = "integration/shutdown.rs"]
mod shutdown;
#[path = "integration/state.rs"]
mod state;
#[path = "integration/sync.rs"]
mod sync;
#[cfg(target_os = "linux")]
#[path = "integration/tls.rs"]
mod tls;
#[path = "integration/up_delete.rs"]
mod up_delete;
#[path = "integration/watching.rs"]
mod watching;
