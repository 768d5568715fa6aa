//! Scripts: run on a changed file instead of uploading it. Once a change however many hosts, for
//! one file in order, for different files side by side, and never through a shell.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::local::file::{OpenError, Source};
use crate::model::event::{Event, ScriptEvent};
use crate::model::path::RelPath;
use crate::model::verdict::Verdict;
use crate::pending::queue::{Class, Queue, Timing};
use crate::settings::config::Config;
use crate::settings::credentials;

/// A script that has changed the file it was run on this often in a row is suspected to set itself
/// off.
const ECHOES: u32 = 10;

/// A suspect is run once more when the file has been left alone for this long.
const PROBE: Duration = Duration::from_secs(1);

/// Why the scripts that still run are ended with the program.
const ENDING: &str = "it was ended because autoftp ends";

/// How long to wait for the output of a script that has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Longer lines of output are broken, in bytes.
const LONGEST_LINE: u64 = 4096;

/// Of one run, no more lines than this are shown.
const MOST_LINES: u64 = 1000;

/// What a script's thread reports.
pub enum Report {
    /// The script runs.
    Started(RelPath, Arc<Mutex<Child>>),
    /// The thread is done with the file.
    Ended(RelPath, History, End),
}

/// How it ended.
pub enum End {
    /// The script ran, or could not be started.
    Ran(io::Result<ExitStatus>),
    /// There was nothing to do.
    Nothing,
    /// The file is to be looked at again after `PROBE`.
    Suspect,
    /// The script sets itself off, or the file cannot be read.
    Refused(String),
}

struct Running {
    rule: usize,
    started: Instant,
    child: Option<Arc<Mutex<Child>>>,
    /// Why we ended it.
    killed: Option<String>,
    /// Whether the file has changed since it was started.
    changed: bool,
}

/// What is known of the script runs on one file.
#[derive(Default)]
pub struct History {
    last: Option<LastRun>,
    /// How many runs in a row were set off by the run before.
    echoes: u32,
}

/// The last run: hashes of the file's content.
struct LastRun {
    given: u64,
    left: Option<u64>,
    /// Whether the file changed while it ran.
    changed: bool,
    succeeded: bool,
}

impl History {
    /// Whether to run the script on a file whose content has this hash.
    ///
    /// A change is an echo if the file is as the last run left it, and not as that was given it. A
    /// person who saves while the script runs looks the same, so that a suspect is given a last
    /// chance when all is calm, and nobody's save is dropped.
    fn judge(&mut self, hash: u64, is_save: bool) -> Option<End> {
        let echo = match &mut self.last {
            Some(last) if last.left == Some(hash) && last.given != hash => true,
            // It was written, but is what it was.
            Some(last) if last.left == Some(hash) && last.changed && last.succeeded => {
                last.changed = false;
                return Some(End::Nothing);
            }
            // A scan came upon it again.
            Some(last)
                if !is_save && last.succeeded && last.given == hash && last.left == Some(hash) =>
            {
                return Some(End::Nothing);
            }
            _ => false,
        };
        self.echoes = if echo { self.echoes + 1 } else { 0 };
        match self.echoes {
            0..=ECHOES => None,
            n if n == ECHOES + 1 => Some(End::Suspect),
            n if n == ECHOES + 2 => None,
            _ => {
                self.echoes = 0;
                self.last = None;
                Some(End::Refused(format!(
                    "it changes the file it is run on each time ({ECHOES} times in a row), so it is not run \
                     again until you save it: let it write another file, or exclude that one"
                )))
            }
        }
    }
}

/// Whether the program is ending.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Not,
    /// What runs may run to its end.
    Calmly,
    AtOnce,
}

/// The scripts that run and those that wait.
pub struct Scripts {
    config: Arc<Config>,
    events: Sender<Event>,
    queue: Queue,
    running: HashMap<RelPath, Running>,
    history: HashMap<RelPath, History>,
    /// The files that wait because they were saved.
    saved: HashSet<RelPath>,
    parallel: usize,
    ending: Ending,
    /// The files whose script was ended because of that.
    cut_short: Vec<RelPath>,
    sender: Sender<Report>,
    /// To be handed to [`Scripts::take_report`].
    pub reports: Receiver<Report>,
}

