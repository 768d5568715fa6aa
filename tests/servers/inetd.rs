//! Accepts for servers that serve one session on their standard input and output, as inetd does.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::processes::kill_tree;

/// What starts the server of one session.
pub type Sessions = Box<dyn Fn() -> Command + Send>;

pub struct Inetd {
    port: u16,
    /// `None` once it is to end.
    sessions: Arc<Mutex<Option<Vec<Child>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Inetd {
    pub fn start(port: u16, start: Sessions, log: File) -> std::io::Result<Inetd> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let sessions = Arc::new(Mutex::new(Some(Vec::new())));
        let thread = {
            let sessions = Arc::clone(&sessions);
            thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    let mut sessions = sessions.lock().unwrap();
                    let Some(sessions) = sessions.as_mut() else {
                        break;
                    };
                    let input = OwnedFd::from(socket.try_clone().unwrap());
                    let mut command = start();
                    command.stdin(input).stdout(OwnedFd::from(socket));
                    command.stderr(log.try_clone().unwrap());
                    sessions.push(command.spawn().unwrap());
                }
            })
        };
        Ok(Inetd { port, sessions, thread: Some(thread) })
    }

    pub fn end_sessions(&self) {
        if let Some(sessions) = self.sessions.lock().unwrap().as_mut() {
            sessions.drain(..).for_each(|mut session| kill_tree(&mut session));
        }
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.end_sessions();
        *self.sessions.lock().unwrap() = None;
        // It sees that when it accepts the next one.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ = self.thread.take().unwrap().join();
    }
}
