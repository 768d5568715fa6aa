//! What every server has to get, whatever it is like.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::kinds::{Anonymous, Idle, Kind, PASSWORD_IN_URL, Site};
use crate::left_out;
use crate::private::{self, SmallDisk};
use crate::processes::wait_until;
use crate::running::{Running, Wishes};
use crate::support::{Autoftp, Project, side_by_side};

/// Names that are hard to bring through a protocol of lines, blanks and shells.
const NAMES: [&str; 6] = [
    "with a blank.txt",
    "two  blanks/and one.txt",
    "über 日本語 🙂.txt",
    "-dash.txt",
    "it's \"quoted\".txt",
    "100% ~;&$(x)[1]*.txt",
];

pub fn journey(kind: &Kind) {
    if left_out::is_here(kind) {
        let parts: [fn(&Kind); 9] = [
            everything_arrives,
            full_disk,
            idle_sessions_end,
            anonymous,
            wrong_password,
            renamed_and_removed,
            active,
            check,
            latin1,
        ];
        // Each has accounts of its own.
        side_by_side(parts, |part| private::run(|| part(kind)));
    }
}

/// A project, a server and `autoftp` between them, logged in with a password.
struct Trip<'a> {
    run: Autoftp,
    project: Project,
    server: Running<'a>,
}

impl Trip<'_> {
    fn begin<'a>(kind: &'a Kind, idle: Option<Duration>, args: &[&str]) -> Trip<'a> {
        let server = Running::start(kind, Wishes { idle, ..Wishes::default() });
        let project = Project::new();
        let url = server.url(PASSWORD_IN_URL);
        let run = project.watch(&[&["-d", "-p", "*"], args, &[&url]].concat());
        Trip { run, project, server }
    }

    fn save(&self, path: &str, content: impl AsRef<[u8]>) {
        self.project.write(path, &content);
        self.wait_file(path, content);
    }

    fn wait_file(&self, path: &str, content: impl AsRef<[u8]>) {
        self.server.wait_file(path, content);
    }
}

