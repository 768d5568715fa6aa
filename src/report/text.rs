//! What happened, shown to a person. Everything that comes from elsewhere is made printable here.
//!
//! Lines begin as those of the Python original do: `%%` settings and state, `==` connections, `>>`
//! files, `**` scripts and remote commands; problems begin with `!!` and go to stderr. The reporter
//! has a thread of its own, so that a terminal that is held (Ctrl-S) holds up nothing else.

use std::collections::HashMap;
use std::env;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Local;
use colored::{Color, Colorize};
use crossbeam_channel::{Receiver, Sender, after, bounded, select, unbounded};
use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::exit::Exit;
use crate::ftp::trace::Trace;
use crate::model::event::{Answer, Event, HostEvent, HostId, IDLE_END, Outcome, ScriptEvent};
use crate::model::path::RelPath;
use crate::model::verdict::Why;
use crate::rules::filter::Serve;
use crate::settings::cli::When;
use crate::settings::config::{Config, Screen};
use crate::shutdown::Stop;
use crate::terminal;
use crate::text::{count, first_few, printable, shortened, shortened_to};

/// What came of it all.
#[derive(Debug)]
pub struct Summary {
    /// Files sent, counted for each host.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Files whose script did not run to its end.
    pub unprocessed: Vec<RelPath>,
    /// For each host, the files that it does not have.
    pub undelivered: Vec<Vec<RelPath>>,
    /// How often boards fetched a file, and how many bytes, if they could.
    pub fetched: Option<(u64, u64)>,
}

enum Message {
    Event(Event),
    Summary(Summary),
}

/// Where events are handed over to be shown.
pub struct Reporter {
    messages: Sender<Message>,
    done: Receiver<()>,
    /// Gets a message when nobody reads our output any more.
    pub unread: Receiver<()>,
}

impl Reporter {
    /// Starts the thread that prints, and shows the settings.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(config: &Config) -> Result<Self> {
        let (messages, inbox) = unbounded();
        let (unread_sender, unread) = bounded(1);
        let (done_sender, done) = bounded::<()>(0);
        let mut printer = Printer::new(config, unread_sender);
        printer.settings(config);
        thread::Builder::new()
            .name("report".to_owned())
            .spawn(move || {
                for message in inbox {
                    match message {
                        Message::Event(event) => printer.event(event),
                        Message::Summary(summary) => {
                            printer.summary(&summary);
                            break;
                        }
                    }
                }
                drop(done_sender);
            })
            .context("no thread for the screen")?;
        Ok(Self { messages, done, unread })
    }

    /// Has an event shown.
    pub fn show(&self, event: Event) {
        let _ = self.messages.send(Message::Event(event));
    }

    /// Shows what came of it, if anything could, and waits until all is printed, unless it is to end at once.
    pub fn finish(self, summary: Option<Summary>, stops: &Receiver<Stop>) -> Option<Exit> {
        const PATIENCE: Duration = Duration::from_secs(2);
        if let Some(summary) = summary {
            let _ = self.messages.send(Message::Summary(summary));
        }
        drop(self.messages);
        select! {
            recv(self.done) -> _ => None,
            recv(stops) -> _ => Some(Exit::Aborted),
            recv(after(PATIENCE)) -> _ => None,
        }
    }
}

/// Prints the error that the program ends with.
pub fn fatal(error: &anyhow::Error, exit: Exit) -> Exit {
    let err = Stream::stderr(When::Auto);
    let text = format!("{error:#}");
    let line = format!("{} {}", err.paint("autoftp:", Color::Red), printable(text.trim_end()));
    // There is nobody left to tell that stderr is closed.
    let _ = err.write(&line);
    exit
}

/// A report that is printed line by line.
pub struct Page {
    out: Stream,
    err: Stream,
}

impl Page {
    /// Colours it so.
    pub fn new(color: When) -> Self {
        Self { out: Stream::stdout(color), err: Stream::stderr(color) }
    }

    /// What follows is about this.
    pub fn heading(&self, text: &str) {
        self.print(&format!("{} {}", self.out.paint("==", Color::Green), shown(text)));
    }

    /// What was found out.
    pub fn finding(&self, name: &str, text: &str) {
        self.print(&format!("   {name:<15} {}", shown(&one_line(text))));
    }

    /// What is to be mended.
    pub fn problem(&self, text: &str) {
        let line = self.err.paint(&format!("!! {}", shown(text)), Color::Red);
        // There is nobody left to tell that stderr is closed.
        let _ = self.err.write(&line);
    }

