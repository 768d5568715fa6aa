//! `--sync` and `--once`: what is sent without having been saved.

use std::time::Instant;

use crate::support::{Act, Project, Scripted, Server};

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

/// A project with a few files, and some that do not match.
fn project() -> Project {
    let project = Project::new();
    for path in ["a.py", "lib/b.py", "lib/deep/c.py", "notes.txt", "excluded/d.py"] {
        project.write(path, path);
    }
    project
}

const MATCHING: [&str; 3] = ["a.py", "lib/b.py", "lib/deep/c.py"];

/// `autoftp --once -x excluded`, to its end: the exit code.
fn once(project: &Project, server: &Scripted, args: &[&str]) -> (i32, String, String) {
    let host = server.host();
    let mut run = project.run(&[&["--once", "-x", "excluded", &host], args].concat());
    let code = run.wait_exit();
    (code, run.stdout(), run.stderr())
}

fn matching() -> Vec<(String, String)> {
    MATCHING.iter().map(|path| pair(path, path)).collect()
}

#[test]
fn once_sends_all_that_matches_and_ends_with_0() {
    let (project, server) = (project(), Scripted::start());
    let (code, said, errors) = once(&project, &server, &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(server.files(), matching());
    assert!(said.contains("in sync   3 files sent\n"), "{said}");
    assert_eq!(server.commands("QUIT").len(), 1);
}

#[test]
fn once_more_sends_nothing() {
    let (project, server) = (project(), Scripted::start());
    once(&project, &server, &[]);
    let (code, said, errors) = once(&project, &server, &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(server.stored().len(), 3);
    assert!(said.contains("in sync   0 files sent, 3 there already"), "{said}");
}

#[test]
fn once_sends_what_was_changed_and_what_is_not_there_any_more() {
    let (project, server) = (project(), Scripted::start());
    once(&project, &server, &[]);
    project.write("a.py", "b.py");
    server.lose("lib/b.py");
    server.put("lib/deep/c.py", "somebody else's");
    let (code, said, _) = once(&project, &server, &[]);
    assert_eq!(code, 0);
    assert!(said.contains("3 files sent"), "{said}");
    assert_eq!(server.files(), {
        let mut files = matching();
        files[0].1 = "b.py".to_owned();
        files
    });
}

#[test]
fn once_with_nothing_that_matches_ends_with_0() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write("notes.txt", "notes");
    let (code, said, errors) = once(&project, &server, &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(said.contains("in sync   0 files sent"), "{said}");
}

#[test]
fn once_with_the_host_away_ends_with_1() {
    let (project, mut server) = (project(), Scripted::start());
    server.stop();
    let begun = Instant::now();
    let (code, _, errors) = once(&project, &server, &["--timeout", "0.3"]);
    assert_eq!(code, 1);
    assert!(errors.contains("not connected"), "{errors}");
    assert!(begun.elapsed().as_secs() < 10);
}

#[test]
fn once_with_a_server_that_falls_silent_ends_with_1() {
    let (project, server) = (project(), Scripted::start());
    server.on("STOR", Act::Silence);
    let (code, _, _) = once(&project, &server, &["--timeout", "0.3"]);
    assert_eq!(code, 1);
}

#[test]
fn once_with_a_refused_file_sends_the_others_names_it_and_ends_with_1() {
    for refusal in ["500 What?", "532 Need account for storing files"] {
        let (project, server) = (project(), Scripted::start());
        server.on("STOR lib/b.py", Act::Reply(refusal));
        let (code, said, errors) = once(&project, &server, &[]);
        assert_eq!(code, 1);
        assert_eq!(server.files(), [pair("a.py", "a.py"), pair("lib/deep/c.py", "lib/deep/c.py")]);
        assert!(said.contains("2 files sent, 1 not sent"), "{said}");
        assert!(errors.contains("not delivered: lib/b.py"), "{errors}");
    }
}

#[test]
fn once_ends_although_one_file_ends_every_session() {
    let (project, server) = (project(), Scripted::start());
    server.on("STOR a.py", Act::Close);
    let (code, _, errors) = once(&project, &server, &["--timeout", "1"]);
    assert_eq!(code, 1, "{errors}");
    assert_eq!(server.files(), matching()[1..]);
}

#[test]
fn once_gets_over_a_passing_refusal() {
    let (project, server) = (project(), Scripted::start());
    server.times(2, "STOR lib/b.py", Act::Reply("450 Busy"));
    let (code, _, _) = once(&project, &server, &[]);
    assert_eq!(code, 0);
    assert_eq!(server.files(), matching());
}

#[test]
fn once_with_one_host_of_two_away_serves_the_other_and_ends_with_1() {
    let (project, mut away, server) = (project(), Scripted::start(), Scripted::start());
    away.stop();
    let (code, _, errors) = once(&project, &server, &["--timeout", "0.3", &away.host()]);
    assert_eq!(code, 1);
    assert_eq!(server.files(), matching());
    assert!(errors.contains(&away.host()), "{errors}");
}

#[test]
fn once_as_a_dry_run_sends_nothing() {
    let (project, server) = (project(), Scripted::start());
    let (code, said, _) = once(&project, &server, &["-n"]);
    assert_eq!(code, 0);
    assert_eq!(said.matches("would send").count(), 3, "{said}");
    assert_eq!(server.files(), []);
    // Nor is it known afterwards.
    once(&project, &server, &[]);
    assert_eq!(server.files(), matching());
}

#[test]
fn once_deletes_here_what_is_to_be_deleted_here() {
    let (project, server) = (project(), Scripted::start());
    let (code, _, _) = once(&project, &server, &["-k", "a.py"]);
    assert_eq!(code, 0);
    assert!(!project.has("a.py") && project.has("lib/b.py"));
    assert_eq!(server.files(), matching());
}

#[test]
fn once_to_a_real_server_under_temporary_names() {
    let project = project();
    let remote = project.make_outside("remote");
    let server = Server::start(&remote);
    let mut run = project.run(&["--once", "--atomic", "-x", "excluded", &server.host()]);
    assert_eq!(run.wait_exit(), 0);
    for path in MATCHING {
        assert_eq!(std::fs::read_to_string(remote.join(path)).unwrap(), path);
    }
    assert_eq!(std::fs::read_dir(&remote).unwrap().count(), 2, "no temporary name is left");
    let mut run = project.run(&["--once", "-x", "excluded", &server.host()]);
    assert_eq!(run.wait_exit(), 0);
    assert!(run.stdout().contains("3 there already"), "{}", run.stdout());
}

/// What scripts write is sent before it ends, and what they are about to replace is not sent.
#[cfg(unix)]
#[test]
fn scripts_run_first_and_what_they_write_is_delivered() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write("a.src", "new");
    project.write("a.out", "old");
    project.write("script.sh", "sleep 0.3; cp \"$1\" a.out; cp \"$1\" b.out\n");
    let (code, said, errors) =
        once(&project, &server, &["-p", "*.out", "-s", "*.src,sh script.sh"]);
    assert_eq!((code, errors.as_str()), (0, ""), "{said}");
    assert_eq!(server.stored(), [pair("a.out", "new"), pair("b.out", "new")]);
}

#[cfg(unix)]
#[test]
fn a_script_that_writes_what_another_script_reads_is_waited_for() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write("a.one", "content");
    let rules = ["-p", "*.three", "-s", "*.one,sh first.sh", "-s", "*.two,sh second.sh"];
    project.write("first.sh", "sleep 0.2; cp \"$1\" a.two\n");
    project.write("second.sh", "sleep 0.2; cp \"$1\" a.three\n");
    let (code, said, errors) = once(&project, &server, &rules);
    assert_eq!((code, errors.as_str()), (0, ""), "{said}");
    assert_eq!(server.files(), [pair("a.three", "content")]);
}

