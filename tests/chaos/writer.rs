//! A person at work, very quickly: saves, renames and deletes, and remembers what every file holds.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, SystemTime};

use super::journal::Journal;
use super::random::Random;
use super::support::Project;

/// More files that match are not kept.
const MOST: usize = 120;

const MATCHING: [&str; 3] = ["py", "txt", "bin"];
const OTHERS: [&str; 3] = ["md", "log", "py.bak"];
const STEMS: [&str; 8] = ["main", "-dash", "two words", "größe", "日本", "boot", "a.b", "~tilde"];
const DIRS: [&str; 7] = ["lib", "lib/net", "two words", "-d", "größe", "a/b/c", "a"];

pub struct Writer<'a> {
    project: &'a Project,
    random: Random,
    journal: Journal,
    files: BTreeMap<String, Vec<u8>>,
    /// The file saved last; people save the same one again and again.
    hot: String,
    /// Names that were given up; some come back.
    given_up: VecDeque<String>,
    moved: usize,
}

impl<'a> Writer<'a> {
    pub fn new(project: &'a Project, random: Random, journal: Journal) -> Writer<'a> {
        Writer {
            project,
            random,
            journal,
            files: BTreeMap::new(),
            hot: String::new(),
            given_up: VecDeque::new(),
            moved: 0,
        }
    }

    /// What every file holds.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// Saves a file as it is said.
    pub fn put(&mut self, path: &str, content: Vec<u8>) {
        self.journal.note(format!("writer: save {path}, {} bytes", content.len()));
        self.project.write(path, &content);
        self.files.insert(path.to_owned(), content);
        path.clone_into(&mut self.hot);
    }

    pub fn delete(&mut self, path: &str) {
        self.journal.note(format!("writer: delete {path}"));
        self.project.remove(path);
        self.files.remove(path);
        self.give_up(path.to_owned());
    }

    /// One thing that a person does, and the pause after it.
    pub fn act(&mut self) {
        if self.files.len() >= MOST && self.random.percent(50) {
            let path = self.some_file();
            self.delete(&path);
        } else {
            self.choose();
        }
        let pause = match self.random.below(100) {
            0..2 => 300,
            2..40 => 0,
            _ => self.random.below(20),
        };
        thread::sleep(Duration::from_millis(pause as u64));
    }

    fn choose(&mut self) {
        if self.files.is_empty() {
            return self.create();
        }
        match self.random.below(100) {
            0..16 => self.create(),
            16..36 => {
                let path = self.some_file();
                let content = self.content();
                self.put(&path, content);
            }
            36..44 => {
                // A digit changes: the size does not tell.
                let path = self.some_file();
                let content = self.random.bytes(self.files[&path].len());
                self.put(&path, content);
            }
            44..60 => self.save_by_renaming(),
            60..68 => self.grow(),
            68..73 => self.touch(),
            73..81 => self.rename(),
            81..87 => {
                let path = self.some_file();
                self.delete(&path);
            }
            87..90 => self.move_in(),
            90..93 => self.rename_dir(),
            93..95 => self.remove_dir(),
            _ => {
                let (path, content) = (self.some_name(&OTHERS), self.content());
                self.put(&path, content);
            }
        }
    }

    fn create(&mut self) {
        let (path, content) = (self.some_name(&MATCHING), self.content());
        self.put(&path, content);
    }

    fn save_by_renaming(&mut self) {
        let path =
            if self.random.percent(20) { self.some_name(&MATCHING) } else { self.some_file() };
        let content = self.content();
        let (dir, name) = path.rsplit_once('/').unwrap_or((".", &path));
        let temporary = match self.random.below(3) {
            0 => format!("{dir}/.{name}.tmp"),
            1 => format!("{dir}/{name}~"),
            _ => format!("{dir}/new-{name}"),
        };
        self.journal.note(format!("writer: {path} by {temporary}, {} bytes", content.len()));
        self.project.write(&temporary, &content);
        if self.random.percent(20) {
            thread::sleep(Duration::from_millis(self.random.below(60) as u64));
        }
        self.project.rename(&temporary, &path);
        self.files.insert(path.clone(), content);
        self.hot = path;
    }

    /// Appends bit by bit, slowly enough to be sent meanwhile.
    fn grow(&mut self) {
        let path = self.some_file();
        let mut file = File::options().append(true).open(self.project.path(&path)).unwrap();
        for _ in 0..self.random.within(3..6) {
            let len = self.random.below(5000);
            let more = self.random.bytes(len);
            self.journal.note(format!("writer: append to {path}, {len} bytes"));
            file.write_all(&more).unwrap();
            self.files.get_mut(&path).unwrap().extend(more);
            thread::sleep(Duration::from_millis(self.random.within(1..9) as u64));
        }
        self.hot = path;
    }

    fn touch(&mut self) {
        let path = self.some_file();
        self.journal.note(format!("writer: touch {path}"));
        let file = File::options().write(true).open(self.project.path(&path)).unwrap();
        file.set_modified(SystemTime::now()).unwrap();
    }

    fn rename(&mut self) {
        let from = self.some_file();
        let to = match self.random.below(4) {
            0 => self.some_file(),
            1 => self.some_name(&OTHERS),
            _ => self.some_name(&MATCHING),
        };
        if from == to {
            return;
        }
        self.journal.note(format!("writer: rename {from} to {to}"));
        fs::create_dir_all(self.project.path(&to).parent().unwrap()).unwrap();
        self.project.rename(&from, &to);
        let content = self.files.remove(&from).unwrap();
        self.files.insert(to.clone(), content);
        self.give_up(from);
        self.hot = to;
    }

    /// Makes a directory with files elsewhere and moves it in.
    fn move_in(&mut self) {
        let to = self.new_dir();
        self.moved += 1;
        let outside = self.project.make_outside(&format!("incoming-{}", self.moved));
        let mut files = Vec::new();
        for _ in 0..self.random.within(1..7) {
            let dir = self.random.pick(&["", "x/", "x/y/", "z z/"]);
            let name = format!("{dir}{}", self.some_leaf(&MATCHING));
            let content = self.content();
            fs::create_dir_all(outside.join(&name).parent().unwrap()).unwrap();
            fs::write(outside.join(&name), &content).unwrap();
            files.push((format!("{to}/{name}"), content));
        }
        let paths: Vec<&String> = files.iter().map(|(path, _)| path).collect();
        self.journal.warn(format!("writer: move in {paths:?}"));
        fs::create_dir_all(self.project.path(&to).parent().unwrap()).unwrap();
        fs::rename(outside, self.project.path(&to)).unwrap();
        self.files.extend(files);
    }

    fn rename_dir(&mut self) {
        let (Some(from), to) = (self.some_dir(), self.new_dir()) else {
            return;
        };
        if to.starts_with(&format!("{from}/")) {
            return;
        }
        self.journal.warn(format!("writer: rename {from}/ to {to}/"));
        fs::create_dir_all(self.project.path(&to).parent().unwrap()).unwrap();
        self.project.rename(&from, &to);
        for (path, content) in self.take(&from) {
            self.files.insert(format!("{to}{}", &path[from.len()..]), content);
            self.give_up(path);
        }
    }

    /// Removes a directory, or moves it away.
    fn remove_dir(&mut self) {
        let Some(dir) = self.some_dir() else {
            return;
        };
        self.journal.warn(format!("writer: remove {dir}/"));
        if self.random.percent(50) {
            fs::remove_dir_all(self.project.path(&dir)).unwrap();
        } else {
            self.moved += 1;
            let away = self.project.outside(&format!("outgoing-{}", self.moved));
            fs::rename(self.project.path(&dir), away).unwrap();
        }
        for (path, _) in self.take(&dir) {
            self.give_up(path);
        }
    }

    /// Forgets all files in a directory.
    fn take(&mut self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let inside = format!("{dir}/");
        let files = std::mem::take(&mut self.files);
        let (taken, left) = files.into_iter().partition(|(path, _)| path.starts_with(&inside));
        self.files = left;
        taken
    }

    fn give_up(&mut self, path: String) {
        self.given_up.push_back(path);
        if self.given_up.len() > 20 {
            self.given_up.pop_front();
        }
    }

    fn some_file(&mut self) -> String {
        if self.random.percent(30) && self.files.contains_key(&self.hot) {
            return self.hot.clone();
        }
        let number = self.random.below(self.files.len());
        self.files.keys().nth(number).unwrap().clone()
    }

    fn some_dir(&mut self) -> Option<String> {
        let path = self.some_file();
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        (!ends.is_empty()).then(|| path[..self.random.pick(&ends)].to_owned())
    }

    /// A directory that is not there.
    fn new_dir(&mut self) -> String {
        loop {
            let name = format!("{} {}", self.random.pick(&DIRS), self.random.below(20));
            let dir = match self.some_dir() {
                Some(parent) if self.random.percent(30) && parent.len() < 60 => {
                    format!("{parent}/{name}")
                }
                _ => name,
            };
            if !self.project.has(&dir) {
                return dir;
            }
        }
    }

    fn some_leaf(&mut self, endings: &[&str]) -> String {
        let (stem, number) = (self.random.pick(&STEMS), self.random.below(8));
        format!("{stem}{number}.{}", self.random.pick(endings))
    }

    /// A file's name, which may be in use, in a directory that may not exist.
    fn some_name(&mut self, endings: &[&str]) -> String {
        if self.random.percent(25) && !self.given_up.is_empty() {
            let number = self.random.below(self.given_up.len());
            return self.given_up[number].clone();
        }
        let leaf = self.some_leaf(endings);
        match self.random.below(3) {
            0 if !self.files.is_empty() => match self.some_dir() {
                Some(dir) => format!("{dir}/{leaf}"),
                None => leaf,
            },
            1 => leaf,
            _ => format!("{}/{leaf}", self.random.pick(&DIRS)),
        }
    }

    fn content(&mut self) -> Vec<u8> {
        let len = match self.random.below(100) {
            0..6 => 0,
            6..60 => self.random.below(2000),
            60..85 => self.random.below(20_000),
            85..99 => self.random.below(200_000),
            _ => 1 << 20,
        };
        self.random.bytes(len)
    }
}
