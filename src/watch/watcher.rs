//! What changes below the watched directory.
//!
//! notify's own recursion loses files that are created in a directory before its watch exists, so
//! on Linux each directory is watched by itself: first the watch, then a scan of what is there
//! already. Excluded directories get no watch. A snapshot of the files that matter tells what
//! differs when events were lost, and is all there is to polling.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::model::event::Event;
use crate::model::file_meta::Stamp;
use crate::model::path::{BadPath, RelPath};
use crate::model::verdict::Verdict;
use crate::model::watch_event::{Seen, Signal};
use crate::settings::config::Config;

/// Where the system reports the closing of a file and watches single directories (inotify).
pub const PER_DIRECTORY: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The pause between two looks where events cannot be had.
const POLL: Duration = Duration::from_secs(2);

/// Where events cannot be had, a file is told of when it has not changed for this long.
const STANDS: Duration = Duration::from_millis(100);

/// How often to look whether a directory that has gone is there again.
const ROOT_RETURNS: Duration = Duration::from_millis(200);

/// A running watch.
pub struct Watch {
    inbox: Sender<Raw>,
}

impl Watch {
    /// Asks for a [`Seen::Mark`] behind everything that has happened so far. Where the system's
    /// events cannot be awaited (other than inotify), none comes.
    pub fn mark(&self) {
        // The thread is gone only when nobody listens to it.
        let _ = self.inbox.send(Raw::MarkWanted);
    }

    /// Looks at this file once more: what is told is as if it had been found, or had gone.
    pub fn look(&self, path: PathBuf) {
        let _ = self.inbox.send(Raw::LookWanted(path));
    }

    /// Asks for a [`Seen::Listing`].
    pub fn list(&self) {
        let _ = self.inbox.send(Raw::ListWanted);
    }
}

/// Starts to watch the configured directory, on a thread of its own. When it says
/// [`Event::Watching`], no later save is missed.
///
/// # Errors
/// When the directory cannot be read.
pub fn start(config: Arc<Config>, seen: Sender<Seen>) -> Result<Watch> {
    fs::read_dir(&config.root)
        .with_context(|| format!("the directory '{}' cannot be read", config.root.display()))?;
    // Both the system's events and our own requests come in here, so that it is never closed.
    let (inbox, events) = unbounded();
    let watch = Watch { inbox: inbox.clone() };
    let tree = Tree {
        inbox,
        events,
        poll: config.poll,
        config,
        seen,
        snapshot: BTreeMap::new(),
        scans: 0,
        has_baseline: false,
        was_gone: false,
        forbidden: Vec::new(),
        unsettled: BTreeMap::new(),
        moving: None,
        dirs: 0,
    };
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || tree.run())
        .context("no thread for watching")?;
    Ok(watch)
}

/// What an event of the system means for us.
#[derive(Debug)]
enum Raw {
    /// A file or directory came into being.
    Created(PathBuf),
    /// A directory came into being.
    CreatedDir(PathBuf),
    /// A file's content changed.
    Modified(PathBuf),
    /// A file that was open for writing was closed.
    Closed(PathBuf),
    /// A file or directory was renamed to this; the number tells which [`Raw::MovedOut`] it was.
    MovedIn(PathBuf, Option<usize>),
    /// A file or directory was renamed to something else.
    MovedOut(PathBuf, Option<usize>),
    /// A name is gone.
    Gone(PathBuf),
    /// [`Watch::look`] was called.
    LookWanted(PathBuf),
    /// [`Watch::list`] was called.
    ListWanted,
    /// [`Watch::mark`] was called.
    MarkWanted,
    /// The system has reported [`MARK`].
    MarkSeen,
    /// Events were lost.
    Overflow,
    /// No more directories can be watched.
    Limit,
    /// Watching does not work.
    Failed(String),
}

/// Why watching ended.
enum End {
    /// The watched directory has gone.
    RootGone,
    /// Events cannot be had; from now on we look ourselves.
    Poll,
    /// Nobody listens any more.
    Stopped,
}

/// How a scan treats what it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// It was there when we started.
    Baseline,
    /// What is not as the snapshot says has changed.
    Compare,
}