    /// Shows the dialogue, if that is wanted.
    pub fn trace(&self, debug: bool) -> Trace {
        let colour = self.out.colour;
        Trace(debug.then(|| {
            let out = Stream { is_stderr: false, colour };
            Box::new(move |sent, line: String| {
                let line = out.paint(&shown(&dialogue(sent, &line)), Color::BrightBlack);
                let _ = out.write(&line);
            }) as Box<dyn Fn(bool, String) + Send>
        }))
    }

    fn print(&self, line: &str) {
        // Who does not read on does not want to know.
        let _ = self.out.write(line);
    }
}

/// A line of what we or the server said.
fn dialogue(sent: bool, line: &str) -> String {
    format!("{} {line}", if sent { ">" } else { "<" })
}

/// stdout or stderr, and whether it takes colours.
struct Stream {
    is_stderr: bool,
    colour: bool,
}

impl Stream {
    fn stdout(when: When) -> Self {
        let colour = colours(when, io::stdout().is_terminal());
        Self { is_stderr: false, colour }
    }

    fn stderr(when: When) -> Self {
        let colour = colours(when, io::stderr().is_terminal());
        Self { is_stderr: true, colour }
    }

    fn paint(&self, text: &str, colour: Color) -> String {
        if self.colour {
            // Whether to colour was decided here, for this stream.
            colored::control::set_override(true);
            text.color(colour).to_string()
        } else {
            text.to_owned()
        }
    }

    fn write(&self, line: &str) -> io::Result<()> {
        if self.is_stderr {
            writeln!(io::stderr().lock(), "{line}")
        } else {
            writeln!(io::stdout().lock(), "{line}")
        }
    }
}

/// The conventions of NO_COLOR and CLICOLOR.
fn colours(when: When, is_terminal: bool) -> bool {
    let is = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto if env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
        When::Auto if is("CLICOLOR_FORCE") => true,
        When::Auto if env::var_os("CLICOLOR").is_some_and(|value| value == "0") => false,
        When::Auto => is_terminal,
    }
}

/// The thread that prints.
struct Printer {
    out: Stream,
    err: Stream,
    screen: Screen,
    dry_run: bool,
    /// The watched directory, as it is shown.
    root: String,
    hosts: Vec<String>,
    /// What was last said of each host's connection, so that it is said once.
    troubles: Vec<Option<String>>,
    /// Whether it was said in this session that files were lost.
    has_lost: Vec<bool>,
    /// Why files are being tried again, so that it is said once.
    retried: HashMap<(HostId, RelPath), String>,
    bars: MultiProgress,
    bar_of: HashMap<HostId, ProgressBar>,
    burst_of: HashMap<HostId, ProgressBar>,
    unread: Sender<()>,
}

impl Printer {
    fn new(config: &Config, unread: Sender<()>) -> Self {
        let hosts: Vec<String> = config.hosts.iter().map(|host| shown(&host.to_string())).collect();
        Self {
            out: Stream::stdout(config.screen.color),
            err: Stream::stderr(config.screen.color),
            screen: config.screen,
            dry_run: config.dry_run,
            root: tilde(dunce::simplified(&config.root)),
            troubles: vec![None; hosts.len()],
            has_lost: vec![false; hosts.len()],
            hosts,
            retried: HashMap::new(),
            bars: MultiProgress::new(),
            bar_of: HashMap::new(),
            burst_of: HashMap::new(),
            unread,
        }
    }

