//! A lane: one thread that owns the session with one host, and what that host has yet to get.
//!
//! Lanes know nothing of each other, so a board that is away delays nobody else.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::deliver::attempt::{PreparedUpload, Task};
use crate::deliver::order::{Order, Origin};
use crate::deliver::session_pool::{ParallelResult, SessionPool};
use crate::ftp::connect::{ConnectError, TlsFacts};
use crate::ftp::error::TransferError;
use crate::ftp::session::{Entry, FtpSession, ServerFacts, Welcome};
use crate::ftp::trace::Trace;
use crate::journal::store::{Ledger, Unfinished};
use crate::model::event::{
    Answer, BAR_STEP, Event, HostEvent, HostId, IDLE_END, Outcome, Ticket, WORTH_A_BAR,
};
use crate::model::path::RelPath;
use crate::model::send_mode::SendChoice;
use crate::pending::backoff;
use crate::pending::queue::{Class, Job, Queue, Timing};
use crate::settings::config::Config;

/// An idle session gets a NOOP this often: servers end one after 60 to 300 s.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A file that is refused for a passing reason is tried this often before it is given up until it
/// changes: for about a minute.
pub const TRIES: u32 = 10;

/// How long to wait when another process sends to the same place.
const OTHER_PROCESS: Duration = Duration::from_millis(20);

/// After a session that was lost, what was stored this long before is looked at again: a board that
/// lost its power may have lost its last writes, and so may a desktop's file system.
const WRITES_MAY_BE_LOST: Duration = Duration::from_secs(60);

/// A file that is lost there is sent again this often without being saved: a remote command that
/// restarts the board too early must not do so for ever.
const LOST_TRIES: u32 = 3;

/// A burst is over when nothing has been ordered or sent for this long.
const BURST_ENDS: Duration = Duration::from_millis(50);

/// No longer than this, though, for files of it that are tried again.
const BURST_WAITS: Duration = Duration::from_secs(5);

/// How long after the last sign of somebody at work the next save is prepared for.
const AT_WORK: Duration = Duration::from_secs(25);

/// When the clock on the wall went on for so much longer than ours, or we woke so late, the machine
/// was asleep.
const SLEPT: Duration = Duration::from_secs(5);

/// How long a session may take to answer after the machine was asleep.
const AWAKE: Duration = Duration::from_secs(1);

/// Starts the lane of one host. It ends after [`Order::Drain`], or when the host turns out to be
/// unusable; dropping the sender ends it too.
pub fn start(
    id: HostId,
    ledger: Ledger,
    unfinished: &Unfinished,
    config: Arc<Config>,
    events: Sender<Event>,
) -> std::io::Result<Sender<Order>> {
    let (sender, orders) = unbounded();
    let now = Instant::now();
    let lane = HostWorker {
        id,
        tls_facts: TlsFacts::default(),
        ledger,
        events,
        orders,
        queue: Queue::new(Timing::SETTLED),
        tickets: HashMap::new(),
        removals: HashSet::new(),
        renames: HashMap::new(),
        refused: HashSet::new(),
        session: None,
        facts: ServerFacts::default(),
        was_connected: false,
        failures: 0,
        next_try: now,
        is_renewed: false,
        draining: false,
        given_up: false,
        confirmed: HashSet::new(),
        absent: HashSet::new(),
        last_writes: VecDeque::new(),
        lost: HashMap::new(),
        is_broken_said: false,
        in_place_said: false,
        temporary_name: crate::deliver::attempt::temporary_name(),
        pool: SessionPool::new(config.parallel, id, &config),
        leftovers: if config.dry_run { BTreeSet::new() } else { unfinished.temporary.clone() },
        removals_refused: 0,
        next_removal: now,
        emptied: BTreeSet::new(),
        command_due: None,
        is_waiting: false,
        last_work: now,
        last_sign: now,
        send_choice: None,
        last_heard: now,
        clocks: (now, SystemTime::now()),
        config,
    };
    thread::Builder::new().name(format!("lane {id}")).spawn(move || lane.run())?;
    Ok(sender)
}

