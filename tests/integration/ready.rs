//! Saves in as few round trips as is safe: each rule of it with a server that punishes the breach.

use std::thread;
use std::time::{Duration, Instant};

use crate::boards::{self, BOARDS, Make};
use crate::support::{Act, Autoftp, Board, Client, Dialect, Project, Scripted, side_by_side};

const PLAIN: &str = "--transfer=serial";
const EAGER: &str = "--transfer=overlapped";
const READY: &str = "--transfer=prepared";

/// What is sent without a word from the server.
const CHUNK: usize = 64 * 1024;

/// So long nothing comes from a client that waits.
const SILENT: Duration = Duration::from_millis(300);

/// So late that whoever does not wait has spoken.
const LATE: Duration = Duration::from_millis(3);

fn early(path: &str, bytes: usize) -> (String, usize) {
    (path.to_owned(), bytes)
}

/// A content that no other path has, of a size that they all have: no SIZE tells one from another.
fn content_of(path: &str) -> String {
    format!("{path:.<40}")
}

/// `autoftp ARGS HOST` with a watchful server, once its data connection stands.
fn watch_ready(project: &Project, server: &Scripted, args: &[&str]) -> Autoftp {
    let run = project.watch(&[args, &[&server.host()]].concat());
    server.wait_ahead(1);
    run
}

/// Has all of these files wait for the session to begin: they are sent in one go, in this order.
fn burst(project: &Project, server: &Scripted, args: &[&str], paths: &[String]) -> Autoftp {
    server.times(1, "greeting", Act::Hold);
    let run = project.watch(&[args, &[&server.host()]].concat());
    for path in paths {
        project.write(path, content_of(path));
    }
    for path in paths {
        project.wait_ordered(path);
    }
    server.release();
    run
}

/// Nothing was ever stored under a path but what belongs there, whole.
fn expect_own_bytes(server: &Scripted) {
    for (path, content) in server.stored() {
        assert_eq!(content, content_of(&path), "in {path}");
    }
    for (path, content) in server.files() {
        assert_eq!(content, content_of(&path), "in {path}");
    }
}

/// The dialogue from the first data port on, without what the server answers.
fn dialogue(server: &Scripted) -> Vec<String> {
    let commands = server.commands("");
    let begin = commands.iter().position(|line| line.starts_with("PWD")).unwrap() + 1;
    commands[begin..].to_vec()
}

#[test]
fn stor_comes_before_the_data_and_the_end_of_the_data() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let mut run = watch_ready(&project, &server, &[]);
    for number in 1..=60 {
        let path = format!("{number}.py");
        // Every third is empty: its end is all that comes.
        let content = if number % 3 == 0 { String::new() } else { content_of(&path) };
        project.write(&path, &content);
        server.wait_stored(&path, content);
        server.wait_ahead(number + 1);
    }
    run.stop();
    assert_eq!(server.commands("STOR").len(), 60);
    assert_eq!(run.stderr(), "");
}

/// pyftpdlib corrupts files when PASV comes behind STOR, and boards take two commands for one.
#[test]
fn in_a_burst_no_command_comes_before_the_last_one_is_answered() {
    side_by_side([PLAIN, EAGER, READY], |way| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        server.on("", Act::Late(LATE));
        let paths: Vec<String> = (0..60).map(|number| format!("{number}.py")).collect();
        let mut run = burst(&project, &server, &[way], &paths);
        for path in &paths {
            server.wait_stored(path, content_of(path));
        }
        run.stop();
        assert_eq!(server.stored().len(), 60, "{way}");
        assert_eq!(server.commands("STOR").len(), 60, "{way}");
        assert_eq!(server.sessions(), 1, "{way}");
        expect_own_bytes(&server);
        assert_eq!(run.stderr(), "");
    });
}

/// The next data connection is made while the server looks at what it got.
#[test]
fn a_save_costs_stor_and_what_follows_it_makes_ready_for_the_next() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let mut run = watch_ready(&project, &server, &[]);
    for (number, path) in ["a.py", "b.py"].into_iter().enumerate() {
        project.write(path, content_of(path));
        server.wait_stored(path, content_of(path));
        server.wait_ahead(number + 2);
    }
    run.stop();
    let said = ["PASV", "STOR a.py", "SIZE a.py", "PASV", "STOR b.py", "SIZE b.py", "PASV", "QUIT"];
    assert_eq!(dialogue(&server), said);
}

#[test]
fn in_a_burst_the_next_data_connection_is_made_beside_size() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let paths = ["a.py", "b.py", "c.py"].map(str::to_owned);
    let mut run = burst(&project, &server, &[READY], &paths);
    run.wait_for(" c.py ");
    server.wait_ahead(4);
    run.stop();
    let said = [
        "PASV",
        "STOR a.py",
        "PASV",
        "SIZE a.py",
        "STOR b.py",
        "PASV",
        "SIZE b.py",
        "STOR c.py",
        "SIZE c.py",
        "PASV",
        "QUIT",
    ];
    assert_eq!(dialogue(&server), said);
}

