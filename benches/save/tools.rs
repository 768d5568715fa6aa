//! What brings saves to a server: autoftp in each of its modes, and others where they are installed.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use crate::support::watched::DEADLINE;
use crate::support::{Autoftp, Project};

/// The ways of transfer beside each other, where this autoftp knows of them.
const MODES: [&str; 3] = ["serial", "overlapped", "prepared"];

/// Without it, lftp would ask for TLS first, which the others do not.
const LFTP_SETTINGS: &str = "set ftp:ssl-allow no";

/// Sends each file whose name it reads over one session, and says so.
const PYTHON: &str = "\
import ftplib, sys
ftp = ftplib.FTP()
ftp.connect(sys.argv[1], int(sys.argv[2]))
ftp.login()
for line in sys.stdin:
    path = line.rstrip('\\n')
    with open(path, 'rb') as file:
        ftp.storbinary('STOR ' + path, file)
    print('stored', path, flush=True)
";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it is, or with this `--transfer`.
    Autoftp(Option<&'static str>),
    Curl,
    Lftp,
    Python,
}

impl Kind {
    /// All that there are here.
    pub fn installed() -> Vec<Kind> {
        let mut kinds = Kind::modes();
        let others = [Kind::Curl, Kind::Lftp, Kind::Python];
        let (here, missing): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|kind| kind.version().is_some());
        for kind in missing {
            println!("{} is not installed, and left out.", kind.name());
        }
        kinds.extend(here);
        kinds
    }

    /// autoftp's own.
    pub fn modes() -> Vec<Kind> {
        let help = said(Kind::Autoftp(None).program(), "--help").unwrap_or_default();
        let modes = if help.contains("--transfer") { &MODES[..] } else { &[] };
        let chosen = modes.iter().map(|mode| Kind::Autoftp(Some(mode)));
        std::iter::once(Kind::Autoftp(None)).chain(chosen).collect()
    }

    pub fn is_autoftp(self) -> bool {
        matches!(self, Kind::Autoftp(_))
    }

    pub fn name(self) -> String {
        match self {
            Kind::Autoftp(None) => "autoftp".to_owned(),
            Kind::Autoftp(Some(mode)) => format!("autoftp, {mode}"),
            Kind::Curl => "curl".to_owned(),
            Kind::Lftp => "lftp".to_owned(),
            Kind::Python => "Python ftplib".to_owned(),
        }
    }

    /// How it is run, for a person.
    pub fn command(self) -> String {
        match self {
            Kind::Autoftp(None) => "autoftp HOST".to_owned(),
            Kind::Autoftp(Some(mode)) => format!("autoftp --transfer={mode} HOST"),
            Kind::Curl => "curl -sS -T FILE ftp://HOST/FILE".to_owned(),
            Kind::Lftp => format!("lftp <<< '{LFTP_SETTINGS}; open ftp://HOST; put FILE; ...'"),
            Kind::Python => "python3: login(), then storbinary('STOR FILE', ...), ...".to_owned(),
        }
    }

    /// What it does for a save.
    pub fn work(self) -> &'static str {
        match self {
            Kind::Autoftp(_) => "notices the save itself; one session for all",
            Kind::Curl => "is told of the save; a process and a session for each",
            Kind::Lftp | Kind::Python => "is told of the save; one session for all",
        }
    }

    /// What it says of its version, in one line.
    pub fn version(self) -> Option<String> {
        let said = said(self.program(), "--version")?;
        let line = said.lines().find(|line| !line.trim().is_empty())?;
        // curl names all its libraries, and lftp its author.
        let is_part = |word: &&str| !word.contains('(') && !word.starts_with("lib");
        let words: Vec<_> = line.split_whitespace().take_while(is_part).collect();
        Some(words.join(" ").replace(" | Version", "").replace(" | Copyright", ""))
    }

    fn program(self) -> &'static str {
        match self {
            Kind::Autoftp(_) => env!("CARGO_BIN_EXE_autoftp"),
            Kind::Curl => "curl",
            Kind::Lftp => "lftp",
            Kind::Python => "python3",
        }
    }

    /// Its command in a project, for a server at this address.
    pub fn in_project(self, project: &Project, server: SocketAddr) -> Command {
        let mut command = project.command(self.program());
        match self {
            Kind::Autoftp(mode) => {
                command.args(mode.map(|mode| format!("--transfer={mode}")));
                command.arg(server.to_string())
            }
            Kind::Curl => command.arg("-sS"),
            Kind::Lftp => &mut command,
            Kind::Python => {
                command.args(["-c", PYTHON, &server.ip().to_string(), &server.port().to_string()])
            }
        };
        command
    }

    /// Starts it, and waits until it is ready to be told of saves, or to catch them.
    pub fn start(self, project: &Project, server: SocketAddr) -> Box<dyn Tool> {
        let command = self.in_project(project, server);
        match self {
            Kind::Autoftp(_) => {
                let run = Autoftp::spawn(command);
                run.wait_for("watching");
                run.wait_for("connected");
                Box::new(run)
            }
            Kind::Curl => Box::new(Curl { command, server, told: None }),
            Kind::Lftp => {
                let mut told = Told::start(command, put_by_lftp);
                told.say(&format!("{LFTP_SETTINGS}; open ftp://{server}"));
                Box::new(told)
            }
            Kind::Python => Box::new(Told::start(command, str::to_owned)),
        }
    }
}

