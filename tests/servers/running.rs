//! A server that runs, for as long as it is wanted.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::inetd::Inetd;
use crate::kinds::{Kind, Setup, Start, Tls, USER};
use crate::private;
use crate::processes::{
    DEADLINE, is_connected, is_listening, kill_descendants, kill_tree, wait_until,
};
use crate::support::certificates::{Files, Shown};
use crate::unftp::Unftp;

pub struct Running<'a> {
    kind: &'a Kind,
    setup: Setup,
    running: Option<Process>,
    /// Its configuration, its log and what it serves.
    files: TempDir,
}

/// What a server is to be like, other than usual.
#[derive(Clone, Copy, Default)]
pub struct Wishes {
    /// After how long an idle session is to end.
    pub idle: Option<Duration>,
    /// How it is to encrypt, and with which certificate. It takes nothing unencrypted then.
    pub tls: Option<(Tls, Shown)>,
}

enum Process {
    Daemon(Child),
    Inetd(Inetd),
    Here(Unftp),
}

/// How often another port is tried.
const PORTS: usize = 5;

impl Running<'_> {
    /// Starts it on a free port, with an empty directory to serve. Accounts of the system, if it
    /// needs them, are those of this thread alone.
    pub fn start(kind: &Kind, wishes: Wishes) -> Running<'_> {
        let files = TempDir::with_prefix("autoftp-server-").unwrap();
        let directory = |name: &str| {
            let path = files.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        // The server's account has to get to them.
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (root, own) = (directory("root"), directory("own"));
        private::give_away(&root);
        if kind.needs_accounts {
            private::accounts(&own, &root);
        }
        let secured = wishes.tls.map(|(tls, shown)| (tls, Files::make(&own, shown)));
        let setup = Setup { root, own, port: 0, idle: wishes.idle, tls: secured };
        let mut server = Running { kind, setup, running: None, files };
        for _ in 0..PORTS {
            // Whoever takes it between this and the server's start has it: then another one.
            server.setup.port = free_port();
            if server.come_up() {
                return server;
            }
        }
        panic!("{} does not start: {}", kind.name, server.log());
    }

    pub fn port(&self) -> u16 {
        self.setup.port
    }

    /// Whom to trust, as a file.
    pub fn issuer(&self) -> String {
        self.certificates().issuer.display().to_string()
    }

    /// The certificate that it shows, as a file.
    pub fn certificate(&self) -> String {
        self.certificates().certificate.display().to_string()
    }

    fn certificates(&self) -> &Files {
        let (_, files) = self.setup.tls.as_ref().unwrap();
        files
    }

    /// Where it is, with no account named: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.setup.port)
    }

    /// The same with an account and this password, which has to be fit for an address.
    pub fn url(&self, password: &str) -> String {
        format!("ftp://{USER}:{password}@{}", self.host())
    }

    /// A path in what it serves.
    pub fn path(&self, path: &str) -> PathBuf {
        self.setup.root.join(path)
    }

    /// The names in one of its directories.
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Waits until it has this content.
    pub fn wait_file(&self, path: &str, content: impl AsRef<[u8]>) {
        wait_until(&format!("{path} at the server"), || {
            fs::read(self.path(path)).is_ok_and(|bytes| bytes == content.as_ref())
        });
    }

    /// Makes a directory in what it serves.
    pub fn make_directory(&self, path: &str) -> PathBuf {
        let directory = self.path(path);
        fs::create_dir(&directory).unwrap();
        private::give_away(&directory);
        directory
    }

    /// Cuts its sessions and ends it, the way a power cut does.
    pub fn stop(&mut self) {
        match self.running.take() {
            Some(Process::Daemon(mut child)) => kill_tree(&mut child),
            Some(Process::Inetd(inetd)) => drop(inetd),
            Some(Process::Here(server)) => drop(server),
            None => {}
        }
    }

    /// Starts it again, on the same port.
    pub fn restart(&mut self) {
        self.stop();
        let begun = Instant::now();
        while !self.come_up() {
            assert!(begun.elapsed() < DEADLINE, "it does not come back: {}", self.log());
        }
    }

    /// Cuts its sessions, but not itself.
    pub fn end_sessions(&self) {
        match &self.running {
            Some(Process::Daemon(child)) => kill_descendants(child.id()),
            Some(Process::Inetd(inetd)) => inetd.end_sessions(),
            _ => unreachable!("its sessions are no processes"),
        }
    }

    /// Whether anybody is connected.
    pub fn is_connected(&self) -> bool {
        is_connected(self.setup.port)
    }

    /// Starts it and waits until it listens; whether it does.
    fn come_up(&mut self) -> bool {
        let started = match (self.kind.start)(&self.setup) {
            Start::Daemon(mut command) => {
                let (out, err) = (self.log_file(), self.log_file());
                command.stdin(Stdio::null()).stdout(out).stderr(err);
                Process::Daemon(command.spawn().unwrap())
            }
            Start::Inetd(sessions) => {
                match Inetd::start(self.setup.port, sessions, self.log_file()) {
                    Ok(inetd) => Process::Inetd(inetd),
                    Err(_) => return false,
                }
            }
            Start::Here(server) => Process::Here(server),
        };
        self.running = Some(started);
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE && !self.has_ended() {
            if is_listening(self.process(), self.setup.port) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.stop();
        false
    }

    fn process(&self) -> u32 {
        match &self.running {
            Some(Process::Daemon(child)) => child.id(),
            _ => std::process::id(),
        }
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.running {
            Some(Process::Daemon(child)) => child.try_wait().unwrap().is_some(),
            Some(Process::Inetd(_)) => false,
            Some(Process::Here(server)) => server.has_ended(),
            None => true,
        }
    }

    fn log_path(&self) -> PathBuf {
        self.files.path().join("log")
    }

    fn log_file(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap()
    }

    fn log(&self) -> String {
        let of = |path: &Path| fs::read(path).map(|log| String::from_utf8_lossy(&log).into_owned());
        of(&self.log_path()).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("\n{} said:\n{}", self.kind.name, self.log());
        }
    }
}

/// A port that is free, and the one before it too: the BSD servers and proftpd make data connections
/// from that one (RFC 959, 3.2), and sleep for seconds while it is taken. Where the system gives ports
/// away it would be, by any connection to somewhere: so it is one from below.
fn free_port() -> u16 {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    loop {
        let given = bind(0).unwrap().local_addr().unwrap().port();
        let port = 16_000 + given % 16_000;
        if bind(port - 1).is_ok() && bind(port).is_ok() {
            return port;
        }
    }
}