/// Five megabytes.
pub fn large() -> Vec<u8> {
    (0..5_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect()
}

fn everything_arrives(kind: &Kind) {
    let command = match kind.site {
        Site::Chmod => "CHMOD 600 site.txt",
        Site::Refused(_) => "HELP",
    };
    let mut trip = Trip::begin(kind, None, &["-m", "site.txt", "-r", command]);

    trip.save("a.txt", "one");
    trip.save("new/nested/deeper/b.txt", "b");
    trip.save("new/nested/c.txt", "c");
    for name in NAMES {
        trip.project.write(name, name);
        trip.wait_file(&(kind.name_there)(name), name);
    }
    trip.save("empty.txt", "");
    let large = large();
    trip.save("large.bin", &large);
    trip.save("large.bin", &large[1..]);
    trip.save("a.txt", "2");

    site(&trip, kind.site);
    restart(&mut trip, &large);
    read_only(&trip);
    trip.run.stop();
}

fn site(trip: &Trip, site: Site) {
    trip.save("site.txt", "site");
    match site {
        Site::Chmod => {
            trip.run.wait_for("** CHMOD 600 site.txt");
            let mode = fs::metadata(trip.server.path("site.txt")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "SITE CHMOD changed nothing");
        }
        Site::Refused(answer) => {
            trip.run.wait_for_error(&format!("remote command failed: HELP: {answer}"));
        }
    }
}

/// What is saved while the server is away arrives when it is back.
fn restart(trip: &mut Trip, large: &[u8]) {
    trip.server.stop();
    trip.project.write("a.txt", "three");
    trip.project.write("away/d.txt", "d");
    trip.project.write("large.bin", large);
    trip.run.wait_for_error("; trying again");
    trip.server.restart();
    trip.wait_file("a.txt", "three");
    trip.wait_file("away/d.txt", "d");
    trip.wait_file("large.bin", large);
}

/// It is said, nothing else waits for it, and it is made up for when it can be.
fn read_only(trip: &Trip) {
    let directory = trip.server.make_directory("locked");
    set_mode(&directory, 0o555);
    trip.project.write("locked/e.txt", "e");
    trip.run.wait_for_error("locked/e.txt");
    trip.save("beside.txt", "beside");
    set_mode(&directory, 0o755);
    trip.wait_file("locked/e.txt", "e");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A disk that has no more room, and gets some.
fn full_disk(kind: &Kind) {
    if !private::can_mount() {
        return left_out::say_once("full disks are left out (nothing can be mounted here)");
    }
    let mut trip = Trip::begin(kind, None, &[]);
    let disk = SmallDisk::mount(&trip.server.path("full"));
    let content = vec![b'x'; 3_000_000];
    trip.project.write("full/f.txt", &content);
    trip.run.wait_for_error("full/f.txt");
    trip.save("beside.txt", "beside");
    disk.grow();
    trip.wait_file("full/f.txt", &content);
    trip.run.stop();
}

/// Servers end idle sessions as a matter of course: the next save goes over a new one.
fn idle_sessions_end(kind: &Kind) {
    let mut trip = Trip::begin(kind, Some(Duration::from_secs(1)), &[]);
    trip.save("a.txt", "a");
    trip.run.wait_for(">> ");
    if let Idle::Killed = kind.idle {
        trip.server.end_sessions();
    }
    wait_until("the end of an idle session", || !trip.server.is_connected());
    trip.save("b.txt", "b");
    trip.run.stop();
}

fn anonymous(kind: &Kind) {
    let server = Running::start(kind, Wishes::default());
    let project = Project::new();
    let mut run = project.watch(&[
        "-d",
        "-p",
        "*",
        &format!("ftp://{}{}", server.host(), kind.anonymous_directory),
    ]);
    project.write("new/a.txt", "one");
    if kind.anonymous == Anonymous::Reads {
        run.wait_for_error("new/a.txt: ");
        assert_eq!(run.interrupt_and_wait(), 1);
        return;
    }
    server.wait_file("new/a.txt", "one");
    run.wait_for(">> ");
    project.write("new/a.txt", "two");
    if kind.anonymous == Anonymous::Writes {
        server.wait_file("new/a.txt", "two");
        run.stop();
    } else {
        run.wait_for_error("new/a.txt: ");
        assert_eq!(run.interrupt_and_wait(), 1);
    }
}

fn wrong_password(kind: &Kind) {
    let server = Running::start(kind, Wishes::default());
    let project = Project::new();
    let mut run = project.run(&["-d", "-p", "*", &server.url("wrong")]);
    run.wait_for_error("login as maker refused");
    assert_eq!(run.wait_exit(), 1);
}

/// What other options need of a server.
fn renamed_and_removed(kind: &Kind) {
    let mut trip = Trip::begin(kind, None, &["--atomic", "--mirror"]);
    trip.save("keep.txt", "keep");
    trip.save("old/a.txt", "one");
    trip.save("old/a.txt", "two");
    trip.project.write("new/kept.txt", "kept");
    trip.wait_file("new/kept.txt", "kept");
    trip.project.rename("old/a.txt", "new/b.txt");
    trip.wait_file("new/b.txt", "two");
    wait_until("the old name is gone", || !trip.server.path("old/a.txt").exists());
    trip.project.remove("new/b.txt");
    wait_until("what was removed is gone", || !trip.server.path("new/b.txt").exists());
    trip.run.stop();
    assert_eq!(trip.server.list("new"), ["kept.txt"]);
}

/// The server makes the data connections.
fn active(kind: &Kind) {
    let mut trip = Trip::begin(kind, None, &["--active"]);
    if kind.active {
        trip.save("new/a.txt", "a");
        trip.save("large.bin", large());
        return trip.run.stop();
    }
    trip.project.write("a.txt", "a");
    trip.run.wait_for_error("leave out --active");
    assert_eq!(trip.run.interrupt_and_wait(), 1);
}

/// `--check` finds nothing that would keep uploads from working, and leaves nothing behind.
fn check(kind: &Kind) {
    let (server, project) = (Running::start(kind, Wishes::default()), Project::new());
    let mut run = project.run(&["--check", &server.url(PASSWORD_IN_URL)]);
    assert_eq!(run.wait_exit(), 0);
    assert_eq!(server.list(""), [""; 0]);
}

/// A server that takes names for Latin-1 has them right when they are sent so.
fn latin1(kind: &Kind) {
    const NAME: &str = "über.txt";
    if (kind.name_there)(NAME) != NAME {
        let mut trip = Trip::begin(kind, None, &["--encoding", "latin1"]);
        trip.save(NAME, "ü");
        trip.run.stop();
    }
}