#[cfg(unix)]
#[test]
fn once_with_a_failing_script_delivers_the_rest_and_ends_with_1() {
    let (project, server) = (project(), Scripted::start());
    project.write("bad.src", "bad");
    let (code, _, errors) = once(&project, &server, &["-s", "*.src,false"]);
    assert_eq!(code, 1);
    assert!(errors.contains("not processed: bad.src"), "{errors}");
    assert_eq!(server.files(), matching());
}

#[test]
fn once_by_looking_for_changes() {
    let (project, server) = (project(), Scripted::start());
    let (code, _, _) = once(&project, &server, &["--poll=0.1"]);
    assert_eq!(code, 0);
    assert_eq!(server.files(), matching());
}

#[test]
fn sync_sends_what_is_not_known_to_be_there_and_goes_on() {
    let (project, server) = (project(), Scripted::start());
    once(&project, &server, &[]);
    project.write("a.py", "changed while nothing ran");
    let mut run = project.watch(&["--sync", "-x", "excluded", &server.host()]);
    run.wait_for("in sync   1 file sent, 2 there already");
    project.write("lib/b.py", "and while it runs");
    server.wait_file("lib/b.py", "and while it runs");
    run.stop();
    server.wait_file("a.py", "changed while nothing ran");
    assert_eq!(server.stored().len(), 5);
    assert_eq!(run.count("in sync"), 1);
}