pub struct HostWorker {
    pub(super) id: HostId,
    pub(super) tls_facts: TlsFacts,
    pub(super) ledger: Ledger,
    pub(super) config: Arc<Config>,
    pub(super) events: Sender<Event>,
    pub(super) orders: Receiver<Order>,
    pub(super) queue: Queue,
    /// The newest order for each file that is pending.
    pub(super) tickets: HashMap<RelPath, Ticket>,
    /// The files that are to be removed there if they are not here.
    pub(super) removals: HashSet<RelPath>,
    /// What files that are pending were named before.
    pub(super) renames: HashMap<RelPath, RelPath>,
    /// What was given up: tried once more when there is reason to hope.
    pub(super) refused: HashSet<RelPath>,
    pub(super) session: Option<FtpSession>,
    pub(super) pool: SessionPool,
    pub(super) facts: ServerFacts,
    /// Whether there has been a session: from then on the host is never given up.
    pub(super) was_connected: bool,
    /// How many sessions in a row did no work.
    pub(super) failures: u32,
    pub(super) next_try: Instant,
    /// Whether the session before was ended by us, for a fresh one.
    pub(super) is_renewed: bool,
    pub(super) draining: bool,
    /// The host is of no use: the lane ends.
    pub(super) given_up: bool,
    /// The files that this session has stored, or has been told the size of. Forgotten with the
    /// session: a board may have lost its files when it comes back.
    pub(super) confirmed: HashSet<RelPath>,
    /// The files that this session has removed or renamed.
    pub(super) absent: HashSet<RelPath>,
    /// What was stored last, and when.
    pub(super) last_writes: VecDeque<(RelPath, Instant)>,
    /// How often files that were stored were not there any more since they were saved.
    pub(super) lost: HashMap<RelPath, u32>,
    /// Whether it was said that nothing is remembered.
    pub(super) is_broken_said: bool,
    /// Whether it was said that `--atomic` is of no use there.
    pub(super) in_place_said: bool,
    /// With `--atomic`, the last component of the name that files are first stored under.
    pub(super) temporary_name: String,
    /// Temporary names that may be left there.
    pub(super) leftovers: BTreeSet<String>,
    /// How many times in a row one of them could not be removed, and when the next try is.
    pub(super) removals_refused: u32,
    pub(super) next_removal: Instant,
    /// Directories there that may have become empty.
    pub(super) emptied: BTreeSet<String>,
    /// With `--remote-once`, the file whose remote command is due when the burst is over.
    pub(super) command_due: Option<RelPath>,
    /// Whether another process is sending to the same place.
    pub(super) is_waiting: bool,
    /// When something was ordered or delivered last.
    pub(super) last_work: Instant,
    /// When something happened in the directory last, or there.
    pub(super) last_sign: Instant,
    /// What was said last of how files are sent.
    pub(super) send_choice: Option<SendChoice>,
    pub(super) last_heard: Instant,
    /// Our clock, which stands still while the machine sleeps, and the one on the wall.
    pub(super) clocks: (Instant, SystemTime),
}

