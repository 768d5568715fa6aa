//! What comes last in a burst: the files that a board starts with, and the remote command.

use rustix::process::Signal;

use crate::support::{Act, Autoftp, Project, Scripted};

/// Saves all of them in an instant, as far as `autoftp` can tell.
fn burst(project: &Project, run: &Autoftp, paths: &[&str]) {
    run.signal(Signal::STOP);
    for path in paths {
        project.write(path, path);
    }
    run.signal(Signal::CONT);
}

/// The paths in the order in which they arrived.
fn arrived(server: &Scripted) -> Vec<String> {
    server.stored().into_iter().map(|(path, _)| path).collect()
}

fn wait_all(server: &Scripted, paths: &[&str]) {
    for path in paths {
        server.wait_stored(path, path);
    }
}

#[test]
fn what_a_board_starts_with_comes_last_in_a_burst() {
    for args in [&[][..], &["--atomic"], &["--poll=0.2"]] {
        let (project, server) = (Project::new(), Scripted::start());
        let host = server.host();
        let mut run = project.watch(&[args, &["-p", "*.py,*.mpy", &host]].concat());
        let paths = ["boot.py", "main.py", "main.mpy", "a.py", "lib/z.py", "zz/main2.py"];
        burst(&project, &run, &paths);
        for path in paths {
            server.wait_file(path, path);
        }
        run.stop();
        let line = |name: &str| {
            let named = |line: &String| line.contains(&format!(" {name} "));
            run.stdout().lines().map(str::to_owned).position(|line| named(&line)).unwrap()
        };
        let last = paths[..3].iter().map(|path| line(path)).min().unwrap();
        let first = paths[3..].iter().map(|path| line(path)).max().unwrap();
        assert!(first < last, "{args:?}: {}", run.stdout());
    }
}

/// They are written in place then, and due at once.
#[test]
fn it_comes_last_though_it_was_there_before() {
    let (project, server) = (Project::new(), Scripted::start());
    let paths = ["main.py", "boot.py", "a.py", "b.py"];
    for path in paths {
        project.write(path, "old");
    }
    let mut run = project.watch(&[&server.host()]);
    burst(&project, &run, &paths);
    wait_all(&server, &paths);
    run.stop();
    assert_eq!(arrived(&server), ["a.py", "b.py", "main.py", "boot.py"]);
}

#[test]
fn it_comes_last_when_the_server_is_back() {
    let (project, mut server) = (Project::new(), Scripted::start());
    server.stop();
    let mut run = project.watch(&[&server.host()]);
    for path in ["main.py", "a.py", "lib/b.py"] {
        project.write(path, path);
        project.wait_ordered(path);
    }
    server.restart();
    wait_all(&server, &["main.py", "a.py", "lib/b.py"]);
    run.stop();
    assert_eq!(arrived(&server), ["a.py", "lib/b.py", "main.py"]);
}

#[test]
fn it_comes_last_in_a_sync() {
    let (project, server) = (Project::new(), Scripted::start());
    let paths = ["main.py", "a.py", "lib/b.py", "z.py"];
    for path in paths {
        project.write(path, path);
    }
    let mut run = project.run(&["--once", &server.host()]);
    assert_eq!(run.wait_exit(), 0);
    assert_eq!(arrived(&server).last().unwrap(), "main.py");
    assert_eq!(server.stored().len(), 4);
}

/// What the scripts make belongs to the burst of what they are run on, however long they take.
#[test]
fn it_comes_last_of_what_scripts_make() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write(
        "compile.sh",
        "case $1 in *main*) ;; *) sleep 0.3;; esac; cp \"$1\" \"${1%.py}.mpy\"\n",
    );
    let mut run = project.watch(&["-p", "*.mpy", "-s", "*.py,sh compile.sh", &server.host()]);
    burst(&project, &run, &["main.py", "a.py", "b.py"]);
    server.wait_file("main.mpy", "main.py");
    run.stop();
    assert_eq!(arrived(&server).last().unwrap(), "main.mpy");
    assert_eq!(server.stored().len(), 3);
}