#[test]
fn in_the_plain_way_each_step_waits_and_nothing_is_held() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    server.on("150", Act::Late(SILENT));
    let mut run = project.watch(&["-v", PLAIN, &server.host()]);
    run.wait_for("transfer serial: each step waits for its answer (--transfer)");
    for path in ["a.py", "b.py"] {
        project.write(path, content_of(path));
        run.wait_for(&format!(" {path} "));
    }
    run.stop();
    assert_eq!(server.early(), [early("a.py", 0), early("b.py", 0)]);
    let said = ["PASV", "STOR a.py", "SIZE a.py", "PASV", "STOR b.py", "SIZE b.py", "QUIT"];
    assert_eq!(dialogue(&server), said);
}

#[test]
fn in_the_eager_way_the_data_comes_along_and_nothing_is_held() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    server.on("150", Act::Late(Duration::from_secs(5)));
    let mut run = project.watch(&["-v", EAGER, &server.host()]);
    run.wait_for("transfer overlapped: the data goes out along with STOR (--transfer)");
    for path in ["a.py", "b.py"] {
        project.write(path, content_of(path));
        run.wait_for(&format!(" {path} "));
    }
    run.stop();
    assert_eq!(server.early(), [early("a.py", 40), early("b.py", 40)]);
    let said = ["PASV", "STOR a.py", "SIZE a.py", "PASV", "STOR b.py", "SIZE b.py", "QUIT"];
    assert_eq!(dialogue(&server), said);
}

#[test]
fn what_is_longer_than_a_chunk_waits_for_the_servers_word() {
    let ways = [EAGER, READY].into_iter();
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5_000_000];
    side_by_side(ways.flat_map(|way| sizes.map(|size| (way, size))), |(way, size)| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        server.on("150", Act::Late(SILENT));
        let mut run = project.watch(&[way, "-p", "*", &server.host()]);
        let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
        project.write("file", &bytes);
        server.wait_stored("file", &bytes);
        run.stop();
        let [(_, sent)] = server.early()[..] else { panic!("{:?}", server.early()) };
        assert!(sent <= CHUNK, "{way}: {sent} of {size}");
        assert_eq!(run.stderr(), "", "{way} {size}");
    });
}

/// It is what a refusal costs at most.
#[test]
fn of_a_large_file_that_is_refused_no_more_than_a_chunk_is_sent() {
    side_by_side([EAGER, READY], |way| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        server.times(1, "STOR large", Act::Reply("552 Quota exceeded"));
        let mut run = project.watch(&[way, "-p", "*", &server.host()]);
        project.write("large", vec![b'x'; 5_000_000]);
        run.wait_for_error("552 Quota exceeded");
        project.write("a.py", content_of("a.py"));
        server.wait_stored("a.py", content_of("a.py"));
        run.interrupt_and_wait();
        assert!(server.wasted().iter().all(|bytes| *bytes <= CHUNK), "{:?}", server.wasted());
        assert!(!server.wasted().is_empty(), "{way}");
    });
}

/// Refusals after which the session goes on, and those that have it renewed.
const REFUSALS: [&str; 10] = [
    "425 Can't open data connection",
    "426 Connection closed",
    "450 File busy",
    "451 Error writing file",
    "452 No space",
    "503 Bad sequence",
    "530 Not logged in",
    "550 What a day",
    "552 Quota exceeded",
    "553 Could not create file.",
];

/// vsftpd and pure-ftpd keep the port of a refused STOR, with what was sent to it.
#[test]
fn after_a_refusal_no_file_gets_the_bytes_of_another() {
    let cases = REFUSALS.into_iter().flat_map(|it| [(it, Dialect::WATCHFUL), (it, Dialect::PLAIN)]);
    side_by_side(cases, |(refusal, dialect)| {
        let (project, server) = (Project::new(), Scripted::with(dialect));
        server.times(1, "STOR bad.py", Act::Reply(refusal));
        let paths = ["bad.py", "b.py", "c.py", "d.py"].map(str::to_owned);
        let mut run = burst(&project, &server, &[READY], &paths);
        for path in &paths {
            server.wait_stored(path, content_of(path));
        }
        // And once more for a data connection that was made while nothing was due.
        server.times(1, "STOR bad2.py", Act::Reply(refusal));
        for path in ["bad2.py", "e.py", "f.py"] {
            project.write(path, content_of(path));
            server.wait_any_stored(path);
        }
        run.stop();
        assert_eq!(server.stored().len(), 7, "{refusal}");
        expect_own_bytes(&server);
    });
}

/// What is refused for good is not sent again, and its bytes go nowhere.
#[test]
fn the_bytes_of_a_file_that_is_never_taken_go_nowhere() {
    side_by_side(["500 What", "504 Not for that parameter", "550 No", "553 Name"], |refusal| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        server.on("STOR bad", Act::Reply(refusal));
        let mut run = watch_ready(&project, &server, &[]);
        for path in ["bad1.py", "a.py", "bad2.py", "bad3.py", "b.py"] {
            project.write(path, content_of(path));
            if path.starts_with("bad") {
                server.wait_commands(1, &format!("STOR {path}"));
            } else {
                server.wait_any_stored(path);
            }
        }
        assert_eq!(run.interrupt_and_wait(), 1, "{refusal}");
        let paths: Vec<String> = server.files().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a.py", "b.py"], "{refusal}");
        expect_own_bytes(&server);
    });
}

