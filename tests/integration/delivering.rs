//! What goes over the wire, and what is done when server or network fail.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Act, Dialect, Project, Scripted, Server};

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

#[test]
fn many_saves_go_over_one_session_in_binary() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-p", "*", &server.host()]);
    let bytes: Vec<u8> = (0..=255).chain(*b"\r\n\n\r\r\n").collect();
    project.write("bytes.bin", &bytes);
    server.wait_stored("bytes.bin", &bytes);
    for number in 0..20 {
        project.write(format!("{number}.txt"), number.to_string());
        server.wait_stored(&format!("{number}.txt"), number.to_string());
    }
    run.stop();
    assert_eq!(server.sessions(), 1);
    assert_eq!(server.commands("TYPE"), ["TYPE I"]);
}

#[test]
fn a_missing_directory_is_made_level_by_level_once_the_server_refuses() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a/b/c.py", "c");
    server.wait_stored("a/b/c.py", "c");
    // What is known to exist is not asked for again.
    project.write("a/b/d.py", "d");
    server.wait_stored("a/b/d.py", "d");
    run.stop();
    assert_eq!(server.commands("MKD"), ["MKD a", "MKD a/b"]);
    assert_eq!(server.commands("STOR"), ["STOR a/b/c.py", "STOR a/b/c.py", "STOR a/b/d.py"]);
}

/// Boards and desktop servers refuse in five ways: 550 or 553 at once, 550 or 451 after 150, with
/// the data taken or not.
#[test]
fn every_way_to_refuse_a_missing_directory_is_understood() {
    for missing_directory in [
        Act::Reply("553 Could not create file."),
        Act::DropThen("550 uftpd"),
        Act::TakeThen("550 uftpd"),
        Act::TakeThen("451 FTPdLite"),
    ] {
        let (project, server) =
            (Project::new(), Scripted::with(Dialect { missing_directory, ..Dialect::default() }));
        let mut run = project.watch(&[&server.host()]);
        project.write("lib/deep/a.py", "a");
        server.wait_stored("lib/deep/a.py", "a");
        run.stop();
        assert_eq!(server.stored(), [pair("lib/deep/a.py", "a")], "{missing_directory:?}");
    }
}

#[test]
fn a_directory_made_with_250_is_made() {
    // uftpd's answer; a client that insists on 257 gives up here.
    let (project, server) = (Project::new(), Scripted::start());
    server.on("MKD", Act::Say("250 OK"));
    let mut run = project.watch(&[&server.host()]);
    project.write("lib/a.py", "a");
    server.wait_stored("lib/a.py", "a");
    run.stop();
}

#[test]
fn a_login_without_password_is_a_login() {
    // uftpd's answer to USER.
    let (project, server) = (Project::new(), Scripted::start());
    server.on("USER", Act::Say("230 Logged in"));
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    run.stop();
    assert_eq!(server.commands("PASS"), [""; 0]);
}

#[test]
fn a_server_that_knows_only_the_least_still_gets_files() {
    // FTPdLite's minimal class.
    let (project, server) = (Project::new(), Scripted::start());
    for verb in ["PWD", "MKD", "SIZE", "CWD", "FEAT", "EPSV", "OPTS", "SYST", "NOOP"] {
        server.on(verb, Act::Reply("502 Not implemented"));
    }
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    run.stop();
}

#[test]
fn the_data_connection_goes_to_the_server_whatever_address_it_announces() {
    // uftpd announces the wrong interface when two are up; 192.0.2.1 answers nobody.
    for reply in [
        "227 Entering Passive Mode (192,0,2,1,{p1},{p2}).",
        "227 Entering Passive Mode (0,0,0,0,{p1},{p2})",
        "227 Entering Passive Mode 127,0,0,1,{p1},{p2}",
        "227 =127,0,0,1,{p1},{p2}",
    ] {
        let (project, server) = (Project::new(), Scripted::start());
        server.on("PASV", Act::Say(reply));
        server.on("EPSV", Act::Reply("502 Not implemented"));
        let mut run = project.watch(&[&server.host()]);
        project.write("a.py", "a");
        server.wait_stored("a.py", "a");
        run.stop();
    }
}

#[test]
fn no_pasv_reply_can_crash_it() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("EPSV", Act::Reply("502 Not implemented"));
    let mut run = project.watch(&[&server.host()]);
    for reply in [
        "227 Entering Passive Mode (300,0,0,1,999,999)",
        "227 ()",
        "227 no numbers at all",
        "200 what?",
    ] {
        server.times(1, "PASV", Act::Reply(reply));
        project.write("a.py", reply);
        server.wait_stored("a.py", reply);
    }
    run.stop();
}

#[test]
fn a_reset_connection_is_made_anew_and_the_file_sent() {
    for act in [Act::Reset, Act::Close, Act::CutData] {
        let (project, server) = (Project::new(), Scripted::start());
        server.times(1, "STOR", act);
        let mut run = project.watch(&[&server.host()]);
        project.write("a.py", "a");
        server.wait_stored("a.py", "a");
        run.stop();
        assert_eq!(server.stored(), [pair("a.py", "a")], "{act:?}");
        assert_eq!(server.sessions(), 2, "{act:?}");
    }
}

