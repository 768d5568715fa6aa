//! The pending set: at most one entry a path, so that saves coalesce and always the newest bytes
//! go. No I/O and no clock: `now` is passed in.
//!
//! It serves three times over: the watched files that settle, the scripts to run, and what each
//! host has yet to get. A path that was taken is *busy* until it is finished; what is put in for it
//! meanwhile waits, so that one file is handled in order while others go on.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::model::path::RelPath;
use crate::model::watch_event::Signal;

/// What is known of a pending file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Created under a name that was not there before.
    New,
    /// Somebody has it open and writes.
    Writing,
    /// Looks finished; a temporary file would be renamed about now.
    Settling,
    /// The same, but perhaps it has not changed at all: a scan came upon it.
    Found,
    /// The same, and its name was there before: when it goes again, that is gone.
    Back,
    /// Finished.
    Ready,
    /// Its name was there and is not now; editors that save by renaming put it back.
    Gone,
}

/// How long a file stays pending in each [`Phase`] that waits.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Without an event, a file being written counts as finished after this.
    pub quiet: Duration,
    /// A file that was found or newly made counts as finished after this.
    pub settle: Duration,
    /// A name that is gone is forgotten after this.
    pub gone: Duration,
    /// An entry of [`Class::Last`] waits for the others of its burst this long,
    pub glance: Duration,
    /// if any has come in, until no further one has for this long,
    pub lull: Duration,
    /// and until no other of its burst is pending, but no longer than this.
    pub patience: Option<Duration>,
}

/// What comes in so much later does not belong to a burst.
const BURST: Duration = Duration::from_secs(1);

/// What has failed this often does not hold up the rest of its burst.
const FAILS: u32 = 4;

impl Timing {
    /// Where the system reports the closing of a written file (Linux), the quiet time matters only
    /// for files that are held open; elsewhere it decides when a save is complete.
    pub const NATIVE: Self = Self {
        quiet: if cfg!(any(target_os = "linux", target_os = "android")) {
            Duration::from_secs(2)
        } else {
            Duration::from_millis(80)
        },
        settle: Duration::from_millis(30),
        gone: Duration::from_secs(1),
        // Whatever writes many files goes on to the next one sooner than that.
        glance: Duration::from_micros(250),
        lull: Duration::from_millis(10),
        patience: Some(Duration::from_secs(1)),
    };

    /// Where a restart is to follow, that the burst is complete is worth a wait that could be felt.
    pub const CAREFUL: Self = Self { glance: Self::NATIVE.lull, ..Self::NATIVE };

    /// For files that have settled: a burst takes as long as it takes.
    pub const SETTLED: Self = Self { lull: Duration::ZERO, patience: None, ..Self::NATIVE };

    fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::New | Phase::Writing => self.quiet,
            Phase::Settling | Phase::Found | Phase::Back => self.settle,
            Phase::Ready => Duration::ZERO,
            Phase::Gone => self.gone,
        }
    }
}

/// The table that combines what is pending for a path with what was just seen.
fn combine(pending: Option<Phase>, signal: Signal) -> Option<Phase> {
    use Phase::{Back, Found, Gone, New, Ready, Settling, Writing};
    match (pending, signal) {
        // A new file that vanishes before it was sent was a temporary one.
        (Some(New | Settling), Signal::Gone | Signal::Dropped) => None,
        (_, Signal::Gone) => Some(Gone),
        (None | Some(Found), Signal::Dropped) => None,
        (Some(_), Signal::Dropped) => Some(Gone),

        // A new name may be a temporary one, and is given a moment when it is first closed. What is
        // written again after that is no such file, and a name that was there a moment ago is a
        // save by renaming or replacing.
        (None | Some(New), Signal::Created) | (Some(New), Signal::Modified) => Some(New),
        (Some(New | Settling | Found), Signal::Complete) => Some(Settling),
        (_, Signal::Created | Signal::Modified) => Some(Writing),
        (_, Signal::Complete) => Some(Ready),

        // A scan knows less than an event does.
        (None, Signal::Found) => Some(Found),
        (Some(Gone), Signal::Found) => Some(Back),
        (Some(phase), Signal::Found) => Some(phase),
    }
}