/// The data of the refused STOR has gone out by then.
#[test]
fn a_directory_that_is_missing_is_made_and_gets_its_own_files() {
    let refusals = [
        Act::Reply("550 No such directory"),
        Act::Reply("553 Could not create file."),
        Act::Reply("450 No such directory"),
        Act::TakeThen("550 Fail"),
        Act::DropThen("550 Fail"),
    ];
    let dialects = [Dialect::WATCHFUL, Dialect::PLAIN];
    let cases = refusals
        .into_iter()
        .flat_map(|act| dialects.map(|dialect| Dialect { missing_directory: act, ..dialect }));
    side_by_side(cases, |dialect| {
        let (project, server) = (Project::new(), Scripted::with(dialect));
        let paths = ["a/1.py", "a/2.py", "b/c/3.py", "4.py", "b/5.py"].map(str::to_owned);
        let mut run = burst(&project, &server, &[], &paths);
        for path in &paths {
            server.wait_stored(path, content_of(path));
        }
        for path in ["d/6.py", "d/7.py", "d/e/f/8.py", "9.py"] {
            project.write(path, content_of(path));
            server.wait_any_stored(path);
        }
        run.stop();
        assert_eq!(server.stored().len(), 9, "{dialect:?}");
        expect_own_bytes(&server);
        assert_eq!(run.stderr(), "", "{dialect:?}");
        assert_eq!(server.sessions(), 1, "{dialect:?}");
    });
}

#[test]
fn a_burst_into_many_new_directories_sends_each_file_once() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let paths: Vec<String> =
        (0..200).map(|number| format!("d{}/{number}.py", number % 20)).collect();
    let mut run = burst(&project, &server, &[], &paths);
    for path in &paths {
        server.wait_stored(path, content_of(path));
    }
    run.stop();
    assert_eq!(server.stored().len(), 200);
    expect_own_bytes(&server);
    assert_eq!(server.commands("MKD").len(), 20);
    assert_eq!(server.commands("STOR").len(), 220, "the first of each directory was refused");
    assert_eq!(server.sessions(), 1);
    assert_eq!(run.stderr(), "");
}

/// pyftpdlib ends the session otherwise.
#[test]
fn each_pasv_is_connected_to() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let paths: Vec<String> = (0..20).map(|number| format!("{number}.py")).collect();
    let mut run = burst(&project, &server, &[], &paths);
    for path in &paths {
        server.wait_stored(path, content_of(path));
    }
    server.wait_ahead(21);
    for path in ["a.py", "b.py"] {
        let before = server.ahead();
        project.write(path, content_of(path));
        server.wait_stored(path, content_of(path));
        server.wait_ahead(before + 1);
    }
    run.stop();
    assert_eq!(server.commands("PASV").len(), server.ahead());
    assert_eq!(server.sessions(), 1);
}

/// Who is unknown may have one port for all clients: two transfers tell, and they are enough for
/// all its sessions.
#[test]
fn nothing_is_held_until_the_ports_are_seen_to_differ() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-v", &server.host()]);
    run.wait_for("transfer serial: each step waits for its answer (until its data ports are");
    for path in ["a.py", "b.py"] {
        project.write(path, content_of(path));
        run.wait_for(&format!(" {path} "));
    }
    run.wait_for("transfer prepared: a save takes one round trip");
    server.wait_commands(3, "PASV");
    let said = ["PASV", "STOR a.py", "SIZE a.py", "PASV", "STOR b.py", "SIZE b.py", "PASV"];
    assert_eq!(dialogue(&server), said);
    server.restart();
    project.write("c.py", content_of("c.py"));
    server.wait_stored("c.py", content_of("c.py"));
    server.wait_commands(5, "PASV");
    run.stop();
    assert_eq!(server.sessions(), 2);
    assert_eq!(run.count("transfer serial"), 1, "{}", run.stdout());
}

/// Failed until a port that came twice by chance was not taken for the only one any more.
#[test]
fn ports_that_were_seen_to_differ_may_come_twice() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let mut run = watch_ready(&project, &server, &[]);
    for (number, path) in ["a.py", "b.py", "c.py"].into_iter().enumerate() {
        if path == "b.py" {
            server.times(1, "PASV", Act::SamePort);
        }
        project.write(path, content_of(path));
        server.wait_stored(path, content_of(path));
        server.wait_ahead(number + 2);
    }
    run.stop();
    assert_eq!(server.commands("PASV").len(), 4);
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_data_connection_that_ended_while_idle_gets_no_file() {
    side_by_side([false, true], |with_reset| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        let mut run = watch_ready(&project, &server, &[]);
        for (number, path) in ["a.py", "b.py", "c.py"].into_iter().enumerate() {
            server.cut_ahead(with_reset);
            project.write(path, content_of(path));
            server.wait_stored(path, content_of(path));
            server.wait_ahead(2 * number + 3);
            // This server empties a file before it takes its data.
            let states = [String::new(), content_of(path)].map(Some);
            assert_eq!(server.history(path), states, "{with_reset}");
        }
        run.stop();
        assert_eq!(server.commands("STOR").len(), 3);
        assert_eq!(server.sessions(), 1);
        assert_eq!(run.stderr(), "");
    });
}

