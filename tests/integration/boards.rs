//! The whole journey with the servers that boards run, as they really answer. Each of them fails a
//! test in which it was sent anything but one whole command at a time.

use std::fs;
use std::time::Duration;

use crate::support::{Autoftp, Board, Client, Leaves, Project, side_by_side};

pub type Make = fn() -> Board;

/// How to make each board, and who may write there.
pub const BOARDS: [(Make, &str); 4] = [
    (Board::uftpd, "anonymous"),
    (Board::uftpd_on_esp32, "anonymous"),
    (Board::ftpdlite, "ftpadmin"),
    (|| Board::ftpdlite_for("maker", "secret"), "maker:secret"),
];

/// `autoftp ARGS` between a project and a board, ready to catch saves.
pub fn watch(project: &Project, board: &Board, login: &str, args: &[&str]) -> Autoftp {
    let host = format!("ftp://{login}@{}", board.host());
    project.watch(&[args, &[host.as_str()]].concat())
}

/// Does the same with every board.
fn on_every_board(test: impl Fn(&Project, &Board, &str) + Sync) {
    side_by_side(BOARDS, |(make, login)| test(&Project::new(), &make(), login));
}

#[test]
fn saves_arrive_over_one_session_and_it_says_goodbye() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &["-p", "*"]);
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for (path, content) in [("a.py", &b"one"[..]), ("b.bin", &bytes), ("empty.py", b"")] {
            project.write(path, content);
            board.wait_stored(path, content);
        }
        project.write("a.py", "two");
        board.wait_stored("a.py", "two");
        run.stop();
        board.wait_file("a.py", "two");
        assert_eq!(board.stored().len(), 4);
        assert_eq!(board.sessions(), 1);
        assert_eq!(board.commands("QUIT").len(), 1);
        assert_eq!(board.commands("EPSV"), [""; 0], "uftpd does not know it");
        assert_eq!(run.stderr(), "");
    });
}

#[test]
fn a_burst_of_saves_arrives_with_main_py_last() {
    on_every_board(|project, board, login| {
        project.write("main.py", "main");
        for number in 0..10 {
            project.write(format!("{number}.py"), number.to_string());
        }
        let mut run = watch(project, board, login, &["--once"]);
        assert_eq!(run.wait_exit(), 0);
        let stored = board.stored();
        assert_eq!(stored.len(), 11);
        assert_eq!(stored[10].0, "main.py");
    });
}

#[test]
fn new_directories_are_made_on_the_way() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &[]);
        for path in ["lib/deep/er/a.py", "lib/deep/b.py", "lib/other/c.py"] {
            project.write(path, path);
            board.wait_stored(path, path);
        }
        run.stop();
        assert_eq!(board.stored().len(), 3);
        assert_eq!(run.stderr(), "", "what is mended by itself is not said");
    });
}

#[test]
fn names_arrive_as_they_are() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &[]);
        for path in [
            "my file.py",
            "two  blanks.py",
            "über.py",
            "日本語.py",
            "-x.py",
            " lead.py",
            "~home.py",
            "a'b;c%d.py",
            "lib/-y.py",
            "lib/ z.py",
            "-dir/a.py",
            " dir/b.py",
        ] {
            project.write(path, path);
            board.wait_stored(path, path);
        }
        run.stop();
    });
}

#[test]
fn an_absolute_and_a_relative_directory_there_are_used() {
    on_every_board(|project, board, login| {
        fs::create_dir_all(board.root().join("apps/my app")).unwrap();
        let mut run = watch(project, board, login, &["--remote-dir", "apps/my app"]);
        run.wait_for("files go to /apps/my app");
        project.write("lib/a.py", "a");
        board.wait_stored("apps/my app/lib/a.py", "a");
        run.stop();
    });
}

