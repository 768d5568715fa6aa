//! What is known of a host from one run to the next, and from one session to the next.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::support::{Act, Autoftp, Project, Scripted};

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

/// One run, in which one file is saved and arrives.
fn deliver(project: &Project, server: &Scripted, path: &str, content: &str) {
    let mut run = project.watch(&[&server.host()]);
    project.write(path, content);
    server.wait_stored(path, content);
    run.stop();
}

#[test]
fn unchanged_content_is_not_sent_again_by_the_next_run() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "a");
    let mut run = project.watch(&["-v", &server.host()]);
    project.write("a.py", "a");
    run.wait_for("unchanged");
    assert_eq!(server.commands("SIZE a.py").len(), 2, "one by each session");
    project.write("a.py", "a");
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("b.py", "b")]);
    assert_eq!(server.commands("SIZE a.py").len(), 2, "asked once a session");
}

#[test]
fn unchanged_content_is_not_sent_again_by_the_next_session() {
    let (project, mut server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-v", &server.host()]);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    run.wait_for(">> ");
    server.restart();
    project.write("a.py", "a");
    run.wait_for("unchanged");
    project.write("a.py", "a");
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.stop();
    assert_eq!(server.sessions(), 2);
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("b.py", "b")]);
    assert_eq!(server.commands("SIZE a.py").len(), 2, "one by each session");
}

#[test]
fn unchanged_content_is_not_sent_again_where_changes_are_looked_for() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "a");
    let mut run = project.watch(&["-v", "--poll=0.1", &server.host()]);
    project.write("a.py", "a");
    run.wait_for("unchanged");
    project.write("a.py", "b");
    server.wait_file("a.py", "b");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("a.py", "b")]);
    assert_eq!(server.commands("SIZE a.py").len(), 3, "one more for the upload");
}

#[test]
fn changed_content_is_sent_by_the_next_run_though_its_size_is_the_same() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "one");
    deliver(&project, &server, "a.py", "two");
    deliver(&project, &server, "a.py", "one");
    assert_eq!(server.files(), [pair("a.py", "one")]);
    assert_eq!(server.stored().len(), 3);
}

#[test]
fn a_file_that_is_not_there_any_more_is_sent_and_that_is_said() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "same");
    server.lose("a.py");
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "same");
    run.wait_for_error("a.py: it is not there any more");
    run.stop();
    assert_eq!(server.files(), [pair("a.py", "same")]);
}

#[test]
fn a_file_of_another_size_there_is_sent_and_that_is_said() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "same");
    server.put("a.py", "somebody else's");
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "same");
    run.wait_for_error("a.py: it has 15 bytes there now");
    run.stop();
    assert_eq!(server.files(), [pair("a.py", "same")]);
}

/// Nothing proves then that the next session still has what the last one stored.
#[test]
fn without_size_unchanged_content_is_sent_again_once_a_session() {
    let (project, mut server) = (Project::new(), Scripted::start());
    server.on("SIZE", Act::Reply("502 Not implemented"));
    let mut run = project.watch(&[&server.host()]);
    let save = |path: &str, content: &str| {
        project.write(path, content);
        server.wait_stored(path, content);
    };
    save("a.py", "a");
    save("a.py", "a");
    save("b.py", "b");
    run.wait_for("b.py");
    server.restart();
    project.write("a.py", "a");
    project.wait_ordered("a.py");
    project.write("c.py", "c");
    server.wait_stored("c.py", "c");
    project.write("a.py", "a");
    run.stop();
    let stored = [pair("a.py", "a"), pair("b.py", "b"), pair("a.py", "a"), pair("c.py", "c")];
    assert_eq!(server.stored(), stored);
    assert_eq!(run.stderr(), "", "that is no trouble");
}

/// vsftpd does so for anonymous accounts that may only upload.
#[test]
fn a_size_that_is_always_refused_costs_one_upload_a_run_at_most() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("SIZE", Act::Reply("550 Could not get file size."));
    for run in 1..=2 {
        let before = server.stored().len();
        let content = run.to_string();
        deliver(&project, &server, "a.py", &content);
        deliver_more(&project, &server, &content);
        let extra = server.stored().len() - before - 4;
        assert!(extra <= 2, "{:?}", server.stored());
    }
}

