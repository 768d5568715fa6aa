//! Who is connected, and for how long. Whoever comes is let in; when there are too many, another has to
//! go for it.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Result;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep};

use crate::serve::http::{self, Shop};
use crate::serve::lock::lock;

/// How long a client may take for the head of a request, also for the first after it connected.
const HEAD: Duration = Duration::from_secs(10);

/// How long it may leave no room for more of an answer. Where there is no network in between, the
/// system makes much room, and has more only when a good part of that has been taken.
const STALL: Duration = Duration::from_secs(300);

/// No answer takes longer than this.
const LONGEST_ANSWER: Duration = Duration::from_secs(3600);

/// The head of a request has no more bytes than this.
const LONGEST_HEAD: usize = 16 * 1024;

/// So many connections at once, where the system allows for four times as many open files: there are
/// those that are fetched, and all that the rest of the program does.
const MOST: usize = 1024;

/// The pause when the system gives us no connection.
const BREATH: Duration = Duration::from_millis(100);

/// How long a newcomer may take to say a word before it has to go for others.
const NEW: Duration = Duration::from_secs(1);

/// How long somebody who is being answered is not sent away for others.
const SLOW: Duration = Duration::from_secs(60);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    /// It has asked for nothing, or for nothing more.
    Nothing,
    /// It waits for a new version.
    Waiting,
    /// It is being answered.
    Fetching,
}

/// The connections that there are.
#[derive(Default)]
struct Crowd {
    /// By what they do, those that have done it for longest first, and since when.
    all: BTreeMap<(Doing, u64), (AbortHandle, Instant)>,
    turn: u64,
}

impl Crowd {
    /// Sends one away: who has asked for nothing, waits, takes long, or, after all, has just come.
    fn thin_out(&mut self) {
        let longest = |doing| self.all.range((doing, 0)..).next().filter(|(at, _)| at.0 == doing);
        let for_long =
            |doing, limit| longest(doing).filter(|(_, (_, since))| since.elapsed() >= limit);
        let first = for_long(Doing::Nothing, NEW)
            .or_else(|| longest(Doing::Waiting))
            .or_else(|| for_long(Doing::Fetching, SLOW))
            .or_else(|| self.all.first_key_value())
            .map(|(at, _)| *at);
        if let Some((handle, _)) = first.and_then(|at| self.all.remove(&at)) {
            handle.abort();
        }
    }
}

/// One connection's place among the others. Leaving it gives it up.
pub struct Place {
    crowd: Arc<Mutex<Crowd>>,
    at: Mutex<(Doing, u64)>,
    /// What is to be done when the answer that has been made is on its way.
    sent: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Place {
    /// It does something else now.
    pub fn now(&self, doing: Doing) {
        let mut crowd = lock(&self.crowd);
        let mut at = lock(&self.at);
        if let Some((handle, _)) = crowd.all.remove(&at) {
            crowd.turn += 1;
            *at = (doing, crowd.turn);
            crowd.all.insert(*at, (handle, Instant::now()));
        }
    }

    /// All of the answer has been handed over: does this when the system has it.
    pub fn when_sent(&self, what: impl FnOnce() + Send + 'static) {
        *lock(&self.sent) = Some(Box::new(what));
    }

    /// The system has all that was handed over.
    fn is_sent(&self) {
        let sent = lock(&self.sent).take();
        if let Some(what) = sent {
            what();
            self.now(Doing::Nothing);
        }
    }

    /// Whether it has got all that it asked for, as far as we have it to send.
    fn is_served(&self) -> bool {
        lock(&self.at).0 == Doing::Nothing
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.crowd).all.remove(&lock(&self.at));
    }
}

/// Answers who connects, from when there is something to publish until it is stopped.
///
/// # Errors
/// When the system does not let us.
pub async fn accept(listener: TcpListener, shop: Arc<Shop>) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut stopped = shop.stopped();
    // Until it is known what there is they wait in the system's queue.
    tokio::select! {
        () = shop.opens() => {}
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    }
    tokio::spawn(http::tell_fetched(Arc::clone(&shop)));
    let crowd = Arc::new(Mutex::new(Crowd::default()));
    let most = most();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let mut all = lock(&crowd);
                while all.all.len() >= most {
                    all.thin_out();
                }
                all.turn += 1;
                let at = (Doing::Nothing, all.turn);
                let place = Arc::new(Place {
                    crowd: Arc::clone(&crowd),
                    at: Mutex::new(at),
                    sent: Mutex::default(),
                });
                let handle = tasks.spawn(attend(stream, place, Arc::clone(&shop)));
                all.all.insert(at, (handle, Instant::now()));
            }
            // Too many open files, or a client that has gone again.
            Err(_) => sleep(BREATH).await,
        }
    }
    drop(listener);
    // Whoever is being answered is answered to the end.
    let ended = async { while tasks.join_next().await.is_some() {} };
    let mut ended = pin!(ended);
    tokio::select! {
        () = ended.as_mut() => {}
        () = sleep(BREATH) => {
            shop.tell_waiting(lock(&crowd).all.len());
            ended.await;
        }
    }
    shop.tell_fetched();
    Ok(())
}

/// How many connections there may be. Many systems let a program open 1,024 files unless it asks for
/// more.
fn most() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let wanted = 4 * MOST as u64;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let limit = current.map_or(wanted, |current| {
            let more = wanted.min(maximum.unwrap_or(wanted)).max(current);
            let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(more), maximum });
            if raised.is_ok() { more } else { current }
        });
        usize::try_from(limit / 4).map_or(MOST, |share| share.min(MOST))
    }
    #[cfg(not(unix))]
    MOST
}

async fn attend(stream: TcpStream, place: Arc<Place>, shop: Arc<Shop>) {
    let Ok(peer) = stream.peer_addr() else { return };
    let line = Line::new(stream, Arc::clone(&place));
    let answer = service_fn(|request| {
        http::answer(request, peer.ip().to_canonical(), Arc::clone(&place), Arc::clone(&shop))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST_HEAD)
        // Who has asked and says no more is answered all the same (HTTP/1.0).
        .half_close(true)
        // Small clients know headers in this spelling only.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(line), answer);
    let mut connection = pin!(connection);
    let mut stopped = shop.stopped();
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    // Also in the midst of a question.
    if place.is_served() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    // What is wrong with a client is no business of ours.
    let _ = connection.await;
}

/// A connection with a client. Whatever ends it in the midst of an answer, it ends with a reset:
/// clients that read to the end would take half a file for the whole (HTTP/1.0).
struct Line {
    stream: TcpStream,
    place: Arc<Place>,
    /// Closing it resets it: an answer is on its way, since then.
    sharp: Option<Instant>,
    /// When it will have taken nothing for too long.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Line {
    fn new(stream: TcpStream, place: Arc<Place>) -> Self {
        // An answer is written at once, as a whole or in large pieces.
        let _ = stream.set_nodelay(true);
        Self { stream, place, sharp: None, stalled: None }
    }

    fn sharpen(&mut self, is_sharp: bool) {
        if self.sharp.is_some() != is_sharp {
            self.sharp = is_sharp.then(Instant::now);
            let _ = SockRef::from(&self.stream).set_linger(is_sharp.then_some(Duration::ZERO));
        }
    }

    /// Gives up a client that takes nothing.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.sharp.is_some_and(|since| since.elapsed() > LONGEST_ANSWER) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sharpen(true);
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sharpen(true);
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// All that was handed over has been written by then, and is the system's to deliver.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.place.is_sent();
        if self.place.is_served() {
            self.sharpen(false);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.place.is_served() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.sharpen(false);
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