#[test]
fn a_save_after_the_server_closed_an_idle_session_is_sent() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "one");
    server.wait_stored("a.py", "one");
    server.restart();
    project.write("a.py", "two");
    server.wait_stored("a.py", "two");
    run.stop();
}

/// A server that accepts and then says nothing is noticed by `--timeout`, at every point of the
/// dialogue.
#[test]
fn a_silent_server_is_left_for_a_new_connection() {
    let one = |verb: &str| {
        let (project, server) = (Project::new(), Scripted::start());
        server.times(1, verb, Act::Silence);
        let mut run = project.watch(&["--timeout", "1", &server.host()]);
        let saved = Instant::now();
        project.write("lib/a.py", "a");
        server.wait_stored("lib/a.py", "a");
        let took = saved.elapsed();
        assert!(took < Duration::from_secs(8), "{verb}: took {took:?}");
        run.stop();
    };
    thread::scope(|scope| {
        for verb in ["greeting", "USER", "PASS", "TYPE", "PWD", "PASV", "EPSV", "STOR", "MKD"] {
            scope.spawn(move || one(verb));
        }
    });
}

#[test]
fn a_slow_transfer_outlasts_the_timeout_while_bytes_flow() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR", Act::Crawl);
    let mut run = project.watch(&["-p", "*", "--timeout", "2", &server.host()]);
    let bytes = vec![b'x'; 16_000_000];
    project.write("large.bin", &bytes);
    server.wait_stored("large.bin", &bytes);
    run.stop();
    assert_eq!(server.commands("STOR").len(), 1);
}

#[test]
fn a_421_ends_the_session_and_the_next_one_delivers() {
    for verb in ["greeting", "USER", "PASV", "STOR", "SIZE"] {
        let (project, server) = (Project::new(), Scripted::start());
        server.on("EPSV", Act::Reply("502 Not implemented"));
        server.times(1, verb, Act::Reply("421 Service not available"));
        let mut run = project.watch(&[&server.host()]);
        project.write("a.py", "a");
        server.wait_stored("a.py", "a");
        run.stop();
    }
}

#[test]
fn a_board_with_one_session_gets_it_back_before_the_next() {
    // FTPdLite answers 421 while it believes that the old session lives.
    let (project, server) =
        (Project::new(), Scripted::with(Dialect { one_session: true, ..Dialect::default() }));
    let mut run = project.watch(&["--timeout", "1", &server.host()]);
    server.times(1, "STOR", Act::Silence);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    run.stop();
}

#[test]
fn garbage_for_a_greeting_is_survived() {
    for garbage in ["\0\u{7f}garbage", "HTTP/1.1 400 Bad Request", "220", ""] {
        let (project, server) = (Project::new(), Scripted::start());
        server.times(1, "greeting", Act::Say(garbage));
        let mut run = project.watch(&["--timeout", "1", &server.host()]);
        project.write("a.py", "a");
        server.wait_stored("a.py", "a");
        run.stop();
    }
}

#[test]
fn a_host_that_is_down_at_the_start_is_waited_for() {
    let (project, mut server) = (Project::new(), Scripted::start());
    server.stop();
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    run.wait_for_error(&server.host());
    server.restart();
    server.wait_stored("a.py", "a");
    run.stop();
}

#[test]
fn only_the_newest_bytes_go_out_when_the_server_is_back() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("first.py", "first");
    run.wait_for("first.py");
    server.stop();
    for content in ["one", "two", "three"] {
        project.write("a.py", content);
    }
    project.write("b.py", "b");
    run.wait_for_error(&server.host());
    server.restart();
    server.wait_stored("a.py", "three");
    server.wait_stored("b.py", "b");
    run.stop();
    assert_eq!(server.stored().len(), 3, "{:?}", server.stored());
}

#[test]
fn saves_during_a_transfer_become_one_upload_of_the_newest() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "STOR", Act::Hold);
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "one");
    server.wait_stored("a.py", "one");
    for content in ["two", "three", "four"] {
        project.write("a.py", content);
    }
    server.release();
    server.wait_stored("a.py", "four");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "one"), pair("a.py", "four")]);
}

#[test]
fn two_hosts_get_every_file_and_a_dead_one_delays_no_other() {
    let (project, mut dead, mute, server) =
        (Project::new(), Scripted::start(), Scripted::start(), Scripted::start());
    dead.stop();
    mute.on("greeting", Act::Silence);
    let mut run = project.watch(&[&dead.host(), &mute.host(), &server.host()]);
    let saved = Instant::now();
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    // The mute host alone would take the default timeout, 10 seconds.
    assert!(saved.elapsed() < Duration::from_secs(5));
    dead.restart();
    dead.wait_stored("a.py", "a");
    run.interrupt_and_wait();
}

