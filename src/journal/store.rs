//! What a host is known to have, kept across runs: so that unchanged content is not sent again, and
//! what was not delivered when the program was killed is not forgotten.
//!
//! A journal for each host, account and directory there, shared by all that send to it. The last
//! record for a path counts:
//!
//! | record             | meaning                                                              |
//! |--------------------|----------------------------------------------------------------------|
//! | `= LEN HASH PATH`  | the host has this content, and nothing more is to be delivered       |
//! | `? PROJECT PATH`   | the file as it is in this project is to be delivered                 |
//! | `! PROJECT PATH`   | the same, and what the host has is not known: it is being changed    |
//! | `- PATH`           | it is not to be delivered any more, or is no leftover                |
//! | `~ PATH`           | a temporary name that may be left there                              |
//!
//! Records are appended in one write each, and end with a tab, which no path contains: what a crash
//! left unfinished is not taken for a record. The journal is rewritten when nobody else uses it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use crate::model::path::RelPath;

/// What the first record of a journal begins with. The number changes with the format.
const MAGIC: &str = "autoftp 1 ";

/// A journal with this many more records than there are paths is rewritten.
const WASTE: usize = 4096;

/// A file's content, as far as it needs to be told from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its size in bytes.
    pub len: u64,
    /// Its hash.
    pub hash: u64,
}

/// One journal's records, as far as they matter here. Paths are kept as their hashes: a tree may
/// have 50,000.
#[derive(Debug, Default)]
struct Records {
    known: HashMap<u64, Content>,
    /// Where reading goes on, in bytes.
    read_to: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Ledger {
    records: Records,
    /// For reading; what is appended through [`Journal`] has a place of its own in the file.
    reader: Option<File>,
    journal: Journal,
    /// Held while an upload runs, so that two processes do not write to one file there.
    turn: Option<File>,
    /// Held as long as the journal is in use.
    _users: Option<File>,
}

/// Where records are appended.
#[derive(Clone, Debug)]
pub struct Journal {
    file: Option<Arc<File>>,
    /// Something could not be written: what the file says cannot be relied on.
    broken: Arc<AtomicBool>,
    header: Arc<str>,
    project: u64,
}

/// What an earlier run left to be done.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// Files that were to be delivered.
    pub files: BTreeSet<RelPath>,
    /// Temporary names that may be left on the server.
    pub temporary: BTreeSet<String>,
}

/// Where the journals are: `$XDG_STATE_HOME/autoftp` (XDG Base Directory Specification), on Windows
/// `%LOCALAPPDATA%\autoftp`.
pub fn directory() -> Option<PathBuf> {
    let from =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let local = if cfg!(windows) { from("LOCALAPPDATA") } else { None };
    let dir = from("XDG_STATE_HOME").or(local).or_else(|| Some(home()?.join(".local/state")));
    Some(dir?.join("autoftp"))
}

