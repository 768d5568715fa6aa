//! Saves, renames and deletes at random, while everything between `autoftp` and a real server fails
//! at random; when the failing ends, the server has to have what is here.
//!
//! `AUTOFTP_CHAOS_SAVES` says how many saves, over all modes; `AUTOFTP_CHAOS_SEED` which ones and
//! which failures. How the two meet is not up to the seed: a failure may take several runs to come
//! again.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "chaos/journal.rs"]
mod journal;
#[path = "chaos/random.rs"]
mod random;
#[path = "chaos/relay.rs"]
mod relay;
#[allow(dead_code, unused_imports, reason = "the other tests need more")]
mod support;
#[path = "chaos/writer.rs"]
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use journal::Journal;
use random::Random;
use relay::Relay;
use support::{Project, Server};
use writer::Writer;

const PATTERNS: &str = "*.py,*.txt,*.bin";
const ENDINGS: [&str; 3] = [".py", ".txt", ".bin"];

/// A file that is never touched.
const KEPT: &str = "kept.py";

/// Among this many tests the saves are divided.
const MODES: usize = 15;

/// How soon the server has to have everything once nothing fails any more: the longest pause before
/// a new session is 10 s.
const RECOVERY: Duration = Duration::from_secs(30);

/// The same in all the ways to send a file; the fastest one is what is taken without a word.
macro_rules! in_every_way {
    ($($way:ident: $args:expr,)*) => {
        $(mod $way {
            #[test]
            fn in_place() {
                crate::survive(&$args, &[]);
            }

            #[test]
            fn atomic() {
                crate::survive(&$args, &["--atomic"]);
            }

            #[test]
            fn mirror() {
                crate::survive(&$args, &["--mirror"]);
            }

            #[test]
            fn mirror_atomic() {
                crate::survive(&$args, &["--mirror", "--atomic"]);
            }

            #[test]
            fn poll() {
                crate::survive(&$args, &["--poll=0.1"]);
            }
        })*
    };
}

mod saves_survive_a_hostile_network {
    in_every_way! {
        plain: ["--transfer=serial"],
        eager: ["--transfer=overlapped"],
        ready: [],
    }
}

fn survive(way: &[&str], mode: &[&str]) {
    let saves = from_environment("AUTOFTP_CHAOS_SAVES").unwrap_or(2000) as usize / MODES;
    let trial = Trial::new(mode.contains(&"--mirror"));
    // Other saves and failures in each mode.
    let mode = &[way, mode].concat()[..];
    let salt: u64 = mode.concat().bytes().map(u64::from).sum();
    let mut random = Random::new(trial.seed.wrapping_add(salt));
    let server = Server::start(&trial.remote);
    let relay =
        Relay::start(server.host(), trial.remote.clone(), random.split(), trial.journal.clone());
    let mut writer = Writer::new(&trial.project, random.split(), trial.journal.clone());
    let host = relay.host();
    let args = [&["-p", PATTERNS, "--timeout", "0.5"], mode, &[&host]].concat();
    let mut run = trial.project.watch(&args);
    // A host that cannot be used from the start is given up, and rightly.
    run.wait_for("connected");

    // Without any file at all it would take the deletions for a disk that was taken away.
    trial.project.write(KEPT, "kept");
    relay.rage();
    (0..saves / 5).for_each(|_| writer.act());
    #[cfg(target_os = "linux")]
    let early = Usage::of(run.id());
    (saves / 5..saves).for_each(|_| writer.act());
    relay.calm();

    // All that was on its way is through when what comes last is.
    writer.put("the last.py", b"here".to_vec());
    trial.wait_until_settled();
    writer.delete("the last.py");
    trial.wait_until_settled();
    #[cfg(target_os = "linux")]
    {
        let late = Usage::of(run.id());
        println!("{early:?} after a fifth of the saves, {late:?} at the end");
        late.assert_like(&early);
    }
    run.stop();
    println!(
        "{mode:?}: {saves} saves, {} faults, {} sessions, {} uploads",
        trial.journal.count("FAULT"),
        run.count(": connected"),
        server.puts().len()
    );
    assert_eq!(trial.differences(), BTreeMap::new(), "after the end");
    let mut here = contents(&trial.project.root());
    here.retain(|path, _| !path.ends_with('/') && path != KEPT);
    assert!(here == *writer.files(), "the local files are not as saved");
}