/// However long one takes, and whatever it is run on.
#[test]
fn it_comes_last_though_its_script_ends_first() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write("make.sh", "sleep $1; cp \"$3\" \"$2\"; sleep $1\n");
    let rules = ["-s", "start.src,sh make.sh 0 main.mpy", "-s", "a.src,sh make.sh 0.2 a.mpy"];
    let mut run = project.watch(&[&["-p", "*.mpy", &server.host()][..], &rules].concat());
    burst(&project, &run, &["start.src", "a.src"]);
    server.wait_file("main.mpy", "start.src");
    run.stop();
    assert_eq!(arrived(&server), ["a.mpy", "main.mpy"]);
}

/// A board that restarts meanwhile would run new code against old modules.
#[test]
fn it_waits_for_a_file_that_was_refused_once() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "STOR b.py", Act::Reply("450 Busy"));
    let mut run = project.watch(&[&server.host()]);
    burst(&project, &run, &["main.py", "a.py", "b.py"]);
    wait_all(&server, &["main.py", "a.py", "b.py"]);
    run.stop();
    assert_eq!(arrived(&server), ["a.py", "b.py", "main.py"]);
}

#[test]
fn it_does_not_wait_for_ever_for_a_file_that_is_refused() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR b.py", Act::Reply("450 Busy"));
    let mut run = project.watch(&[&server.host()]);
    burst(&project, &run, &["main.py", "a.py", "b.py"]);
    server.wait_stored("main.py", "main.py");
    run.interrupt_and_wait();
    assert_eq!(arrived(&server), ["a.py", "main.py"]);
}

/// It has nothing to wait for.
#[test]
fn a_single_one_is_sent_by_itself() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host()]);
    for content in ["one", "two"] {
        project.write("main.py", content);
        server.wait_file("main.py", content);
    }
    run.stop();
}

#[test]
fn with_remote_once_there_is_one_command_after_a_burst() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-r", "reload('%%f')", "--remote-once", &server.host()]);
    burst(&project, &run, &["main.py", "a.py", "b.py"]);
    server.wait_commands(1, "SITE");
    burst(&project, &run, &["c.py", "d.py"]);
    server.wait_commands(2, "SITE");
    run.stop();
    let commands: Vec<String> = server
        .commands("S")
        .into_iter()
        .filter(|line| line.starts_with("STOR") || line.starts_with("SITE"))
        .collect();
    let first = ["STOR a.py", "STOR b.py", "STOR main.py", "SITE reload('main')"];
    assert_eq!(commands[..4], first);
    assert_eq!(commands[4..], ["STOR c.py", "STOR d.py", "SITE reload('d')"]);
}

#[test]
fn with_remote_once_only_what_matches_counts() {
    let (project, server) = (Project::new(), Scripted::start());
    let args = ["-r", "reload('%%f')", "-m", "a.py,b.py", "--remote-once", &server.host()];
    let mut run = project.watch(&args);
    burst(&project, &run, &["main.py", "a.py", "b.py"]);
    wait_all(&server, &["main.py", "a.py", "b.py"]);
    project.write("c.py", "c");
    server.wait_stored("c.py", "c");
    run.stop();
    assert_eq!(server.commands("SITE"), ["SITE reload('b')"]);
}

/// The burst ends with the program.
#[test]
fn with_remote_once_the_command_is_not_lost_at_the_end() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.run(&["-r", "reload()", "--remote-once", "--once", &server.host()]);
    assert_eq!(run.wait_exit(), 0);
    assert_eq!(server.commands("SITE"), [""; 0], "there was nothing to send");
    for path in ["a.py", "b.py"] {
        project.write(path, path);
    }
    let mut run = project.run(&["-r", "reload()", "--remote-once", "--once", &server.host()]);
    assert_eq!(run.wait_exit(), 0);
    assert_eq!(server.commands("SITE"), ["SITE reload()"]);
}

#[test]
fn with_remote_once_a_file_that_is_tried_again_belongs_to_the_burst() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "STOR b.py", Act::Reply("450 Busy"));
    let mut run = project.watch(&["-r", "reload('%%f')", "--remote-once", &server.host()]);
    burst(&project, &run, &["a.py", "b.py"]);
    server.wait_commands(1, "SITE");
    run.stop();
    assert_eq!(server.commands("SITE"), ["SITE reload('b')"]);
}
