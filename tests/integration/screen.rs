//! What the person sees.

use crate::support::{Act, Autoftp, Project, Scripted};

/// Runs, saves `main.py`, ends, and says all that came on stdout.
fn shown(args: &[&str], environment: &[(&str, &str)]) -> String {
    let (project, server) = (Project::new(), Scripted::start());
    let host = server.host();
    let mut command = project.autoftp(&[args, &[host.as_str()]].concat());
    command.envs(environment.iter().copied());
    let mut run = Autoftp::spawn(command);
    run.wait_for("watching");
    project.write("main.py", "print()");
    server.wait_stored("main.py", "print()");
    run.stop();
    run.stdout()
}

#[test]
fn it_says_what_is_watched_where_it_goes_and_each_file() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write("old.py", "");
    project.write("lib/old.py", "");
    let mut run = project.watch(&[&server.host()]);
    let connected = run.wait_for("connected").text;
    assert!(connected.starts_with("==") && connected.contains(&server.host()), "{connected}");
    project.write("lib/main.py", vec![b'#'; 2100]);
    let file = run.wait_for("lib/main.py").text;
    assert!(file.starts_with(">> ") && file.contains(" kB "), "{file}");
    let clock: Vec<_> = file[3..11].split(':').map(str::parse::<u32>).collect();
    assert!(matches!(clock[..], [Ok(0..24), Ok(0..60), Ok(0..=60)]), "the time of day: {file}");
    run.stop();
    let watching = run.wait_for("watching").text;
    assert!(watching.starts_with("%%") && watching.contains("2 matching files in"), "{watching}");
    assert_eq!(run.stderr(), "");
}

#[test]
fn no_colour_where_no_terminal_is() {
    assert!(!shown(&[], &[]).contains('\x1b'));
}

#[test]
fn colour_on_request() {
    assert!(shown(&["--color", "always"], &[]).contains("\x1b["));
    assert!(shown(&[], &[("CLICOLOR_FORCE", "1")]).contains("\x1b["));
}

#[test]
fn the_option_wins_over_the_environment() {
    assert!(!shown(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]).contains('\x1b'));
    assert!(shown(&["--color=always"], &[("NO_COLOR", "1")]).contains("\x1b["));
}

#[test]
fn a_dry_run_sends_and_deletes_nothing() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-n", "-k", "*.py", "-r", "reload()", &server.host()]);
    run.wait_for("connected");
    project.write("lib/main.py", "print()");
    run.wait_for_line("the dry run", |line| {
        line.text.contains("would send") && line.text.contains("main.py")
    });
    run.stop();
    assert!(project.has("lib/main.py"));
    for verb in ["STOR", "SITE", "MKD"] {
        assert_eq!(server.commands(verb), [""; 0]);
    }
}

#[test]
fn debug_shows_the_dialogue() {
    let shown = shown(&["-d"], &[]);
    for text in ["> USER anonymous", "> PASS ****", "> STOR main.py", "< 226 Stored"] {
        assert!(shown.contains(text), "{text} is missing:\n{shown}");
    }
}

#[test]
fn quiet_says_nothing_while_all_is_well() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.run(&["-q", &server.host()]);
    // Nothing tells when the watch stands, so this file is saved until it is seen.
    let mut round = 0;
    while server.stored().is_empty() {
        round += 1;
        project.write("main.py", round.to_string());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    server.on("STOR bad.py", Act::Reply("550 Not this one"));
    project.write("bad.py", "bad");
    run.wait_for_error("bad.py");
    run.interrupt_and_wait();
    assert_eq!(run.count(">>"), 0, "{}", run.stdout());
}

#[test]
fn verbose_tells_what_is_not_sent_and_why() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-v", "-x", "attic", &server.host()]);
    project.write("notes.txt", "");
    run.wait_for("notes.txt");
    project.write("main.py", "print()");
    run.wait_for(">> ");
    project.write("main.py", "print()");
    run.wait_for("unchanged");
    run.stop();
}

#[test]
fn nothing_a_server_says_reaches_the_terminal_raw() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("greeting", Act::Say("220 \x1b]0;owned\x07 \u{9b}31m hello"));
    server.on("PWD", Act::Say("257 \"/\x1b[2J\""));
    server.on("STOR bad.py", Act::Reply("550 \x1b[2J\x08\x08 no"));
    server.on("SITE", Act::Reply("550 \x1b[2J no"));
    let mut run = project.watch(&["-d", "-v", "-r", "reload()", &server.host()]);
    project.write("bad.py", "bad");
    run.wait_for_error("bad.py");
    project.write("good.py", "good");
    server.wait_commands(1, "SITE");
    run.interrupt_and_wait();
    for line in run.lines() {
        assert!(!line.text.contains(char::is_control), "{:?}", line.text);
    }
}

#[cfg(unix)]
#[test]
fn nothing_a_script_says_reaches_the_terminal_raw() {
    let (project, server) = (Project::new(), Scripted::start());
    project.write("script.sh", "printf 'title \\033]0;owned\\007 end\\n'\n");
    let mut run = project.watch(&["--color", "never", "-s", "*.src,sh script.sh", &server.host()]);
    project.write("a.src", "source");
    let line = run.wait_for("title").text;
    run.wait_for(">> ");
    assert!(!line.contains(char::is_control), "{line:?}");
    run.stop();
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut shell = project.command("sh");
    shell.args(["-c", "{ \"$0\" \"$1\"; echo exit $? >&2; } | grep -m1 watching"]);
    shell.args([env!("CARGO_BIN_EXE_autoftp"), &server.host()]);
    let mut run = Autoftp::spawn(shell);
    run.wait_for("watching");
    // What it says next meets a closed pipe.
    project.write("main.py", "print()");
    run.wait_for_error("exit 0");
    run.wait_exit();
    assert_eq!(run.stderr(), "exit 0\n");
}