impl Ledger {
    /// Opens the journal of `host`, which names the server, the account and the directory there,
    /// for the project in `root`.
    ///
    /// # Errors
    /// As the system says; [`Ledger::in_memory`] then does for one run.
    pub fn open(dir: &Path, host: &str, root: &Path) -> io::Result<(Self, Unfinished)> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)?;
        let path = dir.join(file_name(host));
        let beside = |suffix: &str| PathBuf::from(format!("{}.{suffix}", path.display()));
        let users = open(&beside("users"))?;
        let alone = match users.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        if !alone {
            lock_shared(&users)?;
        }
        let header = format!("{MAGIC}{host}\t\n");
        let project = xxh3_64(root.as_os_str().as_encoded_bytes());
        let text = read(&path)?;
        let (mut unfinished, live) = survey(&text, project);
        if !alone {
            // Whoever else is there may be about to use it.
            unfinished.temporary.clear();
        } else if !text.starts_with(&header) {
            // A new one, or one that we do not understand.
            write(&path, &header)?;
            unfinished = Unfinished::default();
        } else if text.lines().count() > 2 * live + WASTE {
            let new = beside("new");
            write(&new, &compacted(&text, &header))?;
            fs::rename(&new, &path)?;
        }
        if alone {
            users.unlock()?;
            lock_shared(&users)?;
        }
        // Only now: somebody else may have rewritten it in between.
        let (file, reader) = (Some(Arc::new(open(&path)?)), Some(File::open(&path)?));
        let journal =
            Journal { file, broken: Arc::default(), header: header.as_str().into(), project };
        if !alone && !text.starts_with(&header) {
            return Err(io::Error::other("its format is another version's"));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            // What a crash cut off must not run into the next record.
            journal.append("");
        }
        let turn = Some(open(&beside("turn"))?);
        let records = Records::default();
        let mut ledger = Self { records, reader, journal, turn, _users: Some(users) };
        ledger.catch_up();
        Ok((ledger, unfinished))
    }

    /// A ledger that ends with the program.
    pub fn in_memory() -> Self {
        let journal = Journal { file: None, broken: Arc::default(), header: "".into(), project: 0 };
        Self { records: Records::default(), reader: None, journal, turn: None, _users: None }
    }

    /// For appending to the journal from elsewhere.
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// What the host has under this path, as far as it is known.
    pub fn content(&mut self, path: &RelPath) -> Option<Content> {
        self.catch_up();
        self.records.known.get(&key(path.as_str())).copied()
    }

    /// The host now has this content.
    pub fn is_stored(&mut self, path: &RelPath, content: Content) {
        self.records.known.insert(key(path.as_str()), content);
        self.journal.append(&format!("= {} {:016x} {path}", content.len, content.hash));
    }

    /// What the host has is not known from now on.
    pub fn is_changing(&mut self, path: &RelPath) {
        self.records.known.remove(&key(path.as_str()));
        let record = format!("! {:016x} {path}", self.journal.project);
        if !self.journal.append(&record) {
            self.journal.invalidate();
        }
    }

    /// The file is not to be delivered any more; what the host has is what it had.
    pub fn is_settled(&self, path: &RelPath) {
        self.journal.append(&format!("- {path}"));
    }

    /// Whether something could not be written, so that nothing is remembered any more.
    pub fn is_broken(&self) -> bool {
        self.journal.broken.load(Ordering::Relaxed)
    }

    /// Tries to get the right to upload. Other processes that send to this host do not meanwhile.
    pub fn take_turn(&self) -> bool {
        let Some(turn) = &self.turn else { return true };
        let taken = !matches!(turn.try_lock(), Err(TryLockError::WouldBlock));
        if taken {
            self.keep_turn();
        }
        taken
    }

    /// Shows others that the upload goes on.
    pub fn keep_turn(&self) {
        if let Some(turn) = &self.turn {
            let _ = turn.set_modified(SystemTime::now());
        }
    }

    /// For how long whoever has the turn has shown nothing.
    pub fn turn_rests(&self) -> Duration {
        let modified = |turn: &File| turn.metadata().and_then(|metadata| metadata.modified()).ok();
        let since = self.turn.as_ref().and_then(modified);
        since.and_then(|since| since.elapsed().ok()).unwrap_or_default()
    }

    /// Gives that right back.
    pub fn end_turn(&self) {
        if let Some(turn) = &self.turn {
            let _ = turn.unlock();
        }
    }

    /// Takes in what was appended since, by whomever: the order in the file is what counts.
    fn catch_up(&mut self) {
        let Some(reader) = &self.reader else { return };
        if self.is_broken() || self.records.catch_up(reader).is_err() {
            self.records.known.clear();
            self.journal.broken.store(true, Ordering::Relaxed);
        }
    }
}

