//! Boards that fetch: how soon a fleet of them has what was saved, and what that takes of the
//! computer. The boards are threads of this process that speak as the published client for
//! MicroPython does: HTTP/1.0, a connection for each request, an answer ends with it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::footprint::{FILES, SMALL, Usage, grow};
use crate::measure::{self, Amount, millis};
use crate::rig::{EDITED, Random};
use crate::stats::Values;
use crate::support::watched::DEADLINE;
use crate::support::{Autoftp, Project};
use crate::tables::{Table, ms, number};

/// So many fetch at once.
pub const BOARDS: usize = 200;

/// The size of the file that they fetch, in bytes.
pub const LEN: usize = 50_000;

/// The directories of the large project.
const LARGE: usize = 1000;

/// How often a board asks.
const EVERY: Duration = Duration::from_secs(1);

/// For how long it has the server wait, in seconds.
const WAIT: u64 = 30;

/// The pause of who asks all the time.
const BREATH: Duration = Duration::from_millis(1);

/// Until all that belongs to an update is over.
const AFTERWARDS: Duration = Duration::from_millis(250);

/// All that a board's thread needs.
const STACK: usize = 64 * 1024;

/// What came out.
pub struct Outcome {
    pub fleet: Table,
    pub versions: Table,
    /// What was not answered, or with something else than it should.
    pub failed: usize,
}

/// How a board comes to know of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It asks again and again.
    Asks,
    /// It has the server answer when there is one.
    Waits,
}

impl Way {
    /// What it asks for, given what it has.
    fn target(self, version: &str) -> String {
        match self {
            Way::Asks => "/files/version".to_owned(),
            Way::Waits => format!("/files/version?wait={WAIT}&version={version}"),
        }
    }
}

/// All that is to be known of boards that fetch.
pub fn measure(amount: &Amount) -> io::Result<Outcome> {
    let (mut failed, mut random) = (0, Random::new());
    let mut fleet = Table::new(&[
        &format!("{BOARDS} boards that"),
        "last has it, ms",
        "worst",
        "median board, ms",
        "failed",
        "CPU for it, ms",
        "CPU in a minute without, ms",
        "memory, MB",
        "at most, MB",
    ]);
    for (name, way) in [
        ("are switched off", None),
        ("ask once a second", Some(Way::Asks)),
        ("wait for an answer", Some(Way::Waits)),
    ] {
        let series = updates(way, amount, &mut random)?;
        failed += series.failed;
        fleet.row([
            name.to_owned(),
            ms(series.last.median()),
            ms(series.last.worst()),
            ms(series.each.median()),
            series.failed.to_string(),
            number(series.cpu_each, 0),
            number(series.cpu_idle.map(|share| share * 60_000.0), 0),
            number(series.memory, 1),
            number(series.peak, 1),
        ]);
    }
    let mut versions =
        Table::new(&["a client that", "files", "median, ms", "p95", "worst", "failed"]);
    for directories in [SMALL / FILES, LARGE] {
        let project = Project::new();
        grow(&project.root(), directories)?;
        project.write(EDITED, random.text(measure::SMALL));
        let server = Server::start(project);
        for (name, way) in
            [("waits for an answer", Way::Waits), ("asks again after 1 ms", Way::Asks)]
        {
            let mut times = Values::default();
            let mut wrong = 0;
            for _ in 0..amount.versions {
                match server.time_version(way, &mut random)? {
                    Some(time) => times.push(millis(time)),
                    None => wrong += 1,
                }
            }
            failed += wrong;
            versions.row([
                name.to_owned(),
                (directories * FILES + 1).to_string(),
                ms(times.median()),
                ms(times.p95()),
                ms(times.worst()),
                wrong.to_string(),
            ]);
        }
    }
    Ok(Outcome { fleet, versions, failed })
}

/// What became of several saves.
#[derive(Default)]
struct Series {
    /// Until the last board had each, in milliseconds.
    last: Values,
    /// Until each of the boards had each.
    each: Values,
    failed: usize,
    /// What an update took beyond what passes without, in milliseconds.
    cpu_each: Option<f64>,
    /// The share of a processor that is taken without.
    cpu_idle: Option<f64>,
    /// Before the updates, in megabytes.
    memory: Option<f64>,
    /// The most there ever was.
    peak: Option<f64>,
}