/// The thread that watches.
struct Tree {
    inbox: Sender<Raw>,
    events: Receiver<Raw>,
    config: Arc<Config>,
    seen: Sender<Seen>,
    poll: Option<Duration>,
    /// The files the rules select, as they were when last seen, and by which scan.
    snapshot: BTreeMap<RelPath, (Stamp, u32)>,
    scans: u32,
    /// Whether a scan of the whole tree was ever completed.
    has_baseline: bool,
    /// Whether the whole tree was gone since then.
    was_gone: bool,
    /// Directories that the last scan was not let into.
    forbidden: Vec<RelPath>,
    /// What was found where events cannot be had, and may still be written to: its state, and since
    /// when it has been that.
    unsettled: BTreeMap<RelPath, (Stamp, Instant)>,
    /// The name that was last seen to go by renaming.
    moving: Option<(usize, RelPath)>,
    dirs: usize,
}

impl Tree {
    fn run(mut self) {
        if self.poll.is_none()
            && let Some(system) = silent_file_system(&self.config.root)
        {
            self.poll = Some(POLL);
            self.notice(format!("{system} does not report changes, so they are looked for"));
        }
        loop {
            let end = match self.poll {
                Some(interval) => self.run_polling(interval),
                None => self.run_watching(),
            };
            match end {
                End::Stopped => return,
                End::Poll => self.poll = Some(POLL),
                End::RootGone => {
                    self.was_gone = true;
                    let _ = self.send(Seen::RootGone);
                    self.problem(format!(
                        "the directory {} has gone: waiting for it to come back",
                        self.config.root.display()
                    ));
                    while !self.config.root.is_dir() {
                        thread::sleep(ROOT_RETURNS);
                    }
                    self.notice(format!("{} is back", self.config.root.display()));
                }
            }
        }
    }

