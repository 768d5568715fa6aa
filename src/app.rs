//! The rooms, joined: who owns which channel, and the one loop.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::{Receiver, Sender, at, never, select, unbounded};

use crate::config::{self, Config};
use crate::credentials::Login;
use crate::deliver::{self, Order};
use crate::event::{Event, HostEvent, HostId, Outcome, Ticket};
use crate::exit::Exit;
use crate::filter::{Verdict, Why};
use crate::path::RelPath;
use crate::process::Scripts;
use crate::queue::{Phase, Queue, Signal, Timing};
use crate::report::{Reporter, Summary, count};
use crate::shutdown::{self, Stop};
use crate::source::{self, Stamp};
use crate::terminal;
use crate::watch::{self, Seen, Watch};

/// Runs until Ctrl-C, or until no host is left that could be used.
///
/// # Errors
/// When it cannot start.
pub fn run(config: Config) -> Result<Exit> {
    let config = Arc::new(config);
    let logins = (config.hosts.iter())
        .map(|host| Login::find(host, config.user.as_deref()))
        .collect::<Result<Vec<_>>>()?;
    let stops = shutdown::listen()?;
    // A working directory is never quite gone: the system would not report that the watched one
    // was removed.
    #[cfg(unix)]
    std::env::set_current_dir("/")?;
    let reporter = Reporter::start(&config)?;

    // Watching comes first: what is saved while the hosts are being connected is not missed.
    let (seen_sender, seen) = unbounded();
    let watch = watch::start(config.clone(), seen_sender)?;

    // Lanes and scripts tell into one channel; the loop keeps the books and passes it on.
    let (event_sender, events) = unbounded();
    let mut hosts = Vec::new();
    for (id, (host, login)) in config.hosts.iter().zip(logins).enumerate() {
        let orders = deliver::start(id, host.clone(), login, config.clone(), event_sender.clone())?;
        hosts.push(HostBooks::new(orders));
    }
    let app = App {
        settling: Queue::new(Timing::NATIVE),
        scripts: Scripts::new(config.clone(), event_sender),
        config,
        hosts,
        tickets: 0,
        delivered: HashMap::new(),
        said: HashSet::new(),
        stage: Stage::Running,
        watch,
        reporter,
    };
    let exit = app.run(&seen, &events, &stops);
    terminal::restore();
    Ok(exit)
}

/// What is known of one host.
struct HostBooks {
    orders: Sender<Order>,
    connected: bool,
    /// Its lane has ended.
    closed: bool,
    unusable: bool,
    /// The newest order for each file that is not settled.
    outstanding: HashMap<RelPath, Ticket>,
    failed: BTreeSet<RelPath>,
    files: u64,
    bytes: u64,
}

impl HostBooks {
    fn new(orders: Sender<Order>) -> Self {
        Self {
            orders,
            connected: false,
            closed: false,
            unusable: false,
            outstanding: HashMap::new(),
            failed: BTreeSet::new(),
            files: 0,
            bytes: 0,
        }
    }
}

/// How far the program is on its way to the end.
#[derive(Clone, Copy)]
enum Stage {
    /// Not on it.
    Running,
    /// Ctrl-C: the scripts that run may run to their end, but no longer than this.
    Stopping(Instant),
    /// What was saved before Ctrl-C is on its way here; it is waited for no longer than this.
    Flushing(Instant),
    /// The lanes send what they have; they were told to then.
    Draining(Instant),
}

/// How long to wait for changes that were made before Ctrl-C.
const FLUSH: Duration = Duration::from_millis(300);

/// How long to wait for lanes that have no session: they may be in the midst of connecting.
const GRACE: Duration = Duration::from_millis(300);

struct App {
    config: Arc<Config>,
    settling: Queue,
    scripts: Scripts,
    hosts: Vec<HostBooks>,
    tickets: Ticket,
    /// Of the files to be deleted here: the state that hosts have, and how many have it.
    delivered: HashMap<RelPath, (Stamp, usize)>,
    /// What is said only once.
    said: HashSet<String>,
    stage: Stage,
    watch: Watch,
    reporter: Reporter,
}