/// What a program prints to an option that asks for nothing else; `None` where it is not installed.
pub fn said(program: &str, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A tool that is ready for saves in its project.
pub trait Tool {
    /// These files were saved just now.
    fn tell(&mut self, paths: &[String]);

    /// Waits until it says that all of them are stored, which were saved at that time; returns when
    /// it said so, or `None` after the deadline or when it said that something went wrong.
    fn wait_known(&mut self, paths: &[String], saved: Instant) -> Option<Instant>;
}

/// Is not told of anything: it watches.
impl Tool for Autoftp {
    fn tell(&mut self, _: &[String]) {}

    fn wait_known(&mut self, paths: &[String], saved: Instant) -> Option<Instant> {
        let says = |path: &String| {
            let says_so = |text: &str| {
                text.starts_with(">>") && text.split_whitespace().nth(2) == Some(path.as_str())
            };
            let line = self.find_line(|line| line.at > saved && says_so(&line.text))?;
            Some(line.at)
        };
        paths.iter().map(says).try_fold(saved, |latest, at| Some(latest.max(at?)))
    }
}

/// One process for all files that it is told of at once.
struct Curl {
    command: Command,
    server: SocketAddr,
    told: Option<Receiver<(Instant, bool)>>,
}

impl Tool for Curl {
    fn tell(&mut self, paths: &[String]) {
        let mut command = Command::new(self.command.get_program());
        command.args(self.command.get_args());
        command.current_dir(self.command.get_current_dir().unwrap()).stdin(Stdio::null());
        for path in paths {
            command.args(["-T", path, &format!("ftp://{}/{path}", self.server)]);
        }
        let mut child = command.spawn().unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let status = child.wait().unwrap();
            let _ = tell.send((Instant::now(), status.success()));
        });
        self.told = Some(told);
    }

    fn wait_known(&mut self, _: &[String], _: Instant) -> Option<Instant> {
        let (at, is_good) = self.told.take()?.recv_timeout(DEADLINE).ok()?;
        is_good.then_some(at)
    }
}

/// A process that reads what to send, and says what it has sent.
struct Told {
    child: Child,
    input: ChildStdin,
    lines: Receiver<(Instant, String)>,
    /// What it is told of a file.
    order: fn(&str) -> String,
}

impl Told {
    fn start(mut command: Command, order: fn(&str) -> String) -> Told {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = tell.send((Instant::now(), line));
            }
        });
        Told { child, input, lines, order }
    }

    fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

impl Tool for Told {
    fn tell(&mut self, paths: &[String]) {
        let orders: Vec<String> = paths.iter().map(|path| (self.order)(path)).collect();
        self.say(&orders.join("\n"));
    }

    fn wait_known(&mut self, paths: &[String], saved: Instant) -> Option<Instant> {
        paths.iter().try_fold(saved, |_, path| {
            loop {
                let (at, line) = self.lines.recv_timeout(DEADLINE).ok()?;
                if line.strip_prefix("stored ") == Some(path) {
                    return Some(at);
                }
            }
        })
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put_by_lftp(path: &str) -> String {
    let to = path.rsplit_once('/').map_or(String::new(), |(dir, _)| format!("-O {dir} "));
    format!("put {to}{path} && echo stored {path}")
}
