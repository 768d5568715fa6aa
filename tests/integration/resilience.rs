//! Every single thing that can go wrong on the way of one file, once: it arrives all the same, it
//! is said once, and no other file waits for it.

use crate::support::{Act, Dialect, Project, Scripted, side_by_side};

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

const REFUSALS: [&str; 10] = [
    "400 Device busy.",
    "421 Service not available",
    "425 Can't open data connection",
    "426 Connection closed",
    "450 File busy",
    "451 Error writing file",
    "452 No space",
    "550 What a day",
    "552 Quota exceeded",
    "553 Could not create file.",
];

/// Files are due when the session begins; the first one's way is barred once. What is made up for
/// at once, because it was not sent the plain way, is not worth a word.
fn bar(verb: &str, act: Act, way: &str) {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "greeting", Act::Hold);
    server.times(1, verb, act);
    let mut run = project.watch(&["--timeout", "1", way, &server.host()]);
    // When the last one is noted, those before it are on their way.
    for path in ["a.py", "b.py", "last.py"] {
        project.write(path, path);
        project.wait_ordered(path);
    }
    server.release();
    for path in ["a.py", "b.py", "last.py"] {
        server.wait_stored(path, path);
    }
    run.stop();
    let what = format!("{way} {verb} {act:?}: {}", run.stderr());
    let (a, b) = (pair("a.py", "a.py"), pair("b.py", "b.py"));
    assert_eq!(server.files(), [a.clone(), b.clone(), pair("last.py", "last.py")], "{what}");
    let mut stored = server.stored();
    stored.retain(|(path, _)| path != "last.py");
    if verb.starts_with("SIZE") {
        assert_eq!(stored, [a.clone(), b, a], "{what}");
    } else {
        assert_eq!(stored, [b, a], "{what}");
    }
    let least = usize::from(way == PLAIN);
    let lines = run.stderr().lines().count();
    assert!((least..=1).contains(&lines), "{what}");
    assert_eq!(run.stderr().matches("a.py").count(), lines, "{what}");
    assert_eq!(run.count(">> "), 3, "{what}");
}

const PLAIN: &str = "--transfer=serial";
const WAYS: [&str; 3] = [PLAIN, "--transfer=overlapped", "--transfer=prepared"];

/// The same in all the ways there are.
fn bar_in_every_way(verb: &str) {
    let others = [Act::Reply("garbage"), Act::Reply(""), Act::Silence, Act::Close, Act::Reset];
    // A board that is too busy to look at a STOR is asked again at once (see boards).
    let refusals = REFUSALS
        .into_iter()
        .filter(|reply| !(verb.starts_with("STOR") && reply.starts_with("400")));
    let acts: Vec<Act> = refusals.map(Act::Reply).chain(others).collect();
    for way in WAYS {
        side_by_side(&acts, |act| bar(verb, *act, way));
    }
}

#[test]
fn whatever_stor_is_answered_once_both_files_arrive() {
    bar_in_every_way("STOR a.py");
}

#[test]
fn whatever_pasv_is_answered_once_both_files_arrive() {
    bar_in_every_way("PASV");
}

#[test]
fn whatever_size_is_answered_once_both_files_arrive() {
    bar_in_every_way("SIZE a.py");
}

#[test]
fn whatever_ends_a_transfer_once_both_files_arrive() {
    let ends = REFUSALS.map(|reply| [Act::TakeThen(reply), Act::DropThen(reply)]);
    let ends: Vec<Act> = ends.into_iter().flatten().chain([Act::CutData]).collect();
    for way in WAYS {
        side_by_side(&ends, |act| bar("STOR a.py", *act, way));
    }
}

/// uftpd and FTPdLite say 226 over nothing, and over files that were cut short.
#[test]
fn a_lying_226_is_said_and_made_up_for() {
    let lies = [
        (Act::TakeThen("226 ok"), "does not have it"),
        (Act::Truncate, "the server stored 2 of 5 bytes"),
    ];
    for (lie, said) in lies {
        let (project, server) = (Project::new(), Scripted::start());
        server.times(1, "STOR", lie);
        let mut run = project.watch(&[PLAIN, &server.host()]);
        project.write("a.py", "whole");
        run.wait_for_error(said);
        server.wait_file("a.py", "whole");
        run.stop();
        assert_eq!(run.count(said), 1);
    }
}

/// The old content counted as still there.
#[test]
fn a_lying_226_over_content_that_is_then_undone_is_made_up_for() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[PLAIN, &server.host()]);
    project.write("a.py", "AAAA");
    server.wait_stored("a.py", "AAAA");
    run.wait_for(">> ");
    server.times(1, "STOR", Act::TakeThen("226 ok"));
    project.write("a.py", "BBBB");
    run.wait_for_error("does not have it");
    project.write("a.py", "AAAA");
    server.wait_file("a.py", "AAAA");
    run.stop();
    assert_eq!(server.files(), [pair("a.py", "AAAA")]);
}

/// For each of them the next session is tried at once.
#[test]
fn a_server_that_ends_the_session_after_each_file_gets_all_files() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("PASV", Act::Close);
    for _ in 0..10 {
        // Tried in this order, the last first.
        server.times(1, "PASV", Act::Close);
        server.times(1, "PASV", Act::Say("227 Entering Passive Mode (127,0,0,1,{p1},{p2})."));
    }
    let mut run = project.watch(&[PLAIN, &server.host()]);
    for number in 0..5 {
        project.write(format!("{number}.py"), number.to_string());
    }
    for number in 0..5 {
        server.wait_file(&format!("{number}.py"), &number.to_string());
    }
    run.stop();
    assert_eq!(server.stored().len(), 5);
}

