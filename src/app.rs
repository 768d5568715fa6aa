//! The rooms, joined: who owns which channel, and the one loop.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::Result;
use crossbeam_channel::{Receiver, at, never, select, unbounded};

use crate::deliver::order::Origin;
use crate::deliver::status::HostStatus;
use crate::exit::Exit;
use crate::journal::store::{Ledger, Unfinished};
use crate::local::file;
use crate::model::event::{Event, HostEvent, HostId, Outcome, ScriptEvent, Ticket};
use crate::model::file_meta::Stamp;
use crate::model::path::RelPath;
use crate::model::verdict::{Verdict, Why};
use crate::model::watch_event::{Seen, Signal};
use crate::pending::queue::{Phase, Queue, Timing};
use crate::process::scripts::Scripts;
use crate::report::text::{Reporter, Summary};
use crate::serve::burst::Burst;
use crate::serve::server::Server;
use crate::settings::config::{self, Config};
use crate::settings::credentials::{self, Login};
use crate::settings::host::Host;
use crate::shutdown::{self, Stop};
use crate::text::count;
use crate::watch::watcher::{self, Watch};
use crate::{deliver, serve, terminal};

/// Runs until Ctrl-C, or until no host is left that could be used.
///
/// # Errors
/// When it cannot start.
pub fn run(config: Config) -> Result<Exit> {
    let config = Arc::new(config);
    let stops = shutdown::listen()?;
    // A working directory is never quite gone: the system would not report that the watched one
    // was removed.
    #[cfg(unix)]
    std::env::set_current_dir("/")?;
    let reporter = Reporter::start(&config)?;

    // Lanes, scripts and the server tell into one channel; the loop keeps the books and passes it
    // on.
    let (event_sender, events) = unbounded();
    // What may fail comes before anything is done.
    let server = serve::server::start(&config, &event_sender)?;

    // Watching comes first: what is saved while the hosts are being connected is not missed.
    let (seen_sender, seen) = unbounded();
    let watch = watcher::start(config.clone(), seen_sender)?;

    let mut hosts = Vec::new();
    let mut left_over = Vec::new();
    for (id, (host, login)) in config.hosts.iter().zip(&config.logins).enumerate() {
        if let Some(notice) = &login.notice {
            reporter.show(Event::Notice(notice.clone()));
        }
        let (ledger, unfinished) = recall(&config, host, login, &reporter);
        let journal = (!config.dry_run).then(|| ledger.journal());
        let orders =
            deliver::worker::start(id, ledger, &unfinished, config.clone(), event_sender.clone())?;
        hosts.push(HostStatus::new(orders, journal));
        left_over.push(unfinished.files);
    }
    let mut app = App {
        settling: Queue::new(match config.remote_command {
            Some(_) => Timing::CAREFUL,
            None => Timing::NATIVE,
        }),
        scripts: Scripts::new(config.clone(), event_sender),
        sync: if config.sync { Sync::Listing } else { Sync::Done },
        config,
        hosts,
        tickets: 0,
        delivered: HashMap::new(),
        said: HashSet::new(),
        stage: Stage::Running,
        is_stopped: false,
        has_declined: false,
        unprocessed: BTreeSet::new(),
        wiped: Wiped::No,
        stirred: None,
        renames: Vec::new(),
        is_serving: server.is_some(),
        awaits_listing: server.is_some(),
        server,
        burst: Burst::default(),
        fetched: (0, 0),
        watch,
        reporter,
    };
    if app.server.is_some() {
        if app.sync == Sync::Done {
            app.watch.list();
        }
        if !app.hosts.is_empty() && !app.config.rules.up_delete.is_empty() {
            app.show(Event::Notice("what -k deletes here cannot be fetched any more".to_owned()));
        }
    }
    for (id, paths) in left_over.into_iter().enumerate() {
        app.resume(id, paths);
    }
    let exit = app.run(&seen, &events, &stops);
    credentials::end_command();
    terminal::restore();
    Ok(exit)
}

