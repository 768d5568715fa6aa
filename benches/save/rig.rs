//! A tool with a project and a server of its own, and files that are saved there.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::measure::SMALL;
use crate::relay::{Heard, Relay};
use crate::support::{Project, Server};
use crate::tools::{Kind, Tool};

/// What is saved again and again.
pub const EDITED: &str = "app.py";

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// Whether what the servers store is kept in memory. Elsewhere the disk would be measured: replacing
/// a file can take ext4 a millisecond, many times what the tools take.
pub fn is_in_memory() -> bool {
    TempDir::new_in(MEMORY).is_ok()
}

/// Where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// On this computer, and nothing in between.
    Direct,
    /// Behind a relay.
    Relayed,
}

pub struct Rig {
    pub kind: Kind,
    // Stopped before its server is.
    tool: Box<dyn Tool>,
    relay: Option<Relay>,
    server: Server,
    remote: TempDir,
    project: Project,
    random: Random,
    /// When the last save was over.
    rested_since: Instant,
}

/// What became of a save.
pub struct Save {
    /// How long until the server had the whole new content; `None` if it did not come to that.
    pub stored: Option<Duration>,
    /// How long until the tool said so.
    pub known: Option<Duration>,
    /// What was said to the server, and how long after the save it arrived at the relay.
    pub said: Vec<(Duration, String)>,
    /// How often it was uploaded beyond once.
    pub doubled: usize,
}

/// What became of many saves at once.
pub struct Burst {
    /// How long until the server had all of it; `None` if it did not come to that.
    pub stored: Option<Duration>,
    pub missing: usize,
    pub wrong: usize,
    /// How often files were uploaded beyond once.
    pub doubled: usize,
}

impl Rig {
    /// Starts a tool in a project that has these files, and on the server, too. One save has gone
    /// through.
    pub fn start(kind: Kind, way: Way, files: &[String]) -> Rig {
        let project = Project::new();
        let remote = TempDir::new_in(MEMORY).or_else(|_| TempDir::new()).unwrap();
        let mut random = Random::new();
        for path in files.iter().map(String::as_str).chain([EDITED]) {
            project.write(path, random.text(SMALL));
            fs::create_dir_all(remote.path().join(path).parent().unwrap()).unwrap();
            fs::write(remote.path().join(path), random.text(SMALL)).unwrap();
        }
        let server = Server::start(remote.path());
        let address = server.host().parse().unwrap();
        let relay = (way == Way::Relayed).then(|| Relay::start(address).unwrap());
        let tool = kind.start(&project, relay.as_ref().map_or(address, Relay::address));
        let rested_since = Instant::now();
        let mut rig = Rig { kind, tool, relay, server, remote, project, random, rested_since };
        let first = rig.save(EDITED, SMALL);
        assert!(first.known.is_some(), "{} does not work here", kind.name());
        rig
    }

    pub fn set_round_trip(&self, round_trip: Duration) {
        self.relay.as_ref().unwrap().set_round_trip(round_trip);
    }

    /// Takes a pause that lasts at least that long since the last save, and a little more.
    pub fn pause(&mut self, at_least: Duration) {
        let more = Duration::from_millis(20 + self.random.below(60));
        std::thread::sleep((self.rested_since + at_least + more) - Instant::now());
    }

    /// Saves a file in place with new content, and sees it arrive.
    pub fn save(&mut self, path: &str, len: usize) -> Save {
        let content = self.random.text(len);
        let before = self.server.puts().len();
        let mut file = File::create(self.project.path(path)).unwrap();
        file.write_all(&content).unwrap();
        let paths = [path.to_owned()];
        let saved = Instant::now();
        drop(file);
        self.tool.tell(&paths);
        let stored = self.server.wait_puts(|puts| {
            let put = puts[before..].iter().rfind(|put| put.path == path)?;
            self.has(path, &content).then_some(put.at)
        });
        let known = self.tool.wait_known(&paths, saved).filter(|_| stored.is_some());
        self.rested_since = Instant::now();
        let doubled = self.server.puts().len().saturating_sub(before + 1);
        let heard = self.relay.as_ref().map(|relay| relay.heard_since(saved)).unwrap_or_default();
        let since = |at: Instant| at.duration_since(saved);
        let said = heard.into_iter().map(|Heard { at, line }| (since(at), line)).collect();
        Save { stored: stored.map(since), known: known.map(since), said, doubled }
    }

    /// Saves all of these files at once, of 1 to 5 kB, and sees them arrive.
    pub fn burst(&mut self, paths: &[String]) -> Burst {
        let contents: Vec<_> = paths.iter().map(|_| self.random.text_of(1000, 5000)).collect();
        let before = self.server.puts().len();
        let saved = Instant::now();
        for (path, content) in paths.iter().zip(&contents) {
            fs::write(self.project.path(path), content).unwrap();
        }
        self.tool.tell(paths);
        let is_there = |(path, content): &(&String, &Vec<u8>)| self.has(path, content);
        let all = || paths.iter().zip(&contents);
        let mut seen = before;
        let mut stored = None;
        while stored.is_none()
            && let Some((at, count)) = self.server.wait_puts(|puts| {
                let last = puts.last().filter(|_| puts.len() > seen)?;
                Some((last.at, puts.len()))
            })
        {
            seen = count;
            // Before there were as many uploads as files, it is no use to look.
            if count >= before + paths.len() && all().all(|file| is_there(&file)) {
                stored = Some(at.duration_since(saved));
            }
        }
        let missing = |path: &&String| !self.server.puts()[before..].contains(path);
        let missing = paths.iter().filter(missing).count();
        let wrong = all().filter(|file| !is_there(file)).count() - missing;
        self.tool.wait_known(paths, saved);
        // Who is through with a later save has nothing left of these.
        self.save(EDITED, SMALL);
        let uploads = self.server.puts()[before..].iter().filter(|put| *put != EDITED).count();
        let doubled = uploads.saturating_sub(paths.len() - missing);
        Burst { stored, missing, wrong, doubled }
    }

    fn has(&self, path: &str, content: &[u8]) -> bool {
        fs::read(self.remote.path().join(path)).is_ok_and(|bytes| bytes == content)
    }
}

/// Contents and pauses, the same in each run (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        let letters = words.flatten().map(|byte| b'a' + byte % 26);
        letters.take(len).collect()
    }

    fn text_of(&mut self, least: u64, most: u64) -> Vec<u8> {
        let len = least + self.below(most - least + 1);
        self.text(len as usize)
    }
}