/// Whose turn it is among entries that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What was saved.
    Saved,
    /// What is to be looked at when nothing else is to be done.
    Background,
    /// What a board starts with: it comes last, so that a board which restarts never runs new code
    /// against old modules.
    Last,
}

impl Class {
    /// The class of a file that was saved.
    pub fn of(path: &RelPath) -> Self {
        match path.name() {
            "boot.py" | "boot.mpy" | "main.py" | "main.mpy" => Self::Last,
            _ => Self::Saved,
        }
    }
}

/// An entry that was taken out of a [`Queue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The file.
    pub path: RelPath,
    /// What was known of it when its time came.
    pub phase: Phase,
    /// How many tries have failed before, as whoever put it back counts them.
    pub failures: u32,
    /// Whose turn it was.
    pub class: Class,
    /// When it came in.
    pub since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    phase: Phase,
    class: Class,
    /// When it came in.
    since: Instant,
    due: Instant,
    /// First come, first served among entries that are due at the same time.
    turn: u64,
    failures: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Queue {
    timing: Timing,
    entries: HashMap<RelPath, Entry>,
    /// The entries that are not busy, each class by the time they are due.
    order: [BTreeSet<(Instant, u64, RelPath)>; 3],
    /// The others that [`Class::Last`] may have to wait for, by the time they came in.
    awaited: BTreeSet<(Instant, RelPath)>,
    /// When one of the others last came in.
    stirred: Option<Instant>,
    busy: HashMap<RelPath, Option<Entry>>,
    turn: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            entries: HashMap::new(),
            order: Default::default(),
            awaited: BTreeSet::new(),
            stirred: None,
            busy: HashMap::new(),
            turn: 0,
        }
    }

    /// Takes in what was seen of a file.
    pub fn observe(&mut self, path: RelPath, signal: Signal, now: Instant) {
        if Class::of(&path) != Class::Last {
            self.stir(now);
        }
        let pending = self.remove(&path);
        let Some(phase) = combine(pending.map(|entry| entry.phase), signal) else {
            return;
        };
        let class = Class::of(&path);
        let wait = if class == Class::Last { self.timing.glance } else { Duration::ZERO };
        let since = pending.map_or(now, |entry| entry.since);
        // Neither a scan nor a further close puts off what is pending.
        let due = match pending {
            Some(entry)
                if entry.phase == phase
                    && (signal == Signal::Found || phase == Phase::Settling) =>
            {
                entry.due
            }
            // What is saved again and again is not put off either.
            _ => (now + self.timing.of(phase)).max(since + wait),
        };
        self.insert(path, phase, class, since, due, 0);
    }

    /// Puts in a file that is to be handled at `due`; a newer entry replaces an older one, but what
    /// was saved does not go into the background for it.
    pub fn put(&mut self, path: RelPath, class: Class, due: Instant) {
        let class = match self.remove(&path) {
            Some(pending) if class == Class::Background => pending.class,
            _ => class,
        };
        self.insert(path, Phase::Ready, class, due, due, 0);
    }

    /// The same for a file that has failed so often before.
    pub fn put_again(&mut self, path: RelPath, failures: u32, due: Instant) {
        self.remove(&path);
        self.insert(path, Phase::Ready, Class::Background, due, due, failures);
    }

    /// Whether the file is pending.
    pub fn has(&self, path: &RelPath) -> bool {
        self.entries.contains_key(path) || matches!(self.busy.get(path), Some(Some(_)))
    }

    /// How many files are pending.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.busy.is_empty()
    }

    /// Something else goes on that [`Class::Last`] has to wait for.
    pub fn stir(&mut self, now: Instant) {
        self.stirred = Some(now);
    }

    /// Takes out the entry whose turn it is, and makes its path busy.
    pub fn take(&mut self, now: Instant) -> Option<Job> {
        let (class, _) = self.turns().find(|(_, due)| *due <= now)?;
        self.take_first(class)
    }

    /// The same, but not what has to wait for what is taken out already.
    pub fn take_early(&mut self, now: Instant) -> Option<Job> {
        let mut turns = self.turns().filter(|(class, _)| *class != Class::Last);
        let (class, _) = turns.find(|(_, due)| *due <= now)?;
        drop(turns);
        self.take_first(class)
    }

    fn take_first(&mut self, class: Class) -> Option<Job> {
        let (_, _, path) = self.order[class as usize].first()?.clone();
        let entry = self.remove(&path)?;
        self.busy.insert(path.clone(), None);
        let Entry { phase, class, since, failures, .. } = entry;
        Some(Job { path, phase, failures, class, since })
    }

    /// The path is no longer busy; what came in for it meanwhile gets its turn.
    pub fn finish(&mut self, path: &RelPath) {
        if let Some(Some(entry)) = self.busy.remove(path) {
            let Entry { phase, class, since, due, failures, .. } = entry;
            self.insert(path.clone(), phase, class, since, due, failures);
        }
    }

    /// Like [`Queue::finish`], but the job is to be tried again at `due`, unless the file has
    /// changed meanwhile: then its turn comes as if nothing had failed.
    pub fn retry(&mut self, job: Job, due: Instant) {
        match self.busy.remove(&job.path).flatten() {
            Some(Entry { phase, class, since, due, failures, .. }) => {
                self.insert(job.path, phase, class, since, due, failures);
            }
            None => self.insert(job.path, job.phase, job.class, job.since, due, job.failures),
        }
    }

    /// Forgets the names that are gone.
    pub fn forget_gone(&mut self) {
        for path in self.gone().cloned().collect::<Vec<_>>() {
            self.remove(&path);
        }
    }

    /// The names that are gone.
    pub fn gone(&self) -> impl Iterator<Item = &RelPath> {
        let is_gone = |(_, entry): &(&RelPath, &Entry)| entry.phase == Phase::Gone;
        self.entries.iter().filter(is_gone).map(|(path, _)| path)
    }

    /// The names that have gone since then.
    pub fn gone_since(&self, then: Instant) -> impl Iterator<Item = &RelPath> {
        let is_late =
            move |entry: &Entry| entry.phase == Phase::Gone && entry.due >= then + self.timing.gone;
        self.entries.iter().filter(move |(_, entry)| is_late(entry)).map(|(path, _)| path)
    }

    /// Makes everything that is pending due at once, except names that are gone.
    pub fn hurry(&mut self, now: Instant) {
        let pending: Vec<RelPath> = self.entries.keys().cloned().collect();
        self.stirred = None;
        for path in pending {
            match self.remove(&path) {
                Some(entry) if entry.phase != Phase::Gone => {
                    self.place(path, Entry { due: entry.due.min(now), ..entry });
                }
                _ => {}
            }
        }
    }

    /// When [`Queue::take`] will next have something; `None` while nothing waits for its time.
    pub fn next_due(&self) -> Option<Instant> {
        self.turns().map(|(_, due)| due).min()
    }

    /// When the first of each class has its turn.
    fn turns(&self) -> impl Iterator<Item = (Class, Instant)> {
        let last = self.order[Class::Last as usize].first().and_then(|(due, _, path)| {
            let burst_ends = self.entries.get(path)?.since + BURST;
            let is_held = self.awaited.first().is_some_and(|(since, _)| *since <= burst_ends);
            let latest = self.timing.patience.map(|patience| *due + patience);
            let calm = self.stirred.map_or(*due, |at| (*due).max(at + self.timing.lull));
            let turn = if is_held { latest? } else { latest.map_or(calm, |late| late.min(calm)) };
            Some((Class::Last, turn))
        });
        [self.first(Class::Saved), self.first(Class::Background), last].into_iter().flatten()
    }

    fn first(&self, class: Class) -> Option<(Class, Instant)> {
        Some((class, self.order[class as usize].first()?.0))
    }

    fn insert(
        &mut self,
        path: RelPath,
        phase: Phase,
        class: Class,
        since: Instant,
        due: Instant,
        failures: u32,
    ) {
        self.turn += 1;
        let entry = Entry { phase, class, since, due, turn: self.turn, failures };
        if let Some(waiting) = self.busy.get_mut(&path) {
            *waiting = Some(entry);
        } else {
            self.place(path, entry);
        }
    }

    fn place(&mut self, path: RelPath, entry: Entry) {
        if entry.is_awaited() {
            self.awaited.insert((entry.since, path.clone()));
        }
        self.order[entry.class as usize].insert((entry.due, entry.turn, path.clone()));
        self.entries.insert(path, entry);
    }

    fn remove(&mut self, path: &RelPath) -> Option<Entry> {
        if let Some(waiting) = self.busy.get_mut(path) {
            return waiting.take();
        }
        let entry = self.entries.remove(path)?;
        self.awaited.remove(&(entry.since, path.clone()));
        self.order[entry.class as usize].remove(&(entry.due, entry.turn, path.clone()));
        Some(entry)
    }
}