/// One run, in which three files are saved.
fn deliver_more(project: &Project, server: &Scripted, content: &str) {
    let mut run = project.watch(&[&server.host()]);
    for path in ["b.py", "c.py", "d.py"] {
        project.write(path, content);
        server.wait_stored(path, content);
    }
    run.stop();
}

#[test]
fn force_sends_each_save() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "a");
    let mut run = project.watch(&["--force", &server.host()]);
    for times in 2..4 {
        project.write("a.py", "a");
        server.wait_commands(times, "STOR a.py");
    }
    run.stop();
    assert_eq!(server.files(), [pair("a.py", "a")]);
}

/// Whatever has happened to the journal: nothing that is saved is lost, and what this run has sent
/// is known to the next.
#[test]
fn a_damaged_journal_is_survived() {
    type Damage = (&'static str, fn(&Path), usize);
    let damages: [Damage; 5] = [
        ("garbage behind it", |path| append(path, b"\x00\xff= 1 zz a.py\n= 9"), 1),
        ("garbage in place of it", |path| fs::write(path, b"\x00\xff\n\n= \t\n").unwrap(), 2),
        ("nothing left of it", |path| fs::write(path, "").unwrap(), 2),
        ("another version's", |path| fs::write(path, "autoftp 9 ftp://x\t\n").unwrap(), 2),
        ("cut off in the record of the upload", |path| cut(path, 4), 2),
    ];
    for (what, damage, stored) in damages {
        let (project, server) = (Project::new(), Scripted::start());
        deliver(&project, &server, "a.py", "a");
        damage(&project.journal());
        let mut run = project.watch(&[&server.host()]);
        // It may be being sent at this moment.
        project.write("a.tmp", "a");
        project.rename("a.tmp", "a.py");
        project.write("b.py", "b");
        server.wait_stored("b.py", "b");
        run.stop();
        let mut run = project.watch(&[&server.host()]);
        project.write("a.py", "a");
        project.write("b.py", "b");
        project.write("c.py", "c");
        server.wait_stored("c.py", "c");
        run.stop();
        assert_eq!(server.commands("STOR a.py").len(), stored, "{what}");
        assert_eq!(server.commands("STOR b.py").len(), 1, "{what}");
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

/// The record of the upload is what settles the order.
#[test]
fn an_upload_whose_record_was_cut_off_is_made_again_without_a_save() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "a");
    cut(&project.journal(), 2);
    let mut run = project.watch(&[&server.host()]);
    run.wait_for("still to be sent from last time: 1 file");
    server.wait_commands(2, "STOR a.py");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("a.py", "a")]);
}

#[test]
fn without_a_place_for_the_state_it_works_and_says_so() {
    let (project, server) = (Project::new(), Scripted::start());
    fs::write(project.state(), "a file in place of the directory").unwrap();
    let mut run = project.watch(&[&server.host()]);
    run.wait_for("will not be remembered");
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    project.write("a.py", "a");
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("b.py", "b")]);
}

/// Each upload changes the journal, and each change would be an upload.
#[test]
fn a_state_within_the_project_is_never_sent() {
    let (project, server) = (Project::new(), Scripted::start());
    for args in [&["-p", "*", "--no-default-ignores"][..], &["-p", "*", "--sync"]] {
        for content in ["one", "two"] {
            let mut command = project.autoftp(&[args, &[server.host().as_str()]].concat());
            command.env("XDG_STATE_HOME", project.path("local/state"));
            let mut run = Autoftp::spawn(command);
            run.wait_for("watching");
            project.write("a.py", content);
            server.wait_file("a.py", content);
            run.stop();
        }
    }
    assert!(project.has("local/state/autoftp"));
    assert_eq!(server.files(), [pair("a.py", "two")]);
    assert_eq!(server.commands("STOR local"), [""; 0]);
}

/// The way to it may lead over a link: it is the same directory.
#[cfg(unix)]
#[test]
fn a_state_within_the_project_is_never_sent_whatever_way_leads_to_it() {
    let (project, server) = (Project::new(), Scripted::start());
    std::os::unix::fs::symlink(project.root(), project.outside("link")).unwrap();
    let mut command = project.autoftp(&["-p", "*", &server.host()]);
    command.env("XDG_STATE_HOME", project.outside("link/state"));
    let mut run = Autoftp::spawn(command);
    run.wait_for("watching");
    for path in ["a.py", "b.py"] {
        project.write(path, path);
        server.wait_file(path, path);
    }
    run.stop();
    assert_eq!(server.files(), [pair("a.py", "a.py"), pair("b.py", "b.py")]);
}