impl HostWorker {
    pub(super) fn run(mut self) {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                self.take_order(order);
            }
            let now = Instant::now();
            if self.draining && !self.can_go_on(now) {
                break;
            }
            if self.session.is_none() && now >= self.next_try && !self.given_up {
                self.connect();
                if self.given_up {
                    break;
                }
                // What was ordered meanwhile comes before what can wait.
                continue;
            }
            if self.session.is_some() {
                if let Some(job) = self.queue.take(now) {
                    self.deliver(job);
                    if self.session.as_ref().is_some_and(|session| session.is_spent(&self.facts)) {
                        self.renew_session();
                    }
                    continue;
                }
                if self.tidy(now) || self.make_ready(now) {
                    continue;
                }
            }
            self.pool.rest(now);
            let wake_time = self.wake_time().max(Instant::now());
            let order = self.orders.recv_deadline(wake_time);
            self.look_at_the_clocks(wake_time);
            match order {
                Ok(order) => self.take_order(order),
                Err(RecvTimeoutError::Timeout) => self.keep_alive(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        while self.session.is_some() && self.tidy(Instant::now()) {}
        self.pool.disband();
        if let Some(session) = self.session.take() {
            session.quit();
        }
        if self.config.once {
            // What was stored and then lost, perhaps; what was ordered is known to be outstanding.
            while let Some(job) = self.queue.take(Instant::now()) {
                if !self.tickets.contains_key(&job.path) {
                    let cause = "the session ended before its size was checked again".to_owned();
                    self.file(&job.path, 0, Outcome::Failed(cause));
                }
            }
        }
        self.tell(HostEvent::Closed);
    }

    /// Whether there is a file whose turn it is, and a session for it now.
    pub(super) fn can_go_on(&self, now: Instant) -> bool {
        let soon = if self.is_waiting { now + OTHER_PROCESS } else { now };
        self.queue.next_due().is_some_and(|due| due <= soon)
            && (self.session.is_some() || self.next_try <= now)
    }

    pub(super) fn take_order(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Upload { path, ticket, origin } => {
                self.tickets.insert(path.clone(), ticket);
                self.removals.remove(&path);
                self.refused.remove(&path);
                let class = match (Class::of(&path), origin) {
                    (Class::Saved, Origin::Listing) => Class::Background,
                    (class, Origin::Listing) => class,
                    (class, Origin::Save { renamed_from }) => {
                        self.lost.remove(&path);
                        match renamed_from {
                            Some(from) => drop(self.renames.insert(path.clone(), from)),
                            None => drop(self.renames.remove(&path)),
                        }
                        class
                    }
                };
                self.queue.put(path, class, now);
            }
            Order::Remove(path, ticket) => {
                self.tickets.insert(path.clone(), ticket);
                self.removals.insert(path.clone());
                self.queue.put(path, Class::Saved, now);
            }
            Order::Tidy => return,
            Order::Stir => {
                self.last_sign = now;
                return;
            }
            Order::Drain => {
                self.draining = true;
                // One last try for what waits for its next one, also for the session.
                self.queue.hurry(now);
                self.next_try = self.next_try.min(now);
            }
        }
        (self.last_work, self.last_sign) = (now, now);
    }

    pub(super) fn wake_time(&self) -> Instant {
        let Some(session) = &self.session else {
            return self.next_try;
        };
        let burst_ends = self.command_due.as_ref().map(|_| self.burst_ends());
        let may_remove = !self.leftovers.is_empty() && self.removals_refused < TRIES;
        let times = [
            self.queue.next_due(),
            session.ready_until(),
            self.pool.next_rest(),
            burst_ends,
            may_remove.then_some(self.next_removal),
        ];
        times.into_iter().flatten().fold(self.last_heard + KEEPALIVE, Instant::min)
    }

    /// When the burst is over, as far as can be seen now: what is tried again belongs to it, too.
    pub(super) fn burst_ends(&self) -> Instant {
        let lull = match self.queue.is_empty() {
            true => BURST_ENDS,
            false => BURST_WAITS,
        };
        self.last_work + lull
    }