impl Entry {
    fn is_awaited(&self) -> bool {
        self.class != Class::Last && self.phase != Phase::Gone && self.failures < FAILS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const TIMING: Timing = Timing {
        quiet: Duration::from_millis(2000),
        settle: Duration::from_millis(30),
        gone: Duration::from_millis(1000),
        glance: Duration::from_millis(3),
        lull: Duration::from_millis(10),
        patience: Some(Duration::from_millis(1000)),
    };

    fn path(name: &str) -> RelPath {
        RelPath::new(Path::new(name)).expect("a good path")
    }

    /// Plays `MILLIS SIGNAL` steps for one file; returns what became due as `MILLIS PHASE`.
    fn play(steps: &str) -> String {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut queue = Queue::new(TIMING);
        let mut steps = steps.split(',').map(|step| {
            let (millis, signal) = step.trim().split_once(' ').expect("MILLIS SIGNAL");
            let signal = match signal {
                "create" => Signal::Created,
                "modify" => Signal::Modified,
                "close" => Signal::Complete,
                "found" => Signal::Found,
                "gone" => Signal::Gone,
                "drop" => Signal::Dropped,
                other => panic!("{other}"),
            };
            (millis.parse::<u64>().expect("milliseconds"), signal)
        });
        let mut step = steps.next();
        let mut due = Vec::new();
        for millis in 0..10_000 {
            while let Some((when, signal)) = step.filter(|(when, _)| *when == millis) {
                debug_assert_eq!(when, millis);
                queue.observe(path("f"), signal, at(millis));
                step = steps.next();
            }
            while let Some(job) = queue.take(at(millis)) {
                due.push(format!("{millis} {:?}", job.phase));
                queue.finish(&job.path);
            }
        }
        assert_eq!(queue.next_due(), None);
        due.join(", ")
    }

    #[test]
    fn saves_of_every_kind_come_due_once() {
        let table = [
            // In place, or truncated and written.
            ("5 modify, 5 modify, 6 close", "6 Ready"),
            // Renamed over (sed -i, os.replace).
            ("5 close", "5 Ready"),
            // A new file; a temporary one that is renamed away at once.
            ("0 create, 1 modify, 2 close", "32 Settling"),
            ("0 create, 1 modify, 2 close, 3 gone", ""),
            // vim: the old file is renamed to a backup, the new one written under the old name.
            ("0 gone, 1 create, 2 modify, 3 close", "3 Ready"),
            // Back for a moment in a directory that is not watched yet, and saved there.
            ("0 gone, 5 found, 6 close, 7 gone", "6 Ready, 1007 Gone"),
            ("0 gone, 5 found", "35 Back"),
            // git checkout: removed and written again.
            ("0 gone, 0 create, 0 modify, 1 close", "1 Ready"),
            // Copied slowly into place: due only when closed.
            ("0 create, 900 modify, 1800 modify, 2700 close", "2730 Settling"),
            ("0 modify, 1900 modify, 3800 modify, 3900 close", "3900 Ready"),
            // A new file that is saved again and again is not put off for ever.
            (
                "0 create, 1 modify, 2 close, 7 modify, 8 close, 13 modify, 14 close",
                "8 Ready, 14 Ready",
            ),
            ("0 create, 1 close, 11 close, 21 close, 41 close", "31 Settling, 41 Ready"),
            // Held open and written for long: due whenever it is quiet, and at the end.
            ("0 modify, 3000 modify, 5500 close", "2000 Writing, 5000 Writing, 5500 Ready"),
            // A hard link, and O_TMPFILE with linkat, tell nothing but the creation.
            ("0 create", "2000 New"),
            // Found by a scan, alone and while events for it come in.
            ("0 found", "30 Found"),
            ("0 found, 10 found", "30 Found"),
            ("0 found, 10 modify, 20 close", "20 Ready"),
            ("0 create, 1 found, 2 close", "32 Settling"),
            ("0 modify, 1 found, 9 close", "9 Ready"),
            // Removed, saved and removed again before anybody looked.
            ("0 gone, 1 create, 2 drop", "1002 Gone"),
            ("0 gone, 5 found, 6 gone", "1006 Gone"),
            ("0 create, 1 drop", ""),
            // Removed for good.
            ("0 gone", "1000 Gone"),
            ("0 modify, 1 gone", "1001 Gone"),
        ];
        for (steps, expected) in table {
            assert_eq!(play(steps), expected, "{steps}");
        }
    }

    #[test]
    fn first_come_first_served() {
        let now = Instant::now();
        let mut queue = Queue::new(TIMING);
        for name in ["b", "a", "c"] {
            queue.put(path(name), Class::Saved, now);
        }
        queue.put(path("b"), Class::Saved, now);
        let names: Vec<_> =
            std::iter::from_fn(|| queue.take(now)).map(|job| job.path.to_string()).collect();
        assert_eq!(names, ["a", "c", "b"], "a newer entry takes a new turn");
    }

    #[test]
    fn a_busy_path_waits_and_others_go_on() {
        let now = Instant::now();
        let mut queue = Queue::new(TIMING);
        queue.put(path("a"), Class::Saved, now);
        let a = queue.take(now).expect("a is due");
        queue.put(path("a"), Class::Saved, now);
        queue.put(path("b"), Class::Saved, now);
        assert_eq!(queue.take(now).map(|job| job.path), Some(path("b")));
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.next_due(), None, "a busy path must not cause a spin");
        queue.finish(&a.path);
        assert_eq!(queue.take(now).map(|job| job.path), Some(path("a")));
    }