/// The project and what the server holds; explains a failed test.
struct Trial {
    seed: u64,
    project: Project,
    remote: PathBuf,
    /// Whether the server has to have nothing else.
    mirror: bool,
    journal: Journal,
}

/// The sizes here and there.
type Sizes = (Option<usize>, Option<usize>);

impl Trial {
    fn new(mirror: bool) -> Trial {
        let project = Project::new();
        let remote = project.make_outside("remote");
        let trial = Trial { seed: seed(), project, remote, mirror, journal: Journal::new() };
        println!("AUTOFTP_CHAOS_SEED={}", trial.seed);
        trial
    }

    /// What the server should not have, or not like this.
    fn differences(&self) -> BTreeMap<String, Sizes> {
        let (here, there) = (contents(&self.project.root()), contents(&self.remote));
        let paths: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let differs = |path: &&String| match (here.get(*path), there.get(*path)) {
            (None, Some(_)) if path.ends_with('/') => self.mirror,
            _ if path.ends_with('/') => false,
            (_, there) if !matches(path) => there.is_some(),
            (None, Some(_)) => self.mirror,
            (here, there) => here != there,
        };
        let sizes = |path: &String| {
            (path.clone(), (here.get(path).map(Vec::len), there.get(path).map(Vec::len)))
        };
        paths.into_iter().filter(differs).map(sizes).collect()
    }

    /// Waits until the server has what it should; a file system tells nobody, so this one looks
    /// again and again.
    fn wait_until_settled(&self) {
        let begun = Instant::now();
        while !self.differences().is_empty() {
            assert!(begun.elapsed() < RECOVERY, "the server does not have what it should");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if thread::panicking() {
            let differences = self.differences();
            let paths: Vec<String> = differences.keys().cloned().collect();
            eprintln!("\nwhat failed, and what was done to these files: {paths:?}");
            self.journal.print(&paths);
            for (path, (here, there)) in differences {
                eprintln!("{path}: {here:?} bytes here, {there:?} on the server");
            }
            eprintln!("AUTOFTP_CHAOS_SEED={}", self.seed);
        }
    }
}

/// All files beneath a directory by their relative paths, and all directories, as `path/`.
fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        // The server changes while it is looked at: what is gone is gone.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if path.is_dir() {
                pending.push(path);
                files.insert(name + "/", Vec::new());
            } else if let Ok(content) = fs::read(&path) {
                files.insert(name, content);
            }
        }
    }
    files
}

fn matches(path: &str) -> bool {
    ENDINGS.iter().any(|ending| path.ends_with(ending))
}

/// One seed for all modes, unless it is given another one each time.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        from_environment("AUTOFTP_CHAOS_SEED").unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            u64::try_from(now.unwrap().as_millis()).unwrap()
        })
    })
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// What the process takes of the system.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Usage {
    kilobytes: usize,
    files: usize,
    threads: usize,
}

#[cfg(target_os = "linux")]
impl Usage {
    fn of(process: u32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Usage {
            kilobytes: number("VmRSS:"),
            files: fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
            threads: number("Threads:"),
        }
    }

    /// Nothing has piled up since.
    fn assert_like(&self, before: &Usage) {
        assert!(
            self.kilobytes < before.kilobytes + 4096
                && self.files <= before.files + 4
                && self.threads <= before.threads + 2,
            "it took {before:?} after a fifth of the saves and takes {self:?} now"
        );
    }
}