/// Nobody can know of it before: the server takes it for the end of the file.
#[test]
fn a_data_connection_that_ends_as_stor_goes_out_is_made_up_for_without_a_word() {
    let small = "x".to_owned();
    let large = content_of("large").repeat(10_000);
    let lies = [Act::DropThen("226 Stored"), Act::Truncate, Act::TakeThen("226 Stored")];
    let cases = lies.into_iter().flat_map(|lie| [(lie, &small), (lie, &large)]);
    side_by_side(cases, |(lie, content)| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        let mut run = watch_ready(&project, &server, &[]);
        server.on("150", Act::Late(SILENT));
        server.times(1, "STOR a.py", lie);
        project.write("a.py", content);
        server.wait_file("a.py", content);
        run.wait_for(" a.py ");
        project.write("b.py", content_of("b.py"));
        server.wait_stored("b.py", content_of("b.py"));
        run.stop();
        let early: Vec<bool> = server.early().into_iter().map(|(_, bytes)| bytes > 0).collect();
        assert_eq!(early, [true, false, true], "{lie:?}: ready, plain, ready");
        assert_eq!(run.stderr(), "", "{lie:?}");
        assert_eq!(server.sessions(), 2, "{lie:?}");
    });
}

/// What goes wrong the fast way, and is nothing worth a word.
const MISSES: [Act; 8] = [
    Act::TakeThen("426 Connection closed"),
    Act::TakeThen("451 Local error"),
    Act::TakeThen("425 No data connection"),
    Act::TakeThen("503 Bad sequence"),
    Act::TakeThen("530 Not logged in"),
    Act::DropThen("426 Connection closed"),
    Act::Truncate,
    Act::DropThen("226 Stored"),
];

#[test]
fn what_went_wrong_the_fast_way_goes_the_plain_way_at_once() {
    let cases = MISSES.into_iter().flat_map(|miss| [(miss, EAGER), (miss, READY)]);
    side_by_side(cases, |(miss, way)| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        let mut run = project.watch(&[way, &server.host()]);
        run.wait_for("connected");
        server.on("150", Act::Late(SILENT));
        server.times(1, "STOR a.py", miss);
        for path in ["a.py", "b.py"] {
            project.write(path, content_of(path));
            server.wait_stored(path, content_of(path));
            run.wait_for(&format!(" {path} "));
        }
        // One that was made up for is forgotten once another went the fast way.
        server.times(1, "STOR c.py", miss);
        for path in ["c.py", "d.py"] {
            project.write(path, content_of(path));
            server.wait_stored(path, content_of(path));
            run.wait_for(&format!(" {path} "));
        }
        run.stop();
        let sent =
            [("a.py", 40), ("a.py", 0), ("b.py", 40), ("c.py", 40), ("c.py", 0), ("d.py", 40)];
        let seen = server.early();
        // What is dropped unread may be seen before it has come.
        let sent = sent.map(|(path, bytes)| early(path, bytes));
        assert_eq!(seen, sent, "{miss:?} {way}");
        assert_eq!(run.stderr(), "", "{miss:?} {way}");
    });
}

#[test]
fn after_two_misses_in_a_row_a_session_is_plain_and_the_one_after_it_is_not() {
    let (project, mut server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let mut run = watch_ready(&project, &server, &["-v"]);
    server.on("150", Act::Late(SILENT));
    for path in ["a.py", "b.py", "c.py"] {
        if path != "c.py" {
            server.times(1, &format!("STOR {path}"), Act::TakeThen("426 Connection closed"));
        }
        project.write(path, content_of(path));
        run.wait_for(&format!(" {path} "));
    }
    run.wait_for("transfer serial: each step waits for its answer (faster ways failed before)");
    server.restart();
    project.write("d.py", content_of("d.py"));
    server.wait_stored("d.py", content_of("d.py"));
    run.wait_for(" d.py ");
    run.stop();
    let sent = [("a.py", 40), ("a.py", 0), ("b.py", 40), ("b.py", 0), ("c.py", 0), ("d.py", 40)];
    assert_eq!(server.early(), sent.map(|(path, bytes)| early(path, bytes)));
}

/// Until then nothing is known of the files that are stored under temporary names.
#[test]
fn with_atomic_what_went_wrong_the_fast_way_goes_the_plain_way_at_once() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    server.times(1, "STOR", Act::TakeThen("426 Connection closed"));
    server.on("150", Act::Late(SILENT));
    let paths = ["a.py", "b.py", "c.py"].map(str::to_owned);
    let mut run = burst(&project, &server, &["--atomic"], &paths);
    for path in &paths {
        server.wait_file(path, &content_of(path));
    }
    run.stop();
    let sent: Vec<usize> = server.early().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(sent, [40, 0, 40, 40]);
    assert_eq!(run.stderr(), "");
}

/// What is refused is taken first, or it would be the next file's.
const ONE_PORT: Dialect =
    Dialect { one_port: true, missing_directory: Act::TakeThen("550 Fail"), ..Dialect::PLAIN };
const KEEPS_NONE: &str =
    "transfer serial: each step waits for its answer (until its data ports are seen to differ)";

