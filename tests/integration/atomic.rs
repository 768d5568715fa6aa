//! `--atomic`: under a temporary name first.

use crate::support::{Act, Autoftp, Dialect, Project, Scripted, Server, side_by_side};

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

/// The commands that concern files, with `TEMP` for the temporary name.
fn dialogue(server: &Scripted) -> Vec<String> {
    let concerns = |line: &String| {
        ["STOR", "SIZE", "RNFR", "RNTO", "DELE", "MKD"].iter().any(|verb| line.starts_with(verb))
    };
    let anonymous = |line: String| match line.split_once(".autoftp-") {
        Some((before, number)) if number.len() == 6 => format!("{before}TEMP"),
        _ => line,
    };
    server.commands("").into_iter().filter(concerns).map(anonymous).collect()
}

#[test]
fn a_file_is_stored_measured_and_then_renamed() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["--atomic", &server.host()]);
    project.write("a.py", "one");
    run.wait_for(">> ");
    project.write("a.py", "two");
    server.wait_file("a.py", "two");
    run.stop();
    let each = ["STOR TEMP", "SIZE TEMP", "RNFR TEMP", "RNTO a.py"];
    assert_eq!(dialogue(&server), [each, each].concat());
    assert_eq!(server.files(), [pair("a.py", "two")]);
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_real_server_gets_whole_files_and_keeps_no_temporary_ones() {
    let project = Project::new();
    let remote = project.make_outside("remote");
    let server = Server::start(&remote);
    let mut run = project.watch(&["--atomic", &server.host()]);
    for path in ["a.py", "lib/deep/b.py", "b.py"] {
        project.write(path, path);
        run.wait_for(&format!(" {path} "));
        assert_eq!(std::fs::read_to_string(remote.join(path)).unwrap(), path);
    }
    project.write("a.py", "again");
    run.stop();
    assert_eq!(std::fs::read_to_string(remote.join("a.py")).unwrap(), "again");
    assert_eq!(std::fs::read_dir(&remote).unwrap().count(), 3);
    assert_eq!(std::fs::read_dir(remote.join("lib/deep")).unwrap().count(), 1);
}

#[test]
fn no_file_is_ever_partial() {
    let troubles = [
        Act::Truncate,
        Act::CutData,
        Act::TakeThen("226 ok"),
        Act::TakeThen("426 Broken"),
        Act::DropThen("451 Error"),
        Act::Silence,
        Act::Reset,
    ];
    side_by_side(troubles, |trouble| {
        let (project, server) = (Project::new(), Scripted::start());
        server.put("a.py", "old");
        server.times(1, "STOR", trouble);
        let mut run = project.watch(&["--atomic", "--timeout", "0.5", &server.host()]);
        project.write("a.py", "new content");
        server.wait_file("a.py", "new content");
        run.stop();
        let states = ["old", "new content"].map(|text| Some(text.to_owned()));
        assert_eq!(server.history("a.py"), states, "{trouble:?}");
        assert_eq!(server.files(), [pair("a.py", "new content")], "{trouble:?}");
    });
}

/// The test above is one only if a file without it is partial for a moment.
#[test]
fn without_it_a_file_is_partial_for_a_moment() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "new");
    server.wait_file("a.py", "new");
    run.stop();
    assert_eq!(server.history("a.py"), [Some(String::new()), Some("new".to_owned())]);
}

#[test]
fn what_cannot_be_renamed_over_is_deleted_first_and_soon_at_once() {
    for refusal in ["553 File exists", "550 File exists"] {
        let dialect = Dialect { rename_over: Some(refusal), ..Dialect::PLAIN };
        let (project, server) = (Project::new(), Scripted::with(dialect));
        let mut run = project.watch(&["--atomic", &server.host()]);
        for content in ["1", "22", "333", "4444", "55555"] {
            project.write("a.py", content);
            run.wait_for(&format!(" {} B ", content.len()));
        }
        run.stop();
        assert_eq!(server.files(), [pair("a.py", "55555")]);
        assert_eq!(run.stderr(), "", "that is no trouble");
        let dialogue = dialogue(&server);
        assert_eq!(dialogue[..4], ["STOR TEMP", "SIZE TEMP", "RNFR TEMP", "RNTO a.py"]);
        assert_eq!(
            dialogue[4..11],
            [
                "STOR TEMP",
                "SIZE TEMP",
                "RNFR TEMP",
                "RNTO a.py",
                "DELE a.py",
                "RNFR TEMP",
                "RNTO a.py"
            ]
        );
        let learnt = ["STOR TEMP", "SIZE TEMP", "DELE a.py", "RNFR TEMP", "RNTO a.py"];
        assert_eq!(dialogue[dialogue.len() - 5..], learnt);
    }
}

/// Saves three files while this is answered: they are stored all the same, and it is said once that
/// it is without --atomic.
fn save_without_renaming(verb: &str, reply: &'static str) -> (Autoftp, Scripted) {
    let (project, server) = (Project::new(), Scripted::start());
    server.on(verb, Act::Reply(reply));
    let mut run = project.watch(&["--atomic", &server.host()]);
    for path in ["a.py", "b.py", "c.py"] {
        project.write(path, path);
        server.wait_file(path, path);
    }
    run.stop();
    assert_eq!(server.files(), ["a.py", "b.py", "c.py"].map(|path| pair(path, path)));
    assert_eq!(run.count("without --atomic"), 1);
    (run, server)
}