    fn settings(&mut self, config: &Config) {
        let rules = &config.rules;
        let includes = rules.include.join(", ");
        let is_sent = !config.hosts.is_empty();
        self.setting(if is_sent { "upload" } else { "publish" }, &includes);
        if rules.serve == Serve::Everything {
            self.state("publish", "all that is not ignored");
        }
        self.setting("ignore", &rules.exclude.join(", "));
        for (pattern, script) in rules.process.iter().zip(&config.scripts) {
            self.setting("process", &format!("{pattern}: {}", script.join(" ")));
        }
        // What is only published is neither deleted nor mirrored.
        if is_sent {
            self.setting("delete", &rules.up_delete.join(", "));
        }
        if config.mirror && is_sent {
            self.state("mirror", "what is removed or renamed here is there, too");
        }
        if let Some(command) = config.remote_command.as_ref().filter(|_| is_sent) {
            let when = match rules.remote_match.as_slice() {
                [] => String::new(),
                patterns => format!("after {}: ", patterns.join(", ")),
            };
            self.setting("remote", &format!("{when}{}", one_line(command)));
        }
        if config.dry_run {
            let no_fetch = if config.serve.is_some() { ", nothing can be fetched" } else { "" };
            self.state(
                "dry run",
                &format!(
                    "scripts run, but nothing is sent or deleted{no_fetch} and no remote command is run"
                ),
            );
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Watching { files, dirs, poll } => self.watching(files, dirs, poll),
            Event::Notice(text) | Event::Kept(text) => self.state("note", &text),
            Event::Problem(text) => self.problem(&text),
            Event::Unsendable { name, cause } => {
                self.problem(&format!("{name}: not sent: {cause}"));
            }
            Event::Ignored { path, why } => self.detail(&path, ignored(why)),
            Event::Host { host, what } => self.host(host, what),
            Event::Script { path, script, what } => self.script(&path, &script, what),
            Event::Serving { urls, is_local, is_open, files } => {
                self.serving(&urls, is_local, is_open, files);
            }
            Event::Published { put, gone, version, files } => {
                self.published(&put, &gone, &version, files);
            }
            Event::Fetched { path, bytes, first, times } => {
                let by = if times == 1 { first.to_string() } else { format!("{times} times") };
                let facts = format!("{:>9}  fetched  {by}", size(bytes));
                self.file_line("<<", &path, &facts, Color::Cyan);
            }
            Event::Asked { from, request } => {
                let text = shown(&format!("< {from} {request}"));
                self.print(&self.out.paint(&text, Color::BrightBlack));
            }
            Event::Doubted(_) | Event::ServingEnded => {}
            Event::Deleted(path) => self.file(&path, "deleted here", None),
            Event::WouldDelete(path) => self.file(&path, "would delete here", None),
            Event::NotDeleted { path, cause } => {
                self.problem(&format!("{path}: sent, but not deleted here: {cause}"));
            }
        }
    }

    fn watching(&mut self, files: usize, dirs: usize, poll: Option<Duration>) {
        let how =
            poll.map_or_else(String::new, |every| format!(", looking every {}", seconds(every)));
        let (files, dirs) = (count(files, "matching file"), count(dirs, "folder"));
        self.state("watching", &format!("{} ({files} in {dirs}{how})", self.root));
    }

    fn serving(&mut self, urls: &[String], is_local: bool, is_open: bool, files: usize) {
        let whom = match (is_local, is_open) {
            (true, _) => "this computer only; --serve 0.0.0.0 lets boards in",
            (false, true) => "whoever can reach this computer; --serve-token narrows it",
            (false, false) => "whoever can reach this computer and knows the token",
        };
        for url in urls {
            self.state("serving", url);
        }
        self.state("", &format!("{} for {whom}", count(files, "file")));
    }

    fn published(&mut self, put: &[(RelPath, u64)], gone: &[RelPath], version: &str, files: usize) {
        /// More of them at once are a checkout.
        const MOST: usize = 10;
        if put.len() + gone.len() > MOST {
            let facts = [(put.len(), ""), (gone.len(), " no more")];
            let facts = facts.into_iter().filter(|(files, _)| *files > 0);
            let facts: Vec<_> =
                facts.map(|(files, what)| format!("{}{what}", count(files, "file"))).collect();
            self.state("published", &facts.join(", "));
        } else {
            for (path, bytes) in put {
                self.file(path, &format!("{:>9}  published", size(*bytes)), None);
            }
            for path in gone {
                self.file(path, &format!("{:>9}  published no more", ""), None);
            }
        }
        if self.screen.verbose {
            let time = Local::now().format("%H:%M:%S");
            let text = format!("{time} version {version} ({})", count(files, "file"));
            self.line("--", &text, Color::BrightBlack);
        }
    }

