//! Ctrl-C and SIGTERM: what is under way is finished, what is not is said.

use std::fs;

use rustix::process::Signal;

use crate::scripts::wait_ended;
use crate::support::{Act, Project, Scripted};

#[test]
fn an_idle_run_says_goodbye_and_exits_0() {
    for signal in [Signal::INT, Signal::TERM] {
        let (project, server) = (Project::new(), Scripted::start());
        let mut run = project.watch(&[&server.host()]);
        run.wait_for("connected");
        run.signal(signal);
        assert_eq!(run.wait_exit(), 0);
        // Boards lock everybody out after a session that was not ended.
        assert_eq!(server.commands("QUIT").len(), 1);
    }
}

#[test]
fn the_last_line_sums_up() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    run.wait_for(">> ");
    run.stop();
    let sum = run.lines().pop().unwrap().text;
    assert!(sum.starts_with("%%") && sum.contains("1 file sent"), "{sum}");
}

#[test]
fn a_transfer_under_way_and_all_that_wait_are_finished() {
    let (project, slow, quick) = (Project::new(), Scripted::start(), Scripted::start());
    slow.times(1, "STOR", Act::Hold);
    let mut run = project.watch(&[&slow.host(), &quick.host()]);
    for path in ["a.py", "b.py", "c.py"] {
        project.write(path, path);
        quick.wait_stored(path, path);
    }
    slow.wait_commands(1, "STOR");
    run.interrupt();
    slow.release();
    assert_eq!(run.wait_exit(), 0);
    assert_eq!(slow.stored().len(), 3, "{:?}", slow.stored());
    assert_eq!(slow.commands("QUIT").len(), 1);
}

#[test]
fn a_save_in_the_instant_before_ctrl_c_is_not_lost() {
    for _ in 0..5 {
        let (project, server) = (Project::new(), Scripted::start());
        let mut run = project.watch(&[&server.host()]);
        run.wait_for("connected");
        project.write("a.py", "a");
        run.stop();
        assert_eq!(server.stored().len(), 1);
    }
}

#[test]
fn a_file_left_undelivered_is_named_and_the_exit_code_is_1() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    run.wait_for("connected");
    server.stop();
    project.write("lost.py", "lost");
    run.wait_for_error(&server.host());
    run.interrupt();
    assert_eq!(run.wait_exit(), 1);
    assert!(run.stderr().contains("lost.py"), "{}", run.stderr());
}

#[test]
fn a_refused_file_counts_as_undelivered() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR", Act::Reply("550 No"));
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    run.wait_for_error("a.py");
    run.interrupt();
    assert_eq!(run.wait_exit(), 1);
}

#[test]
fn a_host_that_is_down_with_nothing_to_send_is_no_failure() {
    let (project, mut server) = (Project::new(), Scripted::start());
    server.stop();
    let mut run = project.watch(&[&server.host()]);
    run.wait_for_error(&server.host());
    run.interrupt();
    assert_eq!(run.wait_exit(), 0);
}

#[test]
fn a_server_that_never_answers_does_not_keep_it_alive() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR", Act::Silence);
    let mut run = project.watch(&["--timeout", "1", &server.host()]);
    project.write("a.py", "a");
    server.wait_commands(1, "STOR");
    run.interrupt();
    assert_eq!(run.wait_exit(), 1);
}

#[test]
fn a_second_ctrl_c_aborts_with_130() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR", Act::Hold);
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    server.wait_commands(1, "STOR");
    run.interrupt();
    run.wait_for("again");
    run.interrupt();
    assert_eq!(run.wait_exit(), 130);
}

#[test]
fn a_script_that_runs_on_is_ended() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write("script.sh", "echo $$\nexec sleep 1000\n");
    let mut run = project.watch(&["--timeout", "1", "-s", "*.src,sh script.sh", &server.host()]);
    project.write("a.src", "source");
    let is_number = |word: &&str| word.parse::<i32>().is_ok();
    let line = run.wait_for_line("the script's number", |line| {
        line.text.starts_with("**") && line.text.split_whitespace().any(|word| is_number(&word))
    });
    let sleeper = line.text.split_whitespace().rfind(is_number).unwrap().parse().unwrap();
    run.interrupt_and_wait();
    wait_ended(sleeper);
}

/// A script that was ended half-way left half a file, which was sent.
#[test]
fn a_script_under_way_is_finished_and_what_it_made_is_sent() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write(
        "script.sh",
        "printf one > out.mpy.new; echo started; while [ ! -e go ]; do sleep 0.01; done\n\
         printf ' two' >> out.mpy.new; mv out.mpy.new out.mpy\n",
    );
    let mut run = project.watch(&["-p", "*.mpy", "-s", "*.src,sh script.sh", &server.host()]);
    run.wait_for("connected");
    project.write("a.src", "source");
    run.wait_for("started");
    run.interrupt();
    run.wait_for("again");
    project.write("go", "");
    assert_eq!(run.wait_exit(), 0);
    assert_eq!(server.stored(), [("out.mpy".to_owned(), "one two".to_owned())]);
}

/// The file was given up because the session had ended while it was idle.
#[test]
fn a_session_that_has_ended_is_made_anew_for_the_last_save() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    run.wait_for("connected");
    server.stop();
    server.restart();
    project.write("a.py", "a");
    run.stop();
    assert_eq!(server.stored(), [("a.py".to_owned(), "a".to_owned())]);
}

#[test]
fn a_real_uploads_bytes_are_whole_when_ctrl_c_comes_right_after_the_save() {
    let project = Project::new();
    let server = crate::support::Server::start(&project.make_outside("remote"));
    let mut run = project.watch(&["-p", "*", &server.host()]);
    run.wait_for("connected");
    let bytes = vec![b'x'; 3_000_000];
    project.write("first.txt", "seen");
    server.wait_file("first.txt", "seen");
    project.write("large.bin", &bytes);
    run.stop();
    // Seen or not seen before the Ctrl-C: never half.
    match fs::read(project.outside("remote/large.bin")) {
        Ok(stored) => assert_eq!(stored.len(), bytes.len()),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}