/// Saves a file for a fleet again and again, or for nobody.
fn updates(way: Option<Way>, amount: &Amount, random: &mut Random) -> io::Result<Series> {
    let project = Project::new();
    grow(&project.root(), SMALL / FILES)?;
    project.write(EDITED, random.text(LEN));
    let server = Server::start(project);
    let fleet = way.map(|way| Fleet::start(way, server.address)).transpose()?;
    // All of them have asked once.
    thread::sleep(2 * EVERY);
    let mut series = Series::default();
    let idle = Cpu::of(&server, || thread::sleep(amount.fleet_idle));
    series.cpu_idle = idle.share();
    series.memory = server.usage().map(|usage| usage.memory as f64 / 1024.0);
    if let Some(fleet) = fleet {
        let (mut between, mut during) = (Cpu::default(), Cpu::default());
        for _ in 0..amount.updates {
            let pause = Duration::from_millis(500 + random.below(1000));
            between += Cpu::of(&server, || thread::sleep(pause));
            during += Cpu::of(&server, || {
                fleet.update(&server, random, &mut series);
                thread::sleep(AFTERWARDS);
            });
        }
        series.cpu_each = between
            .share()
            .zip(during.taken)
            .map(|(share, taken)| (taken - share * during.passed).max(0.0) / amount.updates as f64);
        series.failed += fleet.end(server, &mut series.peak);
    }
    Ok(series)
}

/// CPU time, and how long that took, in milliseconds.
struct Cpu {
    taken: Option<f64>,
    passed: f64,
}

impl Cpu {
    /// What the server takes meanwhile.
    fn of(server: &Server, work: impl FnOnce()) -> Cpu {
        let (before, begun) = (server.usage(), Instant::now());
        work();
        let (after, passed) = (server.usage(), millis(begun.elapsed()));
        let ticks = before.zip(after).map(|(before, after)| after.ticks - before.ticks);
        Cpu { taken: ticks.map(|ticks| 10.0 * ticks as f64), passed }
    }

    /// The share of a processor.
    fn share(&self) -> Option<f64> {
        Some(self.taken? / self.passed)
    }
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu { taken: Some(0.0), passed: 0.0 }
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, more: Cpu) {
        self.taken = self.taken.zip(more.taken).map(|(taken, more)| taken + more);
        self.passed += more.passed;
    }
}

/// autoftp, and what it serves.
struct Server {
    // Stopped before its project is removed.
    run: Autoftp,
    project: Project,
    address: SocketAddr,
}

impl Server {
    fn start(project: Project) -> Server {
        let run = project.watch(&["--serve", "127.0.0.1:0"]);
        let line = run.wait_for("http://");
        let url = line.text.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let address = url.unwrap().parse().unwrap();
        Server { run, project, address }
    }

    /// `None` where the system does not tell.
    fn usage(&self) -> Option<Usage> {
        Usage::of(&self.run).ok()
    }

    /// Saves the file in place; returns when.
    fn save(&self, content: &[u8]) -> Instant {
        let mut file = File::create(self.project.path(EDITED)).unwrap();
        file.write_all(content).unwrap();
        let saved = Instant::now();
        drop(file);
        saved
    }

    /// How long it takes from a save until a client knows that there is a new version; `None` if that
    /// is not of what was saved.
    fn time_version(&self, way: Way, random: &mut Random) -> io::Result<Option<Duration>> {
        let content = random.text(measure::SMALL);
        let version = version(&get(self.address, "/files/version")?);
        let pause = Duration::from_millis(60 + random.below(60));
        let (saved, known) = match way {
            Way::Waits => {
                let stream = ask(self.address, &way.target(&version))?;
                thread::sleep(pause);
                let saved = self.save(&content);
                answer(stream)?;
                (saved, Instant::now())
            }
            Way::Asks => {
                thread::sleep(pause);
                let saved = self.save(&content);
                while get(self.address, "/files/version")
                    .map(|answer| self::version(&answer) == version)?
                    && saved.elapsed() < DEADLINE
                {
                    thread::sleep(BREATH);
                }
                (saved, Instant::now())
            }
        };
        let list = get(self.address, "/files")?;
        let checksum = files(&list).find(|(path, _)| *path == EDITED).map(|(_, checksum)| checksum);
        let Some(checksum) = checksum else { return Ok(None) };
        let is_new = self::version(&list) != version
            && get(self.address, &format!("/file/{checksum}"))? == content;
        Ok(is_new.then(|| known - saved))
    }
}

/// Boards that have what was there when they were switched on.
struct Fleet {
    boards: Vec<JoinHandle<()>>,
    /// When somebody has which content of the file.
    fetched: Receiver<(Instant, Vec<u8>)>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_over: AtomicBool,
    /// How often something else was answered than was to be.
    failed: AtomicUsize,
}