impl App {
    fn run(
        mut self,
        seen: &Receiver<Seen>,
        events: &Receiver<Event>,
        stops: &Receiver<Stop>,
    ) -> Exit {
        let reports = self.scripts.reports.clone();
        let unread = self.reporter.unread.clone();
        while !self.is_done() {
            let timer = self.wake_time().map_or_else(never, at);
            select! {
                recv(seen) -> seen => match seen {
                    Ok(seen) => self.take_seen(seen),
                    Err(_) => {
                        self.show(Event::Problem("watching has ended: start autoftp again".to_owned()));
                        return self.reporter.finish(None, stops).unwrap_or(Exit::Failure);
                    }
                },
                recv(events) -> event => if let Ok(event) = event { self.take_event(event) },
                recv(reports) -> report => if let Ok(report) = report {
                    self.scripts.take_report(report, Instant::now());
                },
                recv(stops) -> stop => match stop {
                    Ok(Stop::Drain) => {
                        self.scripts.start_no_more();
                        if !self.scripts.is_idle() {
                            self.show(Event::Notice(
                                "waiting for scripts to end; Ctrl-C again to end at once".to_owned(),
                            ));
                        }
                        self.stage = Stage::Stopping(Instant::now() + self.config.timeout);
                    }
                    _ => {
                        self.scripts.end_all();
                        return Exit::Aborted;
                    }
                },
                // Whoever read what we print has gone: a normal end.
                recv(unread) -> _ => return Exit::Success,
                recv(timer) -> _ => {}
            }
            let now = Instant::now();
            self.dispatch(now);
            self.scripts.advance(now);
            self.advance(now);
        }
        // What lanes and scripts said last.
        while let Ok(event) = events.try_recv() {
            self.take_event(event);
        }
        self.close(stops)
    }