    fn host(&mut self, id: HostId, what: HostEvent) {
        let host = self.hosts[id].clone();
        match what {
            HostEvent::Connected { dir, greeting, tls } => {
                let to = dir.map_or_else(String::new, |dir| format!(", files go to {dir}"));
                let greeting = match plain(&greeting) {
                    words if words.is_empty() => words,
                    words => format!(" ({})", shortened(&words)),
                };
                let time = Local::now().format("%H:%M:%S");
                let tls = tls.map_or_else(String::new, |tls| format!(" through {tls}"));
                let text = format!("{time} {host}: connected{tls}{to}{greeting}");
                self.has_lost[id] = false;
                // Who was told of the trouble is told that it is over.
                let quiet = self.troubles[id].take().is_none() && self.screen.quiet;
                if !quiet {
                    let mark = self.out.paint("==", Color::Green);
                    self.print(&format!("{mark} {}", shown(&text)));
                }
            }
            HostEvent::SendChoice(send_choice) => {
                if self.screen.verbose {
                    let time = Local::now().format("%H:%M:%S");
                    let text =
                        format!("{time} {host}: transfer {}", plain(&send_choice.to_string()));
                    self.line("--", &shown(&text), Color::BrightBlack);
                }
            }
            HostEvent::Disconnected { cause, retry, lost } => {
                self.drop_bar(id);
                let again = match self.screen.verbose && !retry.is_zero() {
                    true => format!("trying again in {}", seconds(retry)),
                    false => "trying again".to_owned(),
                };
                let state = if lost { "connection lost" } else { "not connected" };
                let repeated = self.troubles[id].as_ref() == Some(&cause);
                // Servers end idle sessions as a matter of course.
                let routine = repeated || cause == IDLE_END;
                if !routine || self.screen.verbose {
                    self.problem(&format!("{host}: {state}: {cause}; {again}"));
                }
                if cause != IDLE_END {
                    self.troubles[id] = Some(cause);
                }
            }
            HostEvent::Unusable(cause) => self.problem(&format!("{host}: {cause}")),
            HostEvent::Dialogue { sent, line } => {
                let text = format!("{}{}", self.label(id), dialogue(sent, &line));
                self.print(&self.out.paint(&shown(&text), Color::BrightBlack));
            }
            HostEvent::Sending { path, sent, total, elapsed, moved } => {
                self.progress(id, &path, sent, total, elapsed, moved);
            }
            HostEvent::Burst { files, bytes, elapsed } => self.burst(id, files, bytes, elapsed),
            HostEvent::Notice(text) => self.state("note", &format!("{}{text}", self.label(id))),
            HostEvent::Lost { path, now_there } => {
                let there = now_there.map_or_else(
                    || "is not there any more".to_owned(),
                    |bytes| format!("has {} there now", count(bytes, "byte")),
                );
                // A board that lost one file may have lost hundreds.
                if !self.has_lost[id] || self.screen.verbose {
                    let label = self.label(id);
                    self.problem(&format!(
                        "{label}{path}: it {there}: what was lost is sent again"
                    ));
                }
                self.has_lost[id] = true;
            }
            HostEvent::Synced { sent, unchanged, failed } => {
                let done = if self.dry_run { "to be sent" } else { "sent" };
                let mut facts = vec![format!("{} {done}", count(sent, "file"))];
                if unchanged > 0 {
                    facts.push(format!("{unchanged} there already"));
                }
                if failed > 0 {
                    facts.push(format!("{failed} not sent"));
                }
                self.state("in sync", &format!("{}{}", self.label(id), facts.join(", ")));
            }
            HostEvent::File { path, outcome, .. } => self.outcome(id, &path, outcome),
            HostEvent::Retrying { path, cause, wait } => {
                self.drop_bar(id);
                let known = self.retried.insert((id, path.clone()), cause.clone());
                // Said once; and once more should it be given up.
                if known.as_ref() != Some(&cause) || self.screen.verbose {
                    let (label, wait) = (self.label(id), seconds(wait));
                    self.problem(&format!("{label}{path}: {cause}; trying again in {wait}"));
                }
            }
            HostEvent::RemoteCommand { command, answer } => self.remote(id, &command, answer),
            HostEvent::Closed => {
                self.drop_bar(id);
                self.drop_burst(id);
            }
        }
    }

    fn outcome(&mut self, id: HostId, path: &RelPath, outcome: Outcome) {
        self.drop_bar(id);
        self.retried.remove(&(id, path.clone()));
        match outcome {
            Outcome::Sent { bytes, took, .. } => {
                let facts = format!("{:>9}  {:>7}", size(bytes), seconds(took));
                self.file(path, &facts, Some(id));
            }
            Outcome::Renamed { from, took } => {
                let facts = format!("renamed from {from}  {}", seconds(took));
                self.file(path, &facts, Some(id));
            }
            Outcome::Removed => self.file(path, "removed", Some(id)),
            Outcome::WouldRemove => self.file(path, "would remove", Some(id)),
            Outcome::WouldSend { bytes } => {
                self.file(path, &format!("{:>9}  would send", size(bytes)), Some(id));
            }
            Outcome::Unchanged { .. } => self.detail(path, "unchanged since it was sent"),
            Outcome::Vanished => self.detail(path, "gone before it was sent"),
            Outcome::Declined(cause) => self.problem(&format!("{path}: not sent: {cause}")),
            Outcome::Failed(cause) => {
                self.problem(&format!("{}{path}: not sent: {cause}", self.label(id)));
            }
        }
    }