    #[test]
    fn a_retry_waits_and_yields_to_a_newer_save() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut queue = Queue::new(TIMING);
        queue.put(path("a"), Class::Saved, now);
        let job = queue.take(now).expect("a is due");
        queue.retry(Job { failures: 1, ..job }, later);
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.next_due(), Some(later));
        let job = queue.take(later).expect("a is due again");
        assert_eq!(job.failures, 1);

        queue.put(path("a"), Class::Saved, now);
        queue.retry(job, later);
        assert_eq!(queue.take(now).map(|job| job.failures), Some(0));
    }

    #[test]
    fn hurry_leaves_nothing_to_settle() {
        let now = Instant::now();
        let mut queue = Queue::new(TIMING);
        queue.observe(path("new"), Signal::Created, now);
        queue.observe(path("gone"), Signal::Gone, now);
        queue.hurry(now);
        assert_eq!(queue.take(now).map(|job| job.path), Some(path("new")));
        assert_eq!(queue.next_due(), None);
    }

    /// Plays saves `MILLIS NAME`; returns what became due as `MILLIS NAME`.
    fn play_burst(steps: &str) -> String {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut queue = Queue::new(TIMING);
        let mut due = Vec::new();
        for millis in 0..2000 {
            for step in steps.split(',').map(str::trim) {
                let (when, name) = step.split_once(' ').expect("MILLIS NAME");
                if when.parse() == Ok(millis) {
                    queue.observe(path(name), Signal::Complete, at(millis));
                }
            }
            assert!(queue.next_due().is_none_or(|due| due >= at(millis)), "nothing is overdue");
            while let Some(job) = queue.take(at(millis)) {
                due.push(format!("{millis} {}", job.path));
                queue.finish(&job.path);
            }
        }
        due.join(", ")
    }

    #[test]
    fn what_a_board_starts_with_comes_last_in_a_burst() {
        let table = [
            ("5 main.py", "8 main.py"),
            ("5 main.py, 7 main.py, 9 main.py, 11 main.py", "8 main.py, 12 main.py"),
            ("5 boot.py, 5 a.py, 6 b.py, 7 main.py", "5 a.py, 6 b.py, 16 boot.py, 16 main.py"),
            ("5 main.py, 7 a.py, 16 b.py", "7 a.py, 16 b.py, 26 main.py"),
            ("5 main.py, 9 a.py", "8 main.py, 9 a.py"),
            ("5 a.py, 14 lib/main.mpy", "5 a.py, 17 lib/main.mpy"),
            ("5 a.py, 6 lib/main.mpy", "5 a.py, 15 lib/main.mpy"),
        ];
        for (steps, expected) in table {
            assert_eq!(play_burst(steps), expected, "{steps}");
        }
    }

    #[test]
    fn the_last_ones_wait_for_their_burst_but_not_for_what_fails_and_fails() {
        let now = Instant::now();
        let at = |millis: u64| now + Duration::from_millis(millis);
        let mut queue = Queue::new(Timing::SETTLED);
        queue.put(path("main.py"), Class::Last, now);
        queue.put(path("a.py"), Class::Saved, at(1));
        queue.put(path("b.py"), Class::Saved, at(1));
        for hour in 1..3 {
            // However long it takes, and whatever is saved again meanwhile.
            let job = queue.take(at(hour * 3_600_000)).expect("one of the two");
            assert_ne!(job.path, path("main.py"));
            queue.finish(&job.path);
            queue.put(path("a.py"), Class::Saved, at(hour * 3_600_000));
        }
        queue.remove(&path("a.py"));
        queue.put(path("a.py"), Class::Saved, at(1));
        let mut a = queue.take(at(1)).expect("a is due");
        a.failures = FAILS - 1;
        queue.retry(a, at(250));
        assert_eq!(queue.take(at(249)), None);
        assert_eq!(queue.next_due(), Some(at(250)));
        let mut a = queue.take(at(250)).expect("a is due again");
        a.failures = FAILS;
        queue.retry(a, at(10_000));
        assert_eq!(queue.take(at(250)).map(|job| job.path), Some(path("main.py")));
    }

    #[test]
    fn a_file_that_is_saved_all_the_time_does_not_hold_up_the_last_ones() {
        let now = Instant::now();
        let mut queue = Queue::new(Timing::SETTLED);
        queue.put(path("main.py"), Class::Last, now);
        queue.put(path("log.py"), Class::Saved, now + 2 * BURST);
        let names: Vec<_> =
            std::iter::from_fn(|| queue.take(now + BURST).map(|job| job.path)).collect();
        assert_eq!(names, [path("main.py")]);
    }

    #[test]
    fn a_save_goes_before_what_is_done_in_the_background() {
        let now = Instant::now();
        let mut queue = Queue::new(TIMING);
        queue.put(path("old"), Class::Background, now);
        queue.put(path("new"), Class::Saved, now);
        assert_eq!(queue.take(now).map(|job| job.path), Some(path("new")));
        assert_eq!(queue.take(now).map(|job| job.path), Some(path("old")));
    }
}