    fn wake_time(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Running => None,
            Stage::Stopping(until) | Stage::Flushing(until) => Some(until),
            Stage::Draining(since) if Instant::now() < since + GRACE => Some(since + GRACE),
            Stage::Draining(since) => Some(since + self.config.timeout),
        };
        let times = [self.settling.next_due(), self.scripts.next_due(), stage];
        times.into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        let Stage::Draining(since) = self.stage else {
            return self.hosts.iter().all(|host| host.unusable);
        };
        let waited = since.elapsed();
        let finished =
            |host: &HostBooks| host.closed || host.unusable || (!host.connected && waited >= GRACE);
        self.hosts.iter().all(finished) || waited >= self.config.timeout
    }

    /// The way to the end, a stage at a time.
    fn advance(&mut self, now: Instant) {
        match self.stage {
            Stage::Stopping(_) if self.scripts.is_idle() => {
                self.watch.mark();
                self.stage = Stage::Flushing(now + FLUSH);
            }
            Stage::Stopping(until) if now >= until => {
                // What a script leaves behind that is ended half-way is not to be sent.
                self.scripts.end_all();
                self.drain(now);
            }
            Stage::Flushing(until) if now >= until => self.drain(now),
            _ => {}
        }
    }

    fn take_seen(&mut self, seen: Seen) {
        let (path, signal) = match seen {
            Seen::Event(event) => return self.show(event),
            Seen::Mark => {
                if let Stage::Flushing(_) = self.stage {
                    self.stage = Stage::Flushing(Instant::now());
                }
                return;
            }
            // Nobody is there to send it any more.
            Seen::Change(..) if matches!(self.stage, Stage::Draining(_)) => return,
            Seen::Change(path, signal) => (path, signal),
        };
        match self.config.filter.verdict(&path) {
            Verdict::Upload | Verdict::Process(_) => {
                self.settling.observe(path, signal, Instant::now());
            }
            Verdict::Ignored(Why::Own) if path.as_str() == config::FILE => {
                let text = format!("{path} has changed: start autoftp again to use it");
                if signal != Signal::Gone && self.said.insert(text.clone()) {
                    self.show(Event::Notice(text));
                }
            }
            Verdict::Ignored(why) if matches!(signal, Signal::Complete | Signal::Found) => {
                self.show(Event::Ignored { path, why });
            }
            Verdict::Ignored(_) => {}
        }
    }

    /// Hands over what has settled.
    fn dispatch(&mut self, now: Instant) {
        while let Some(job) = self.settling.take(now) {
            self.settling.finish(&job.path);
            if job.phase == Phase::Gone {
                continue;
            }
            match self.config.filter.verdict(&job.path) {
                Verdict::Upload => self.order(&job.path),
                Verdict::Process(_) => self.scripts.submit(job.path, now),
                Verdict::Ignored(_) => {}
            }
        }
    }

    fn order(&mut self, path: &RelPath) {
        self.tickets += 1;
        self.delivered.remove(path);
        for host in self.hosts.iter_mut().filter(|host| !host.unusable) {
            host.outstanding.insert(path.clone(), self.tickets);
            // A lane that has ended meanwhile leaves it outstanding.
            let _ = host.orders.send(Order::Upload(path.clone(), self.tickets));
        }
    }

    fn take_event(&mut self, event: Event) {
        let Event::Host { host: id, what } = &event else {
            return self.show(event);
        };
        let (id, host) = (*id, &mut self.hosts[*id]);
        match what {
            HostEvent::Connected { .. } => host.connected = true,
            // After one that worked, the next session is tried at once.
            HostEvent::Disconnected { retry, .. } => {
                host.connected = host.connected && retry.is_zero();
            }
            HostEvent::Unusable(_) => {
                host.unusable = true;
                host.outstanding.clear();
            }
            HostEvent::Closed => host.closed = true,
            HostEvent::File { path, ticket, outcome } => {
                if host.outstanding.get(path) == Some(ticket) {
                    host.outstanding.remove(path);
                }
                let path = path.clone();
                self.settle(id, &path, outcome);
                // After a message that will come again with every change.
                if let Outcome::Declined(cause) = outcome
                    && !self.said.insert(format!("{path}: {cause}"))
                {
                    return;
                }
                let delete = self.is_to_be_deleted(&path, outcome);
                let would_delete = matches!(outcome, Outcome::WouldSend { .. })
                    && self.config.filter.up_delete(&path);
                self.show(event);
                if let Some(stamp) = delete {
                    self.delete(path, stamp);
                } else if would_delete {
                    self.show(Event::WouldDelete(path));
                }
                return;
            }
            _ => {}
        }
        self.show(event);
    }

    fn settle(&mut self, id: HostId, path: &RelPath, outcome: &Outcome) {
        let host = &mut self.hosts[id];
        match outcome {
            Outcome::Failed(_) => drop(host.failed.insert(path.clone())),
            _ => drop(host.failed.remove(path)),
        }
        if let Outcome::Sent { bytes, .. } = outcome {
            host.files += 1;
            host.bytes += bytes;
        }
    }

    /// The state in which a file is to be deleted here: once every host has it.
    fn is_to_be_deleted(&mut self, path: &RelPath, outcome: &Outcome) -> Option<Stamp> {
        let (Outcome::Sent { stamp, .. } | Outcome::Unchanged { stamp }) = outcome else {
            return None;
        };
        if !self.config.filter.up_delete(path) {
            return None;
        }
        let entry = self.delivered.entry(path.clone()).or_insert((*stamp, 0));
        *entry = if entry.0 == *stamp { (*stamp, entry.1 + 1) } else { (*stamp, 1) };
        if entry.1 < self.hosts.len()
            || self.hosts.iter().any(|host| host.outstanding.contains_key(path))
        {
            return None;
        }
        self.delivered.remove(path);
        Some(*stamp)
    }

    fn delete(&mut self, path: RelPath, stamp: Stamp) {
        match source::delete(&self.config.root, &path, stamp) {
            Ok(()) => self.show(Event::Deleted(path)),
            Err(error) => self.show(Event::NotDeleted { path, cause: error.to_string() }),
        }
    }

    /// Has everything sent that there is a session for, and lets the lanes end.
    fn drain(&mut self, now: Instant) {
        self.settling.hurry(now);
        self.dispatch(now);
        let waiting: usize = (self.hosts.iter())
            .filter(|host| host.connected)
            .map(|host| host.outstanding.len())
            .sum();
        if waiting > 0 {
            self.show(Event::Notice(format!(
                "finishing {}, for at most {:?}; Ctrl-C again to end at once",
                count(waiting, "file"),
                self.config.timeout
            )));
        }
        for host in &self.hosts {
            let _ = host.orders.send(Order::Drain);
        }
        self.stage = Stage::Draining(now);
    }

    fn close(mut self, stops: &Receiver<Stop>) -> Exit {
        let unprocessed = self.scripts.unprocessed();
        let undelivered: Vec<Vec<RelPath>> = (self.hosts.iter())
            .map(|host| {
                let paths: BTreeSet<_> = host.outstanding.keys().chain(&host.failed).collect();
                paths.into_iter().cloned().collect()
            })
            .collect();
        let complete = unprocessed.is_empty()
            && undelivered.iter().all(Vec::is_empty)
            && !self.hosts.iter().any(|host| host.unusable);
        let exit = if complete { Exit::Success } else { Exit::Failure };
        let summary = Summary {
            files: self.hosts.iter().map(|host| host.files).sum(),
            bytes: self.hosts.iter().map(|host| host.bytes).sum(),
            unprocessed,
            undelivered,
        };
        // With no host that could be used, why has been said, and there is nothing to sum up.
        let any = self.hosts.iter().any(|host| !host.unusable);
        self.reporter.finish(any.then_some(summary), stops).unwrap_or(exit)
    }

    fn show(&mut self, event: Event) {
        if let Event::Unsendable { name, .. } = &event
            && !self.said.insert(name.clone())
        {
            return;
        }
        self.reporter.show(event);
    }
}