#[test]
fn uftpd_executes_a_remote_command_of_several_lines() {
    for make in [Board::uftpd, Board::uftpd_on_esp32] {
        let (project, board) = (Project::new(), make());
        let mut run = watch(&project, &board, "me", &["-r", "import gc\ngc.collect()"]);
        project.write("a.py", "a");
        board.wait_commands(1, "SITE");
        run.wait_for("gc.collect()");
        board.raises_over("gc.collect");
        project.write("b.py", "b");
        run.wait_for_error("550 Fail");
        project.write("c.py", "c");
        board.wait_stored("c.py", "c");
        run.interrupt_and_wait();
        assert_eq!(board.commands("SITE")[0], "SITE import gc\0gc.collect()");
        assert_eq!(board.sessions(), 1);
    }
}

#[test]
fn uftpd_may_reset_itself_over_a_remote_command() {
    let (project, board) = (Project::new(), Board::uftpd());
    let command = "import machine; machine.reset()";
    let mut run = watch(&project, &board, "me", &["--timeout", "1", "-r", command]);
    for path in ["a.py", "b.py"] {
        project.write(path, path);
        board.wait_stored(path, path);
    }
    board.wait_commands(2, "SITE");
    run.stop();
    assert_eq!(board.stored().len(), 2);
}

#[test]
fn ftpdlite_answers_remote_commands_with_lists() {
    let (project, board) = (Project::new(), Board::ftpdlite());
    let mut run = watch(&project, &board, "ftpadmin", &["-r", "%%f"]);
    for (path, said) in [("free.py", "Mem:"), ("gc.py", "Additional"), ("df.py", "Filesystem")] {
        project.write(path, path);
        run.wait_for(said);
    }
    project.write("nosuch.py", "nosuch");
    run.wait_for_error("504 Parameter not supported");
    project.write("last.py", "last");
    board.wait_stored("last.py", "last");
    run.interrupt_and_wait();
    assert_eq!(board.sessions(), 1);
}

#[test]
fn what_is_there_may_be_deleted_here() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &["-p", "*.mpy", "-k", "*.mpy"]);
        project.write("lib/a.mpy", "bytecode");
        project.wait_gone("lib/a.mpy");
        run.stop();
        board.wait_file("lib/a.mpy", "bytecode");
    });
}

#[test]
fn atomic_replaces_a_file_by_renaming() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &["--atomic"]);
        for content in ["one", "the second"] {
            project.write("lib/a.py", content);
            board.wait_file("lib/a.py", content);
        }
        run.stop();
        assert_eq!(run.stderr(), "");
        assert_eq!(board.commands("RNTO"), ["RNTO lib/a.py"; 2]);
        assert_eq!(board.commands("STOR lib/a.py"), [""; 0]);
        let names = fs::read_dir(board.root().join("lib")).unwrap();
        assert_eq!(names.count(), 1, "nothing is left behind");
    });
}

#[test]
fn mirror_renames_and_removes_there() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &["--mirror"]);
        for path in ["keep.py", "old/a.py", "old/b.py"] {
            project.write(path, path);
            board.wait_stored(path, path);
        }
        run.wait_for("old/b.py");
        project.rename("old/a.py", "new.py");
        board.wait_file("new.py", "old/a.py");
        project.remove("old/b.py");
        fs::remove_dir(project.path("old")).unwrap();
        board.wait_gone("old/b.py");
        board.wait_gone("old");
        run.stop();
        board.wait_file("keep.py", "keep.py");
        assert!(board.file("old/a.py").is_none());
    });
}

fn be_busy_at(verb: &str) {
    let (project, board) = (Project::new(), Board::uftpd());
    board.is_busy(2, verb);
    let mut run = watch(&project, &board, "me", &["--atomic", "--timeout", "2"]);
    for path in ["lib/a.py", "lib/b.py"] {
        project.write(path, path);
        board.wait_file(path, path);
    }
    run.stop();
    for path in ["lib/a.py", "lib/b.py"] {
        assert_eq!(board.file(path).as_deref(), Some(path.as_bytes()), "{verb}");
    }
}

#[test]
fn a_board_that_is_busy_for_a_moment_gets_the_file_all_the_same() {
    let verbs = ["USER", "TYPE", "PWD", "PASV", "SIZE", "MKD", "RNFR", "RNTO", "QUIT"];
    side_by_side(verbs, be_busy_at);
}

/// The data connections that it did not accept fill its queue, until a STOR accepts them.
#[test]
fn a_board_that_is_busy_when_its_data_connection_stands_gets_the_file_all_the_same() {
    be_busy_at("STOR");
}