/// A board that lost its power has lost what it had not written to its flash.
#[test]
fn the_last_writes_that_a_power_cut_undid_are_sent_again_without_a_save() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    for path in ["a.py", "b.py"] {
        project.write(path, path);
        run.wait_for(&format!(" {path} "));
    }
    server.lose("b.py");
    server.times(1, "STOR c.py", Act::CutData);
    project.write("c.py", "c.py");
    server.wait_stored("c.py", "c.py");
    server.wait_file("b.py", "b.py");
    run.stop();
    assert!(run.stderr().contains("b.py: it is not there any more"), "{}", run.stderr());
    let paths = ["a.py", "b.py", "c.py", "b.py"];
    assert_eq!(server.stored(), paths.map(|path| pair(path, path)));
    assert_eq!(server.commands("SIZE a.py").len(), 2, "it was looked at, too");
}

#[test]
fn the_last_writes_that_a_restart_undid_are_sent_again_without_a_save() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    run.wait_for(">> ");
    server.stop();
    server.lose("a.py");
    server.restart();
    project.write("b.py", "b");
    server.wait_file("b.py", "b");
    server.wait_file("a.py", "a");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("b.py", "b"), pair("a.py", "a")]);
}

/// Neither is looked at then, nor sent.
#[test]
fn the_last_writes_are_not_doubted_after_a_session_that_we_ended() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    run.wait_for(">> ");
    server.lose("a.py");
    server.times(1, "STOR b.py", Act::Reply("451 Error writing file"));
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    project.write("c.py", "c");
    server.wait_stored("c.py", "c");
    run.stop();
    assert_eq!(server.sessions(), 2);
    assert_eq!(server.commands("SIZE a.py").len(), 1);
    assert_eq!(server.stored().len(), 3);
}

/// Where it tells no sizes, there is nothing to be learnt.
#[test]
fn the_last_writes_are_not_doubted_where_there_is_no_size() {
    let (project, mut server) = (Project::new(), Scripted::start());
    server.on("SIZE", Act::Reply("502 Not implemented"));
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    run.wait_for(">> ");
    server.restart();
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("b.py", "b")]);
}

/// A remote command that restarts the board before it has written the file.
#[test]
fn a_file_that_is_lost_again_and_again_is_sent_a_few_times_only() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("SITE", Act::Close);
    for _ in 0..10 {
        // In turn, the last first: confirmed, and gone after the restart.
        server.times(1, "SIZE a.py", Act::Reply("550 No such file"));
        server.times(1, "SIZE a.py", Act::Say("213 1"));
    }
    let mut run = project.watch(&["-r", "reset()", &server.host()]);
    project.write("a.py", "a");
    server.wait_commands(4, "SITE");
    project.write("b.py", "b");
    server.wait_commands(5, "SITE");
    project.write("c.py", "c");
    server.wait_commands(6, "SITE");
    run.stop();
    assert_eq!(server.commands("STOR a.py").len(), 4);
    assert_eq!(server.commands("STOR").len(), 6);
}

#[test]
fn a_board_with_one_session_survives_losing_it_in_a_transfer() {
    let acts = [Act::CutData, Act::Silence, Act::Reply("451 Error"), Act::Truncate];
    side_by_side(acts, |act| {
        let dialect = Dialect { one_session: true, ..Dialect::PLAIN };
        let (project, server) = (Project::new(), Scripted::with(dialect));
        server.times(1, "STOR", act);
        let mut run = project.watch(&["--timeout", "0.3", &server.host()]);
        project.write("a.py", "whole");
        server.wait_file("a.py", "whole");
        project.write("b.py", "b");
        server.wait_file("b.py", "b");
        run.stop();
    });
}

#[test]
fn a_refused_file_is_tried_again_when_another_goes_through() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR lib", Act::Reply("450 Busy"));
    let mut run = project.watch(&[&server.host()]);
    project.write("lib/a.py", "a");
    run.wait_for_error("450 Busy");
    for path in ["b.py", "c.py"] {
        project.write(path, path);
        server.wait_stored(path, path);
    }
    server.behave();
    server.wait_file("lib/a.py", "a");
    run.stop();
    assert_eq!(run.count("450 Busy"), 1, "said once");
}

#[test]
#[cfg(unix)]
fn an_upload_is_not_the_answer_to_a_save_that_came_meanwhile() {
    let (project, mut server) = (Project::new(), Scripted::start());
    server.times(1, "STOR", Act::Hold);
    let mut run = project.watch(&["--timeout", "5", &server.host()]);
    run.wait_for("connected");
    project.write("a.py", "one");
    server.wait_stored("a.py", "one");
    project.write("a.py", "two");
    project.wait_ordered_by(2, "a.py");
    server.times(usize::MAX, "PASV", Act::Silence);
    server.release();
    run.wait_for(">> ");
    server.wait_commands(2, "PASV");
    server.stop();
    run.wait_for_error("connection lost");
    run.interrupt();
    assert_eq!(run.wait_exit(), 1, "{}", run.stdout());
    run.wait_for_error("not delivered: a.py");
}

#[test]
fn a_file_that_grows_faster_than_it_is_sent_does_not_hold_up_the_others() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR log.py", Act::Crawl);
    let mut run = project.watch(&[&server.host()]);
    let grown = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = std::fs::File::create(project.path("log.py")).unwrap();
            while !grown.load(Ordering::Relaxed) {
                log.write_all(&[b'x'; 1_000_000]).unwrap();
                // Closing it once has it sent while it goes on growing.
                drop(std::fs::File::options().append(true).open(project.path("log.py")).unwrap());
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        server.wait_commands(1, "STOR log.py");
        project.write("other.py", "other");
        let other = server.wait_any_stored("other.py");
        grown.store(true, Ordering::Relaxed);
        assert!(other, "other.py was not stored");
    });
    run.interrupt_and_wait();
}
