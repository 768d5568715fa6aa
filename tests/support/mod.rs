//! What the tests stand on: a project to save files in, `autoftp` itself, and two servers.

mod autoftp;
mod board;
#[cfg(target_os = "linux")]
pub mod certificates;
mod client;
mod log;
mod scripted;
pub mod server;
mod socket;
#[cfg(target_os = "linux")]
pub mod tls;
pub mod watched;

use std::thread;

pub use autoftp::{Autoftp, Project};
pub use board::{Board, Leaves};
pub use client::Client;
pub use scripted::{Act, Dialect, Scripted};
pub use server::Server;

/// Tests all cases side by side: most of the time they wait.
pub fn side_by_side<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

/// A project and a real server, with `autoftp` between them.
pub struct Bench {
    pub run: Autoftp,
    pub project: Project,
    pub server: Server,
}

impl Bench {
    /// `autoftp ARGS 127.0.0.1:PORT`, ready to catch saves.
    pub fn start(args: &[&str]) -> Bench {
        Bench::start_with(args, |_| ())
    }

    /// The same in a project that `fill` has put files in.
    pub fn start_with(args: &[&str], fill: impl FnOnce(&Project)) -> Bench {
        let project = Project::new();
        fill(&project);
        let server = Server::start(&project.make_outside("remote"));
        let host = server.host();
        let run = project.watch(&[args, &[host.as_str()]].concat());
        Bench { run, project, server }
    }

    /// Saves a file and waits until the server has it.
    pub fn save(&self, path: &str, content: &str) {
        self.project.write(path, content);
        self.server.wait_file(path, content);
    }

    /// Everything that was sent, sorted, once nothing more can come: a last save has arrived, and
    /// a Ctrl-C has drained the rest.
    pub fn finish(&mut self) -> Vec<String> {
        self.save("sentinel.py", "the last save");
        self.run.stop();
        let mut sent = self.server.puts();
        sent.retain(|path| path != "sentinel.py");
        sent.sort();
        sent
    }

    /// Expects that these uploads happened and no others, in whatever order.
    pub fn expect_sent(mut self, expected: &[&str]) {
        assert_eq!(self.finish(), expected);
    }
}