#[test]
fn a_remote_command_that_finds_the_board_busy_is_said_not_to_have_run() {
    let (project, board) = (Project::new(), Board::uftpd());
    board.is_busy(1, "SITE");
    let mut run = watch(&project, &board, "me", &["-r", "reload()"]);
    project.write("a.py", "a");
    run.wait_for_error("400 Device busy");
    project.write("b.py", "b");
    board.wait_commands(2, "SITE");
    run.interrupt_and_wait();
}

/// An ESP32 looks at its sockets while it waits for data, and refuses everybody else; others say
/// nothing until they are through.
#[test]
fn a_board_that_serves_somebody_else_is_waited_for() {
    for (make, said) in
        [(Board::uftpd as Make, "no answer"), (Board::uftpd_on_esp32, "400 Device busy")]
    {
        let (project, board) = (Project::new(), make());
        let mut run = watch(&project, &board, "me", &["--timeout", "1"]);
        run.wait_for("connected");
        let other = Client::of(&board.host());
        let data = other.begin_upload("others.bin");
        project.write("a.py", "a");
        run.wait_for_error(said);
        drop(data);
        assert!(other.hear().starts_with("226"));
        board.wait_file("a.py", "a");
        run.stop();
    }
}

#[test]
fn a_file_that_finds_no_room_is_sent_when_there_is_room_again() {
    on_every_board(|project, board, login| {
        board.has_room(Some(2000));
        let mut run = watch(project, board, login, &["-p", "*"]);
        let large = vec![b'x'; 5000];
        project.write("large.bin", &large);
        let error = run.wait_for_error("large.bin");
        assert!(error.text.contains("550") || error.text.contains("451"), "{}", error.text);
        board.has_room(None);
        board.wait_file("large.bin", &large);
        project.write("small.py", "small");
        board.wait_file("small.py", "small");
        run.stop();
        assert_eq!(run.count("large.bin: "), 1, "said once");
    });
}

/// FTPdLite refuses an upload with its data connection still open, and takes what is left in it for
/// the next file.
#[test]
fn after_a_refused_upload_no_file_gets_the_bytes_of_another() {
    on_every_board(|project, board, login| {
        // A directory has that name: it is refused as often as it comes.
        fs::create_dir(board.root().join("bad.py")).unwrap();
        let mut run = watch(project, board, login, &[]);
        project.write("bad.py", "what nobody else may get");
        run.wait_for_error("bad.py");
        for path in ["a.py", "b.py", "c.py"] {
            project.write(path, path);
            board.wait_file(path, path);
        }
        run.interrupt_and_wait();
        for path in ["a.py", "b.py", "c.py"] {
            board.wait_file(path, path);
        }
        assert!(
            board.stored().iter().all(|(path, content)| path == content),
            "{:?}",
            board.stored()
        );
    });
}

#[test]
fn ftpdlite_says_who_may_write() {
    let (project, board) = (Project::new(), Board::ftpdlite());
    let mut run = watch(&project, &board, "anonymous", &[]);
    project.write("a.py", "a");
    let error = run.wait_for_error("a.py");
    assert!(error.text.contains("anonymous may not write: try --user ftpadmin"), "{}", error.text);
    project.write("lib/b.py", "b");
    let error = run.wait_for_error("lib/b.py");
    assert!(error.text.contains("try --user ftpadmin"), "{}", error.text);
    assert_eq!(run.interrupt_and_wait(), 1);
    assert_eq!(board.stored(), []);
}

#[test]
fn check_says_who_may_write_on_ftpdlite() {
    let (project, board) = (Project::new(), Board::ftpdlite());
    let mut run = project.run(&["--check", &board.host()]);
    assert_eq!(run.wait_exit(), 1);
    assert!(run.stderr().contains("try --user ftpadmin"), "{}", run.stderr());
    let mut run = project.run(&["--check", "--user", "ftpadmin", &board.host()]);
    assert_eq!(run.wait_exit(), 0, "{}", run.stderr());
    assert_eq!(fs::read_dir(board.root()).unwrap().count(), 0, "it removes its scratch files");
}

