//! Boards that fetch, each in a process that knows nothing but the protocol (tests/data/board.py).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Autoftp, Project};

const BOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/board.py");

/// How long a board may take to be current.
const SOON: Duration = Duration::from_secs(20);

/// A board's flash.
struct Board {
    process: Child,
    dir: PathBuf,
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Board {
    /// Starts one that has what is in that directory; `None` where there is no Python.
    fn start(url: &str, dir: &Path) -> Option<Board> {
        let command = Command::new("python3")
            .args([BOARD.as_ref(), url.as_ref(), dir.as_os_str()])
            .stdout(Stdio::null())
            .spawn();
        match command {
            Ok(process) => Some(Board { process, dir: dir.to_owned() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(env::var_os("AUTOFTP_ALL_SERVERS").is_none(), "python3 is not there");
                eprintln!("left out: python3 is not there");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until it has these files, and no others.
    fn wait_files(&mut self, expected: &BTreeMap<String, Vec<u8>>) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the board ended with {status}");
            }
            let files = files_in(&self.dir);
            if files == *expected {
                return;
            }
            let (has, lacks) = (files.keys(), expected.keys());
            assert!(begun.elapsed() < SOON, "it has {has:?}, and should have {lacks:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// All files but the board's own.
fn files_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                pending.push(path);
            } else if let Ok(content) = fs::read(&path)
                && name != ".files"
                && !name.ends_with(".new")
            {
                files.insert(name, content);
            }
        }
    }
    files
}

/// A project with directories, binary content, and names that are not plain.
fn project() -> Project {
    let project = Project::new();
    let all_bytes: Vec<u8> = (0..=u8::MAX).cycle().take(70_000).collect();
    project.write("main.py", "import lib.led\n");
    project.write("lib/led.py", "on = True\n");
    project.write("lib/deep/er/font.bin", all_bytes);
    project.write("lib/empty.py", "");
    project.write("www/größe \"ä\".html", "<p>");
    project
}

fn serve(project: &Project, args: &[&str]) -> (Autoftp, String) {
    let run = project.watch(&[&["--serve", "127.0.0.1:0"], args].concat());
    let line = run.wait_for("%% serving").text;
    let url = line.split_whitespace().last().unwrap().to_owned();
    (run, url)
}

#[test]
fn a_board_becomes_and_stays_what_the_project_is() {
    let project = project();
    let (mut run, url) = serve(&project, &[]);
    let dir = project.make_outside("board");
    let Some(mut board) = Board::start(&url, &dir) else { return };
    board.wait_files(&files_in(&project.root()));

    project.write("lib/led.py", "on = False\n");
    project.write("lib/new/blink.py", "again\n");
    board.wait_files(&files_in(&project.root()));
    project.remove("main.py");
    project.rename("lib/deep", "lib/deeper");
    board.wait_files(&files_in(&project.root()));

    // It is off while things change, and has what it wrote down when it is on again.
    drop(board);
    project.write("lib/led.py", "on = None\n");
    project.remove("lib/empty.py");
    let mut board = Board::start(&url, &dir).unwrap();
    board.wait_files(&files_in(&project.root()));
    drop(board);
    run.stop();
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_board_gets_through_while_files_change_under_it() {
    let project = project();
    let (mut run, url) = serve(&project, &[]);
    let dir = project.make_outside("board");
    let Some(mut board) = Board::start(&url, &dir) else { return };
    for round in 0..400 {
        // Of one size, so that nothing but the content tells them apart.
        project.write(format!("lib/{}.py", round % 40), format!("{round:09}"));
        if round % 50 == 0 {
            board.wait_files(&files_in(&project.root()));
        }
    }
    board.wait_files(&files_in(&project.root()));
    drop(board);
    run.stop();
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_board_that_knows_the_token_gets_what_is_compiled() {
    let project = project();
    let compiler = project.outside("compile");
    fs::write(&compiler, "for f; do tr a-z A-Z <\"$f\" >\"${f%.py}.mpy\"; done\n").unwrap();
    let script = format!("*.py,sh '{}'", compiler.display());
    let args = ["-s", &script, "-p", "*.mpy", "-k", "*.mpy", "--sync", "--serve-token", "s3cret"];
    let (mut run, url) = serve(&project, &args);
    assert!(url.ends_with("/s3cret"), "{url}");
    let Some(mut board) = Board::start(&url, &project.make_outside("board")) else { return };
    let compiled = || {
        let mut files = files_in(&project.root());
        files.retain(|name, _| name.ends_with(".mpy"));
        files
    };
    assert_eq!(compiled().len(), 3);
    board.wait_files(&compiled());
    project.write("lib/led.py", "off\n");
    run.wait_for("lib/led.mpy");
    board.wait_files(&compiled());
    assert_eq!(fs::read(board.dir.join("lib/led.mpy")).unwrap(), b"OFF\n");
    drop(board);
    run.stop();
    assert_eq!(run.stderr(), "");
    assert_eq!(compiled().len(), 3, "-k deletes only what was sent");
}