/// Whoever sends a file next would have it stored from there.
#[test]
fn where_all_clients_share_one_data_port_nothing_is_held_there() {
    let (project, server) = (Project::new(), Scripted::with(ONE_PORT));
    let mut run = project.watch(&["-v", &server.host()]);
    run.wait_for(KEEPS_NONE);
    let other = Client::of(&server.host());
    for number in 0..5 {
        let (ours, others) = (format!("{number}.py"), format!("other-{number}.py"));
        other.upload(&others, &content_of(&others));
        project.write(&ours, content_of(&ours));
        run.wait_for(&format!(" {ours} "));
    }
    other.upload("other.py", &content_of("other.py"));
    run.stop();
    assert_eq!(server.commands("PASV").len(), 11, "each right before its STOR");
    assert_eq!(server.stored().len(), 11);
    expect_own_bytes(&server);
    assert_eq!(run.stderr(), "");
}

/// It is not known yet then that the port is always the same, and there is no next file after all.
#[test]
fn where_all_clients_share_one_data_port_nothing_is_held_after_a_burst() {
    let (project, server) = (Project::new(), Scripted::with(ONE_PORT));
    let paths = ["a.py", "b.py"].map(str::to_owned);
    server.times(1, "STOR a.py", Act::Hold);
    server.times(1, "greeting", Act::Late(Duration::from_secs(1)));
    let mut run = project.watch(&["-v", &server.host()]);
    for path in &paths {
        project.write(path, content_of(path));
        project.wait_ordered(path);
    }
    server.wait_stored("a.py", content_of("a.py"));
    project.remove("b.py");
    server.release();
    run.wait_for("transfer ");
    Client::of(&server.host()).upload("other.py", &content_of("other.py"));
    run.stop();
    expect_own_bytes(&server);
}

/// While it is held, nobody else can be given it.
#[test]
fn where_a_known_server_has_one_data_port_it_is_not_held_for_long() {
    let (project, server) = (Project::new(), Scripted::with(ONE_PORT));
    server.on("greeting", Act::Say("220 (vsFTPd 3.0.3)"));
    let mut run = project.watch(&["-v", &server.host()]);
    run.wait_for("transfer prepared");
    for path in ["a.py", "b.py", "c.py"] {
        project.write(path, content_of(path));
        run.wait_for(&format!(" {path} "));
    }
    run.wait_for(KEEPS_NONE);
    let other = Client::of(&server.host());
    for number in 0..3 {
        let (ours, others) = (format!("{number}.py"), format!("other-{number}.py"));
        other.upload(&others, &content_of(&others));
        project.write(&ours, content_of(&ours));
        run.wait_for(&format!(" {ours} "));
    }
    run.stop();
    expect_own_bytes(&server);
    assert_eq!(run.stderr(), "");
}

/// vsftpd cannot open the port that another session has.
#[test]
fn a_session_that_dies_of_an_oops_is_followed_by_another() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "PASV", Act::Reply("500 OOPS: vsf_sysutil_bind"));
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    run.stop();
    assert_eq!(server.sessions(), 2);
    assert!(server.commands("EPSV").is_empty());
}

/// A reset is how some close a data connection. In a fast way it may be pyftpdlib's, which got STOR
/// behind the data and says nothing more: then the file is sent once more.
#[test]
fn a_server_that_resets_data_connections_and_takes_its_time_gets_each_file() {
    for (way, times) in [(PLAIN, 1), (EAGER, 2), (READY, 2)] {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        server.on("STOR", Act::ResetData);
        server.on("226", Act::Late(Duration::from_secs(3)));
        let mut run = project.watch(&[way, &server.host()]);
        run.wait_for("connected");
        project.write("a.py", content_of("a.py"));
        run.wait_for(" a.py ");
        run.stop();
        assert_eq!(server.stored().len(), times, "{way:?}");
        assert_eq!(run.stderr(), "", "{way:?}");
    }
}

/// That SIZE is refused twice is understood as its way, but not of one file that it may not have.
#[test]
fn a_server_that_stores_nothing_is_not_believed_without_a_word() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    server.times(2, "STOR", Act::TakeThen("226 ok"));
    let mut run = watch_ready(&project, &server, &[]);
    project.write("a.py", content_of("a.py"));
    run.wait_for_error("said that it stored it, and does not have it");
    server.wait_file("a.py", &content_of("a.py"));
    run.stop();
}

/// Only uftpd means by 400 that it has not looked at the command, and has a queue to be emptied.
#[test]
fn what_is_right_for_uftpds_queue_is_not_done_elsewhere() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    server.times(1, "STOR a.py", Act::Reply("400 Something else"));
    let mut run = watch_ready(&project, &server, &["--timeout", "2"]);
    for path in ["a.py", "b.py"] {
        project.write(path, content_of(path));
    }
    for path in ["a.py", "b.py"] {
        server.wait_file(path, &content_of(path));
    }
    run.stop();
    let names = ["a.py", "b.py"].map(|path| (path.to_owned(), content_of(path)));
    assert_eq!(server.files(), names);
    assert!(server.commands("STOR .autoftp").is_empty(), "{:?}", server.commands("STOR"));
}