#[test]
fn without_rnfr_files_are_stored_in_place() {
    let (_run, server) = save_without_renaming("RNFR", "502 Not implemented");
    assert_eq!(server.commands("RNFR").len(), 1);
    assert_eq!(server.commands("STOR .autoftp").len(), 1);
}

#[test]
fn where_temporary_names_are_refused_files_are_stored_in_place_in_the_end() {
    let (run, server) = save_without_renaming("STOR .autoftp", "553 Prohibited file name");
    assert_eq!(server.commands("STOR .autoftp").len(), 6, "a few times for each of two files");
    assert_eq!(run.count("553 Prohibited"), 2, "said once for each");
}

/// Once may be chance.
#[test]
fn one_refused_temporary_name_is_no_reason_to_give_it_up() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(3, "STOR .autoftp", Act::Reply("553 Disk full"));
    let mut run = project.watch(&["--atomic", &server.host()]);
    project.write("a.py", "a");
    server.wait_file("a.py", "a");
    project.write("b.py", "b");
    server.wait_file("b.py", "b");
    run.stop();
    assert_eq!(server.commands("STOR b.py"), [""; 0]);
    assert_eq!(server.commands("RNTO b.py").len(), 1);
    assert_eq!(run.count("without --atomic"), 0);
}

#[test]
fn what_a_killed_process_left_there_is_removed_by_the_next() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "SIZE", Act::Silence);
    let run = project.watch(&["--atomic", &server.host()]);
    project.write("lib/a.py", "a");
    server.wait_commands(1, "SIZE");
    run.kill();
    let left = server.files();
    assert!(left.len() == 1 && left[0].0.starts_with("lib/.autoftp-"), "{left:?}");
    // Whether or not it would make such names itself.
    let mut run = project.watch(&[&server.host()]);
    server.wait_file("lib/a.py", "a");
    server.wait_no_file(&left[0].0);
    run.stop();
    assert_eq!(server.files(), [pair("lib/a.py", "a")]);
    // And only once.
    let mut run = project.watch(&[&server.host()]);
    project.write("b.py", "b");
    server.wait_file("b.py", "b");
    run.stop();
    assert_eq!(server.commands("DELE").len(), 1);
}

/// It may be in use.
#[test]
fn a_temporary_name_of_a_process_that_runs_is_left_alone() {
    let (project, other, server) = (Project::new(), Project::new(), Scripted::start());
    server.times(1, "STOR", Act::Hold);
    let mut first = project.watch(&["--atomic", &server.host()]);
    project.write("a.py", "a");
    server.wait_commands(1, "STOR");
    let mut second = other.watch_sharing(&project, &["--atomic", &server.host()]);
    second.wait_for("connected");
    second.stop();
    server.release();
    server.wait_file("a.py", "a");
    first.stop();
    assert_eq!(server.commands("DELE"), [""; 0]);
}

#[test]
fn missing_directories_are_made() {
    for missing_directory in [
        Act::Reply("550 No such directory"),
        Act::Reply("553 Could not create file."),
        Act::DropThen("550 uftpd"),
        Act::TakeThen("451 FTPdLite"),
    ] {
        let dialect = Dialect { missing_directory, ..Dialect::PLAIN };
        let (project, server) = (Project::new(), Scripted::with(dialect));
        let mut run = project.watch(&["--atomic", &server.host()]);
        for path in ["lib/deep/a.py", "lib/deep/b.py", "other/c.py"] {
            project.write(path, path);
            server.wait_file(path, path);
        }
        run.stop();
        let paths = ["lib/deep/a.py", "lib/deep/b.py", "other/c.py"];
        assert_eq!(server.files(), paths.map(|path| pair(path, path)), "{missing_directory:?}");
        assert_eq!(run.stderr(), "", "{missing_directory:?}");
        assert!(!server.commands("RNTO").is_empty());
    }
}

#[test]
fn whatever_renaming_is_answered_once_the_file_arrives_and_nothing_is_left() {
    let answers = [
        Act::Reply("450 Busy"),
        Act::Reply("451 Error"),
        Act::Reply("421 Bye"),
        Act::Reply("550 What a day"),
        Act::Reply("553 What a name"),
        Act::Reply("garbage"),
        Act::Silence,
        Act::Reset,
    ];
    let cases = answers.into_iter().flat_map(|act| [("RNFR", act), ("RNTO", act)]);
    side_by_side(cases, |(verb, act)| {
        let (project, server) = (Project::new(), Scripted::start());
        server.put("a.py", "old");
        server.times(1, verb, act);
        let mut run = project.watch(&["--atomic", "--timeout", "0.5", &server.host()]);
        project.write("a.py", "new");
        server.wait_file("a.py", "new");
        project.write("b.py", "b");
        server.wait_file("b.py", "b");
        run.stop();
        let what = format!("{verb} {act:?}: {}", run.stderr());
        assert_eq!(server.files(), [pair("a.py", "new"), pair("b.py", "b")], "{what}");
        assert!(run.stderr().lines().count() <= 1, "{what}");
    });
}

#[test]
fn unchanged_content_is_not_sent_again() {
    let (project, server) = (Project::new(), Scripted::start());
    for _ in 0..2 {
        let mut run = project.watch(&["--atomic", &server.host()]);
        project.write("a.py", "a");
        server.wait_file("a.py", "a");
        run.stop();
    }
    assert_eq!(server.stored().len(), 1);
}
