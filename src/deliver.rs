//! A lane: one thread that owns the session with one host, and what that host has yet to get.
//!
//! Lanes know nothing of each other, so a board that is away delays nobody else.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use xxhash_rust::xxh3::xxh3_64;

use crate::backoff;
use crate::config::Config;
use crate::credentials::Login;
use crate::event::{Answer, Event, HostEvent, HostId, IDLE_END, Outcome, Ticket};
use crate::filter::{Verdict, Why};
use crate::host::Host;
use crate::ledger::{Content, Ledger, Unfinished};
use crate::path::RelPath;
use crate::queue::{Class, Job, Queue, Timing};
use crate::remote::TransferError;
use crate::remote::ftp::{ConnectError, Lore, Session, Size, Trace, Upload};
use crate::source::{OpenError, Source};

/// An idle session gets a NOOP this often: servers end one after 60 to 300 s.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A file that is refused for a passing reason is tried this often before it is given up until it
/// changes: for about a minute.
const TRIES: u32 = 10;

/// A temporary name that is refused this often may be what is refused: the file's own is tried.
const TRIES_UNDER_TEMPORARY_NAME: u32 = 3;

/// How long to wait when another process sends to the same place.
const OTHER_PROCESS: Duration = Duration::from_millis(20);

/// After a session that was lost, what was stored this long before is looked at again: a board that
/// lost its power may have lost its last writes, and so may a desktop's file system.
const WRITES_MAY_BE_LOST: Duration = Duration::from_secs(60);

/// As many files, at most; with `--sync` these are the sample that shows whether all is lost.
const LAST_WRITES: usize = 32;

/// A file that is lost there is sent again this often without being saved: a remote command that
/// restarts the board too early must not do so for ever.
const LOST_TRIES: u32 = 3;

/// A burst is over when nothing has been ordered or sent for this long.
const BURST_ENDS: Duration = Duration::from_millis(50);

/// When the clock on the wall went on for so much longer than ours, the machine was asleep.
const SLEPT: Duration = Duration::from_secs(5);

/// How long a session may take to answer after the machine was asleep.
const AWAKE: Duration = Duration::from_secs(1);

/// For so long nobody carries a computer into another network.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// Uploads that take longer than this show how far they are.
const WORTH_A_BAR: Duration = Duration::from_secs(1);

/// How often they show it.
const BAR_STEP: Duration = Duration::from_millis(100);

/// What a lane is told.
#[derive(Debug)]
pub enum Order {
    /// Send this file as it is when its turn comes.
    Upload {
        /// The file.
        path: RelPath,
        /// The order's number.
        ticket: Ticket,
        /// Whose turn it is.
        class: Class,
        /// What it was named before, if it was renamed and that is to be mirrored.
        renamed_from: Option<RelPath>,
    },
    /// The file is gone: remove it there, too.
    Remove(RelPath, Ticket),
    /// Send what is pending if there is a session, then end.
    Drain,
}

/// Starts the lane of one host. It ends after [`Order::Drain`], or when the host turns out to be
/// unusable; dropping the sender ends it too.
pub fn start(
    id: HostId,
    host: Host,
    login: Login,
    ledger: Ledger,
    unfinished: &Unfinished,
    config: Arc<Config>,
    events: Sender<Event>,
) -> std::io::Result<Sender<Order>> {
    let (sender, orders) = unbounded();
    let now = Instant::now();
    let lane = Lane {
        id,
        host,
        login,
        ledger,
        events,
        orders,
        queue: Queue::new(Timing::SETTLED),
        tickets: HashMap::new(),
        removals: HashSet::new(),
        renames: HashMap::new(),
        refused: HashSet::new(),
        session: None,
        lore: Lore::default(),
        was_connected: false,
        failures: 0,
        next_try: now,
        draining: false,
        given_up: false,
        confirmed: HashSet::new(),
        absent: HashSet::new(),
        last_writes: VecDeque::new(),
        lost: HashMap::new(),
        in_place_said: false,
        temporary_name: temporary_name(),
        leftovers: unfinished.temporary.clone(),
        emptied: BTreeSet::new(),
        command_due: None,
        last_work: now,
        last_heard: now,
        clocks: (now, SystemTime::now()),
        config,
    };
    thread::Builder::new().name(format!("lane {id}")).spawn(move || lane.run())?;
    Ok(sender)
}