impl Records {
    fn catch_up(&mut self, mut file: &File) -> io::Result<()> {
        let len = file.metadata()?.len();
        if len == self.read_to {
            return Ok(());
        }
        if len < self.read_to {
            // Somebody could not write, and has begun it anew.
            *self = Self::default();
        }
        file.seek(SeekFrom::Start(self.read_to))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read_to += whole as u64;
        for record in records(&String::from_utf8_lossy(&bytes[..whole])) {
            match record {
                Record::Stored(content, path) => drop(self.known.insert(key(path), content)),
                Record::Changing(_, path) => drop(self.known.remove(&key(path))),
                Record::Ordered(..) | Record::Settled(_) | Record::Temporary(_) => {}
            }
        }
        Ok(())
    }
}

impl Journal {
    /// The file is to be delivered.
    pub fn is_ordered(&self, path: &RelPath) {
        self.append(&format!("? {:016x} {path}", self.project));
    }

    /// A temporary name is about to come into being there.
    pub fn may_be_left(&self, name: &str) {
        self.append(&format!("~ {name}"));
    }

    /// A temporary name is gone from there.
    pub fn is_gone(&self, name: &str) {
        self.append(&format!("- {name}"));
    }

    /// Returns whether it could be written.
    fn append(&self, record: &str) -> bool {
        let Some(mut file) = self.file.as_deref() else { return true };
        if self.broken.load(Ordering::Relaxed) {
            return true;
        }
        let line = if record.is_empty() { "\n".to_owned() } else { format!("{record}\t\n") };
        let written = matches!(file.write(line.as_bytes()), Ok(written) if written == line.len());
        if !written {
            self.broken.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Makes all know that nothing is known.
    fn invalidate(&self) {
        if let Some(mut file) = self.file.as_deref() {
            let _ = file.set_len(0);
            let _ = file.write(self.header.as_bytes());
        }
    }
}

/// A line of the journal.
enum Record<'a> {
    Stored(Content, &'a str),
    Changing(u64, &'a str),
    Ordered(u64, &'a str),
    Settled(&'a str),
    Temporary(&'a str),
}

/// The records in a journal's text; what is none is left out.
fn records(text: &str) -> impl Iterator<Item = Record<'_>> {
    text.split('\n').filter_map(|line| {
        let (kind, rest) = line.strip_suffix('\t')?.split_once(' ')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        match kind {
            "=" => {
                let (len, rest) = rest.split_once(' ')?;
                let (hash, path) = rest.split_once(' ')?;
                let content = Content { len: len.parse().ok()?, hash: hex(hash)? };
                Some(Record::Stored(content, path))
            }
            "?" | "!" => {
                let (by, path) = rest.split_once(' ')?;
                let record = if kind == "?" { Record::Ordered } else { Record::Changing };
                Some(record(hex(by)?, path))
            }
            "-" => Some(Record::Settled(rest)),
            "~" => Some(Record::Temporary(rest)),
            _ => None,
        }
    })
}

/// What is left to be done, and of how many paths something is known.
fn survey(text: &str, project: u64) -> (Unfinished, usize) {
    let mut files = BTreeSet::new();
    let mut temporary = BTreeSet::new();
    let mut paths = HashSet::new();
    for record in records(text) {
        match record {
            Record::Ordered(by, path) | Record::Changing(by, path) => {
                if by == project {
                    files.insert(path);
                }
            }
            Record::Stored(_, path) => {
                files.remove(path);
                paths.insert(path);
            }
            Record::Settled(path) => {
                files.remove(path);
                temporary.remove(path);
            }
            Record::Temporary(path) => drop(temporary.insert(path)),
        }
    }
    let live = paths.len() + files.len() + temporary.len();
    let files = files.into_iter().filter_map(|path| RelPath::new(Path::new(path)).ok()).collect();
    let temporary = temporary.into_iter().map(ToOwned::to_owned).collect();
    (Unfinished { files, temporary }, live)
}

/// The same journal with only the records that count.
fn compacted(text: &str, header: &str) -> String {
    #[derive(Default)]
    struct Entry {
        content: Option<Content>,
        ordered: BTreeSet<u64>,
        temporary: bool,
    }
    let mut entries: HashMap<&str, Entry> = HashMap::new();
    for record in records(text) {
        match record {
            Record::Stored(content, path) => {
                entries.insert(path, Entry { content: Some(content), ..Entry::default() });
            }
            Record::Changing(by, path) => {
                let entry = entries.entry(path).or_default();
                entry.content = None;
                entry.ordered.insert(by);
            }
            Record::Ordered(by, path) => drop(entries.entry(path).or_default().ordered.insert(by)),
            Record::Settled(path) => {
                let entry = entries.entry(path).or_default();
                entry.ordered.clear();
                entry.temporary = false;
            }
            Record::Temporary(path) => entries.entry(path).or_default().temporary = true,
        }
    }
    let mut new = header.to_owned();
    for (path, entry) in entries {
        // Writing to a String cannot fail.
        if let Some(Content { len, hash }) = entry.content {
            let _ = writeln!(new, "= {len} {hash:016x} {path}\t");
        }
        for by in entry.ordered {
            let _ = writeln!(new, "? {by:016x} {path}\t");
        }
        if entry.temporary {
            let _ = writeln!(new, "~ {path}\t");
        }
    }
    new
}

fn key(path: &str) -> u64 {
    xxh3_64(path.as_bytes())
}

/// The host's name, for a person who looks, and what tells it from its like.
fn file_name(host: &str) -> String {
    let name = host.rsplit('@').next().unwrap_or(host);
    let name = name.split(['/', ':']).next().unwrap_or(name);
    let name: String = (name.chars())
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        .take(60)
        .collect();
    format!("{}-{:016x}", name.trim_start_matches('.'), xxh3_64(host.as_bytes()))
}

/// Waits for whoever rewrites the journal, which takes a moment.
fn lock_shared(users: &File) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    loop {
        match users.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another program has locked it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Writes a whole journal.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = open(path)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Opens for reading and appending; only the person's own account may read it.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn read(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "ftp://me@board:21/";

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().expect("a directory") }
        }

        /// Opens the journal for this project; returns also what is left to be done.
        fn open(&self, project: &str) -> (Ledger, Vec<String>, Vec<String>) {
            let opened = Ledger::open(&self.dir.path().join("state"), HOST, Path::new(project));
            let (ledger, left) = opened.expect("a ledger");
            let files = left.files.iter().map(ToString::to_string).collect();
            (ledger, files, left.temporary.into_iter().collect())
        }

        fn journal(&self) -> PathBuf {
            self.dir.path().join("state").join(file_name(HOST))
        }
    }

    fn rel(path: &str) -> RelPath {
        RelPath::new(Path::new(path)).expect("a good path")
    }

    fn content(hash: u64) -> Content {
        Content { len: 7, hash }
    }

    #[test]
    fn what_is_stored_is_remembered_until_it_changes() {
        let place = Place::new();
        let (mut ledger, ..) = place.open("/p");
        ledger.is_stored(&rel("a b/ü.py"), content(1));
        ledger.is_stored(&rel("b"), content(2));
        ledger.is_changing(&rel("b"));
        drop(ledger);
        let (mut ledger, ..) = place.open("/q");
        assert_eq!(ledger.content(&rel("a b/ü.py")), Some(content(1)));
        assert_eq!(ledger.content(&rel("b")), None);
    }

    #[test]
    fn two_processes_know_the_same() {
        let place = Place::new();
        let (mut one, ..) = place.open("/p");
        let (mut two, ..) = place.open("/q");
        one.is_stored(&rel("a"), content(1));
        assert_eq!(two.content(&rel("a")), Some(content(1)));
        two.is_stored(&rel("a"), content(2));
        assert_eq!(one.content(&rel("a")), Some(content(2)), "the order in the file counts");
        assert!(one.take_turn());
        assert!(!two.take_turn());
        one.end_turn();
        assert!(two.take_turn());
    }

    #[test]
    fn what_was_not_delivered_is_left_to_the_same_project() {
        let place = Place::new();
        let (mut ledger, ..) = place.open("/p");
        for name in ["sent", "under way", "settled"] {
            ledger.journal().is_ordered(&rel(name));
        }
        ledger.is_changing(&rel("under way"));
        ledger.is_stored(&rel("sent"), content(1));
        ledger.is_changing(&rel("never ordered"));
        ledger.is_settled(&rel("settled"));
        ledger.journal().may_be_left("lib/.tmp");
        ledger.journal().may_be_left(".tmp");
        ledger.journal().is_gone(".tmp");
        let (other, files, temporary) = place.open("/p");
        assert_eq!(files, ["never ordered", "under way"]);
        assert!(temporary.is_empty(), "the other process may be using it");
        drop((ledger, other));
        assert_eq!(place.open("/q").1, [""; 0]);
        let (_, files, temporary) = place.open("/p");
        assert_eq!((files.len(), temporary), (2, vec!["lib/.tmp".to_owned()]));
    }

    #[test]
    fn what_a_crash_cut_off_is_no_record() {
        let whole = "= 7 0000000000000001 lib/main.py\t\n";
        for cut in 1..whole.len() - 1 {
            let place = Place::new();
            drop(place.open("/p"));
            let mut text = fs::read_to_string(place.journal()).expect("a journal");
            text.push_str(&whole[..cut]);
            fs::write(place.journal(), text).expect("written");
            let (mut ledger, ..) = place.open("/p");
            ledger.is_stored(&rel("next"), content(2));
            drop(ledger);
            let (mut ledger, ..) = place.open("/p");
            let all = whole[..cut].ends_with('\t');
            assert_eq!(ledger.content(&rel("lib/main.py")), all.then(|| content(1)), "{cut}");
            assert_eq!(ledger.content(&rel("lib/m")), None, "{cut}");
            assert_eq!(ledger.content(&rel("next")), Some(content(2)), "{cut}");
        }
    }

    #[test]
    fn what_is_not_understood_is_begun_anew() {
        for text in ["autoftp 2 ftp://me@board:21/\t\n= 7 1 a\t\n", "\0\u{fffd}", "= 7 1 a\t\n"] {
            let place = Place::new();
            drop(place.open("/p"));
            fs::write(place.journal(), text).expect("written");
            let (mut ledger, ..) = place.open("/p");
            assert_eq!(ledger.content(&rel("a")), None);
            ledger.is_stored(&rel("a"), content(3));
            drop(ledger);
            assert_eq!(place.open("/p").0.content(&rel("a")), Some(content(3)));
        }
    }

    #[test]
    fn a_long_journal_is_rewritten_with_what_counts() {
        let place = Place::new();
        let (mut ledger, ..) = place.open("/p");
        for hash in 0..WASTE as u64 {
            ledger.is_changing(&rel("a"));
            ledger.is_stored(&rel("a"), content(hash));
        }
        ledger.journal().is_ordered(&rel("b"));
        ledger.journal().may_be_left(".tmp");
        drop(ledger);
        let before = fs::metadata(place.journal()).expect("a journal").len();
        let (mut ledger, files, temporary) = place.open("/p");
        assert!(fs::metadata(place.journal()).expect("a journal").len() < before / 100);
        assert_eq!(ledger.content(&rel("a")), Some(content(WASTE as u64 - 1)));
        assert_eq!((files.len(), temporary.len()), (1, 1));
        drop(ledger);
        let (mut ledger, files, temporary) = place.open("/p");
        assert_eq!(ledger.content(&rel("a")), Some(content(WASTE as u64 - 1)));
        assert_eq!((files.len(), temporary.len()), (1, 1), "nor does it lose any in that");
    }

    #[test]
    fn file_names_tell_hosts_apart_and_nothing_secret() {
        let name = file_name("ftp://me@../../etc:21/dir");
        assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
        assert_ne!(file_name("ftp://a@h:21/"), file_name("ftp://b@h:21/"));
        assert!(file_name(HOST).starts_with("board-"));
    }
}