    fn remote(&mut self, id: HostId, command: &str, answer: Answer) {
        let (label, command) = (self.label(id), one_line(command));
        match answer {
            Answer::Done(words) => {
                self.line("**", &shown(&format!("{label}{command}")), Color::Green);
                for line in words.lines() {
                    self.line("**", &format!("  {}", shown(line)), Color::BrightBlack);
                }
            }
            Answer::None => {
                self.line("**", &shown(&format!("{label}{command} (no answer)")), Color::Green);
            }
            Answer::WouldRun => {
                self.line("**", &shown(&format!("{label}would run: {command}")), Color::Blue);
            }
            Answer::Failed(cause) => {
                self.problem(&format!("{label}remote command failed: {command}: {cause}"));
            }
        }
    }

    fn script(&mut self, path: &RelPath, script: &str, what: ScriptEvent) {
        match what {
            // A script's own words are shown even when all is quiet: they are why it failed.
            ScriptEvent::Line(line) => {
                let name = self.out.paint("**", Color::Cyan);
                self.print(&format!("{name} {}", shown(&line)));
            }
            ScriptEvent::Done(took) => {
                let facts = format!("{script}  {}", seconds(took));
                self.file(path, &facts, None);
            }
            ScriptEvent::Failed(cause) => self.problem(&format!("{path}: {script}: {cause}")),
        }
    }