    /// Watches with the system's events until that ends.
    fn run_watching(&mut self) -> End {
        // What an earlier watcher said is no news: everything is scanned below.
        let is_asked = |raw: &Raw| matches!(raw, Raw::MarkWanted | Raw::ListWanted);
        for request in self.events.try_iter().filter(is_asked).collect::<Vec<_>>() {
            let _ = self.inbox.send(request);
        }
        let inbox = self.inbox.clone();
        let handler = move |event| sort(event, &mut |raw| drop(inbox.send(raw)));
        let watcher = RecommendedWatcher::new(handler, notify::Config::default());
        let watcher = watcher.and_then(|mut watcher| {
            if !PER_DIRECTORY {
                watcher.watch(&self.config.root, RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                self.problem(format!(
                    "changes cannot be watched, so they are looked for: {error}{}",
                    remedy(&error)
                ));
                return End::Poll;
            }
        };
        let is_first = !self.has_baseline;
        if let Err(end) = self.scan_all(Some(&mut watcher)) {
            return end;
        }
        self.announce(None, is_first);
        self.follow(&mut watcher)
    }

    /// Handles events until something is wrong.
    fn follow(&mut self, watcher: &mut RecommendedWatcher) -> End {
        while let Ok(raw) = self.events.recv() {
            let result = match raw {
                Raw::Created(path) => self.created(&path, watcher),
                Raw::CreatedDir(path) => self.scan(&path, Scan::Compare, Some(watcher)),
                Raw::MovedIn(path, number) => self.moved_in(&path, number, watcher),
                Raw::MovedOut(path, number) => self.moved_out(&path, number),
                Raw::Modified(path) => self.modified(&path),
                Raw::Closed(path) => self.complete(&path),
                Raw::Gone(path) => self.gone(&path),
                Raw::MarkWanted => {
                    set_mark(watcher);
                    Ok(())
                }
                Raw::MarkSeen => self.send(Seen::Mark),
                Raw::LookWanted(path) => self.look(&path),
                Raw::ListWanted => self.list(),
                Raw::Overflow => {
                    self.notice("too many changes at once: comparing the whole tree".to_owned());
                    self.scan_all(Some(watcher))
                }
                Raw::Limit => Err(self.limit_reached()),
                Raw::Failed(error) => {
                    self.problem(format!("watching: {error}"));
                    Ok(())
                }
            };
            if let Err(end) = result {
                return end;
            }
        }
        End::Stopped
    }

    /// Looks for changes again and again.
    fn run_polling(&mut self, interval: Duration) -> End {
        let mut announced = false;
        let is_first = !self.has_baseline;
        loop {
            let started = Instant::now();
            if let Err(end) = self.scan_all(None) {
                return end;
            }
            if !announced {
                self.announce(Some(interval), is_first);
                announced = true;
            }
            // At most a twentieth of the time goes into looking.
            let until = Instant::now() + interval.max(started.elapsed() * 19);
            loop {
                let stands = self.unsettled.values().map(|(_, since)| *since + STANDS).min();
                match self.events.recv_deadline(stands.map_or(until, |stands| stands.min(until))) {
                    Ok(Raw::MarkWanted) => {
                        let scanned =
                            self.scan_all(None).and_then(|()| self.tell_settled(Duration::ZERO));
                        if let Err(end) = scanned.and_then(|()| self.send(Seen::Mark)) {
                            return end;
                        }
                    }
                    Ok(Raw::ListWanted) => {
                        if let Err(end) = self.list() {
                            return end;
                        }
                    }
                    Ok(Raw::LookWanted(path)) => {
                        if let Err(end) = self.look(&path) {
                            return end;
                        }
                    }
                    // What a watcher said before it was given up; the scans find it.
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => {
                        if let Err(end) = self.tell_settled(STANDS) {
                            return end;
                        }
                        if Instant::now() >= until {
                            break;
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return End::Stopped,
                }
            }
        }
    }

    /// Tells of what has stood for so long.
    fn tell_settled(&mut self, stands: Duration) -> Result<(), End> {
        let root = &self.config.root;
        let mut settled = Vec::new();
        self.unsettled.retain(|rel, (stamp, since)| {
            let Ok(metadata) = fs::metadata(rel.under(root)) else {
                // The next scan tells that it has gone.
                return false;
            };
            let now = Stamp::of(&metadata);
            if now != *stamp && !stands.is_zero() {
                (*stamp, *since) = (now, Instant::now());
            }
            let settles = since.elapsed() >= stands;
            if settles {
                self.snapshot.entry(rel.clone()).and_modify(|(stamp, _)| *stamp = now);
                settled.push(rel.clone());
            }
            !settles
        });
        for rel in settled {
            self.send(Seen::Change(rel, Signal::Found))?;
        }
        Ok(())
    }

    /// Goes through the whole tree: the first time to learn what is there, then to find what
    /// differs and to forget what has gone.
    fn scan_all(&mut self, watcher: Option<&mut RecommendedWatcher>) -> Result<(), End> {
        self.dirs = 0;
        self.scans += 1;
        self.forbidden.clear();
        let mode = if self.has_baseline { Scan::Compare } else { Scan::Baseline };
        let root = self.config.root.clone();
        self.scan(&root, mode, watcher)?;
        self.has_baseline = true;
        let this = self.scans;
        let mut gone = Vec::new();
        let forbidden = &self.forbidden;
        self.snapshot.retain(|path, (_, scan)| {
            let is_there = *scan == this || forbidden.iter().any(|dir| path.is_beneath(dir));
            if !is_there {
                gone.push(path.clone());
            }
            is_there
        });
        if std::mem::take(&mut self.was_gone) {
            // What is not there in a new directory was not deleted from it.
            return Ok(());
        }
        for path in gone {
            self.send(Seen::Change(path, Signal::Gone))?;
        }
        self.tell_if_emptied()
    }

    fn tell_if_emptied(&self) -> Result<(), End> {
        // To what is not mirrored, it does not matter.
        if !self.config.mirror {
            return Ok(());
        }
        // What is only published is on no server.
        let is_sent = |path| self.config.filter.verdict(path) != Verdict::Publish;
        if self.snapshot.keys().any(is_sent) { Ok(()) } else { self.send(Seen::Emptied) }
    }

    /// Watches `top` and every directory beneath it that is not excluded, and takes in the files.
    fn scan(
        &mut self,
        top: &Path,
        scan: Scan,
        mut watcher: Option<&mut RecommendedWatcher>,
    ) -> Result<(), End> {
        let mut pending = vec![top.to_owned()];
        while let Some(dir) = pending.pop() {
            if self.is_excluded(&dir) {
                continue;
            }
            // The watch comes first: what is created from now on gives an event, what is there
            // already is found below.
            if PER_DIRECTORY && let Some(watcher) = &mut watcher {
                match watcher.watch(&dir, RecursiveMode::NonRecursive) {
                    Ok(()) => {}
                    Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                        return Err(self.limit_reached());
                    }
                    Err(error) => {
                        // In its own words it names the directory once more.
                        let cause = match error.kind {
                            ErrorKind::Io(error) => error.to_string(),
                            kind => notify::Error::new(kind).to_string(),
                        };
                        self.unreadable(&dir, &cause)?;
                        continue;
                    }
                }
            }
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) => {
                    self.unreadable(&dir, &error.to_string())?;
                    continue;
                }
            };
            self.dirs += 1;
            for entry in entries.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                    // Asked of the open directory, a file's state costs half as much.
                    Ok(kind) if kind.is_file() => {
                        self.found(&entry.path(), scan, |_| entry.metadata())?;
                    }
                    Ok(kind) if kind.is_symlink() => {
                        self.found(&entry.path(), scan, |path| fs::metadata(path))?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// A directory cannot be watched or read: gone again, or forbidden.
    fn unreadable(&mut self, dir: &Path, cause: &str) -> Result<(), End> {
        if fs::symlink_metadata(dir).is_err() {
            let is_root = dir == self.config.root;
            return if is_root { Err(End::RootGone) } else { Ok(()) };
        }
        self.forbidden.extend(self.relative(dir));
        let name = dir.strip_prefix(&self.config.root).unwrap_or(dir).display();
        self.send(Seen::Event(Event::Unsendable {
            name: format!("{name}/"),
            cause: format!("it cannot be watched: {cause}"),
        }))
    }

    /// A scan came upon a file.
    fn found(
        &mut self,
        path: &Path,
        scan: Scan,
        state: impl Fn(&Path) -> io::Result<fs::Metadata>,
    ) -> Result<(), End> {
        let scans = self.scans;
        let look = || state(path).ok().filter(fs::Metadata::is_file).map(|file| Stamp::of(&file));
        let is_news = |known: Option<Stamp>, now: Stamp| {
            scan == Scan::Compare && (known != Some(now) || now.is_fresh(SystemTime::now()))
        };
        // Most files of a large tree are known and unchanged: those are to cost next to nothing.
        let entry = within(&self.config.root, path).and_then(|rel| self.snapshot.get_mut(rel));
        if let Some((known, seen_by)) = entry {
            let Some(stamp) = look() else { return Ok(()) };
            if !is_news(Some(*known), stamp) {
                (*known, *seen_by) = (stamp, scans);
                return Ok(());
            }
        }
        let rel = match self.relative(path) {
            Ok(rel) => rel,
            Err(_) if scan == Scan::Baseline && !self.is_all_wanted() => return Ok(()),
            Err(bad) => return self.unsendable(path, bad),
        };
        if matches!(self.config.filter.verdict(&rel), Verdict::Ignored(_)) {
            return Ok(());
        }
        let Some(stamp) = look() else { return Ok(()) };
        let known = self.snapshot.insert(rel.clone(), (stamp, scans)).map(|(known, _)| known);
        if !is_news(known, stamp) {
            return Ok(());
        }
        if self.poll.is_some() {
            let entry = self.unsettled.entry(rel).or_insert((stamp, Instant::now()));
            if entry.0 != stamp {
                *entry = (stamp, Instant::now());
            }
            return Ok(());
        }
        self.send(Seen::Change(rel, Signal::Found))
    }

    /// Whatever is known of a file is forgotten, and told anew.
    fn look(&mut self, path: &Path) -> Result<(), End> {
        if fs::symlink_metadata(path).is_err() {
            let is_root_there = self.config.root.is_dir();
            return if is_root_there { self.gone(path) } else { Err(End::RootGone) };
        }
        if let Ok(rel) = self.relative(path) {
            self.snapshot.remove(&rel);
        }
        self.found(path, Scan::Compare, |path| fs::metadata(path))
    }

    /// A name came into being; what for is not known yet.
    fn created(&mut self, path: &Path, watcher: &mut RecommendedWatcher) -> Result<(), End> {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            // Gone again, as will be told.
            return self.tell(path, Signal::Created);
        };
        if metadata.is_dir() {
            return self.scan(path, Scan::Compare, Some(watcher));
        }
        // Links come into being complete, and nothing more is heard of them.
        if metadata.is_symlink() || has_links(&metadata) {
            return self.found(path, Scan::Compare, |path| fs::metadata(path));
        }
        self.tell(path, Signal::Created)
    }

    /// A name now stands for something that was under another name, perhaps outside.
    fn moved_in(
        &mut self,
        path: &Path,
        number: Option<usize>,
        watcher: &mut RecommendedWatcher,
    ) -> Result<(), End> {
        if let Some((out, from)) = self.moving.take()
            && number == Some(out)
            && let Ok(to) = self.relative(path)
        {
            self.send(Seen::Renamed { from, to })?;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.scan(path, Scan::Compare, Some(watcher)),
            Ok(_) if PER_DIRECTORY => self.complete(path),
            Ok(_) => self.modified(path),
            Err(_) => self.gone(path),
        }
    }

    /// A name was taken away from what it stood for.
    fn moved_out(&mut self, path: &Path, number: Option<usize>) -> Result<(), End> {
        self.moving = number.zip(self.relative(path).ok());
        self.gone(path)
    }

    fn modified(&mut self, path: &Path) -> Result<(), End> {
        self.tell(path, Signal::Modified)?;
        let is_known = |rel| self.snapshot.contains_key(rel);
        // It may be open for long, and be sent before it is closed.
        if within(&self.config.root, path).is_some_and(is_known) {
            return Ok(());
        }
        self.remember(path)
    }

    fn complete(&mut self, path: &Path) -> Result<(), End> {
        self.tell(path, Signal::Complete)?;
        // Only now, so that the save is on its way already.
        self.remember(path)
    }

    /// Takes the file's state for the last one that was told.
    fn remember(&mut self, path: &Path) -> Result<(), End> {
        let Ok(rel) = self.relative(path) else {
            return Ok(());
        };
        if matches!(self.config.filter.verdict(&rel), Verdict::Ignored(_)) {
            return Ok(());
        }
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => Ok(()),
            Ok(metadata) => {
                self.snapshot.insert(rel, (Stamp::of(&metadata), self.scans));
                Ok(())
            }
            // A directory above was renamed, which is not reported: the events go on, the names
            // are wrong.
            Err(_) if !self.config.root.is_dir() => Err(End::RootGone),
            Err(_) => Ok(()),
        }
    }

    fn gone(&mut self, path: &Path) -> Result<(), End> {
        if path == self.config.root {
            return Err(End::RootGone);
        }
        let Ok(rel) = self.relative(path) else {
            return Ok(());
        };
        let signal = match self.snapshot.remove(&rel) {
            Some(_) => Signal::Gone,
            None => Signal::Dropped,
        };
        let beneath = self.forget_beneath(&rel);
        let has_lost = signal == Signal::Gone || !beneath.is_empty();
        for path in beneath {
            self.send(Seen::Change(path, Signal::Gone))?;
        }
        self.send(Seen::Change(rel, signal))?;
        if has_lost { self.tell_if_emptied() } else { Ok(()) }
    }

    /// What was in a directory that has gone is news if it comes back; returns it.
    fn forget_beneath(&mut self, path: &RelPath) -> Vec<RelPath> {
        let start = format!("{path}/");
        let beneath: Vec<RelPath> = self
            .snapshot
            .range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded))
            .map(|(other, _)| other.clone())
            .take_while(|other| other.is_beneath(path))
            .collect();
        for path in &beneath {
            self.snapshot.remove(path);
        }
        beneath
    }

