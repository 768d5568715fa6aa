//! Runs the real binary in a project of its own and listens to what it says.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::watched::{DEADLINE, Watched};

/// A directory to watch, with a home directory and whatever else the test needs beside it.
pub struct Project {
    temp: TempDir,
}

impl Project {
    pub fn new() -> Project {
        let project = Project { temp: TempDir::with_prefix("autoftp-test-").unwrap() };
        for name in ["project", "home"] {
            project.make_outside(name);
        }
        project
    }

    pub fn root(&self) -> PathBuf {
        self.outside("project")
    }

    pub fn home(&self) -> PathBuf {
        self.outside("home")
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    /// A path beside the project, on the same file system.
    pub fn outside(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    pub fn make_outside(&self, path: &str) -> PathBuf {
        let path = self.outside(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Saves a file in place, making its directories.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Waits until a file is there no more; a file system tells nobody, so this one looks again and
    /// again.
    pub fn wait_gone(&self, path: &str) {
        let begun = Instant::now();
        while self.has(path) {
            assert!(begun.elapsed() < DEADLINE, "{path} is still there");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A command in the project directory that nothing in the tester's own environment can change.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in
            ["NETRC", "AUTOFTP_PASSWORD", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR"]
        {
            command.env_remove(name);
        }
        for name in ["HOME", "USERPROFILE", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
            command.env(name, self.home());
        }
        command.current_dir(self.root()).stdin(Stdio::null());
        command
    }

    /// Where `autoftp` keeps what it knows of hosts.
    pub fn state(&self) -> PathBuf {
        self.home().join("autoftp")
    }

    /// The journal of the one host that there has been.
    pub fn journal(&self) -> PathBuf {
        let entries = fs::read_dir(self.state()).unwrap();
        let mut journals = entries.map(|entry| entry.unwrap().path()).filter(|path| {
            !path.extension().is_some_and(|extension| extension == "users" || extension == "turn")
        });
        let journal = journals.next().unwrap();
        assert_eq!(journals.next(), None);
        journal
    }

    /// Waits until the save of this file is noted in the journal: a kill does not undo it any more,
    /// and the lane knows of it.
    pub fn wait_ordered(&self, path: &str) {
        self.wait_ordered_by(1, path);
    }

    /// The same for several processes.
    pub fn wait_ordered_by(&self, processes: usize, path: &str) {
        let begun = Instant::now();
        let ends = format!(" {path}\t");
        let is_order = |line: &&str| line.starts_with('?') && line.ends_with(&ends);
        let orders = || {
            let journal = fs::read_to_string(self.journal()).unwrap();
            journal.lines().filter(is_order).count()
        };
        while orders() < processes {
            assert!(begun.elapsed() < DEADLINE, "{path} was not ordered");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn autoftp(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_autoftp"));
        command.args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Autoftp {
        Autoftp::spawn(self.autoftp(args))
    }

    /// Runs with what is known in another project, too: of one person, on one computer. Waits until
    /// saves are caught.
    pub fn watch_sharing(&self, other: &Project, args: &[&str]) -> Autoftp {
        let mut command = self.autoftp(args);
        command.env("XDG_STATE_HOME", other.home());
        let run = Autoftp::spawn(command);
        run.wait_for("watching");
        run
    }

    /// Runs, and waits until saves are caught.
    pub fn watch(&self, args: &[&str]) -> Autoftp {
        let run = self.run(args);
        run.wait_for("watching");
        run
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub stream: Stream,
    pub at: Instant,
    pub text: String,
}

#[derive(Default)]
struct Output {
    lines: Vec<Line>,
    ended: usize,
}

/// How much of what it said explains a failure.
const LAST_LINES: usize = 100;

/// A running `autoftp`: killed when dropped, and explained when dropped by a failing test.
pub struct Autoftp {
    command: String,
    directory: PathBuf,
    started: Instant,
    child: Child,
    output: Arc<Watched<Output>>,
}

impl Autoftp {
    pub fn spawn(mut command: Command) -> Autoftp {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::default();
        listen(child.stdout.take().unwrap(), Stream::Out, &output);
        listen(child.stderr.take().unwrap(), Stream::Err, &output);
        Autoftp {
            command: format!("{command:?}"),
            directory: command.get_current_dir().unwrap().to_path_buf(),
            started: Instant::now(),
            child,
            output,
        }
    }

    #[cfg(target_os = "linux")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains this text, on either stream.
    pub fn wait_for(&self, text: &str) -> Line {
        self.wait_for_line(&format!("a line with {text:?}"), |line| line.text.contains(text))
    }

    /// Waits for an error that contains this text.
    pub fn wait_for_error(&self, text: &str) -> Line {
        self.wait_for_line(&format!("an error with {text:?}"), |line| {
            line.stream == Stream::Err && line.text.contains(text)
        })
    }

    pub fn wait_for_line(&self, what: &str, wanted: impl FnMut(&Line) -> bool) -> Line {
        self.find_line(wanted).unwrap_or_else(|| panic!("waited in vain for {what}"))
    }

    /// Waits for such a line; `None` after the deadline.
    pub fn find_line(&self, mut wanted: impl FnMut(&Line) -> bool) -> Option<Line> {
        self.output.wait(|output| output.lines.iter().find(|line| wanted(line)).cloned())
    }

    pub fn lines(&self) -> Vec<Line> {
        self.output.read(|output| output.lines.clone())
    }

    /// How many lines contain this text.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.text.contains(text)).count()
    }

    pub fn stdout(&self) -> String {
        self.text(Stream::Out)
    }

    pub fn stderr(&self) -> String {
        self.text(Stream::Err)
    }

    fn text(&self, stream: Stream) -> String {
        self.lines()
            .iter()
            .filter(|line| line.stream == stream)
            .map(|line| line.text.clone() + "\n")
            .collect()
    }

    /// Ends it the way a power cut does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end: the exit code, or 128 and the number of the signal, as a shell shows it.
    pub fn wait_exit(&mut self) -> i32 {
        let ended = self.output.wait(|output| (output.ended == 2).then_some(()));
        assert!(ended.is_some(), "waited in vain for the end");
        let status = self.child.wait().unwrap();
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return 128 + signal;
        }
        status.code().unwrap()
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// Ctrl-C.
    #[cfg(unix)]
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Ends it as a person does, and waits until it has drained: the exit code.
    pub fn interrupt_and_wait(&mut self) -> i32 {
        #[cfg(unix)]
        {
            self.interrupt();
            self.wait_exit()
        }
        #[cfg(not(unix))]
        {
            // No Ctrl-C reaches a single process here. Once it is quiet it has drained.
            let mut said = usize::MAX;
            while std::mem::replace(&mut said, self.lines().len()) != said {
                thread::sleep(Duration::from_secs(1));
            }
            self.child.kill().unwrap();
            0
        }
    }

    /// The same, and expects that nothing was left undelivered.
    pub fn stop(&mut self) {
        assert_eq!(self.interrupt_and_wait(), 0, "exit code after Ctrl-C");
    }
}

impl Drop for Autoftp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "\n$ {}\n  in {}, ended with {status:?}",
                self.command,
                self.directory.display()
            );
            list(&self.directory, 1);
            let lines = self.lines();
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                let seconds = line.at.duration_since(self.started).as_secs_f32();
                eprintln!("{seconds:8.3} {:?} | {}", line.stream, line.text.escape_debug());
            }
        }
    }
}

fn listen(stream: impl Read + Send + 'static, name: Stream, output: &Arc<Watched<Output>>) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            // A carriage return of its own would be a server's or a file's doing.
            let end = if cfg!(windows) { "\r\n" } else { "\n" };
            let text = String::from_utf8_lossy(&bytes);
            let text = text.strip_suffix(end).unwrap_or(&text).to_owned();
            bytes.clear();
            output.update(|output| {
                output.lines.push(Line { stream: name, at: Instant::now(), text });
            });
        }
        output.update(|output| output.ended += 1);
    });
}

fn list(directory: &Path, depth: usize) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        eprintln!("{:indent$}{}", "", entry.file_name().display(), indent = depth * 4);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 4 {
            list(&entry.path(), depth + 1);
        }
    }
}