/// What waits in the queue of the port is taken for the next file, also when nobody is at its other
/// end any more.
#[test]
fn where_all_clients_share_one_data_port_a_refused_file_is_not_stored_as_the_next() {
    let (project, server) = (Project::new(), Scripted::with(ONE_PORT));
    let mut run = project.watch(&["-v", &server.host()]);
    run.wait_for(KEEPS_NONE);
    server.times(1, "STOR bad.py", Act::Reply("450 File busy"));
    project.write("bad.py", content_of("bad.py"));
    server.wait_commands(1, "STOR bad.py");
    project.write("a.py", content_of("a.py"));
    assert!(server.wait_any_stored("a.py"));
    for path in ["a.py", "bad.py"] {
        server.wait_file(path, &content_of(path));
    }
    run.stop();
    for path in ["a.py", "bad.py"] {
        for content in server.history(path).into_iter().flatten() {
            assert!(content.is_empty() || content == content_of(path), "{content} in {path}");
        }
    }
}

/// The person knows better: of nobody else.
#[test]
fn where_all_clients_share_one_data_port_ready_is_what_the_person_may_choose() {
    let (project, server) = (Project::new(), Scripted::with(ONE_PORT));
    let mut run = project.watch(&["-v", READY, &server.host()]);
    run.wait_for("transfer prepared: a save takes one round trip");
    project.write("a.py", content_of("a.py"));
    server.wait_stored("a.py", content_of("a.py"));
    server.wait_commands(2, "PASV");
    run.stop();
    assert_eq!(dialogue(&server), ["PASV", "STOR a.py", "SIZE a.py", "PASV", "QUIT"]);
}

#[test]
fn where_ready_is_not_safe_it_is_not_to_be_chosen() {
    side_by_side([&[][..], &[EAGER], &[READY]], |way| {
        let (project, board) = (Project::new(), Board::uftpd());
        let mut run = boards::watch(&project, &board, "me", &[way, &["-v"]].concat());
        let why = "uftpd has one data port for all its clients";
        run.wait_for(&format!("transfer overlapped: the data goes out along with STOR ({why})"));
        run.stop();
        let (project, server) = (Project::new(), Scripted::start());
        server.on("150", Act::Late(SILENT));
        let mut run = project.watch(&[way, &["-v", "--active", &server.host()]].concat());
        run.wait_for("transfer overlapped: the data goes out along with STOR (in active mode a");
        project.write("a.py", content_of("a.py"));
        server.wait_stored("a.py", content_of("a.py"));
        run.stop();
        assert_eq!(server.early(), [early("a.py", 0)], "for ftp-srv");
        assert!(server.commands("PASV").is_empty());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn through_tls_nothing_is_held() {
    use crate::support::tls::{Front, Manner};

    side_by_side([&[][..], &[READY]], |way| {
        let (project, server) = (Project::new(), Scripted::start());
        let front = Front::start(&server, Manner::EXPLICIT);
        let (host, issuer) = (format!("ftps://me@{}", front.host()), &front.files().issuer);
        let args = [way, &["-v", "--cacert", issuer.to_str().unwrap(), &host]].concat();
        let mut command = project.autoftp(&args);
        command.env("AUTOFTP_PASSWORD", "secret");
        let mut run = Autoftp::spawn(command);
        run.wait_for("transfer overlapped: the data goes out along with STOR (through TLS a");
        for path in ["a.py", "b.py"] {
            project.write(path, content_of(path));
            server.wait_stored(path, content_of(path));
        }
        run.stop();
        let said = ["PASV", "STOR a.py", "SIZE a.py", "PASV", "STOR b.py", "SIZE b.py", "QUIT"];
        let transfers = ["PASV", "STOR", "SIZE", "QUIT"];
        let is_transfer = |line: &String| transfers.iter().any(|verb| line.starts_with(verb));
        let heard: Vec<String> = server.commands("").into_iter().filter(is_transfer).collect();
        assert_eq!(heard, said);
    });
}

#[test]
fn the_way_that_is_taken_is_said_once() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let mut run = watch_ready(&project, &server, &["-v"]);
    for path in ["a.py", "b.py"] {
        project.write(path, content_of(path));
        run.wait_for(&format!(" {path} "));
    }
    run.stop();
    let said = format!("{}: transfer prepared: a save takes one round trip", server.host());
    assert_eq!(run.count(&said), 1);
    assert_eq!(run.count("-- "), run.count(": transfer "), "{}", run.stdout());
    let mut run = watch_ready(&project, &server, &[]);
    run.stop();
    assert_eq!(run.count("transfer "), 0, "only with -v");
}

#[test]
fn the_ways_of_ftpdlite_are_said() {
    let said =
        [("ftpadmin", "transfer prepared: a save takes one"), ("anonymous", "transfer serial: ")];
    for (user, said) in said {
        let (project, board) = (Project::new(), Board::ftpdlite());
        let mut run = boards::watch(&project, &board, user, &["-v"]);
        run.wait_for(said);
        run.stop();
    }
}

#[test]
fn saves_that_come_while_it_makes_ready_arrive() {
    // The PASV after the login, and the one after a save.
    side_by_side([1, 2], |turn| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        server.times(1, "PASV", Act::Hold);
        if turn == 2 {
            server.times(1, "PASV", Act::Say("227 Entering Passive Mode (127,0,0,1,{p1},{p2})."));
        }
        let mut run = project.watch(&["-v", &server.host()]);
        if turn == 2 {
            run.wait_for("transfer prepared");
            project.write("first.py", content_of("first.py"));
            server.wait_stored("first.py", content_of("first.py"));
        }
        server.wait_commands(turn, "PASV");
        let paths = ["a.py", "lib/b.py", "c.py"];
        for path in paths {
            project.write(path, content_of(path));
            project.wait_ordered(path);
        }
        server.release();
        for path in paths {
            server.wait_stored(path, content_of(path));
        }
        run.stop();
        expect_own_bytes(&server);
        assert_eq!(server.sessions(), 1, "{turn}");
        assert_eq!(run.stderr(), "", "{turn}");
    });
}

#[test]
fn a_data_port_that_does_not_answer_ahead_holds_up_no_save() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    // The port that servers make data connections from in active mode: nobody listens there.
    server.times(1, "PASV", Act::Reply("227 Entering Passive Mode (127,0,0,1,0,20)"));
    let mut run = project.watch(&["-v", &server.host()]);
    run.wait_for("transfer overlapped: the data goes out along with STOR (its data port: ");
    for path in ["a.py", "b.py"] {
        project.write(path, content_of(path));
        server.wait_stored(path, content_of(path));
    }
    run.stop();
    assert_eq!(server.sessions(), 1);
    assert_eq!(run.stderr(), "");
}