#[test]
fn check_finds_every_board_good() {
    on_every_board(|project, board, login| {
        let mut run = project.run(&["--check", &format!("ftp://{login}@{}", board.host())]);
        assert_eq!(run.wait_exit(), 0, "{}{}", run.stdout(), run.stderr());
        assert_eq!(fs::read_dir(board.root()).unwrap().count(), 0);
    });
}

/// Each PASV without a transfer costs it a listener for good, and the 256th the session, after which
/// nobody gets in until it is reset.
#[test]
fn ftpdlite_outlives_many_refused_uploads() {
    let (project, board) = (Project::new(), Board::ftpdlite());
    for number in 0..280 {
        project.write(format!("{number}.py"), "refused");
    }
    let mut run = watch(&project, &board, "anonymous", &["--sync"]);
    for number in [0, 100, 200, 279] {
        run.wait_for_error(&format!(" {number}.py"));
    }
    run.interrupt_and_wait();
    assert_eq!(board.stored(), []);
}

#[test]
fn a_wrong_password_on_ftpdlite_is_said() {
    let (project, board) = (Project::new(), Board::ftpdlite_for("maker", "secret"));
    let mut run = project.run(&[&format!("ftp://maker:wrong@{}", board.host())]);
    run.wait_for_error("login as maker refused: 430 Invalid username or password");
    assert_eq!(run.wait_exit(), 1);
}

#[test]
fn ftpdlites_least_class_gets_files_into_the_directories_it_has() {
    let (project, board) = (Project::new(), Board::ftpdlite_minimal());
    fs::create_dir(board.root().join("lib")).unwrap();
    let mut run = watch(&project, &board, "ftpadmin", &[]);
    for path in ["a.py", "lib/b.py"] {
        project.write(path, path);
        board.wait_stored(path, path);
    }
    // It cannot make directories.
    project.write("new/c.py", "c");
    run.wait_for_error("new/c.py");
    project.write("d.py", "d");
    board.wait_file("d.py", "d");
    assert_eq!(run.interrupt_and_wait(), 1);
    assert_eq!(board.file("a.py").as_deref(), Some(&b"a.py"[..]));
}

/// A board that was reset answers the old session with a reset; one that hangs, with nothing.
#[test]
fn a_board_that_was_reset_gets_the_next_save_in_a_new_session() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &["--timeout", "1"]);
        project.write("a.py", "a");
        board.wait_stored("a.py", "a");
        for (leaves, path) in [(Leaves::Resets, "b.py"), (Leaves::Silence, "c.py")] {
            run.wait_for("connected");
            board.lose_power(leaves);
            project.write(path, path);
            board.wait_stored(path, path);
        }
        // Its size is confirmed after that, for which Ctrl-C gives it a second.
        run.wait_for(" c.py ");
        run.stop();
        assert_eq!(board.sessions(), 3);
    });
}

#[test]
fn a_board_that_loses_its_power_during_an_upload_gets_it_whole() {
    side_by_side(
        BOARDS.into_iter().flat_map(|board| [(board, Leaves::Resets), (board, Leaves::Silence)]),
        |((make, login), leaves)| {
            let (project, board) = (Project::new(), make());
            // Some 10 seconds for all of it; the power is back long before.
            board.writes_slowly(Duration::from_millis(20));
            let mut run = watch(&project, &board, login, &["-p", "*", "--timeout", "1"]);
            let large: Vec<u8> = (0..200_000).map(|number: u32| number.to_le_bytes()[1]).collect();
            project.write("large.bin", &large);
            board.wait_written(10_000);
            board.writes_slowly(Duration::ZERO);
            board.lose_power(leaves);
            board.wait_file("large.bin", &large);
            run.stop();
        },
    );
}

#[test]
fn a_board_that_is_off_for_a_while_during_an_upload_gets_it_whole() {
    side_by_side(BOARDS, |(make, login)| {
        let (project, mut board) = (Project::new(), make());
        board.writes_slowly(Duration::from_millis(20));
        let mut run = watch(&project, &board, login, &["-p", "*", "--timeout", "1"]);
        let large = vec![b'x'; 200_000];
        project.write("large.bin", &large);
        board.wait_written(10_000);
        board.turn_off();
        run.wait_for_error("connection lost");
        project.write("meanwhile.py", "meanwhile");
        board.writes_slowly(Duration::ZERO);
        board.turn_on();
        board.wait_file("large.bin", &large);
        board.wait_file("meanwhile.py", "meanwhile");
        run.stop();
    });
}

