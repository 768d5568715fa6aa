//! The command line and the settings file: what is understood, and how faults are told.

use std::process::Output;

use crate::support::{Project, Scripted};

/// Runs to the end in an empty project that has this `.autoftp`, if any.
fn run(settings: Option<&str>, args: &[&str]) -> Output {
    let project = Project::new();
    if let Some(settings) = settings {
        project.write(".autoftp", settings);
    }
    project.autoftp(args).output().unwrap()
}

/// Expects this exit code, and an error that contains these words and is no panic.
fn fails(settings: Option<&str>, args: &[&str], code: i32, words: &[&str]) {
    let output = run(settings, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}, {settings:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{args:?}, {settings:?}: {word:?} is missing in: {error}");
    }
    assert!(!error.contains("panicked") && !error.contains("RUST_BACKTRACE"), "{error}");
}

#[test]
fn usage_errors_exit_2_and_name_the_fault() {
    // Pins a fix: the original exits 0.
    fails(None, &[], 2, &["HOST"]);
    fails(None, &["--no-such-option", "host"], 2, &["--no-such-option"]);
    fails(None, &["--port", "70000", "host"], 2, &["70000"]);
    fails(None, &["--timeout", "soon", "host"], 2, &["soon"]);
    fails(None, &["--timeout", "-1", "host"], 2, &[]);
    fails(None, &["--color", "green", "host"], 2, &["green"]);
    fails(None, &["host:port"], 2, &["host:port"]);
    fails(None, &["[::1"], 2, &["[::1"]);
    fails(None, &["http://host/"], 2, &["http"]);
    fails(None, &[""], 2, &[]);
    fails(None, &["-s", "*.py", "host"], 2, &["*.py"]);
    fails(None, &["-s", "*.py, 'unclosed", "host"], 2, &["unclosed"]);
    fails(None, &["-p"], 2, &["--include"]);
    // A password on the command line is for all to see in ps.
    fails(None, &["--password", "secret", "host"], 2, &["--password"]);
}

#[test]
fn a_bad_pattern_is_named() {
    fails(None, &["-x", "good, [z-a].py", "host"], 2, &["[z-a].py"]);
    fails(Some("host: h\ninclude: [z-a].py\n"), &[], 2, &["[z-a].py", ".autoftp:2"]);
}

#[test]
fn a_bad_settings_line_is_named_by_its_number() {
    // Pins a fix: the original passes over them in silence.
    fails(Some("host: h\n\n# comment\ninclud: *.py\n"), &[], 2, &[".autoftp:4", "includ"]);
    fails(Some("host: h\nwhat is this\n"), &[], 2, &[".autoftp:2"]);
    fails(Some("host: h\ntimeout: soon\n"), &[], 2, &[".autoftp:2", "soon"]);
    fails(Some("host: h\ndebug: perhaps\n"), &[], 2, &[".autoftp:2", "perhaps"]);
    fails(Some("host: h\nprocess: *.py\n"), &[], 2, &[".autoftp:2"]);
    fails(Some(" host: h\n"), &[], 2, &[".autoftp:1"]);
}

#[test]
fn a_mistyped_option_gets_a_hint() {
    fails(None, &["--exlude", "*.py", "host"], 2, &["--exclude"]);
    fails(Some("exlude: *.py\n"), &["host"], 2, &["exclude"]);
}

#[test]
fn a_host_that_nobody_knows_exits_1() {
    fails(None, &["no-such-host.invalid"], 1, &["no-such-host.invalid"]);
}

#[test]
fn help_and_version_exit_0() {
    for (args, words) in [
        (
            ["-h"],
            &[
                "--include",
                "--exclude",
                "--process",
                "--up-delete",
                "--remote-command",
                "--remote-match",
            ][..],
        ),
        (
            ["--help"],
            &[
                "--dry-run",
                "--debug",
                "--poll",
                "--remote-dir",
                "--no-default-ignores",
                "AUTOFTP_PASSWORD",
            ],
        ),
        (["--version"], &[env!("CARGO_PKG_VERSION")]),
    ] {
        let output = run(None, &args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(words.iter().all(|word| text.contains(word)), "{args:?}: {text}");
    }
}

/// Runs with these arguments, HOST standing for the server's; saves a.py and b.mpy; says what the
/// server stored.
fn stored(args: &[&str]) -> Vec<String> {
    let (project, server) = (Project::new(), Scripted::start());
    let host = server.host();
    let args: Vec<&str> =
        args.iter().map(|arg| if *arg == "HOST" { host.as_str() } else { arg }).collect();
    let mut run = project.watch(&args);
    for path in ["a.py", "b.mpy", "last.txt"] {
        project.write(path, path);
    }
    server.wait_stored("last.txt", "last.txt");
    run.stop();
    let mut paths: Vec<_> = server
        .stored()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path != "last.txt")
        .collect();
    paths.sort();
    paths
}

#[test]
fn options_may_stand_anywhere_and_take_attached_values() {
    assert_eq!(stored(&["-p", "*.py,*.txt", "HOST"]), ["a.py"]);
    assert_eq!(stored(&["HOST", "-p*.py", "-plast.txt"]), ["a.py"]);
    assert_eq!(stored(&["-p=*.py", "-p", "*.txt", "HOST"]), ["a.py"]);
    assert_eq!(stored(&["--include=*.py,*.txt", "HOST"]), ["a.py"]);
    assert_eq!(stored(&["-p", "*", "-x", "*.py", "--", "HOST"]), ["b.mpy"]);
}

#[test]
fn short_options_cluster() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-dn", &server.host()]);
    project.write("a.py", "a");
    run.wait_for("would send");
    run.wait_for("> USER");
    run.stop();
    assert_eq!(server.stored(), []);
}

#[test]
fn unique_beginnings_of_long_options_are_understood() {
    assert_eq!(stored(&["--inc", "*.py,*.txt", "HOST"]), ["a.py"]);
    assert_eq!(stored(&["--i", "*", "--exc", "*.py", "HOST"]), ["b.mpy"]);
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[
        "--proc",
        "*.src,no-such-program",
        "--up",
        "*.none",
        "--remote-c",
        "reload()",
        "--remote-m",
        "*.py",
        "--dry",
        "--de",
        &server.host(),
    ]);
    project.write("a.py", "a");
    run.wait_for("would send");
    run.stop();
}

/// The original's own options, by their shortest beginnings there, mean what they meant.
#[test]
fn old_abbreviations_stay_unambiguous() {
    for args in [["--u", "*.none"], ["--p", "*.none,true"], ["--updelete", "*.none"]] {
        assert_eq!(stored(&[args[0], args[1], "-p", "*.py,*.txt", "HOST"]), ["a.py"], "{args:?}");
    }
}

#[test]
fn several_hosts_may_come_from_one_command_line() {
    let (project, one, two) = (Project::new(), Scripted::start(), Scripted::start());
    let mut run = project.watch(&[&one.host(), "-p", "*.py", &two.host()]);
    project.write("a.py", "a");
    one.wait_stored("a.py", "a");
    two.wait_stored("a.py", "a");
    run.stop();
}