#[test]
fn with_atomic_each_file_is_renamed_before_the_next_one_comes() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let paths: Vec<String> = (0..20).map(|number| format!("lib/{number}.py")).collect();
    let mut run = burst(&project, &server, &["--atomic"], &paths);
    for path in &paths {
        server.wait_file(path, &content_of(path));
    }
    for path in ["lib/0.py", "a.py", "lib/0.py"] {
        let before = server.ahead();
        project.write(path, "another content");
        server.wait_file(path, "another content");
        server.wait_ahead(before + 1);
        project.write(path, content_of(path));
        server.wait_file(path, &content_of(path));
        server.wait_ahead(before + 2);
    }
    run.stop();
    for path in &paths[1..] {
        assert_eq!(server.history(path), [Some(content_of(path))]);
    }
    assert_eq!(server.files().len(), 21, "nothing is left behind");
    assert_eq!(run.stderr(), "");
}

#[test]
fn with_mirror_and_a_remote_command_the_connection_that_waits_is_not_disturbed() {
    let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
    let mut run = watch_ready(&project, &server, &["--mirror", "-r", "reload()"]);
    for (number, path) in ["a.py", "old/b.py", "old/c.py"].into_iter().enumerate() {
        project.write(path, content_of(path));
        server.wait_stored(path, content_of(path));
        server.wait_commands(number + 1, "SITE");
    }
    // One for each, one for what was refused for want of a directory, and one that waits.
    server.wait_ahead(5);
    let before = server.ahead();
    project.remove("old/b.py");
    server.wait_no_file("old/b.py");
    project.rename("old/c.py", "d.py");
    server.wait_file("d.py", &content_of("old/c.py"));
    server.wait_commands(4, "SITE");
    assert_eq!(server.ahead(), before, "it is the one from before");
    project.write("e.py", content_of("e.py"));
    server.wait_stored("e.py", content_of("e.py"));
    server.wait_ahead(before + 1);
    run.stop();
    assert_eq!(server.sessions(), 1);
    assert_eq!(run.stderr(), "");
}

#[test]
fn each_host_gets_files_in_its_own_way() {
    let project = Project::new();
    let (server, slow) = (Scripted::with(Dialect::WATCHFUL), Scripted::with(ONE_PORT));
    let (uftpd, lite) = (Board::uftpd(), Board::ftpdlite());
    let lite_host = format!("ftp://ftpadmin@{}", lite.host());
    let (one, two, three) = (server.host(), slow.host(), uftpd.host());
    let mut run = project.watch(&["-v", &one, &two, &three, &lite_host]);
    run.wait_for(&format!("{one}: transfer prepared"));
    run.wait_for(&format!("{two}: transfer serial"));
    run.wait_for(&format!("{three}: transfer overlapped"));
    run.wait_for("transfer prepared: a save takes one round trip");
    for number in 0..10 {
        let path = format!("lib{}/{number}.py", number % 3);
        project.write(&path, content_of(&path));
        if number % 2 == 0 {
            server.wait_stored(&path, content_of(&path));
        }
    }
    for number in 0..10 {
        let path = format!("lib{}/{number}.py", number % 3);
        for server in [&server, &slow] {
            server.wait_stored(&path, content_of(&path));
        }
        for board in [&uftpd, &lite] {
            board.wait_file(&path, content_of(&path));
        }
    }
    run.stop();
    expect_own_bytes(&server);
    expect_own_bytes(&slow);
    assert_eq!(run.stderr(), "");
}

/// uftpd needs no more than one PASV in a session, and tells the port before the first save.
#[test]
fn uftpd_is_asked_for_its_port_once() {
    side_by_side([Board::uftpd as Make, Board::uftpd_on_esp32], |make| {
        let (project, board) = (Project::new(), make());
        let mut run = boards::watch(&project, &board, "me", &[]);
        board.wait_commands(1, "PASV");
        for path in ["a.py", "b.py", "c.py"] {
            project.write(path, content_of(path));
            board.wait_stored(path, content_of(path));
        }
        run.stop();
        assert_eq!(board.commands("PASV").len(), 1);
        assert_eq!(board.commands("STOR").len(), 3);
        assert_eq!(run.stderr(), "");
    });
}