/// What is known of a host from earlier runs.
fn recall(
    config: &Config,
    host: &Host,
    login: &Login,
    reporter: &Reporter,
) -> (Ledger, Unfinished) {
    let dir = host.dir.as_deref().or(config.remote_dir.as_deref()).unwrap_or_default();
    let name = format!("ftp://{}@{}:{}/{dir}", login.user, host.name, host.port);
    let no_dir = || io::Error::other("there is no home directory");
    let opened = (config.state_dir.as_deref().ok_or_else(no_dir))
        .and_then(|state| Ledger::open(state, &name, &config.root));
    opened.unwrap_or_else(|error| {
        let what = "what is sent will not be remembered after this run";
        reporter.show(Event::Notice(match &config.state_dir {
            Some(dir) => format!("{what}: {}: {error}", dir.display()),
            None => format!("{what}: {error}"),
        }));
        (Ledger::in_memory(), Unfinished::default())
    })
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

/// How far the look at all files is. First the scripts run, then what they leave is sent, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// The list of files is awaited that scripts may have to be run on.
    Listing,
    /// They run.
    Processing,
    /// The list of files is awaited that are to be sent.
    ListingAgain,
    /// It is over; hosts may ask for one of their own.
    Done,
}

/// So many changes are taken in before any is acted on.
const AT_ONCE: usize = 1000;

/// How long to wait for changes that were made before Ctrl-C.
const FLUSH: Duration = Duration::from_millis(300);

/// How long to wait for lanes that have no session: they may be in the midst of connecting.
const GRACE: Duration = Duration::from_millis(300);

/// How often lanes are told that somebody is at work.
const STIRS: Duration = Duration::from_secs(1);

/// Whether several files had just gone when none was left, and none has come since.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wiped {
    No,
    /// So many.
    Of(usize),
    /// The person knows.
    Said,
}