#[test]
fn no_password_gets_into_the_state() {
    let (project, server) = (Project::new(), Scripted::start());
    let addresses = [
        (format!("ftp://me:hush-hush@{}/", server.host()), ""),
        (format!("ftp://me@{}/", server.host()), "hush-hush"),
    ];
    for (address, password) in addresses {
        let mut command = project.autoftp(&[&address]);
        command.env("AUTOFTP_PASSWORD", password);
        let mut run = Autoftp::spawn(command);
        run.wait_for("watching");
        project.write("a.py", password);
        server.wait_file("a.py", password);
        run.stop();
    }
    assert_eq!(server.commands("PASS hush-hush").len(), 2);
    for entry in fs::read_dir(project.state()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!format!("{path:?} {text}").contains("hush"), "{path:?}: {text}");
    }
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_the_state() {
    use std::os::unix::fs::PermissionsExt;

    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "a");
    for path in [project.state(), project.journal()] {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path:?}");
    }
}

#[test]
fn two_that_watch_one_directory_send_a_save_once() {
    let (project, server) = (Project::new(), Scripted::start());
    // The one that comes first is held up until the other has come, too.
    server.times(1, "STOR", Act::Hold);
    let mut runs = [project.watch(&["-v", &server.host()]), project.watch(&["-v", &server.host()])];
    for run in &runs {
        run.wait_for("connected");
    }
    project.write("a.py", "a");
    server.wait_commands(1, "STOR");
    project.write("b.py", "b");
    project.wait_ordered_by(2, "b.py");
    server.release();
    for run in &mut runs {
        // Sent, or unchanged.
        run.wait_for(" b.py ");
    }
    for run in &mut runs {
        run.stop();
    }
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("b.py", "b")]);
    assert_eq!(runs[0].count(">> ") + runs[1].count(">> "), 2);
}

#[test]
fn with_two_that_watch_one_directory_the_newest_wins() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut runs = [project.watch(&[&server.host()]), project.watch(&[&server.host()])];
    for number in 0..30 {
        project.write("a.py", format!("save {number}"));
        if number % 10 == 5 {
            server.wait_file("a.py", &format!("save {number}"));
        }
    }
    server.wait_file("a.py", "save 29");
    for run in &mut runs {
        run.stop();
    }
    assert_eq!(server.files(), [pair("a.py", "save 29")]);
}

/// It waited for the other one's upload to end, and left with its own.
#[cfg(unix)]
#[test]
fn what_was_saved_before_ctrl_c_is_sent_though_another_process_sends_at_that_moment() {
    let (one, two, server) = (Project::new(), Project::new(), Scripted::start());
    let mut first = one.watch_sharing(&one, &[&server.host()]);
    let mut second = two.watch_sharing(&one, &[&server.host()]);
    second.wait_for("connected");
    server.times(1, "STOR a.py", Act::Hold);
    one.write("a.py", "a");
    server.wait_commands(1, "STOR a.py");
    two.write("b.py", "b");
    one.wait_ordered("b.py");
    second.interrupt();
    second.wait_for("finishing 1 file");
    server.release();
    assert_eq!(second.wait_exit(), 0);
    first.stop();
    assert_eq!(server.files(), [pair("a.py", "a"), pair("b.py", "b")]);
}

/// What one stored last is not what is there.
#[test]
fn from_two_projects_to_one_path_the_last_save_counts() {
    let (one, two, server) = (Project::new(), Project::new(), Scripted::start());
    let mut first = one.watch_sharing(&one, &[&server.host()]);
    let mut second = two.watch_sharing(&one, &[&server.host()]);
    for (project, content) in [(&one, "A"), (&two, "B"), (&one, "A"), (&two, "B"), (&one, "A")] {
        project.write("a.py", content);
        server.wait_file("a.py", content);
    }
    first.stop();
    second.stop();
    assert_eq!(server.stored().len(), 5);
}