impl Scripts {
    /// Nothing runs yet.
    pub fn new(config: Arc<Config>, events: Sender<Event>) -> Self {
        let (sender, reports) = unbounded();
        Self {
            config,
            events,
            queue: Queue::new(Timing::SETTLED),
            running: HashMap::new(),
            history: HashMap::new(),
            saved: HashSet::new(),
            parallel: thread::available_parallelism().map_or(1, usize::from),
            ending: Ending::Not,
            cut_short: Vec::new(),
            sender,
            reports,
        }
    }

    /// A file on which a script is to be run was saved, or, if not, may have been.
    pub fn submit(&mut self, path: RelPath, is_save: bool, now: Instant) {
        if is_save {
            self.saved.insert(path.clone());
        }
        if let Some(running) = self.running.get_mut(&path) {
            running.changed = true;
        }
        self.queue.put(path, Class::Saved, now);
        self.start_waiting(now);
    }

    /// Takes in what a script's thread says.
    pub fn take_report(&mut self, report: Report, now: Instant) {
        match report {
            Report::Started(path, child) => {
                if let Some(running) = self.running.get_mut(&path) {
                    running.child = Some(child);
                    if self.ending == Ending::AtOnce {
                        running.kill(ENDING);
                    }
                }
            }
            Report::Ended(path, history, end) => {
                if let Some(running) = self.running.remove(&path) {
                    self.conclude(path, &running, history, end, now);
                }
                self.start_waiting(now);
            }
        }
    }

    fn conclude(
        &mut self,
        path: RelPath,
        running: &Running,
        mut history: History,
        end: End,
        now: Instant,
    ) {
        self.queue.finish(&path);
        let what = match end {
            End::Nothing => None,
            End::Suspect => {
                self.queue.put(path.clone(), Class::Saved, now + PROBE);
                None
            }
            End::Refused(cause) => Some(ScriptEvent::Failed(cause)),
            End::Ran(result) => {
                let what = self.judge(running, &result, now);
                if let Some(last) = &mut history.last {
                    last.succeeded = matches!(what, ScriptEvent::Done(_));
                    last.changed = running.changed;
                    if self.ending == Ending::AtOnce && running.killed.is_some() && !last.succeeded
                    {
                        self.cut_short.push(path.clone());
                    }
                }
                Some(what)
            }
        };
        self.history.insert(path.clone(), history);
        if let Some(what) = what {
            self.tell(path, running.rule, what);
        }
    }

    /// When something is to be done: a script's time is up, or one is to be started.
    pub fn next_due(&self) -> Option<Instant> {
        let expiry = (self.running.values())
            .filter(|running| running.killed.is_none() && running.child.is_some())
            .map(|running| running.started + self.config.process_timeout)
            .min();
        let start = self.queue.next_due().filter(|_| self.may_start());
        [expiry, start].into_iter().flatten().min()
    }

    /// Does it.
    pub fn advance(&mut self, now: Instant) {
        self.expire(now);
        self.start_waiting(now);
    }

    /// Ends the scripts whose time is up.
    fn expire(&mut self, now: Instant) {
        let limit = self.config.process_timeout;
        for running in self.running.values_mut() {
            if now >= running.started + limit {
                running.kill(&format!(
                    "it was ended after {limit:?}: does it wait for something? --process-timeout gives it longer"
                ));
            }
        }
    }

    /// From now on no script is started.
    pub fn start_no_more(&mut self) {
        self.ending = Ending::Calmly;
    }

    /// Ends the scripts that run, because the program ends. Returns whether there were any.
    pub fn end_all(&mut self) -> bool {
        self.ending = Ending::AtOnce;
        for running in self.running.values_mut() {
            running.kill(ENDING);
        }
        !self.running.is_empty()
    }

    /// The files whose script was to run and did not run to its end, once [`Scripts::is_idle`].
    pub fn unprocessed(&mut self) -> Vec<RelPath> {
        let now = Instant::now();
        let waiting = std::iter::from_fn(|| self.queue.take(now).map(|job| job.path));
        self.cut_short.drain(..).chain(waiting).collect()
    }

    /// Whether no script runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether one runs that was started since then.
    pub fn runs_since(&self, then: Instant) -> bool {
        self.running.values().any(|running| running.started >= then)
    }