#[test]
fn a_refused_file_is_reported_once_and_tried_again_when_it_changes() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR a.py", Act::Reply("550 Disk is made of cheese"));
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "one");
    let error = run.wait_for_error("cheese");
    assert!(error.text.contains("a.py"), "{}", error.text);
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    let tries = server.commands("STOR a.py").len();
    project.write("c.py", "c");
    server.wait_stored("c.py", "c");
    assert_eq!(server.commands("STOR a.py").len(), tries, "not tried again without a change");
    server.behave();
    project.write("a.py", "two");
    server.wait_stored("a.py", "two");
    run.stop();
    assert_eq!(run.count("cheese"), 1);
}

#[test]
fn a_passing_refusal_is_tried_again() {
    for reply in ["450 File busy", "452 No space", "425 No data connection", "400 Device busy."] {
        let (project, server) = (Project::new(), Scripted::start());
        server.times(2, "STOR", Act::Reply(reply));
        let mut run = project.watch(&[&server.host()]);
        project.write("a.py", "a");
        server.wait_stored("a.py", "a");
        run.stop();
    }
}

#[test]
fn a_226_that_lies_is_found_out() {
    // uftpd and FTPdLite say 226 over files of size 0 and files cut short.
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "STOR", Act::Truncate);
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "whole");
    server.wait_stored("a.py", "whole");
    run.stop();
}

#[test]
fn spaces_and_letters_of_the_world_are_sent_as_they_are() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    for path in ["my file.py", "über.py", "日本語.py", "a'b.py", "100%.py", "a;b.py"] {
        project.write(path, path);
        server.wait_stored(path, path);
        assert_eq!(server.commands(&format!("STOR {path}")).len(), 1);
    }
    run.stop();
}

#[test]
fn names_that_servers_misread_are_sent_with_dot_slash() {
    // pure-ftpd takes a leading dash for options, uftpd strips a leading blank, and many expand a
    // tilde.
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    for path in ["-x.py", " lead.py", "~home.py"] {
        project.write(path, path);
        server.wait_stored(path, path);
        assert_eq!(
            server.commands(&format!("STOR ./{path}")).len(),
            1,
            "{:?}",
            server.commands("STOR")
        );
    }
    run.stop();
}

#[cfg(unix)]
#[test]
fn names_that_would_be_commands_are_refused_and_shown_escaped() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-p", "*", &server.host()]);
    for path in ["a\r\nDELE b.py", "newline\n.py", "esc\x1b[2J.py", "nul\u{1}.py", "dir\n/a.py"] {
        project.write(path, "hostile");
    }
    run.wait_for_error("esc");
    project.write("after.py", "after");
    server.wait_stored("after.py", "after");
    run.interrupt_and_wait();
    assert_eq!(server.stored(), [pair("after.py", "after")]);
    assert_eq!(server.commands("DELE"), [""; 0]);
    let lines = run.lines();
    assert!(
        lines.iter().all(|line| !line.text.contains(char::is_control)),
        "a control character reached the screen"
    );
    assert_eq!(lines.iter().filter(|line| line.text.contains("esc")).count(), 1, "said once");
}

/// Other systems do not let such a name come into being.
#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStrExt;

    // uftpd does not even answer.
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write(std::ffi::OsStr::from_bytes(b"caf\xe9.py"), "latin-1");
    run.wait_for_error("caf");
    project.write("after.py", "after");
    server.wait_stored("after.py", "after");
    run.interrupt_and_wait();
    assert_eq!(server.stored(), [pair("after.py", "after")]);
}

#[test]
fn a_real_server_that_was_killed_and_came_back_gets_the_newest() {
    let project = Project::new();
    let mut server = Server::start(&project.make_outside("remote"));
    let mut run = project.watch(&[&server.host()]);
    project.write("lib/a.py", "one");
    server.wait_file("lib/a.py", "one");
    server.stop();
    project.write("lib/a.py", "two");
    project.write("lib/new/b.py", "b");
    server.restart();
    server.wait_file("lib/a.py", "two");
    server.wait_file("lib/new/b.py", "b");
    run.stop();
}

/// The content before counted as still there, and the way back to it as no change.
#[test]
fn a_save_that_was_refused_is_not_forgotten_when_it_is_undone() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "AAAA");
    server.wait_stored("a.py", "AAAA");
    server.times(1, "STOR", Act::TakeThen("553 Disk trouble"));
    project.write("a.py", "BBBB");
    run.wait_for_error("553");
    project.write("a.py", "AAAA");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "AAAA"), pair("a.py", "AAAA")]);
}

/// Each refusal was taken for a directory that had been missing, and tried again at once for ever.
#[test]
fn a_lasting_refusal_after_mkd_is_no_storm() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("MKD", Act::Reply("257 Made"));
    server.on("STOR lib", Act::Reply("451 Error writing file"));
    let mut run = project.watch(&[&server.host()]);
    project.write("lib/a.py", "a");
    run.wait_for_error("lib/a.py");
    assert!(server.sessions() <= 3, "{} sessions", server.sessions());
    assert_eq!(run.interrupt_and_wait(), 1);
}