    fn progress(
        &mut self,
        id: HostId,
        path: &RelPath,
        sent: u64,
        total: u64,
        elapsed: Duration,
        moved: bool,
    ) {
        if self.screen.quiet {
            return;
        }
        let label = self.label(id);
        let bars = &self.bars;
        let bar = self.bar_of.entry(id).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(total));
            if let Ok(style) = ProgressStyle::with_template("   {msg} {wide_bar} {prefix}") {
                bar.set_style(style);
            }
            bar.set_message(shown(&shortened_to(&format!("{label}{path}"), 24)));
            bar
        });
        bar.set_length(total.max(sent));
        bar.set_position(sent);
        let left = elapsed.mul_f64(total.saturating_sub(sent) as f64 / sent.max(1) as f64);
        let state = if moved { format!("{} left", seconds(left)) } else { "stalled".to_owned() };
        bar.set_prefix(format!("{} of {}, {state}", size(sent), size(total)));
    }

    fn burst(
        &mut self,
        id: HostId,
        (done, files): (usize, usize),
        (sent, bytes): (u64, u64),
        elapsed: Duration,
    ) {
        if done >= files || self.screen.quiet {
            return self.drop_burst(id);
        }
        let label = self.label(id);
        let bars = &self.bars;
        let bar = self.burst_of.entry(id).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(0));
            if let Ok(style) = ProgressStyle::with_template("   {msg} {wide_bar} {prefix}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_length(files as u64);
        bar.set_position(done as u64);
        bar.set_message(shown(&format!("{label}{done} of {}", count(files, "file"))));
        // A file takes its time for being one, and for its bytes.
        let share = done as f64 / files as f64;
        let share =
            f64::midpoint(share, if bytes > 0 { sent as f64 / bytes as f64 } else { share });
        let left = seconds(elapsed.mul_f64((1.0 - share) / share.max(0.001)));
        bar.set_prefix(format!("{} of {}, {left} left", size(sent), size(bytes)));
    }

    fn drop_burst(&mut self, id: HostId) {
        if let Some(bar) = self.burst_of.remove(&id) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn drop_bar(&mut self, id: HostId) {
        if let Some(bar) = self.bar_of.remove(&id) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn summary(&mut self, summary: &Summary) {
        for bar in self.bar_of.values().chain(self.burst_of.values()) {
            bar.finish_and_clear();
        }
        let files = usize::try_from(summary.files).unwrap_or(usize::MAX);
        let mut done = Vec::new();
        if !self.hosts.is_empty() {
            done.push(format!("{} sent ({})", count(files, "file"), size(summary.bytes)));
        }
        if let Some((times, bytes)) = summary.fetched {
            let times = usize::try_from(times).unwrap_or(usize::MAX);
            done.push(format!("{} fetched ({})", count(times, "file"), size(bytes)));
        }
        self.state("done", &done.join(", "));
        if !summary.unprocessed.is_empty() {
            self.problem(&format!("not processed: {}", names(&summary.unprocessed)));
        }
        for (host, paths) in self.hosts.iter().zip(&summary.undelivered) {
            if !paths.is_empty() {
                let to = if self.hosts.len() > 1 { format!(" to {host}") } else { String::new() };
                self.problem(&format!("not delivered{to}: {}", names(paths)));
            }
        }
    }

    /// `host: ` where there are several.
    fn label(&self, id: HostId) -> String {
        match self.hosts.len() {
            1 => String::new(),
            _ => format!("{}: ", self.hosts[id]),
        }
    }

    fn setting(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.state(name, value);
        }
    }

    fn state(&mut self, name: &str, value: &str) {
        let value = shown(value);
        self.line("%%", &format!("{name:<9} {value}"), Color::Green);
    }

    fn file(&mut self, path: &RelPath, facts: &str, host: Option<HostId>) {
        let host = match host {
            Some(id) if self.hosts.len() > 1 => format!("  {}", self.hosts[id]),
            _ => String::new(),
        };
        let colour = if self.dry_run { Color::Blue } else { Color::Green };
        self.file_line(">>", path, &format!("{facts}{host}"), colour);
    }

    fn file_line(&mut self, mark: &str, path: &RelPath, facts: &str, colour: Color) {
        let time = Local::now().format("%H:%M:%S");
        let (path, facts) = (shown(path.as_str()), shown(facts));
        self.line(mark, &format!("{time} {path:<24} {facts}"), colour);
    }

    fn detail(&mut self, path: &RelPath, why: &str) {
        if self.screen.verbose {
            let time = Local::now().format("%H:%M:%S");
            let text = format!("{time} {:<24} {why}", shown(path.as_str()));
            self.line("--", &text, Color::BrightBlack);
        }
    }

    /// `text` must be printable already.
    fn line(&mut self, mark: &str, text: &str, colour: Color) {
        if !self.screen.quiet {
            self.print(&format!("{} {text}", self.out.paint(mark, colour)));
        }
    }

    fn print(&self, line: &str) {
        let _screen = terminal::screen();
        let result = self.bars.suspend(|| self.out.write(line));
        if result.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            let _ = self.unread.try_send(());
        }
    }

    fn problem(&self, text: &str) {
        let time = Local::now().format("%H:%M:%S");
        let line = format!("!! {time} {}", shown(text));
        let line = self.err.paint(&line, Color::Red);
        let _screen = terminal::screen();
        // Nobody can be told that stderr is closed.
        let _ = self.bars.suspend(|| self.err.write(&line));
    }
}

fn shown(text: &str) -> String {
    printable(text).into_owned()
}

/// The lines of a command or a reply side by side.
fn one_line(text: &str) -> String {
    text.split(['\0', '\n'])
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// A greeting without its ornaments.
fn plain(text: &str) -> String {
    let text = one_line(text);
    let text = text.trim_matches(|c: char| "-*=. ".contains(c));
    // As in `(vsFTPd 3.0.3)`.
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    inner.filter(|inner| !inner.contains('(')).unwrap_or(text).to_owned()
}

fn names(paths: &[RelPath]) -> String {
    const NAMED: usize = 10;
    first_few(paths, NAMED)
}

fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// A time, as exactly as a person cares.
fn seconds(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{:.1} s", time.as_secs_f32()),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

/// The directory, with the person's home as `~`.
fn tilde(dir: &Path) -> String {
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    match home.as_ref().and_then(|home| dir.strip_prefix(home).ok()) {
        Some(rest) if rest.as_os_str().is_empty() => "~".to_owned(),
        Some(rest) => format!("~/{}", rest.display()),
        None => dir.display().to_string(),
    }
}

fn ignored(why: Why) -> &'static str {
    match why {
        Why::Own => "ignored: never sent",
        Why::Junk => "ignored: an editor's or a system's by-product",
        Why::Excluded => "ignored: excluded",
        Why::NotIncluded => "ignored: not included",
    }
}
