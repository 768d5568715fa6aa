//! What autoftp takes of the computer while nothing happens. Linux tells it in `/proc`.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::measure::{Amount, millis};
use crate::stats::Values;
use crate::support::watched::DEADLINE;
use crate::support::{Autoftp, Project, Server};
use crate::tables::{Table, ms, number};
use crate::tools::Kind;

/// The files of the small project.
pub const SMALL: usize = 20;

/// Files in each directory.
pub const FILES: usize = 10;

/// Who has not woken up for so long is idle.
const GLANCE: Duration = Duration::from_millis(300);

/// What `/proc` tells of a process.
#[derive(Clone, Copy)]
pub struct Usage {
    /// In kilobytes.
    pub memory: u64,
    /// The most of it that there ever was.
    pub peak: u64,
    threads: u64,
    /// In ticks of 10 ms.
    pub ticks: u64,
    /// How often its threads went to sleep by themselves.
    waits: u64,
}

/// Every mode beside the others, in a small and a large project.
pub fn idle(kinds: &[Kind], amount: &Amount) -> io::Result<Table> {
    let mut table = Table::new(&[
        "idle",
        "files",
        "memory, MB",
        "threads",
        "CPU, ms",
        "wake-ups",
        "watching after, ms",
    ]);
    for directories in [SMALL / FILES, amount.large_tree] {
        if directories == 0 {
            continue;
        }
        let project = Project::new();
        grow(&project.root(), directories)?;
        let starts: Vec<_> =
            kinds.iter().map(|kind| time_starts(*kind, &project, amount.starts)).collect();
        let running: Vec<_> = kinds.iter().map(|kind| Running::start(*kind, &project)).collect();
        let before: Vec<_> = running.iter().map(Running::settled).collect();
        thread::sleep(amount.idle);
        for ((running, before), starts) in running.iter().zip(before).zip(starts) {
            let (before, after) = (before?, running.usage()?);
            table.row([
                running.kind.name(),
                (directories * FILES).to_string(),
                number(Some(after.memory as f64 / 1024.0), 1),
                after.threads.to_string(),
                (10 * (after.ticks - before.ticks)).to_string(),
                (after.waits - before.waits).to_string(),
                ms(starts.median()),
            ]);
        }
    }
    Ok(table)
}

pub fn grow(root: &Path, directories: usize) -> io::Result<()> {
    for number in 0..directories {
        let directory = root.join(format!("pkg{:03}/sub{:02}", number / 50, number % 50));
        fs::create_dir_all(&directory)?;
        for file in 0..FILES {
            fs::write(directory.join(format!("mod{file}.py")), "# nothing\n")?;
        }
    }
    Ok(())
}

/// Until saves are caught, in milliseconds.
fn time_starts(kind: Kind, project: &Project, starts: usize) -> Values {
    let server = Server::start(&project.make_outside("remote"));
    let address = server.host().parse().unwrap();
    let mut values = Values::default();
    for _ in 0..starts {
        let command = kind.in_project(project, address);
        let begun = Instant::now();
        let run = Autoftp::spawn(command);
        values.push(millis(run.wait_for("watching").at.duration_since(begun)));
        // The next one finds things as this one did.
        run.wait_for("connected");
        run.kill();
    }
    values
}

struct Running {
    kind: Kind,
    run: Autoftp,
    _server: Server,
}

impl Running {
    /// Connected, and with a state of its own.
    fn start(kind: Kind, project: &Project) -> Running {
        let server = Server::start(&project.make_outside("remote"));
        let mut command = kind.in_project(project, server.host().parse().unwrap());
        command.env("XDG_STATE_HOME", project.make_outside(&format!("state of {}", kind.name())));
        let run = Autoftp::spawn(command);
        run.wait_for("watching");
        run.wait_for("connected");
        Running { kind, run, _server: server }
    }

    /// Once what goes on after the start is over.
    fn settled(&self) -> io::Result<Usage> {
        let begun = Instant::now();
        loop {
            let before = self.usage()?;
            thread::sleep(GLANCE);
            let after = self.usage()?;
            if after.waits == before.waits || begun.elapsed() > DEADLINE {
                return Ok(after);
            }
        }
    }

    fn usage(&self) -> io::Result<Usage> {
        Usage::of(&self.run)
    }
}

impl Usage {
    #[cfg(target_os = "linux")]
    pub fn of(run: &Autoftp) -> io::Result<Usage> {
        let process = Path::new("/proc").join(run.id().to_string());
        let status = fs::read_to_string(process.join("status"))?;
        let stat = fs::read_to_string(process.join("stat"))?;
        let mut waits = 0;
        for task in fs::read_dir(process.join("task"))? {
            // A thread may have ended meanwhile.
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            waits += field(&status, "voluntary_ctxt_switches:");
        }
        // The name may have blanks; user and system time are the 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks = times.map(|ticks| ticks.parse::<u64>().unwrap_or_default()).sum();
        let value = |name| field(&status, name);
        let (memory, peak, threads) = (value("VmRSS:"), value("VmHWM:"), value("Threads:"));
        Ok(Usage { memory, peak, threads, ticks, waits })
    }

    #[cfg(not(target_os = "linux"))]
    pub fn of(run: &Autoftp) -> io::Result<Usage> {
        let _ = run;
        Err(io::Error::other("only Linux tells it"))
    }
}

/// A number in what `/proc/PID/status` says.
#[cfg(target_os = "linux")]
fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The program's size in bytes.
pub fn program() -> io::Result<u64> {
    Ok(fs::metadata(env!("CARGO_BIN_EXE_autoftp"))?.len())
}