    /// Whether none runs or waits.
    pub fn is_done(&self) -> bool {
        self.is_idle() && self.queue.is_empty()
    }

    fn may_start(&self) -> bool {
        self.ending == Ending::Not && self.running.len() < self.parallel
    }

    fn start_waiting(&mut self, now: Instant) {
        while self.may_start() {
            let Some(job) = self.queue.take(now) else {
                return;
            };
            // The rules name the script afresh: the path decides, not when it changed.
            match self.config.filter.verdict(&job.path) {
                Verdict::Process(rule) => self.start(job.path, rule, now),
                _ => self.queue.finish(&job.path),
            }
        }
    }

    fn start(&mut self, path: RelPath, rule: usize, now: Instant) {
        let running = Running { rule, started: now, child: None, killed: None, changed: false };
        self.running.insert(path.clone(), running);
        let history = self.history.remove(&path).unwrap_or_default();
        let is_save = self.saved.remove(&path);
        let (config, events, reports) =
            (self.config.clone(), self.events.clone(), self.sender.clone());
        let file = path.clone();
        let thread = thread::Builder::new().name("script".to_owned()).spawn(move || {
            let mut history = history;
            let end = handle(&config, &file, rule, is_save, &mut history, &events, &reports);
            let _ = reports.send(Report::Ended(file, history, end));
        });
        if let Err(error) = thread {
            let end = End::Ran(Err(error));
            let _ = self.sender.send(Report::Ended(path, History::default(), end));
        }
    }

    fn judge(
        &self,
        running: &Running,
        result: &io::Result<ExitStatus>,
        now: Instant,
    ) -> ScriptEvent {
        let program = &self.config.scripts[running.rule][0];
        ScriptEvent::Failed(match result {
            // Also if it came to its end just before it was to be ended.
            Ok(status) if status.success() => return ScriptEvent::Done(now - running.started),
            _ if running.killed.is_some() => running.killed.clone().unwrap_or_default(),
            Ok(status) => match status.code() {
                Some(code) => format!("it failed with exit code {code}: what it printed is above"),
                None => format!("it was ended by a signal ({status})"),
            },
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound if program.contains('/') => {
                    format!("'{program}' is not there: correct its path")
                }
                io::ErrorKind::NotFound => {
                    format!(
                        "'{program}' is not found: install it, or give its path as in './{program}'"
                    )
                }
                io::ErrorKind::PermissionDenied => {
                    format!(
                        "'{program}' may not be run: make it executable with 'chmod +x {program}'"
                    )
                }
                _ => format!("'{program}' cannot be run: {error}"),
            },
        })
    }

    fn tell(&self, path: RelPath, rule: usize, what: ScriptEvent) {
        let script = self.config.scripts[rule].join(" ");
        let _ = self.events.send(Event::Script { path, script, what });
    }
}

impl Running {
    /// Ends the script and what it has started.
    fn kill(&mut self, cause: &str) {
        let Some(child) = &self.child else { return };
        if self.killed.is_some() {
            return;
        }
        self.killed = Some(cause.to_owned());
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        // Once it has ended, its number may be another process's.
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process_group};
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        }
        #[cfg(not(unix))]
        let _ = child.kill();
    }
}

/// Handles one file on a thread of its own: decides, and runs the script to its end.
fn handle(
    config: &Config,
    path: &RelPath,
    rule: usize,
    is_save: bool,
    history: &mut History,
    events: &Sender<Event>,
    reports: &Sender<Report>,
) -> End {
    let hash = || Source::open(&config.root, path)?.hash_all().map_err(OpenError::Io);
    let given = match hash() {
        Ok(given) => given,
        Err(OpenError::Vanished) => return End::Nothing,
        Err(error) => return End::Refused(error.to_string()),
    };
    if let Some(end) = history.judge(given, is_save) {
        return end;
    }
    let result = run(config, path, rule, events, reports);
    let left = hash().ok();
    history.last = Some(LastRun { given, left, changed: false, succeeded: false });
    End::Ran(result)
}

