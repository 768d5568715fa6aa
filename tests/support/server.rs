//! A real FTP server, libunftp, on a free loopback port: in the tests and in `examples/demo.rs`.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libunftp::ServerBuilder;
use libunftp::notification::{DataEvent, DataListener, EventMeta};
use tokio::sync::oneshot;
use unftp_sbe_fs::Filesystem;

use super::watched::{DEADLINE, Watched};

/// A completed upload.
#[derive(Clone, Debug)]
pub struct Put {
    pub path: String,
    #[allow(dead_code, reason = "the benchmark asks for it")]
    pub at: Instant,
}

pub struct Server {
    address: SocketAddr,
    root: PathBuf,
    puts: Arc<Watched<Vec<Put>>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    /// Serves `root` to everyone who logs in, whatever the name and password.
    pub fn start(root: &Path) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut server = Server {
            address: listener.local_addr().unwrap(),
            root: root.to_path_buf(),
            puts: Arc::default(),
            running: None,
        };
        server.serve(listener);
        server
    }

    /// As `autoftp` wants it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Cuts every connection and refuses new ones.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Serves again, on the same port.
    pub fn restart(&mut self) {
        self.stop();
        self.serve(bind_again(self.address));
    }

    /// The path of every completed upload, in order.
    pub fn puts(&self) -> Vec<String> {
        self.puts.read(|puts| puts.iter().map(|put| put.path.clone()).collect())
    }

    /// Waits for what `find` finds among the completed uploads; `None` after the deadline.
    pub fn wait_puts<R>(&self, mut find: impl FnMut(&[Put]) -> Option<R>) -> Option<R> {
        self.puts.wait(|puts| find(puts))
    }

    /// Waits until an upload has left exactly this content under this path.
    pub fn wait_file(&self, path: &str, content: impl AsRef<[u8]>) {
        let arrived = self.wait_puts(|puts| {
            let same =
                || fs::read(self.root.join(path)).is_ok_and(|bytes| bytes == content.as_ref());
            (puts.iter().any(|put| put.path == path) && same()).then_some(())
        });
        assert!(arrived.is_some(), "{path} did not arrive; uploads so far: {:?}", self.puts());
    }

    fn serve(&mut self, listener: TcpListener) {
        let (root, puts) = (self.root.clone(), Arc::clone(&self.puts));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, root, puts) => {}
                    _ = stopped => {}
                }
            });
            // A transfer under way is cut, not waited for.
            runtime.shutdown_background();
        });
        self.running = Some((stop, thread));
    }
}

/// Listens on a port that was just given up. A process that another test is starting right now may
/// hold a copy of the old socket for a moment.
pub fn bind_again(address: SocketAddr) -> TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < DEADLINE => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result.unwrap(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Accepts by ourselves instead of `Server::listen`, which neither takes port 0 nor turns Nagle's
/// delay off.
async fn accept(listener: TcpListener, root: PathBuf, puts: Arc<Watched<Vec<Put>>>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (control, _) = listener.accept().await.unwrap();
        control.set_nodelay(true).unwrap();
        let root = root.clone();
        let session = ServerBuilder::new(Box::new(move || Filesystem::new(root.clone()).unwrap()))
            .notify_data(Puts(Arc::clone(&puts)))
            .build()
            .unwrap();
        tokio::spawn(session.service(control));
    }
}

/// Writes every completed upload down, before the client gets its 226.
#[derive(Debug)]
struct Puts(Arc<Watched<Vec<Put>>>);

#[async_trait::async_trait]
impl DataListener for Puts {
    async fn receive_data_event(&self, event: DataEvent, _: EventMeta) {
        if let DataEvent::Put { path, .. } = event {
            let at = Instant::now();
            // `/./-x.py` and `/-x.py` are one file.
            let path: PathBuf = Path::new(&path).components().skip(1).collect();
            let path = path.to_string_lossy().replace('\\', "/");
            self.0.update(|puts| puts.push(Put { path, at }));
        }
    }
}