impl Fleet {
    fn start(way: Way, server: SocketAddr) -> io::Result<Fleet> {
        let (tell, fetched) = mpsc::channel();
        let state = Arc::<State>::default();
        let begun = Instant::now();
        let boards = (0..BOARDS).map(|number| {
            let mut board =
                Board { way, server, version: String::new(), files: None, tell: tell.clone() };
            let state = Arc::clone(&state);
            let mut next = begun + EVERY * number as u32 / BOARDS as u32;
            let run = move || {
                while !state.is_over.load(Ordering::Relaxed) {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    let is_failed = board.turn().is_err();
                    if is_failed && !state.is_over.load(Ordering::Relaxed) {
                        state.failed.fetch_add(1, Ordering::Relaxed);
                    }
                    if way == Way::Asks || is_failed {
                        next += EVERY;
                    }
                }
            };
            thread::Builder::new().stack_size(STACK).spawn(run)
        });
        Ok(Fleet { boards: boards.collect::<io::Result<_>>()?, fetched, state })
    }

    /// Saves the file, and sees it arrive at all boards.
    fn update(&self, server: &Server, random: &mut Random, series: &mut Series) {
        let content = random.text(LEN);
        // What came too late for the one before.
        series.failed += self.fetched.try_iter().count();
        let saved = server.save(&content);
        let mut arrived = Vec::new();
        for _ in 0..BOARDS {
            match self.fetched.recv_timeout(DEADLINE) {
                Ok((at, fetched)) if fetched == content => arrived.push(millis(at - saved)),
                Ok(_) => series.failed += 1,
                Err(_) => {
                    series.failed += 1;
                    break;
                }
            }
        }
        if arrived.len() == BOARDS {
            series.last.push(arrived.iter().copied().fold(0.0, f64::max));
        }
        arrived.into_iter().for_each(|time| series.each.push(time));
    }

    /// Switches all off; returns how often something went wrong.
    fn end(self, server: Server, peak: &mut Option<f64>) -> usize {
        self.state.is_over.store(true, Ordering::Relaxed);
        *peak = server.usage().map(|usage| usage.peak as f64 / 1024.0);
        // Whoever waits for an answer waits no longer.
        server.run.kill();
        for board in self.boards {
            board.join().unwrap();
        }
        // What came twice.
        self.state.failed.load(Ordering::Relaxed) + self.fetched.try_iter().count()
    }
}

struct Board {
    way: Way,
    server: SocketAddr,
    version: String,
    /// The checksums of what it has; nothing until it has asked for the first time.
    files: Option<HashMap<String, String>>,
    tell: Sender<(Instant, Vec<u8>)>,
}

impl Board {
    /// Asks for the version, and for what has changed when it is another one.
    fn turn(&mut self) -> io::Result<()> {
        let answer = get(self.server, &self.way.target(&self.version))?;
        if version(&answer) == self.version {
            return Ok(());
        }
        let list = get(self.server, "/files")?;
        let listed = files(&list).map(|(path, checksum)| (path.to_owned(), checksum.to_owned()));
        let Some(known) = &mut self.files else {
            self.files = Some(listed.collect());
            self.version = version(&list);
            return Ok(());
        };
        for (path, checksum) in listed {
            if known.get(&path) != Some(&checksum) {
                let content = get(self.server, &format!("/file/{checksum}"))?;
                // Nobody listens any more when all is over.
                let _ = self.tell.send((Instant::now(), content));
                known.insert(path, checksum);
            }
        }
        self.version = version(&list);
        Ok(())
    }
}

/// Asks, and reads all of the answer.
fn get(server: SocketAddr, target: &str) -> io::Result<Vec<u8>> {
    answer(ask(server, target)?)
}

fn ask(server: SocketAddr, target: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(WAIT) + DEADLINE))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    Ok(stream)
}

/// The body of an answer, which is to be the one that says that all is well.
fn answer(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    const GAP: &[u8] = b"\r\n\r\n";
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(GAP.len()).position(|bytes| bytes == GAP);
    match (head, answer.split(|byte| *byte == b' ').nth(1)) {
        (Some(head), Some(b"200")) => Ok(answer.split_off(head + GAP.len())),
        _ => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
    }
}

/// The version in an answer.
fn version(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let rest = text.rsplit_once(r#""version":""#).map_or("", |(_, rest)| rest);
    rest.trim_end_matches(['"', '}']).to_owned()
}

/// The files in a list, with their checksums. There is nothing in their names that would be escaped.
fn files(list: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let list = str::from_utf8(list).unwrap_or_default();
    list.split(r#"{"path":""#).skip(1).filter_map(|entry| {
        let (path, rest) = entry.split_once(r#"","checksum":""#)?;
        Some((path, rest.split_once('"')?.0))
    })
}