struct App {
    config: Arc<Config>,
    settling: Queue,
    scripts: Scripts,
    hosts: Vec<HostStatus>,
    tickets: Ticket,
    /// Of the files to be deleted here: the state that hosts have, and which have it.
    delivered: HashMap<RelPath, (Stamp, BTreeSet<HostId>)>,
    /// What is said only once.
    said: HashSet<String>,
    stage: Stage,
    /// Whether the person wants the program to end.
    is_stopped: bool,
    /// How far the look at all files is that `--sync` asks for.
    sync: Sync,
    /// Whether something that matches is not sent, whatever is tried.
    has_declined: bool,
    /// The files whose script failed last.
    unprocessed: BTreeSet<RelPath>,
    wiped: Wiped,
    /// When lanes were told last that somebody is at work.
    stirred: Option<Instant>,
    /// What was renamed lately, if that matters: from, to, and when.
    renames: Vec<(RelPath, RelPath, Instant)>,
    /// For boards that fetch.
    server: Option<Server>,
    /// Whether anything can be fetched.
    is_serving: bool,
    /// What is to be published together.
    burst: Burst,
    /// What there is to publish is not known: at first, and when the directory is gone.
    awaits_listing: bool,
    /// How many files were fetched, and how many bytes.
    fetched: (u64, u64),
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
                    let now = Instant::now();
                    // What it has left behind is about to come.
                    self.burst.stir(now);
                    self.scripts.take_report(report, now);
                },
                recv(stops) -> stop => match stop {
                    Ok(Stop::Drain) => {
                        self.is_stopped = true;
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
                recv(unread) -> _ => {
                    return if self.config.once { Exit::Failure } else { Exit::Success };
                }
                recv(timer) -> _ => {}
            }
            // What else has been seen may be of the same burst.
            for seen in seen.try_iter().take(AT_ONCE) {
                self.take_seen(seen);
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
        let times = [self.settling.next_due(), self.scripts.next_due(), self.burst_ends(), stage];
        times.into_iter().flatten().min()
    }

    /// When what has changed is to be published.
    fn burst_ends(&self) -> Option<Instant> {
        let since = self.burst.since()?;
        // A checkout removes and makes: both halves belong together.
        let has_more = self.scripts.runs_since(since.scripts)
            || self.settling.gone_since(since.removals).any(|path| !self.is_renamed(path));
        self.burst.ends(self.settling.next_due(), has_more)
    }

    /// Whether a file that has gone is published under another name.
    fn is_renamed(&self, path: &RelPath) -> bool {
        let mut names = (self.renames.iter())
            .filter(|(.., when)| when.elapsed() < Timing::NATIVE.gone)
            .filter_map(|(from, to, _)| path.moved(from, to));
        names.any(|name| self.config.filter.publishes(&name))
    }

    fn is_done(&self) -> bool {
        let Stage::Draining(since) = self.stage else {
            // In a dry run, nothing can be fetched.
            return self.config.serve.is_none() && self.hosts.iter().all(|host| host.unusable);
        };
        let waited = since.elapsed();
        let finished = |host: &HostStatus| {
            host.closed || host.unusable || (!host.connected && waited >= GRACE)
        };
        (self.hosts.iter().all(finished) && !self.is_serving) || waited >= self.config.timeout
    }

    /// The way to the end, a stage at a time.
    fn advance(&mut self, now: Instant) {
        if self.sync == Sync::Processing && self.scripts.is_done() {
            self.watch.list();
            self.sync = Sync::ListingAgain;
        }
        if self.burst_ends().is_some_and(|ends| ends <= now)
            && let Some(server) = &self.server
        {
            self.burst.end();
            for path in self.settling.gone().filter(|path| self.is_renamed(path)) {
                server.gone(path);
            }
            // A listing that is awaited has it.
            if !self.awaits_listing {
                server.publish();
            }
        }
        if self.settling.is_empty() && self.scripts.is_done() {
            for id in 0..self.hosts.len() {
                let said = self.hosts[id].end_burst();
                self.show_host(id, said);
            }
        }
        match self.stage {
            // With --once, and all done as far as is known: it ends as after Ctrl-C.
            Stage::Running if self.config.once && self.sync == Sync::Done && self.is_calm() => {
                self.stage = Stage::Stopping(now + self.config.timeout);
                self.advance(now);
            }
            Stage::Stopping(_) if self.scripts.is_idle() => {
                self.watch.mark();
                let patience = if self.is_stopped { FLUSH } else { self.config.timeout };
                self.stage = Stage::Flushing(now + patience);
            }
            Stage::Stopping(until) if now >= until => {
                // What a script leaves behind that is ended half-way is not to be sent.
                self.scripts.end_all();
                self.drain(now);
            }
            // What a script left behind has come to light.
            Stage::Flushing(until) if now >= until && !self.is_stopped && !self.is_calm() => {
                self.stage = Stage::Running;
            }
            Stage::Flushing(until) if now >= until => self.drain(now),
            _ => {}
        }
    }

    /// Whether nothing is under way.
    fn is_calm(&self) -> bool {
        self.settling.is_empty()
            && self.scripts.is_done()
            && self.hosts.iter().all(|host| host.unusable || host.expected() == 0)
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
            _ if matches!(self.stage, Stage::Draining(_)) => return,
            Seen::Renamed { from, to } => return self.take_rename(from, to),
            Seen::Listing(files) => return self.take_listing(files),
            Seen::RootGone => {
                // What is there when it is back is no news, and what is not has no removal.
                if self.server.is_some() {
                    self.awaits_listing = true;
                    self.watch.list();
                }
                return self.settling.forget_gone();
            }
            Seen::Emptied => {
                let selected =
                    |path: &&RelPath| self.config.filter.verdict(path) == Verdict::Upload;
                self.wiped = match self.settling.gone().filter(selected).count() {
                    0 | 1 => Wiped::No,
                    files => Wiped::Of(files),
                };
                return;
            }
            Seen::Change(path, signal) => (path, signal),
        };
        self.stir();
        if signal == Signal::Dropped && self.config.mirror {
            self.hosts.iter().for_each(HostStatus::tidy);
        }
        match self.config.filter.verdict(&path) {
            Verdict::Upload | Verdict::Publish | Verdict::Process(_) => {
                // A directory that went with its files was no file that anything was known of.
                if !matches!(signal, Signal::Gone | Signal::Dropped) {
                    self.wiped = Wiped::No;
                }
                let now = Instant::now();
                // What somebody goes on writing to is no reason to wait, where its end is told.
                if signal != Signal::Modified || !watcher::PER_DIRECTORY {
                    self.burst.stir(now);
                }
                self.settling.observe(path, signal, now);
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

    /// Lets the lanes know that somebody is at work: an editor's temporary file announces a save.
    fn stir(&mut self) {
        let now = Instant::now();
        if self.stirred.is_none_or(|then| now - then >= STIRS) {
            self.stirred = Some(now);
            self.hosts.iter().for_each(HostStatus::stir);
        }
    }

    /// A rename is told of only where it matters.
    fn take_rename(&mut self, from: RelPath, to: RelPath) {
        let now = Instant::now();
        self.renames.retain(|(.., when)| now - *when < Timing::NATIVE.gone);
        if self.has_to_know_gone() {
            self.renames.push((from, to, now));
        }
    }

    /// Whether files have gone only because all have, and none has come since. That is rather a
    /// disk that was taken away, or a clean slate, than files that are not wanted there any more.
    fn is_wiped(&mut self) -> bool {
        if let Wiped::Of(files) = self.wiped {
            self.wiped = Wiped::Said;
            // What is saved from here on does not make the rest of them unwanted.
            self.settling.forget_gone();
            self.show(Event::Notice(format!(
                "all files have gone at once ({}), so none is removed there",
                count(files, "file")
            )));
        }
        self.wiped == Wiped::Said
    }

    /// What the file was named before, if it was renamed just now and that is to be done there, too.
    fn renamed_from(&self, path: &RelPath) -> Option<RelPath> {
        if !self.config.mirror {
            return None;
        }
        let from = |(from, to, _): &(RelPath, RelPath, _)| path.moved(to, from);
        self.renames.iter().rev().find_map(from)
    }

    /// Has all files looked at: by every host and script at the start, later by the hosts that
    /// have lost some.
    fn take_listing(&mut self, mut files: Vec<(RelPath, u64)>) {
        let now = Instant::now();
        if self.sync == Sync::Listing {
            for (path, _) in &files {
                if let Verdict::Process(_) = self.config.filter.verdict(path) {
                    self.scripts.submit(path.clone(), true, now);
                }
            }
            if !self.scripts.is_done() {
                self.sync = Sync::Processing;
                return;
            }
        }
        if self.sync == Sync::Processing {
            return;
        }
        if let Some(server) = &self.server
            && std::mem::take(&mut self.awaits_listing)
        {
            let paths = files.iter().map(|(path, _)| path);
            let published = paths.filter(|path| self.config.filter.publishes(path));
            server.list(published.cloned().collect());
        }
        if self.sync != Sync::Done {
            self.hosts.iter_mut().for_each(HostStatus::await_listing);
        }
        self.sync = Sync::Done;
        self.tickets += 1;
        files.retain(|(path, _)| self.config.filter.verdict(path) == Verdict::Upload);
        for host in &mut self.hosts {
            host.take_listing(&files, self.tickets);
        }
    }

    /// Has sent to one host what an earlier run was ended over.
    fn resume(&mut self, id: HostId, paths: BTreeSet<RelPath>) {
        let mut resumed = 0;
        for path in paths {
            if self.config.dry_run || self.config.filter.verdict(&path) != Verdict::Upload {
                continue;
            }
            resumed += usize::from(self.is_here(&path));
            self.tickets += 1;
            let origin = Origin::Save { renamed_from: None };
            self.hosts[id].upload(&path, self.tickets, origin, || 0);
        }
        if resumed > 0 {
            self.show_host(
                id,
                vec![HostEvent::Notice(format!(
                    "still to be sent from last time: {}",
                    count(resumed, "file")
                ))],
            );
        }
    }

    /// Hands over what has settled.
    fn dispatch(&mut self, now: Instant) {
        if !self.scripts.is_idle() {
            // What they leave behind belongs to the same burst.
            self.settling.stir(now);
        }
        while let Some(job) = self.settling.take(now) {
            self.settling.finish(&job.path);
            match self.config.filter.verdict(&job.path) {
                Verdict::Upload | Verdict::Publish if job.phase == Phase::Gone => {
                    self.remove(&job.path, now);
                }
                _ if job.phase == Phase::Gone => {}
                // Seen under the name that a directory had before: its removal was overtaken.
                Verdict::Upload | Verdict::Publish
                    if self.has_to_know_gone() && !self.is_here(&job.path) =>
                {
                    self.settling.observe(job.path, Signal::Gone, now);
                }
                Verdict::Upload => {
                    self.order(&job.path);
                    self.publish(&job.path, now);
                }
                Verdict::Publish => self.publish(&job.path, now),
                Verdict::Process(_) => {
                    self.scripts.submit(job.path, job.phase != Phase::Found, now);
                }
                Verdict::Ignored(_) => {}
            }
        }
    }

    /// Whether it matters that a file is gone.
    fn has_to_know_gone(&self) -> bool {
        self.config.mirror || self.server.is_some()
    }

    fn is_here(&self, path: &RelPath) -> bool {
        path.under(&self.config.root).symlink_metadata().is_ok()
    }

    fn order(&mut self, path: &RelPath) {
        self.tickets += 1;
        self.delivered.remove(path);
        let from = self.renamed_from(path);
        let len = || fs::metadata(path.under(&self.config.root)).map_or(0, |file| file.len());
        for host in &mut self.hosts {
            let origin = Origin::Save { renamed_from: from.clone() };
            host.upload(path, self.tickets, origin, len);
        }
    }

    fn publish(&mut self, path: &RelPath, now: Instant) {
        if let Some(server) = &self.server {
            server.changed(path);
            self.burst.grow(now);
        }
    }

    fn remove(&mut self, path: &RelPath, now: Instant) {
        if let Some(server) = &self.server {
            server.gone(path);
            self.burst.grow(now);
        }
        let filter = &self.config.filter;
        let is_sent = self.config.mirror && filter.verdict(path) == Verdict::Upload;
        // What is deleted here after it was sent is to stay there.
        if !is_sent || filter.up_delete(path) || self.is_wiped() {
            return;
        }
        self.tickets += 1;
        for host in &mut self.hosts {
            host.remove(path.clone(), self.tickets);
        }
    }

    fn take_event(&mut self, event: Event) {
        if let Event::Script { path, what, .. } = &event {
            match what {
                ScriptEvent::Failed(_) => drop(self.unprocessed.insert(path.clone())),
                ScriptEvent::Done(_) => drop(self.unprocessed.remove(path)),
                ScriptEvent::Line(_) => {}
            }
        }
        match &event {
            Event::Fetched { bytes, times, .. } => {
                self.fetched.0 += times;
                self.fetched.1 += bytes * times;
            }
            Event::Kept(_) => self.burst.be_patient(true),
            Event::Published { .. } | Event::Serving { .. } => self.burst.be_patient(false),
            Event::Doubted(path) => self.watch.look(path.under(&self.config.root)),
            Event::ServingEnded => self.is_serving = false,
            _ => {}
        }
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
            HostEvent::Unusable(_) => host.give_up(),
            // The others may be lost, too.
            HostEvent::Lost { .. } if self.config.sync && !host.is_syncing() => {
                host.await_listing();
                self.watch.list();
            }
            HostEvent::Closed => host.closed = true,
            HostEvent::File { path, ticket, outcome } => {
                let path = path.clone();
                let said = host.settle(&path, *ticket, outcome);
                self.has_declined |= matches!(outcome, Outcome::Declined(_));
                // After a message that will come again with every change.
                if let Outcome::Declined(cause) = outcome
                    && !self.said.insert(format!("{path}: {cause}"))
                {
                    return self.show_host(id, said);
                }
                let delete = self.is_to_be_deleted(id, &path, outcome);
                let would_delete = matches!(outcome, Outcome::WouldSend { .. })
                    && self.config.filter.up_delete(&path);
                self.show(event);
                self.show_host(id, said);
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

    /// The state in which a file is to be deleted here: once every host has it.
    fn is_to_be_deleted(&mut self, id: HostId, path: &RelPath, outcome: &Outcome) -> Option<Stamp> {
        let (Outcome::Sent { stamp, .. } | Outcome::Unchanged { stamp }) = outcome else {
            return None;
        };
        if !self.config.filter.up_delete(path) {
            return None;
        }
        let (delivered, to) =
            self.delivered.entry(path.clone()).or_insert((*stamp, BTreeSet::new()));
        if delivered != stamp {
            (*delivered, *to) = (*stamp, BTreeSet::new());
        }
        to.insert(id);
        if to.len() < self.hosts.len() || self.hosts.iter().any(|host| host.expects(path)) {
            return None;
        }
        self.delivered.remove(path);
        Some(*stamp)
    }

    fn delete(&mut self, path: RelPath, stamp: Stamp) {
        match file::delete(&self.config.root, &path, stamp) {
            Ok(()) => self.show(Event::Deleted(path)),
            Err(error) => self.show(Event::NotDeleted { path, cause: error.to_string() }),
        }
    }

    /// Has everything sent that there is a session for, and lets the lanes end.
    fn drain(&mut self, now: Instant) {
        self.settling.hurry(now);
        self.dispatch(now);
        let waiting: usize =
            (self.hosts.iter()).filter(|host| host.connected).map(HostStatus::expected).sum();
        if waiting > 0 {
            self.show(Event::Notice(format!(
                "finishing {}, for at most {:?}; Ctrl-C again to end at once",
                count(waiting, "file"),
                self.config.timeout
            )));
        }
        for host in &self.hosts {
            host.drain();
        }
        if let Some(server) = &self.server {
            server.stop();
        }
        self.stage = Stage::Draining(now);
    }

    fn close(mut self, stops: &Receiver<Stop>) -> Exit {
        let mut unprocessed = self.scripts.unprocessed();
        if self.config.once {
            // Whoever waits for our end wants to know; a person has seen it.
            self.unprocessed.extend(unprocessed);
            unprocessed = self.unprocessed.into_iter().collect();
        }
        let undelivered: Vec<_> = self.hosts.iter().map(HostStatus::undelivered).collect();
        let complete = !(self.config.once && self.has_declined)
            && unprocessed.is_empty()
            && undelivered.iter().all(Vec::is_empty)
            && !self.hosts.iter().any(|host| host.unusable);
        let exit = if complete { Exit::Success } else { Exit::Failure };
        let summary = Summary {
            files: self.hosts.iter().map(|host| host.files).sum(),
            bytes: self.hosts.iter().map(|host| host.bytes).sum(),
            fetched: self.server.is_some().then_some(self.fetched),
            unprocessed,
            undelivered,
        };
        // With no host that could be used, why has been said, and there is nothing to sum up.
        let any = self.server.is_some() || self.hosts.iter().any(|host| !host.unusable);
        self.reporter.finish(any.then_some(summary), stops).unwrap_or(exit)
    }

    fn show_host(&self, host: HostId, said: Vec<HostEvent>) {
        for what in said {
            self.reporter.show(Event::Host { host, what });
        }
    }

    fn show(&mut self, event: Event) {
        if let Event::Unsendable { name, .. } = &event {
            self.has_declined = true;
            if !self.said.insert(name.clone()) {
                return;
            }
        }
        self.reporter.show(event);
    }
}