    /// Passes on what happened to a file.
    fn tell(&mut self, path: &Path, signal: Signal) -> Result<(), End> {
        match self.relative(path) {
            Ok(rel) => self.send(Seen::Change(rel, signal)),
            Err(_) if signal != Signal::Complete => Ok(()),
            Err(bad) => self.unsendable(path, bad),
        }
    }

    /// A file whose name cannot be sent: worth a word if the rules would select it.
    fn unsendable(&mut self, path: &Path, bad: BadPath) -> Result<(), End> {
        let name = path.strip_prefix(&self.config.root).unwrap_or(path).to_string_lossy();
        let stand_in = name.replace(char::is_control, "_");
        let selected = RelPath::new(Path::new(&stand_in))
            .is_ok_and(|rel| !matches!(self.config.filter.verdict(&rel), Verdict::Ignored(_)));
        if bad == BadPath::Outside || !selected {
            return Ok(());
        }
        self.send(Seen::Event(Event::Unsendable {
            name: name.into_owned(),
            cause: format!("{bad}: rename it to have it sent"),
        }))
    }

    fn is_excluded(&self, dir: &Path) -> bool {
        let filter = &self.config.filter;
        self.relative(dir).is_ok_and(|rel| {
            filter.excludes(rel.as_str()).is_some()
                || rel.ancestors().any(|above| filter.excludes(above).is_some())
        })
    }

