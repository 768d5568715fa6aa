//! A lane: one thread that owns the session with one host, and what that host has yet to get.
//!
//! Lanes know nothing of each other, so a board that is away delays nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::backoff;
use crate::config::Config;
use crate::credentials::Login;
use crate::event::{Answer, Event, HostEvent, HostId, IDLE_END, Outcome, Ticket};
use crate::filter::{Verdict, Why};
use crate::host::Host;
use crate::path::RelPath;
use crate::queue::{Job, Queue, Timing};
use crate::remote::TransferError;
use crate::remote::ftp::{ConnectError, Lore, Session, Trace};
use crate::source::{OpenError, Source};

/// An idle session gets a NOOP this often: servers end one after 60 to 300 s.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A file that is refused for a passing reason is tried this often before it is given up until it
/// changes: for about a minute.
const TRIES: u32 = 10;

/// Uploads that take longer than this show how far they are.
const WORTH_A_BAR: Duration = Duration::from_secs(1);

/// How often they show it.
const BAR_STEP: Duration = Duration::from_millis(100);

/// What a lane is told.
#[derive(Debug)]
pub enum Order {
    /// Send this file as it is when its turn comes.
    Upload(RelPath, Ticket),
    /// Send what is pending if there is a session, then end.
    Drain,
}

/// Starts the lane of one host. It ends after [`Order::Drain`], or when the host turns out to be
/// unusable; dropping the sender ends it too.
pub fn start(
    id: HostId,
    host: Host,
    login: Login,
    config: Arc<Config>,
    events: Sender<Event>,
) -> std::io::Result<Sender<Order>> {
    let (sender, orders) = unbounded();
    let lane = Lane {
        id,
        host,
        login,
        config,
        events,
        orders,
        queue: Queue::new(Timing::NATIVE),
        tickets: HashMap::new(),
        session: None,
        lore: Lore::default(),
        was_connected: false,
        failures: 0,
        next_try: Instant::now(),
        draining: false,
        stored: HashMap::new(),
        last_heard: Instant::now(),
    };
    thread::Builder::new().name(format!("lane {id}")).spawn(move || lane.run())?;
    Ok(sender)
}

struct Lane {
    id: HostId,
    host: Host,
    login: Login,
    config: Arc<Config>,
    events: Sender<Event>,
    orders: Receiver<Order>,
    queue: Queue,
    /// The newest order for each file that is pending.
    tickets: HashMap<RelPath, Ticket>,
    session: Option<Session>,
    lore: Lore,
    /// Whether there has been a session: from then on the host is never given up.
    was_connected: bool,
    /// How many sessions in a row did no work.
    failures: u32,
    next_try: Instant,
    draining: bool,
    /// Size and content hash of what this session stored. Forgotten with the session: a board may
    /// have lost its files when it comes back.
    stored: HashMap<RelPath, (u64, u64)>,
    last_heard: Instant,
}

impl Lane {
    fn run(mut self) {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                self.take_order(order);
            }
            let now = Instant::now();
            if self.draining && !self.can_go_on(now) {
                break;
            }
            if self.session.is_none() && now >= self.next_try && self.connect().is_err() {
                return;
            }
            if self.session.is_some()
                && let Some(job) = self.queue.take(now)
            {
                self.deliver(job);
                continue;
            }
            match self.orders.recv_deadline(self.wake_time()) {
                Ok(order) => self.take_order(order),
                Err(RecvTimeoutError::Timeout) => self.keep_alive(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(session) = self.session.take() {
            session.quit();
        }
        self.tell(HostEvent::Closed);
    }

    /// Whether there is a file whose turn it is, and a session for it now.
    fn can_go_on(&self, now: Instant) -> bool {
        self.queue.next_due().is_some_and(|due| due <= now)
            && (self.session.is_some() || self.next_try <= now)
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Upload(path, ticket) => {
                self.tickets.insert(path.clone(), ticket);
                self.queue.put(path, Instant::now());
            }
            Order::Drain => self.draining = true,
        }
    }

    fn wake_time(&self) -> Instant {
        match &self.session {
            None => self.next_try,
            Some(_) => {
                let keepalive = self.last_heard + KEEPALIVE;
                self.queue.next_due().map_or(keepalive, |due| due.min(keepalive))
            }
        }
    }

    fn keep_alive(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        if self.last_heard.elapsed() < KEEPALIVE {
            return;
        }
        let alive = session.is_quiet() && session.keep_alive().is_ok();
        self.last_heard = Instant::now();
        if alive {
            self.failures = 0;
        } else {
            self.lose_session(IDLE_END.to_owned());
        }
    }