struct Lane {
    id: HostId,
    host: Host,
    login: Login,
    ledger: Ledger,
    config: Arc<Config>,
    events: Sender<Event>,
    orders: Receiver<Order>,
    queue: Queue,
    /// The newest order for each file that is pending.
    tickets: HashMap<RelPath, Ticket>,
    /// The files that are to be removed there if they are not here.
    removals: HashSet<RelPath>,
    /// What files that are pending were named before.
    renames: HashMap<RelPath, RelPath>,
    /// What was given up: tried once more when there is reason to hope.
    refused: HashSet<RelPath>,
    session: Option<Session>,
    lore: Lore,
    /// Whether there has been a session: from then on the host is never given up.
    was_connected: bool,
    /// How many sessions in a row did no work.
    failures: u32,
    next_try: Instant,
    draining: bool,
    /// The host is of no use: the lane ends.
    given_up: bool,
    /// The files that this session has stored, or has been told the size of. Forgotten with the
    /// session: a board may have lost its files when it comes back.
    confirmed: HashSet<RelPath>,
    /// The files that this session has removed or renamed.
    absent: HashSet<RelPath>,
    /// What was stored last, and when.
    last_writes: VecDeque<(RelPath, Instant)>,
    /// How often files that were stored were not there any more since they were saved.
    lost: HashMap<RelPath, u32>,
    /// Whether it was said that `--atomic` is of no use there.
    in_place_said: bool,
    /// With `--atomic`, the last component of the name that files are first stored under.
    temporary_name: String,
    /// Temporary names that may be left there.
    leftovers: BTreeSet<String>,
    /// Directories there that may have become empty.
    emptied: BTreeSet<String>,
    /// With `--remote-once`, the file whose remote command is due when the burst is over.
    command_due: Option<RelPath>,
    /// When something was ordered or delivered last.
    last_work: Instant,
    last_heard: Instant,
    /// Our clock, which stands still while the machine sleeps, and the one on the wall.
    clocks: (Instant, SystemTime),
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
            self.look_at_the_clocks();
            if self.session.is_none() && now >= self.next_try {
                self.connect();
            }
            if self.given_up {
                return;
            }
            if self.session.is_some() {
                if let Some(job) = self.queue.take(now) {
                    self.deliver(job);
                    continue;
                }
                if self.tidy(now) {
                    continue;
                }
            }
            match self.orders.recv_deadline(self.wake_time()) {
                Ok(order) => self.take_order(order),
                Err(RecvTimeoutError::Timeout) => self.keep_alive(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        while self.session.is_some() && self.tidy(Instant::now() + BURST_ENDS) {}
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
        let now = Instant::now();
        match order {
            Order::Upload { path, ticket, class, renamed_from } => {
                self.tickets.insert(path.clone(), ticket);
                self.removals.remove(&path);
                self.refused.remove(&path);
                self.lost.remove(&path);
                match renamed_from {
                    Some(from) => drop(self.renames.insert(path.clone(), from)),
                    None => drop(self.renames.remove(&path)),
                }
                self.queue.put(path, class, now);
            }
            Order::Remove(path, ticket) => {
                self.tickets.insert(path.clone(), ticket);
                self.removals.insert(path.clone());
                self.queue.put(path, Class::Saved, now);
            }
            Order::Drain => {
                self.draining = true;
                // One last try for what waits for its next one.
                self.queue.hurry(now);
            }
        }
        self.last_work = now;
    }

    fn wake_time(&self) -> Instant {
        let Some(_) = &self.session else {
            return self.next_try;
        };
        let burst_ends = self.command_due.as_ref().map(|_| self.last_work + BURST_ENDS);
        let times = [self.queue.next_due(), burst_ends];
        times.into_iter().flatten().fold(self.last_heard + KEEPALIVE, Instant::min)
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

    /// A session that was left alone while the machine slept may be gone without a word: asks it,
    /// and does not wait for long.
    fn look_at_the_clocks(&mut self) {
        let (then, wall_then) = self.clocks;
        self.clocks = (Instant::now(), SystemTime::now());
        let passed = self.clocks.0 - then;
        let on_the_wall = self.clocks.1.duration_since(wall_then).unwrap_or_default();
        if on_the_wall.saturating_sub(passed) < SLEPT {
            return;
        }
        self.next_try = self.clocks.0;
        let Some(session) = &mut self.session else {
            return;
        };
        if !session.is_at_home() || !session.is_quiet() || session.probe(AWAKE).is_err() {
            self.lose_session("this computer was asleep".to_owned());
        }
    }

    fn connect(&mut self) {
        let dir = self.host.dir.as_deref().or(self.config.remote_dir.as_deref());
        let trace = self.trace();
        match Session::open(&self.host, &self.login, dir, self.config.timeout, trace) {
            Ok((session, welcome)) => {
                self.session = Some(session);
                self.was_connected = true;
                self.last_heard = Instant::now();
                self.lore.begin_session();
                self.tell(HostEvent::Connected { dir: welcome.dir, greeting: welcome.greeting });
                self.hope();
            }
            Err(ConnectError::Unusable(cause)) if !self.was_connected => self.give_up_host(cause),
            Err(ConnectError::Unusable(cause) | ConnectError::Later(cause)) => {
                self.failures = self.failures.max(1);
                self.plan_session(cause, false);
            }
        }
    }

    /// Decides when the next session is tried: at once after one that did its work, after growing
    /// pauses while none does.
    fn plan_session(&mut self, cause: String, lost: bool) {
        // For whoever waits for our end, so many sessions and so much time are enough.
        const SESSIONS: u32 = 3;
        let in_vain = self.last_work.max(self.last_heard).elapsed() >= self.config.timeout;
        if self.config.once && self.failures >= SESSIONS && in_vain {
            return self.give_up_host(cause);
        }
        let retry = match self.failures {
            0 => Duration::ZERO,
            failures => backoff::delay(failures),
        };
        self.failures += 1;
        self.next_try = Instant::now() + retry;
        self.forget_session();
        self.tell(HostEvent::Disconnected { cause, retry, lost });
    }

    fn give_up_host(&mut self, cause: String) {
        self.given_up = true;
        self.tell(HostEvent::Unusable(cause));
    }

    /// The session is of no use any more.
    fn lose_session(&mut self, cause: String) {
        if let Some(session) = self.session.take() {
            session.hang_up();
        }
        self.plan_session(cause, true);
        self.doubt();
    }

    /// Has the last writes looked at again: whatever ended the session may have undone them.
    fn doubt(&mut self) {
        if self.draining || !self.lore.tells_size() {
            return;
        }
        let now = Instant::now();
        for (path, stored) in &self.last_writes {
            let in_doubt = self.config.sync || now - *stored < WRITES_MAY_BE_LOST;
            if in_doubt && !self.queue.has(path) && self.lost.get(path) != Some(&LOST_TRIES) {
                self.queue.put(path.clone(), Class::Background, now);
            }
        }
    }

    /// Has what was given up tried once more.
    fn hope(&mut self) {
        let now = Instant::now();
        for path in &self.refused {
            if !self.queue.has(path) {
                self.queue.put_again(path.clone(), TRIES, now);
            }
        }
    }

    fn deliver(&mut self, job: Job) {
        if !self.config.dry_run && !self.ledger.take_turn() {
            return self.queue.retry(job, Instant::now() + OTHER_PROCESS);
        }
        let outcome = self.attempt(&job);
        self.ledger.end_turn();
        match outcome {
            Ok(outcome) => self.delivered(&job, outcome),
            Err(error) => self.failed(job, error),
        }
    }

    fn delivered(&mut self, job: &Job, outcome: Outcome) {
        let path = &job.path;
        self.queue.finish(path);
        self.renames.remove(path);
        self.refused.remove(path);
        let now = Instant::now();
        let changed_there =
            matches!(outcome, Outcome::Sent { .. } | Outcome::Renamed { .. } | Outcome::Removed);
        if changed_there {
            self.failures = 0;
            (self.last_heard, self.last_work) = (now, now);
        }
        let is_new_there = matches!(
            outcome,
            Outcome::Sent { .. } | Outcome::Renamed { .. } | Outcome::WouldSend { .. }
        );
        // Orders that came meanwhile were noted before what was stored, and have to outlast it.
        while let Ok(order) = self.orders.try_recv() {
            self.take_order(order);
        }
        if self.queue.has(path) && !self.config.dry_run {
            self.ledger.journal().is_ordered(path);
        }
        self.file(path, outcome);
        if is_new_there && self.config.filter.remote_match(path) {
            if self.config.remote_once {
                self.command_due = Some(path.clone());
            } else {
                self.remote_command(path);
            }
        }
        if changed_there {
            self.hope();
        }
    }

    /// Tries to make one file there what it is here.
    fn attempt(&mut self, job: &Job) -> Result<Outcome, TransferError> {
        let path = &job.path;
        let mut source = match Source::open(&self.config.root, path) {
            Ok(source) => source,
            Err(OpenError::Vanished) => return self.attempt_removal(job),
            Err(error @ OpenError::LeadsOutside) => {
                return Ok(self.settled(job, Outcome::Declined(error.to_string())));
            }
            Err(OpenError::Io(error)) => return Err(TransferError::Local(error)),
        };
        self.removals.remove(path);
        if let Some(target) = source.target()
            && let Verdict::Ignored(Why::Own | Why::Excluded) = self.config.filter.verdict(target)
        {
            let cause = format!("it is a link to {target}, which is ignored");
            return Ok(self.settled(job, Outcome::Declined(cause)));
        }
        self.check_session()?;
        if self.has_already(path, &mut source)? {
            return Ok(self.settled(job, Outcome::Unchanged { stamp: source.stamp() }));
        }
        if self.config.dry_run {
            return Ok(Outcome::WouldSend { bytes: source.stamp().len });
        }
        if let Some(outcome) = self.attempt_rename(path, &mut source)? {
            return Ok(outcome);
        }
        // Whatever becomes of it, the server may not have the old content any more.
        self.absent.remove(path);
        self.ledger.is_changing(path);
        let temporary = self.temporary(job);
        let started = Instant::now();
        let mut shown = (started + WORTH_A_BAR - BAR_STEP, 0);
        let (id, events, total) = (self.id, &self.events, source.stamp().len);
        let Some(session) = &mut self.session else {
            return Err(TransferError::Disconnected("no session".to_owned()));
        };
        let upload = Upload { path, temporary: temporary.as_deref(), again: job.failures > 0 };
        let stored = session.store(upload, &mut source, &mut self.lore, &mut |sent| {
            if shown.0.elapsed() >= BAR_STEP {
                let (path, elapsed, moved) = (path.clone(), started.elapsed(), sent > shown.1);
                shown = (Instant::now(), sent);
                let what = HostEvent::Sending { path, sent, total, elapsed, moved };
                let _ = events.send(Event::Host { host: id, what });
            }
        });
        let bytes = stored.map_err(|error| error.during(format_args!("{path} was under way")))?;
        let took = started.elapsed();
        self.note_stored(path, &source, bytes, temporary);
        let stamp = source.stamp();
        Ok(Outcome::Sent { bytes, took, stamp })
    }

    fn note_stored(
        &mut self,
        path: &RelPath,
        source: &Source,
        bytes: u64,
        temporary: Option<String>,
    ) {
        if let Some(name) = temporary {
            self.lore.is_stored_by_renaming();
            self.leftovers.remove(&name);
            self.ledger.journal().is_gone(&name);
        } else if self.config.atomic && !self.in_place_said && self.lore.is_stored_in_place() {
            self.in_place_said = true;
            self.tell(HostEvent::Notice(
                "files cannot be renamed there: they are stored in place, without --atomic"
                    .to_owned(),
            ));
        }
        // A file that is deleted here once it is sent is a new one whenever it comes back.
        if self.config.filter.up_delete(path) {
            self.ledger.is_settled(path);
        } else {
            self.note_there(path, Content { len: bytes, hash: source.hash() });
        }
        if source.has_changed() {
            // It was written to while it was read: compare it with what was sent.
            self.queue.put(path.clone(), Class::of(path), Instant::now() + Timing::NATIVE.settle);
        }
    }

    /// Nothing is to be delivered, or not any more.
    fn settled(&self, job: &Job, outcome: Outcome) -> Outcome {
        // What goes on in the background was not noted as ordered.
        if !self.config.dry_run && job.class != Class::Background {
            self.ledger.is_settled(&job.path);
        }
        outcome
    }

    /// The name to store a file under first.
    fn temporary(&mut self, job: &Job) -> Option<String> {
        if !self.config.atomic
            || self.lore.cannot_rename
            || (TRIES_UNDER_TEMPORARY_NAME..TRIES).contains(&job.failures)
        {
            return None;
        }
        let name = match job.path.parent() {
            Some(parent) => format!("{parent}/{}", self.temporary_name),
            None => self.temporary_name.clone(),
        };
        if self.leftovers.insert(name.clone()) {
            self.ledger.journal().may_be_left(&name);
        }
        Some(name)
    }

    /// Whether the host has this content already. What an earlier session stored is believed only
    /// if the size is still right.
    fn has_already(&mut self, path: &RelPath, source: &mut Source) -> Result<bool, TransferError> {
        if self.config.force && self.tickets.contains_key(path) {
            return Ok(false);
        }
        let Some(content) = self.ledger.content(path) else {
            return Ok(false);
        };
        if content.len != source.stamp().len
            || content.hash != source.hash_all().map_err(TransferError::Local)?
        {
            return Ok(false);
        }
        self.is_still_there(path, content)
    }

    fn is_still_there(&mut self, path: &RelPath, content: Content) -> Result<bool, TransferError> {
        if self.confirmed.contains(path) {
            return Ok(true);
        }
        let Some(session) = &mut self.session else {
            return Ok(false);
        };
        let size = session.size(path, &mut self.lore)?;
        self.last_heard = Instant::now();
        let now_there = match size {
            Size::Bytes(bytes) if bytes == content.len => {
                self.confirmed.insert(path.clone());
                return Ok(true);
            }
            Size::Untold => return Ok(false),
            Size::Bytes(bytes) => Some(bytes),
            Size::Missing => None,
        };
        *self.lost.entry(path.clone()).or_default() += 1;
        self.tell(HostEvent::Lost { path: path.clone(), now_there });
        Ok(false)
    }

    /// A file that was renamed here is renamed there if it is there, and is what it is here.
    fn attempt_rename(
        &mut self,
        path: &RelPath,
        source: &mut Source,
    ) -> Result<Option<Outcome>, TransferError> {
        let Some(from) = self.renames.remove(path) else {
            return Ok(None);
        };
        let Some(content) = self.ledger.content(&from) else {
            return Ok(None);
        };
        let hash = source.hash_all().map_err(TransferError::Local)?;
        if content != (Content { len: source.stamp().len, hash })
            || from.under(&self.config.root).symlink_metadata().is_ok()
            || !self.is_still_there(&from, content)?
        {
            return Ok(None);
        }
        let Some(session) = &mut self.session else {
            return Ok(None);
        };
        let started = Instant::now();
        self.ledger.is_changing(&from);
        self.ledger.is_changing(path);
        match session.move_to(&from, path, &mut self.lore) {
            Ok(()) => {}
            Err(error @ TransferError::Disconnected(_)) => return Err(error),
            // Sending it will do, and the old name is removed by and by.
            Err(_) => return Ok(None),
        }
        self.note_gone(&from);
        let took = started.elapsed();
        self.note_there(path, content);
        Ok(Some(Outcome::Renamed { from, took }))
    }

    /// The file is not here any more.
    fn attempt_removal(&mut self, job: &Job) -> Result<Outcome, TransferError> {
        let path = &job.path;
        // With the whole project out of sight, it is not the file that was deleted.
        let is_to_go = self.removals.contains(path) && !self.absent.contains(path);
        if !is_to_go || !self.config.root.is_dir() {
            self.removals.remove(path);
            return Ok(self.settled(job, Outcome::Vanished));
        }
        if self.config.dry_run {
            return Ok(Outcome::WouldRemove);
        }
        self.check_session()?;
        let Some(session) = &mut self.session else {
            return Err(TransferError::Disconnected("no session".to_owned()));
        };
        self.ledger.is_changing(path);
        let was_there = session.remove(path, &mut self.lore)?;
        self.removals.remove(path);
        self.note_gone(path);
        Ok(if was_there { Outcome::Removed } else { Outcome::Vanished })
    }

    /// The file is not there any more.
    fn note_gone(&mut self, path: &RelPath) {
        self.ledger.is_settled(path);
        self.confirmed.remove(path);
        self.absent.insert(path.clone());
        self.last_writes.retain(|(other, _)| other != path);
        self.emptied.extend(path.ancestors().map(ToOwned::to_owned));
    }

    /// The file is there, with this content.
    fn note_there(&mut self, path: &RelPath, content: Content) {
        self.ledger.is_stored(path, content);
        self.absent.remove(path);
        self.confirmed.insert(path.clone());
        self.last_writes.retain(|(other, _)| other != path);
        self.last_writes.push_back((path.clone(), Instant::now()));
        if self.last_writes.len() > LAST_WRITES {
            self.last_writes.pop_front();
        }
    }

    /// Does one of the things that can wait until nothing is to be sent; returns whether there was
    /// one.
    fn tidy(&mut self, now: Instant) -> bool {
        if now >= self.last_work + BURST_ENDS
            && let Some(path) = self.command_due.take()
        {
            self.remote_command(&path);
            return true;
        }
        let Some(session) = &mut self.session else {
            return false;
        };
        if self.config.dry_run {
            return false;
        }
        let broken = if let Some(name) = self.leftovers.pop_first() {
            let reply = session.delete(&name);
            if reply.as_ref().is_ok_and(|reply| reply.is_completion() || reply.code == 550) {
                self.ledger.journal().is_gone(&name);
            }
            reply.err()
        // The innermost comes last in the order of names.
        } else if let Some(dir) = self.emptied.pop_last() {
            if self.config.root.join(&dir).exists() || !self.config.root.is_dir() {
                return true;
            }
            let removed = session.remove_directory(&dir);
            if let Ok(false) = removed {
                // Nor are those above it empty.
                self.emptied.retain(|above| !dir.starts_with(&format!("{above}/")));
            }
            removed.err()
        } else {
            return false;
        };
        self.last_heard = Instant::now();
        if let Some(broken) = broken {
            self.lose_session(broken.to_string());
        }
        true
    }

    /// Finds out early about a session that has ended while it was idle, so that the file at hand
    /// goes out in a new one at once.
    fn check_session(&mut self) -> Result<(), TransferError> {
        match &self.session {
            Some(session) if !session.is_quiet() => {
                Err(TransferError::Disconnected(IDLE_END.to_owned()))
            }
            Some(session) if self.last_heard.elapsed() > LEFT_ALONE && !session.is_at_home() => {
                Err(TransferError::Disconnected("this computer's address has changed".to_owned()))
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
        self.next_try = Instant::now();
        if self.failures > 0 {
            self.next_try += backoff::delay(self.failures);
        }
        self.failures += 1;
        self.forget_session();
    }

    fn forget_session(&mut self) {
        self.confirmed.clear();
        self.absent.clear();
    }

    fn try_later(&mut self, job: Job, cause: String) {
        let failures = job.failures + 1;
        if self.draining || failures >= TRIES {
            if !self.refused.insert(job.path.clone()) {
                // It was said when it was given up first.
                return self.queue.finish(&job.path);
            }
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

/// A name that no other process uses.
fn temporary_name() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = format!("{} {}", std::process::id(), now.as_nanos());
    format!(".autoftp-{:06x}", xxh3_64(seed.as_bytes()) & 0xff_ffff)
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