/// By another process, that has ended since.
#[test]
fn what_another_process_noted_meanwhile_counts() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    run.wait_for(">> ");
    append(&project.journal(), b"= 1 0123456789abcdef a.py\t\n");
    project.write("a.py", "a");
    server.wait_commands(2, "STOR a.py");
    run.stop();
    assert_eq!(server.stored(), [pair("a.py", "a"), pair("a.py", "a")]);
}

#[test]
fn a_save_is_not_forgotten_when_it_is_killed() {
    for act in [Act::Silence, Act::Reply("450 Busy")] {
        let (project, server) = (Project::new(), Scripted::start());
        server.on("STOR", act);
        let run = project.watch(&[&server.host()]);
        project.write("lib/a.py", "a");
        server.wait_commands(1, "STOR");
        run.kill();
        server.behave();
        let mut run = project.watch(&[&server.host()]);
        run.wait_for("still to be sent from last time: 1 file");
        server.wait_stored("lib/a.py", "a");
        run.stop();
        // Said and done.
        let mut run = project.watch(&[&server.host()]);
        run.wait_for("connected");
        run.stop();
        assert_eq!(run.count("still to be sent"), 0);
        assert_eq!(server.stored(), [pair("lib/a.py", "a")]);
    }
}

#[test]
fn a_save_is_not_forgotten_when_it_is_killed_while_the_server_is_away() {
    let (project, mut server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "one");
    server.stop();
    let run = project.watch(&[&server.host()]);
    project.write("a.py", "two");
    project.write("b.py", "b");
    project.wait_ordered("b.py");
    run.kill();
    // What is done to it meanwhile is not seen, but what is sent is the newest.
    project.write("b.py", "newer");
    server.restart();
    let mut run = project.watch(&[&server.host()]);
    server.wait_file("a.py", "two");
    server.wait_file("b.py", "newer");
    run.stop();
    assert_eq!(server.stored().len(), 3);
}

#[test]
fn what_was_left_over_and_is_not_to_be_sent_any_more_is_not_sent() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR", Act::Reply("450 Busy"));
    let run = project.watch(&[&server.host()]);
    for path in ["gone.py", "excluded.py"] {
        project.write(path, path);
        project.wait_ordered(path);
    }
    run.kill();
    server.behave();
    project.remove("gone.py");
    let mut run = project.watch(&["-x", "excluded.py", &server.host()]);
    project.write("after.py", "after");
    server.wait_stored("after.py", "after");
    run.stop();
    assert_eq!(run.stderr(), "");
    assert_eq!(run.count("still to be sent"), 0);
    assert_eq!(server.stored(), [pair("after.py", "after")]);
}

/// The server may have half of the new content by then.
#[test]
fn a_save_that_was_undone_after_a_kill_is_sent() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "AAAA");
    // With its bytes taken but not confirmed.
    server.times(1, "STOR", Act::Hold);
    let run = project.watch(&[&server.host()]);
    project.write("a.py", "BBBB");
    server.wait_file("a.py", "BBBB");
    run.kill();
    project.write("a.py", "AAAA");
    let mut run = project.watch(&[&server.host()]);
    server.wait_file("a.py", "AAAA");
    run.stop();
    assert_eq!(server.files(), [pair("a.py", "AAAA")]);
}

#[test]
fn what_one_project_left_over_is_not_sent_from_another() {
    let (one, two, server) = (Project::new(), Project::new(), Scripted::start());
    two.write("a.py", "never saved while it ran");
    server.times(1, "STOR", Act::Silence);
    let run = one.watch_sharing(&one, &[&server.host()]);
    one.write("a.py", "left over");
    server.wait_commands(1, "STOR a.py");
    run.kill();
    let mut run = two.watch_sharing(&one, &[&server.host()]);
    two.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.stop();
    assert_eq!(server.stored(), [pair("b.py", "b")]);
    let mut run = one.watch_sharing(&one, &[&server.host()]);
    server.wait_file("a.py", "left over");
    run.stop();
}

#[test]
fn a_dry_run_leaves_the_state_alone() {
    let (project, server) = (Project::new(), Scripted::start());
    deliver(&project, &server, "a.py", "one");
    let before = fs::read(project.journal()).unwrap();
    let mut run = project.watch(&["-n", &server.host()]);
    project.write("a.py", "two");
    run.wait_for("would send");
    run.stop();
    assert_eq!(fs::read(project.journal()).unwrap(), before);
    assert_eq!(server.files(), [pair("a.py", "one")]);
}
