//! `--parallel`: bursts over several sessions at once.

use crate::support::{Act, Board, Dialect, Project, Scripted};

const FILES: usize = 40;

fn name(number: usize) -> String {
    format!("d{}/{number}.py", number % 5)
}

/// Files that are all due when the session begins.
fn burst(server: &Scripted, args: &[&str]) -> (Project, crate::support::Autoftp) {
    let project = Project::new();
    server.times(1, "greeting", Act::Hold);
    let run = project.watch(&[args, &[&server.host()]].concat());
    for number in 0..FILES {
        project.write(name(number), number.to_string());
    }
    project.write("main.py", "main");
    project.wait_ordered("main.py");
    server.release();
    (project, run)
}

fn expect_all(server: &Scripted) {
    for number in 0..FILES {
        server.wait_file(&name(number), &number.to_string());
    }
    server.wait_file("main.py", "main");
}

#[test]
fn a_burst_is_sent_over_several_sessions_each_file_once() {
    let server = Scripted::start();
    let (_project, mut run) = burst(&server, &["--parallel", "4"]);
    expect_all(&server);
    run.stop();
    assert_eq!(server.sessions(), 4);
    let stored = server.stored();
    assert_eq!(stored.len(), FILES + 1, "{stored:?}");
    assert_eq!(stored[FILES].0, "main.py", "what starts the program comes last");
    assert_eq!(run.count(">> "), FILES + 1);
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_single_save_takes_one_session() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["--parallel", "4", &server.host()]);
    for path in ["a.py", "b.py", "c.py"] {
        project.write(path, path);
        server.wait_stored(path, path);
    }
    run.stop();
    assert_eq!(server.sessions(), 1);
}

/// Files that are under way at once each have a temporary name of their own.
#[test]
fn temporary_names_are_not_shared() {
    let server = Scripted::start();
    let (_project, mut run) = burst(&server, &["--parallel", "4", "--atomic"]);
    expect_all(&server);
    run.stop();
    assert_eq!(server.files().len(), FILES + 1, "{:?}", server.files());
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_server_that_allows_one_session_gets_everything_over_that() {
    let server = Scripted::with(Dialect { one_session: true, ..Dialect::PLAIN });
    let (_project, mut run) = burst(&server, &["--parallel", "4"]);
    expect_all(&server);
    run.stop();
    assert_eq!(run.count("--parallel: no more than 1 at once: "), 1, "{}", run.stdout());
    assert_eq!(server.stored().len(), FILES + 1);
    assert_eq!(run.stderr(), "");
}

/// Whatever becomes of a further session, its file arrives.
#[test]
fn what_a_lost_session_was_sending_is_sent_again() {
    for act in [Act::CutData, Act::Close, Act::Truncate, Act::Reply("450 Busy"), Act::Silence] {
        let server = Scripted::start();
        for number in [3, 7, 8, 20] {
            server.times(1, &format!("STOR {}", name(number)), act);
        }
        let (_project, mut run) = burst(&server, &["--parallel", "3", "--timeout", "1"]);
        expect_all(&server);
        run.stop();
        assert_eq!(server.files().len(), FILES + 1, "{act:?}");
        assert_eq!(run.count(">> "), FILES + 1, "{act:?}: {}", run.stdout());
    }
}

/// uftpd has one data port: two sessions would take each other's connections.
#[test]
fn on_a_board_it_is_one_session() {
    let (project, board) = (Project::new(), Board::uftpd());
    let address = format!("ftp://me@{}", board.host());
    let mut run = project.watch(&["--parallel", "4", &address]);
    run.wait_for("connected");
    for number in 0..FILES {
        project.write(name(number), format!("{number:0>100}"));
    }
    for number in 0..FILES {
        board.wait_file(&name(number), format!("{number:0>100}"));
    }
    run.stop();
    assert_eq!(board.sessions(), 1);
}