    fn relative(&self, path: &Path) -> Result<RelPath, BadPath> {
        RelPath::new(path.strip_prefix(&self.config.root).map_err(|_| BadPath::Outside)?)
    }

    fn limit_reached(&self) -> End {
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
        let limit = limit.map_or_else(|_| "its limit".to_owned(), |limit| limit.trim().to_owned());
        self.problem(format!(
            "the system watches no more than {limit} directories, so changes are looked for: exclude some \
             with -x, or raise it with 'sudo sysctl fs.inotify.max_user_watches=1048576' and start again"
        ));
        End::Poll
    }

    /// Whether what is there at the start matters, not only what changes.
    fn is_all_wanted(&self) -> bool {
        self.config.sync || self.config.serve.is_some()
    }

    fn announce(&self, poll: Option<Duration>, is_first: bool) {
        let (files, dirs) = (self.snapshot.len(), self.dirs);
        let _ = self.send(Seen::Event(Event::Watching { files, dirs, poll }));
        if is_first && self.config.sync {
            let _ = self.list();
        }
    }

    fn list(&self) -> Result<(), End> {
        let files = self.snapshot.iter().map(|(path, (stamp, _))| (path.clone(), stamp.len));
        self.send(Seen::Listing(files.collect()))
    }

    fn notice(&self, text: String) {
        let _ = self.send(Seen::Event(Event::Notice(text)));
    }