/// Runs one script to its end; each line that it prints becomes an event.
fn run(
    config: &Config,
    path: &RelPath,
    rule: usize,
    events: &Sender<Event>,
    reports: &Sender<Report>,
) -> io::Result<ExitStatus> {
    let script = &config.scripts[rule];
    let (output, writer) = io::pipe()?;
    let mut command = Command::new(&script[0]);
    command
        .args(&script[1..])
        // With ./ in front no name can pass for an option.
        .arg(format!("./{path}"))
        .current_dir(dunce::simplified(&config.root))
        // It is for the server, and a script may have come with the folder.
        .env_remove(credentials::PASSWORD_VARIABLE)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    // A group of its own: Ctrl-C is ours to handle, and its children can be ended with it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn()?;
    // The command holds the pipe's writing ends; with them gone, the output ends with the script.
    drop(command);
    let child = Arc::new(Mutex::new(child));
    let _ = reports.send(Report::Started(path.clone(), child.clone()));
    let (path, script, events) = (path.clone(), script.join(" "), events.clone());
    let (said_all, last_words) = bounded::<()>(0);
    thread::Builder::new().name("script output".to_owned()).spawn(move || {
        pass_on(output, |line| {
            let (path, script, what) = (path.clone(), script.clone(), ScriptEvent::Line(line));
            let _ = events.send(Event::Script { path, script, what });
        });
        drop(said_all);
    })?;
    let status = wait(&child);
    // What it printed comes before what became of it; but what it left running in the background
    // may hold the pipe open.
    let _ = last_words.recv_timeout(LAST_WORDS);
    status
}

/// Waits for the script's end.
fn wait(child: &Mutex<Child>) -> io::Result<ExitStatus> {
    // Without the lock, so that the script can be ended meanwhile, and without reaping it, so that
    // its number stays its own until then.
    #[cfg(unix)]
    {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let pid = Pid::from_child(&child.lock().unwrap_or_else(PoisonError::into_inner));
        // Fails if its end has been seen already.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
    child.lock().unwrap_or_else(PoisonError::into_inner).wait()
}

/// Hands over what the script prints, line by line.
fn pass_on(output: PipeReader, mut tell: impl FnMut(String)) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    let mut lines = 0;
    while let Ok(1..) = output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
        lines += 1;
        if lines <= MOST_LINES {
            tell(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
        }
        line.clear();
    }
    if lines > MOST_LINES {
        tell(format!("({} more lines are not shown)", lines - MOST_LINES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on contents `given -> left`, each set off by the one before; returns what was decided.
    fn play(history: &mut History, given: u64, left: u64) -> Option<End> {
        let decision = history.judge(given, true);
        if decision.is_none() {
            let last = LastRun { given, left: Some(left), changed: true, succeeded: true };
            history.last = Some(last);
        }
        decision
    }

    #[test]
    fn a_script_that_sets_itself_off_is_stopped() {
        let mut history = History::default();
        let mut content = 0;
        for _ in 0..=ECHOES {
            assert!(play(&mut history, content, content + 1).is_none());
            content += 1;
        }
        assert!(matches!(play(&mut history, content, content + 1), Some(End::Suspect)));
        assert!(play(&mut history, content, content + 1).is_none(), "its last chance");
        content += 1;
        assert!(matches!(play(&mut history, content, 0), Some(End::Refused(_))));
        assert!(play(&mut history, 77, 77).is_none(), "a save starts it anew");
    }

    #[test]
    fn a_formatter_settles() {
        let mut history = History::default();
        assert!(play(&mut history, 1, 2).is_none());
        assert!(play(&mut history, 2, 2).is_none());
        assert!(matches!(play(&mut history, 2, 2), Some(End::Nothing)));
    }

    #[test]
    fn what_a_scan_finds_unchanged_is_not_run_again() {
        let mut history = History::default();
        assert!(play(&mut history, 1, 1).is_none());
        assert!(matches!(history.judge(1, false), Some(End::Nothing)));
        assert!(history.judge(1, true).is_none(), "a save is");
        assert!(history.judge(2, false).is_none());
    }

    #[test]
    fn a_person_who_saves_while_it_runs_is_never_dropped() {
        let mut history = History::default();
        for content in 0..=u64::from(ECHOES) {
            assert!(play(&mut history, content, content + 1).is_none());
        }
        let newest = u64::from(ECHOES) + 1;
        assert!(matches!(play(&mut history, newest, newest), Some(End::Suspect)));
        assert!(play(&mut history, newest, newest).is_none(), "the newest save is processed");
        assert!(history.judge(newest + 1, true).is_none());
    }
}