/// It would get a connection of ours that waits there.
#[test]
fn another_client_of_uftpd_is_not_disturbed_between_our_saves() {
    // On an ESP32 each would find the board busy with the other now and then.
    side_by_side([PLAIN, EAGER, READY], |way| {
        let (project, board) = (Project::new(), Board::uftpd());
        let mut run = boards::watch(&project, &board, "me", &[way]);
        let other = Client::of(&board.host());
        for number in 0..5 {
            let (ours, others) = (format!("lib/{number}.py"), format!("other-{number}.py"));
            project.write(&ours, content_of(&ours));
            run.wait_for(&format!(" {ours} "));
            other.upload(&others, &content_of(&others));
            assert_eq!(board.file(&others), Some(content_of(&others).into_bytes()));
            assert_eq!(board.file(&ours), Some(content_of(&ours).into_bytes()));
        }
        run.stop();
        assert_eq!(run.stderr(), "", "{way}");
    });
}

#[test]
fn bursts_arrive_on_every_board_in_every_way() {
    let ways = [PLAIN, EAGER, READY];
    side_by_side(
        BOARDS.into_iter().flat_map(|it| ways.map(|way| (it, way))),
        |((make, who), way)| {
            let (project, board) = (Project::new(), make());
            let paths: Vec<String> =
                (0..20).map(|number| format!("d{}/{number}.py", number % 4)).collect();
            for path in &paths {
                project.write(path, content_of(path));
            }
            let mut run = boards::watch(&project, &board, who, &["--sync", way]);
            for path in &paths {
                board.wait_file(path, content_of(path));
            }
            for path in ["d1/a.py", "new/b.py", "c.py"] {
                project.write(path, content_of(path));
                board.wait_stored(path, content_of(path));
            }
            run.stop();
            for (path, content) in board.stored() {
                assert_eq!(content, content_of(&path), "{way}");
            }
            assert_eq!(run.stderr(), "", "{way}");
        },
    );
}

/// Each PASV that no transfer follows costs it one of its 255 ports.
#[test]
fn ftpdlite_has_ports_for_more_saves_than_it_has_ports() {
    side_by_side([PLAIN, EAGER, READY], |way| {
        let (project, board) = (Project::new(), Board::ftpdlite());
        let mut run = boards::watch(&project, &board, "ftpadmin", &[way]);
        for number in 0..260 {
            let content = format!("{number:04}");
            project.write("a.py", &content);
            board.wait_stored("a.py", content);
        }
        run.stop();
        assert_eq!(board.sessions(), 1, "{way}");
        let ahead = usize::from(way == READY);
        let transfers = board.commands("STOR").len();
        assert!(board.commands("PASV").len() <= transfers + ahead, "{way}");
        assert_eq!(run.stderr(), "", "{way}");
    });
}

/// Waits longer than a test otherwise does.
fn wait_long(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not come about");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What is not relied on is closed, and made anew for somebody who is at work.
#[test]
fn a_data_connection_is_relied_on_for_25_seconds() {
    let begun = Instant::now();
    side_by_side([false, true], |is_at_work| {
        let (project, server) = (Project::new(), Scripted::with(Dialect::WATCHFUL));
        let mut run = watch_ready(&project, &server, &["-p", "*.py"]);
        if is_at_work {
            // Later than the connection was made, by more than a loaded machine wakes up late.
            thread::sleep(Duration::from_secs(3));
            // What is ignored is a sign as good as any.
            project.write("notes.txt", "a note");
        }
        let is_through = || if is_at_work { server.ahead() == 2 } else { server.given_up() == 1 };
        wait_long("the end of the connection", is_through);
        assert!(begun.elapsed() >= Duration::from_secs(24), "{:?}", begun.elapsed());
        if !is_at_work {
            assert_eq!(server.commands("PASV").len(), 1);
            project.write(".a.py.swp", "a swap file");
            server.wait_ahead(2);
        }
        project.write("a.py", content_of("a.py"));
        server.wait_stored("a.py", content_of("a.py"));
        server.wait_ahead(3);
        run.stop();
        let said = ["PASV", "PASV", "STOR a.py", "SIZE a.py", "PASV", "QUIT"];
        assert_eq!(dialogue(&server), said);
        assert_eq!(run.stderr(), "");
    });
}

/// Given up, each would cost it one of its ports.
#[test]
#[ignore = "takes half a minute"]
fn on_ftpdlite_a_data_connection_is_relied_on_as_long_as_the_session_lasts() {
    let (project, board) = (Project::new(), Board::ftpdlite());
    let mut run = boards::watch(&project, &board, "ftpadmin", &[]);
    board.wait_commands(1, "PASV");
    // It keeps the session alive after 30 s.
    wait_long("the keep-alive", || !board.commands("NOOP").is_empty());
    project.write("a.py", content_of("a.py"));
    board.wait_stored("a.py", content_of("a.py"));
    board.wait_commands(2, "PASV");
    run.stop();
    let commands = board.commands("");
    let stor = commands.iter().position(|line| line.starts_with("STOR")).unwrap();
    let asked = commands[..stor].iter().filter(|line| line.as_str() == "PASV").count();
    assert_eq!(asked, 1, "{commands:?}");
}