    fn problem(&self, text: String) {
        let _ = self.send(Seen::Event(Event::Problem(text)));
    }

    fn send(&self, seen: Seen) -> Result<(), End> {
        self.seen.send(seen).map_err(|_| End::Stopped)
    }
}

/// Sorts an event of the system; runs on notify's own thread, so it does no more than that.
fn sort(event: notify::Result<notify::Event>, tell: &mut dyn FnMut(Raw)) {
    let event = match event {
        Ok(event) => event,
        Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => return tell(Raw::Limit),
        Err(error) => return tell(Raw::Failed(error.to_string())),
    };
    if event.need_rescan() {
        return tell(Raw::Overflow);
    }
    let number = event.tracker();
    for path in event.paths {
        tell(match event.kind {
            EventKind::Create(CreateKind::Folder) => Raw::CreatedDir(path),
            EventKind::Create(_) => Raw::Created(path),
            EventKind::Modify(ModifyKind::Data(_)) => Raw::Modified(path),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Raw::Closed(path),
            EventKind::Access(AccessKind::Open(_)) if path == Path::new(MARK) => Raw::MarkSeen,
            EventKind::Remove(_) => Raw::Gone(path),
            // Both halves of a rename come by themselves, too.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) if PER_DIRECTORY => return,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Raw::MovedOut(path, number),
            EventKind::Modify(ModifyKind::Name(_)) => Raw::MovedIn(path, number),
            // Windows says no more than that something was modified.
            EventKind::Modify(ModifyKind::Any) | EventKind::Any if !PER_DIRECTORY => {
                Raw::MovedIn(path, None)
            }
            _ => return,
        });
    }
}

/// A path within the watched directory, as a [`RelPath`] would have it.
fn within<'a>(root: &Path, path: &'a Path) -> Option<&'a str> {
    Some(path.to_str()?.strip_prefix(root.to_str()?)?.trim_start_matches('/'))
}

/// What helps when the system gives us nothing to watch with.
fn remedy(error: &notify::Error) -> &'static str {
    const EMFILE: i32 = 24;
    match &error.kind {
        ErrorKind::Io(error) if PER_DIRECTORY && error.raw_os_error() == Some(EMFILE) => {
            ": end other watchers, or 'sudo sysctl fs.inotify.max_user_instances=1024' and start again"
        }
        _ => "",
    }
}

/// A directory that nobody else opens while we run (Linux).
const MARK: &str = "/proc/self/task";

/// Has the system report something behind all changes so far: it keeps the order of its events.
fn set_mark(watcher: &mut RecommendedWatcher) {
    if PER_DIRECTORY && watcher.watch(Path::new(MARK), RecursiveMode::NonRecursive).is_ok() {
        // Opening it is what is reported.
        let _ = fs::read_dir(MARK);
    }
}

/// Whether the file has other names: then it may be a hard link that was just made.
fn has_links(metadata: &fs::Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::nlink(metadata) > 1;
    #[cfg(not(unix))]
    return {
        let _ = metadata;
        false
    };
}

/// Names the file system if it is one whose changes are made elsewhere and not reported.
fn silent_file_system(root: &Path) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    {
        // The f_type values of statfs(2).
        match rustix::fs::statfs(root).ok()?.f_type {
            0x0102_1997 => Some("a 9p file system (WSL drive or virtual machine)"),
            0x6a65_6a63 | 0x6573_5546 => Some("a FUSE file system"),
            0x6969 => Some("an NFS share"),
            0x517b | 0xfe53_4d42 | 0xff53_4d42 => Some("a Windows share"),
            0x786f_4256 | 0xbacb_acbc => Some("a folder shared with a virtual machine"),
            _ => None,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = root;
        None
    }
}