#[test]
fn without_sync_what_was_changed_while_nothing_ran_is_not_sent() {
    let (project, server) = (project(), Scripted::start());
    once(&project, &server, &[]);
    project.write("a.py", "changed while nothing ran");
    let mut run = project.watch(&[&server.host()]);
    project.write("after.py", "after");
    server.wait_file("after.py", "after");
    run.stop();
    server.wait_file("a.py", "a.py");
}

#[test]
fn what_is_saved_during_a_sync_goes_before_the_rest() {
    let (project, server) = (Project::new(), Scripted::start());
    for number in 0..9 {
        project.write(format!("{number}.py"), "old");
    }
    server.times(1, "STOR", Act::Hold);
    let mut run = project.watch(&["--sync", &server.host()]);
    server.wait_commands(1, "STOR");
    project.write("new.py", "new");
    project.wait_ordered("new.py");
    server.release();
    run.wait_for("in sync");
    run.stop();
    let order: Vec<String> = server.stored().into_iter().map(|(path, _)| path).collect();
    assert_eq!(order[1], "new.py", "{order:?}");
    assert_eq!(order.len(), 10, "each once");
}

/// A save of a file that has its turn yet makes it come earlier, not twice.
#[test]
fn a_file_of_a_sync_that_is_saved_meanwhile_is_sent_once() {
    let (project, server) = (Project::new(), Scripted::start());
    for path in ["a.py", "b.py", "c.py"] {
        project.write(path, "old");
    }
    server.times(1, "STOR", Act::Hold);
    let mut run = project.watch(&["--sync", &server.host()]);
    server.wait_commands(1, "STOR");
    let first = server.commands("STOR")[0].replace("STOR ", "");
    let last = if first == "c.py" { "b.py" } else { "c.py" };
    project.write(last, "new");
    project.wait_ordered(last);
    server.release();
    run.wait_for("in sync");
    run.stop();
    let stored = server.stored();
    assert_eq!(stored.len(), 3, "{stored:?}");
    assert_eq!(stored[1], pair(last, "new"));
}

/// More than are looked at by themselves: a board that was flashed anew has none of them.
#[test]
fn when_one_file_is_gone_after_a_reconnect_all_are_looked_at() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let paths: Vec<String> = (10..60).map(|number| format!("{number}.py")).collect();
    for path in &paths {
        project.write(path, path);
    }
    let mut run = project.watch(&["--sync", &server.host()]);
    run.wait_for("in sync   50 files sent");
    server.stop();
    for path in &paths {
        server.lose(path);
    }
    server.restart();
    project.write("new.py", "new");
    server.wait_file("new.py", "new");
    for path in &paths {
        server.wait_file(path, path);
    }
    run.stop();
    assert_eq!(server.stored().len(), 101, "each once");
    assert!(run.stderr().contains("is not there any more"), "{}", run.stderr());
    assert_eq!(run.count("in sync"), 2, "{}", run.stdout());
}

#[test]
fn once_again_after_it_was_killed_completes_it() {
    let (project, server) = (project(), Scripted::start());
    server.times(1, "STOR lib/b.py", Act::Silence);
    let run = project.run(&["--once", "-x", "excluded", &server.host()]);
    server.wait_commands(1, "STOR lib/b.py");
    run.kill();
    let (code, _, _) = once(&project, &server, &[]);
    assert_eq!(code, 0);
    assert_eq!(server.files(), matching());
    assert_eq!(server.stored().len(), 3, "{:?}", server.stored());
}

#[test]
fn two_at_once_that_sync_one_directory_send_each_file_once() {
    let (project, server) = (project(), Scripted::start());
    let args = ["--once", "-x", "excluded", &server.host()];
    let mut runs = [project.run(&args), project.run(&args)];
    for run in &mut runs {
        assert_eq!(run.wait_exit(), 0);
    }
    assert_eq!(server.files(), matching());
    assert_eq!(server.stored().len(), 3, "{:?}", server.stored());
}