#[test]
fn ftpdlites_one_place_is_waited_for() {
    let (project, board) = (Project::new(), Board::ftpdlite());
    let other = Client::of(&board.host());
    let mut run = watch(&project, &board, "ftpadmin", &[]);
    project.write("a.py", "a");
    let error = run.wait_for_error("421 Too many connections");
    assert!(error.text.contains("another client has its place"), "{}", error.text);
    assert!(other.ask("QUIT").starts_with("221"));
    board.wait_stored("a.py", "a");
    run.stop();
}

/// It does not notice that a client is gone that left with a reset.
#[test]
fn ftpdlite_that_holds_a_dead_session_is_to_be_reset_and_then_served() {
    let (project, board) = (Project::new(), Board::ftpdlite());
    let other = Client::of(&board.host());
    let socket = socket2::SockRef::from(&other.control);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(other);
    let mut run = watch(&project, &board, "ftpadmin", &[]);
    project.write("a.py", "a");
    let error = run.wait_for_error("421 Too many connections");
    assert!(error.text.contains("reset it"), "{}", error.text);
    board.lose_power(Leaves::Resets);
    board.wait_stored("a.py", "a");
    run.stop();
}

/// They take each other's data connections from its one port; only sizes tell.
#[test]
fn two_of_us_share_uftpd() {
    side_by_side([Board::uftpd as Make, Board::uftpd_on_esp32], |make| {
        let (one, two, board) = (Project::new(), Project::new(), make());
        let mut runs = [&one, &two].map(|project| watch(project, &board, "me", &[]));
        let files: Vec<(String, String)> =
            (1..=10).map(|size| (format!("{size}.py"), "x".repeat(size))).collect();
        for (number, (path, content)) in files.iter().enumerate() {
            [&one, &two][number % 2].write(path, content);
        }
        for (path, content) in &files {
            board.wait_file(path, content);
        }
        for run in &mut runs {
            run.stop();
        }
        for (path, content) in &files {
            assert_eq!(board.file(path).as_deref(), Some(content.as_bytes()), "{path}");
        }
    });
}

/// Whoever connects to its one data port and goes away leaves a connection in the queue, which the
/// next STOR takes; from then on each takes the one before its own. A save that keeps a file's size
/// is then confirmed, and the board has the one before.
#[test]
fn a_data_connection_that_was_left_behind_puts_no_old_bytes_into_a_file() {
    side_by_side([Board::uftpd as Make, Board::uftpd_on_esp32], |make| {
        let (project, board) = (Project::new(), make());
        let other = Client::of(&board.host());
        drop(other.connect_data());
        assert!(other.ask("QUIT").starts_with("221"));
        for content in ["AAAA", "BBBB", "CCCC"] {
            project.write("a.py", content);
            let mut run = project.run(&["--once", &board.host()]);
            assert_eq!(run.wait_exit(), 0);
            assert_eq!(board.file("a.py").as_deref(), Some(content.as_bytes()), "{content}");
        }
    });
}

/// One recv, one command: what is longer arrives as two, of which the first names another file.
#[test]
fn a_path_that_does_not_fit_into_the_boards_buffer_is_refused_here() {
    for (make, login, length) in
        [(Board::ftpdlite as Make, "ftpadmin", 512), (Board::uftpd, "me", 1460)]
    {
        let (project, board) = (Project::new(), make());
        let mut run = watch(&project, &board, login, &[]);
        let long = format!("{}.py", vec!["d".repeat(99); length / 100 + 1].join("/"));
        project.write(&long, "long");
        run.wait_for_error("too long");
        project.write("after.py", "after");
        board.wait_stored("after.py", "after");
        assert_eq!(run.interrupt_and_wait(), 1);
        assert_eq!(board.stored().len(), 1);
    }
}