    /// Fails only when the host is of no use.
    fn connect(&mut self) -> Result<(), ()> {
        let dir = self.host.dir.as_deref().or(self.config.remote_dir.as_deref());
        let trace = self.trace();
        match Session::open(&self.host, &self.login, dir, self.config.timeout, trace) {
            Ok((session, welcome)) => {
                self.session = Some(session);
                self.was_connected = true;
                self.last_heard = Instant::now();
                self.tell(HostEvent::Connected { dir: welcome.dir, greeting: welcome.greeting });
            }
            Err(ConnectError::Unusable(cause)) if !self.was_connected => {
                self.tell(HostEvent::Unusable(cause));
                return Err(());
            }
            Err(ConnectError::Unusable(cause) | ConnectError::Later(cause)) => {
                self.failures = self.failures.max(1);
                let retry = self.plan_session();
                self.tell(HostEvent::Disconnected { cause, retry, lost: false });
            }
        }
        Ok(())
    }

    /// Decides when the next session is tried: at once after one that did its work, after growing
    /// pauses while none does. Returns the pause.
    fn plan_session(&mut self) -> Duration {
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => backoff::delay(failures),
        };
        self.failures += 1;
        self.next_try = Instant::now() + pause;
        self.stored.clear();
        pause
    }

    /// The session is of no use any more.
    fn lose_session(&mut self, cause: String) {
        if let Some(session) = self.session.take() {
            session.hang_up();
        }
        let retry = self.plan_session();
        self.tell(HostEvent::Disconnected { cause, retry, lost: true });
    }

    fn deliver(&mut self, job: Job) {
        let outcome = match self.attempt(&job.path) {
            Ok(outcome) => outcome,
            Err(error) => return self.failed(job, error),
        };
        self.queue.finish(&job.path);
        if let Outcome::Sent { .. } = outcome {
            self.last_heard = Instant::now();
            self.failures = 0;
        }
        let sent = matches!(outcome, Outcome::Sent { .. } | Outcome::WouldSend { .. });
        self.file(&job.path, outcome);
        if sent && self.config.filter.remote_match(&job.path) {
            self.remote_command(&job.path);
        }
    }

    /// Tries to send one file.
    fn attempt(&mut self, path: &RelPath) -> Result<Outcome, TransferError> {
        let mut source = match Source::open(&self.config.root, path) {
            Ok(source) => source,
            Err(OpenError::Vanished) => return Ok(Outcome::Vanished),
            Err(error @ OpenError::LeadsOutside) => {
                return Ok(Outcome::Declined(error.to_string()));
            }
            Err(OpenError::Io(error)) => return Err(TransferError::Local(error)),
        };
        if let Some((len, hash)) = self.stored.get(path)
            && *len == source.stamp().len
            && *hash == source.hash_all().map_err(TransferError::Local)?
        {
            return Ok(Outcome::Unchanged { stamp: source.stamp() });
        }
        if let Some(target) = source.target()
            && let Verdict::Ignored(Why::Own | Why::Excluded) = self.config.filter.verdict(target)
        {
            return Ok(Outcome::Declined(format!("it is a link to {target}, which is ignored")));
        }
        if self.config.dry_run {
            return Ok(Outcome::WouldSend { bytes: source.stamp().len });
        }
        self.check_session()?;
        let Some(session) = &mut self.session else {
            return Err(TransferError::Disconnected("no session".to_owned()));
        };
        // Whatever becomes of it, the server may not have the old content any more.
        self.stored.remove(path);
        let started = Instant::now();
        let mut shown = (started + WORTH_A_BAR - BAR_STEP, 0);
        let (id, events, total) = (self.id, &self.events, source.stamp().len);
        let stored = session.store(path, &mut source, &mut self.lore, &mut |sent| {
            if shown.0.elapsed() >= BAR_STEP {
                let (path, elapsed, moved) = (path.clone(), started.elapsed(), sent > shown.1);
                shown = (Instant::now(), sent);
                let what = HostEvent::Sending { path, sent, total, elapsed, moved };
                let _ = events.send(Event::Host { host: id, what });
            }
        });
        let bytes = stored.map_err(|error| error.during(format_args!("{path} was under way")))?;
        let took = started.elapsed();
        // A file that is deleted here once it is sent is a new one whenever it comes back.
        if !self.config.filter.up_delete(path) {
            self.stored.insert(path.clone(), (bytes, source.hash()));
        }
        if source.has_changed() {
            // It was written to while it was read: compare it with what was sent.
            self.queue.put(path.clone(), Instant::now() + Timing::NATIVE.settle);
        }
        let stamp = source.stamp();
        Ok(Outcome::Sent { bytes, took, stamp })
    }

    /// Finds out early about a session that has ended while it was idle, so that the file at hand
    /// goes out in a new one at once.
    fn check_session(&mut self) -> Result<(), TransferError> {
        match &self.session {
            Some(session) if !session.is_quiet() => {
                Err(TransferError::Disconnected(IDLE_END.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn failed(&mut self, job: Job, error: TransferError) {
        let now = Instant::now();
        match error {
            // At once, but behind the others: it may be this file that ends the sessions. It is
            // never given up for it.
            TransferError::Disconnected(cause) => {
                self.queue.retry(job, now);
                self.lose_session(cause);
            }
            TransferError::Permanent(cause) => self.give_up(&job, cause),
            TransferError::Local(error) => {
                self.try_later(job, format!("it cannot be read here: {error}"));
            }
            TransferError::Transient(cause) => self.try_later(job, cause),
            TransferError::Again(_) if job.failures == 0 => {
                self.queue.retry(Job { failures: 1, ..job }, now);
                self.renew_session();
            }
            TransferError::Reconnect(cause) | TransferError::Again(cause) => {
                self.try_later(job, cause);
                self.renew_session();
            }
        }
    }

    /// Ends a session that works, for a fresh one.
    fn renew_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.quit();
        }
        self.plan_session();
    }

    fn try_later(&mut self, job: Job, cause: String) {
        let failures = job.failures + 1;
        if self.draining || failures >= TRIES {
            return self.give_up(&job, cause);
        }
        let wait = backoff::delay(failures);
        self.tell(HostEvent::Retrying { path: job.path.clone(), cause, wait });
        self.queue.retry(Job { failures, ..job }, Instant::now() + wait);
    }

    fn give_up(&mut self, job: &Job, cause: String) {
        self.queue.finish(&job.path);
        self.file(&job.path, Outcome::Failed(cause));
    }

    fn remote_command(&mut self, path: &RelPath) {
        let Some(template) = &self.config.remote_command else {
            return;
        };
        let command = match fill_in(template, path) {
            Ok(command) => command,
            Err(cause) => {
                let (command, answer) = (template.clone(), Answer::Failed(cause));
                return self.tell(HostEvent::RemoteCommand { command, answer });
            }
        };
        if self.config.dry_run {
            let answer = Answer::WouldRun;
            return self.tell(HostEvent::RemoteCommand { command, answer });
        }
        let Some(session) = &mut self.session else {
            return;
        };
        match session.site(&command) {
            Ok(reply) if reply.is_completion() => {
                let answer = Answer::Done(reply.text);
                self.tell(HostEvent::RemoteCommand { command, answer });
            }
            Ok(reply) => {
                let answer = Answer::Failed(reply.to_string());
                self.tell(HostEvent::RemoteCommand { command, answer });
            }
            Err(broken) => {
                // machine.reset() is a common one: no answer is to be expected then.
                self.tell(HostEvent::RemoteCommand { command, answer: Answer::None });
                self.lose_session(format!("{broken} (after the remote command)"));
            }
        }
    }

    fn trace(&self) -> Trace {
        if !self.config.screen.debug {
            return Trace(None);
        }
        let (host, events) = (self.id, self.events.clone());
        Trace(Some(Box::new(move |sent, line| {
            let what = HostEvent::Dialogue { sent, line };
            let _ = events.send(Event::Host { host, what });
        })))
    }

    /// One lane handles one file at a time, and takes orders in between: every order so far is
    /// settled by this outcome.
    fn file(&mut self, path: &RelPath, outcome: Outcome) {
        let ticket = self.tickets.remove(path).unwrap_or_default();
        let path = path.clone();
        self.tell(HostEvent::File { path, ticket, outcome });
    }

    fn tell(&self, what: HostEvent) {
        // The other end is gone only when the program is ending.
        let _ = self.events.send(Event::Host { host: self.id, what });
    }
}

/// Puts the file's name, up to its first dot, in place of each `%%f`.
///
/// # Errors
/// The command is Python that a board executes: a name that could be more than a name is refused.
fn fill_in(template: &str, path: &RelPath) -> Result<String, String> {
    const NAME: &str = "%%f";
    if !template.contains(NAME) {
        return Ok(template.to_owned());
    }
    let stem = path.name().split('.').next().unwrap_or_default();
    if stem.is_empty() || !stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!(
            "not run for {path}: %%f stands for a name of letters, digits and _ only, and '{stem}' is none"
        ));
    }
    Ok(template.replace(NAME, stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn filled(template: &str, path: &str) -> Result<String, String> {
        fill_in(template, &RelPath::new(Path::new(path)).expect("a good path"))
    }

    #[test]
    fn the_name_goes_into_the_command_only_if_it_is_a_name() {
        assert_eq!(filled("r('%%f','%%f')", "lib/a_1.b.mpy"), Ok("r('a_1','a_1')".into()));
        assert_eq!(filled("gc", "lib/a'b.py"), Ok("gc".into()));
        for evil in ["a');import os;('.py", "ä.py", ".py", "a b.py", "a-b.py"] {
            filled("r('%%f')", evil).expect_err(evil);
        }
    }
}