    pub(super) fn keep_alive(&mut self) {
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

    /// Prepares for the next save; returns whether there was something to do.
    pub(super) fn make_ready(&mut self, now: Instant) -> bool {
        let is_at_work = now < self.last_sign + AT_WORK && !self.draining && !self.config.dry_run;
        let Some(session) = &mut self.session else {
            return false;
        };
        match session.make_ready(is_at_work, &mut self.facts) {
            Ok(false) => {
                self.report_send_choice();
                false
            }
            Ok(true) => {
                self.last_heard = Instant::now();
                true
            }
            Err(broken) => {
                self.lose_session(broken.to_string());
                true
            }
        }
    }

    /// Says how files are sent if that is news.
    pub(super) fn report_send_choice(&mut self) {
        let send_choice = self.session.as_ref().map(FtpSession::send_choice);
        if send_choice != self.send_choice.as_ref()
            && let Some(send_choice) = send_choice.cloned()
        {
            self.send_choice = Some(send_choice.clone());
            self.tell(HostEvent::SendChoice(send_choice));
        }
    }

    /// A session that was left alone while the machine slept, or while we were stopped, may be gone
    /// without a word: asks it, and does not wait for long.
    pub(super) fn look_at_the_clocks(&mut self, wake_time: Instant) {
        let (then, wall_then) = self.clocks;
        self.clocks = (Instant::now(), SystemTime::now());
        let passed = self.clocks.0 - then;
        let on_the_wall = self.clocks.1.duration_since(wall_then).unwrap_or_default();
        if on_the_wall.saturating_sub(passed) < SLEPT && self.clocks.0 < wake_time + SLEPT {
            return;
        }
        self.next_try = self.clocks.0;
        let Some(session) = &mut self.session else {
            return;
        };
        if session.is_at_home() && session.is_quiet() && session.probe(AWAKE).is_ok() {
            // It may have aged more than our clock says.
            session.give_up_ready();
            self.last_heard = self.clocks.0;
        } else {
            self.lose_session("this computer was asleep".to_owned());
        }
    }

    pub(super) fn connect(&mut self) {
        let trace = trace_to(&self.config, self.id, &self.events);
        match FtpSession::open(Entry::of(&self.config, self.id), &mut self.tls_facts, trace) {
            Ok((mut session, welcome)) => {
                session.take_up(&mut self.facts);
                self.session = Some(session);
                self.was_connected = true;
                self.last_heard = Instant::now();
                self.pool.disband();
                self.pool = SessionPool::new(self.config.parallel, self.id, &self.config);
                self.removals_refused = 0;
                // A session that we renewed is nothing new to the person.
                if !std::mem::take(&mut self.is_renewed) {
                    let Welcome { greeting, dir, tls } = welcome;
                    self.tell(HostEvent::Connected { dir, greeting, tls });
                    self.hope();
                }
            }
            Err(ConnectError::Again(cause)) => {
                let (retry, lost) = (Duration::ZERO, false);
                self.tell(HostEvent::Disconnected { cause, retry, lost });
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
    pub(super) fn plan_session(&mut self, cause: String, lost: bool) {
        // For whoever waits for our end, so many sessions and so much time are enough.
        const SESSIONS: u32 = 3;
        let in_vain = self.last_work.elapsed() >= self.config.timeout;
        if self.config.once && self.failures >= SESSIONS && in_vain {
            let seconds = self.last_work.elapsed().as_secs();
            return self.give_up_host(format!("{cause} (given up after {seconds} s)"));
        }
        let retry = match self.failures {
            0 => Duration::ZERO,
            failures => backoff::delay(failures),
        };
        self.failures += 1;
        self.next_try = Instant::now() + retry;
        self.is_renewed = false;
        self.forget_session();
        self.tell(HostEvent::Disconnected { cause, retry, lost });
        self.doubt();
    }

    pub(super) fn give_up_host(&mut self, cause: String) {
        self.given_up = true;
        self.tell(HostEvent::Unusable(cause));
    }

    /// The session is of no use any more.
    pub(super) fn lose_session(&mut self, cause: String) {
        if let Some(session) = self.session.take() {
            if session.ready_until().is_some() {
                self.facts.is_unlucky();
            }
            session.hang_up();
        }
        self.plan_session(cause, true);
    }

    /// Has the last writes looked at again: whatever ended the session may have undone them.
    pub(super) fn doubt(&mut self) {
        if self.draining || !self.facts.tells_size() {
            return;
        }
        let now = Instant::now();
        for (path, stored) in &self.last_writes {
            let in_doubt = self.config.sync || now - *stored < WRITES_MAY_BE_LOST;
            if in_doubt
                && !self.queue.has(path)
                && self.lost.get(path).is_none_or(|times| *times < LOST_TRIES)
            {
                self.queue.put(path.clone(), Class::Background, now);
            }
        }
    }

    /// Has what was given up tried once more.
    pub(super) fn hope(&mut self) {
        let now = Instant::now();
        for path in &self.refused {
            if !self.queue.has(path) {
                self.queue.put_again(path.clone(), TRIES, now);
            }
        }
    }

    /// Delivers what is due: one file, or as many at once as there may be sessions.
    pub(super) fn deliver(&mut self, job: Job) {
        let now = Instant::now();
        if !self.config.dry_run && !self.ledger.take_turn() {
            // It may have been stopped in the midst of it.
            if self.ledger.turn_rests() < self.config.timeout {
                self.is_waiting = true;
                return self.queue.retry(job, now + OTHER_PROCESS);
            }
        }
        self.is_waiting = false;
        let mut uploads = Vec::new();
        let mut next = Some(job);
        while let Some(job) = next.take() {
            let is_alone = job.class == Class::Last || job.failures > 0;
            match self.prepare(&job, uploads.len()) {
                Ok(Task::Done(outcome)) => self.delivered(&job, outcome),
                Ok(Task::Send(upload)) => {
                    uploads.push((job, upload));
                    let allows_more = self.session.as_ref().is_some_and(FtpSession::allows_more);
                    let sessions = self.pool.sessions_for(self.queue.len());
                    if allows_more && uploads.len() < sessions && !is_alone {
                        // What has to come last waits for the rest.
                        next = self.queue.take_early(now);
                    }
                }
                Err(error) => self.failed(job, error),
            }
        }
        self.send(uploads);
        self.ledger.end_turn();
    }

    /// Sends files, each in a session of its own.
    pub(super) fn send(&mut self, mut uploads: Vec<(Job, Box<PreparedUpload>)>) {
        let (id, events, ledger) = (self.id, &self.events, &self.ledger);
        let show = |path: &RelPath| {
            let path = path.clone();
            let mut shown = (Instant::now() + WORTH_A_BAR - BAR_STEP, 0);
            move |sent, total, elapsed| {
                if shown.0.elapsed() >= BAR_STEP {
                    ledger.keep_turn();
                    let moved = sent > shown.1;
                    shown = (Instant::now(), sent);
                    let path = path.clone();
                    let what = HostEvent::Sending { path, sent, total, elapsed, moved };
                    let _ = events.send(Event::Host { host: id, what });
                }
            }
        };
        let Some(session) = &mut self.session else {
            // It ended while they were prepared.
            let now = Instant::now();
            return uploads.into_iter().for_each(|(job, _)| self.queue.retry(job, now));
        };
        let (facts, trace) = (&mut self.facts, || trace_to(&self.config, id, events));
        let sent: Vec<ParallelResult> = thread::scope(|scope| {
            let mut under_way = uploads.iter_mut().map(|(_, upload)| upload);
            let own = under_way.next();
            let along: Vec<_> = (under_way.zip(self.pool.extra_sessions()))
                .map(|(upload, extra)| {
                    let (mut show, trace) = (show(upload.path()), trace());
                    thread::Builder::new()
                        .spawn_scoped(scope, move || extra.send(upload, trace, &mut show))
                })
                .collect();
            let own = own.map(|upload| {
                let mut show = show(upload.path());
                upload
                    .send(session, facts, &mut show)
                    .map_or_else(ParallelResult::Failed, ParallelResult::Stored)
            });
            let along = along.into_iter().map(|thread| match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(sent)) => sent,
                _ => ParallelResult::Returned,
            });
            own.into_iter().chain(along).collect()
        });
        let mut alone = None;
        // While there is a session, for the remote commands.
        let mut sent: Vec<_> = uploads.into_iter().zip(sent).collect();
        sent.sort_by_key(|(_, sent)| !matches!(sent, ParallelResult::Stored(_)));
        for ((job, upload), sent) in sent {
            match sent {
                ParallelResult::Stored(stored) => {
                    let outcome = self.conclude(upload, stored);
                    self.delivered(&job, outcome);
                }
                ParallelResult::Failed(error) => self.failed(job, error),
                ParallelResult::Returned => {
                    let failures = job.failures + 1;
                    self.queue.retry(Job { failures, ..job }, Instant::now());
                }
                ParallelResult::Alone(cause) => {
                    self.queue.retry(job, Instant::now());
                    alone = Some(cause);
                }
            }
        }
        if let Some(cause) = alone {
            let sessions = self.pool.shrink();
            let text = format!("--parallel: no more than {sessions} at once: {cause}");
            self.tell(HostEvent::Notice(text));
        }
    }

    pub(super) fn delivered(&mut self, job: &Job, outcome: Outcome) {
        let path = &job.path;
        // Orders that come from here on are not settled by this.
        let ticket = self.tickets.remove(path).unwrap_or_default();
        self.queue.finish(path);
        self.renames.remove(path);
        self.refused.remove(path);
        if self.ledger.is_broken() && !self.is_broken_said {
            self.is_broken_said = true;
            self.tell(HostEvent::Notice(
                "what is sent is not remembered any more: its record cannot be written".to_owned(),
            ));
        }
        let now = Instant::now();
        let changed_there =
            matches!(outcome, Outcome::Sent { .. } | Outcome::Renamed { .. } | Outcome::Removed);
        if changed_there {
            self.failures = 0;
            (self.last_heard, self.last_work, self.last_sign) = (now, now, now);
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
        self.file(path, ticket, outcome);
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

    /// Does one of the things that can wait until nothing is to be sent; returns whether there was
    /// one.
    pub(super) fn tidy(&mut self, now: Instant) -> bool {
        if (now >= self.burst_ends() || self.draining)
            && let Some(path) = self.command_due.take()
        {
            self.remote_command(&path);
            return true;
        }
        let gone_directory = self.gone_directory();
        let may_remove = now >= self.next_removal && self.removals_refused < TRIES;
        let Some(session) = &mut self.session else {
            return false;
        };
        if self.config.dry_run {
            return false;
        }
        let result = if let Some(name) = self.leftovers.first().cloned().filter(|_| may_remove) {
            let removed = session.remove(&name, &mut self.facts);
            match &removed {
                Ok(_) => {
                    self.leftovers.remove(&name);
                    self.ledger.journal().is_gone(&name);
                    self.removals_refused = 0;
                    if self.config.mirror {
                        let dirs = name.match_indices('/').map(|(end, _)| name[..end].to_owned());
                        self.emptied.extend(dirs);
                    }
                }
                Err(_) => {
                    self.removals_refused += 1;
                    self.next_removal = now + backoff::delay(self.removals_refused);
                }
            }
            removed.map(drop)
        } else if let Some(dir) = gone_directory {
            // Refused, it is not empty, or was never there: which of both is not told.
            let removed = session.remove_directory(&dir);
            if removed.is_ok() {
                self.emptied.remove(&dir);
            }
            removed.map(drop).map_err(TransferError::from)
        } else {
            return false;
        };
        self.last_heard = Instant::now();
        if let Err(TransferError::Disconnected(cause)) = result {
            self.lose_session(cause);
        }
        true
    }

    pub(super) fn failed(&mut self, job: Job, error: TransferError) {
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

    /// The innermost directory that may be empty there and is gone here.
    pub(super) fn gone_directory(&self) -> Option<String> {
        let is_gone = |dir: &&String| !self.config.root.join(dir).exists();
        let gone = self.emptied.iter().rev().find(is_gone)?;
        self.config.root.is_dir().then(|| gone.clone())
    }

    /// Ends a session that works, for a fresh one.
    pub(super) fn renew_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.quit();
        }
        self.next_try = Instant::now();
        self.is_renewed = true;
        self.forget_session();
    }

    pub(super) fn forget_session(&mut self) {
        self.confirmed.clear();
        self.absent.clear();
    }

    pub(super) fn try_later(&mut self, job: Job, cause: String) {
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

    pub(super) fn give_up(&mut self, job: &Job, cause: String) {
        self.queue.finish(&job.path);
        let ticket = self.tickets.remove(&job.path).unwrap_or_default();
        self.file(&job.path, ticket, Outcome::Failed(cause));
    }

    pub(super) fn remote_command(&mut self, path: &RelPath) {
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

    pub(super) fn file(&self, path: &RelPath, ticket: Ticket, outcome: Outcome) {
        let path = path.clone();
        self.tell(HostEvent::File { path, ticket, outcome });
    }

    pub(super) fn tell(&self, what: HostEvent) {
        // The other end is gone only when the program is ending.
        let _ = self.events.send(Event::Host { host: self.id, what });
    }
}

/// Shows the dialogue if that is wanted.
fn trace_to(config: &Config, host: HostId, events: &Sender<Event>) -> Trace {
    if !config.screen.debug {
        return Trace(None);
    }
    let events = events.clone();
    Trace(Some(Box::new(move |sent, line| {
        let what = HostEvent::Dialogue { sent, line };
        let _ = events.send(Event::Host { host, what });
    })))
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
