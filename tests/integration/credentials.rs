//! Where passwords come from, and where they do not go.

use std::fs;
use std::path::Path;

use crate::support::{Act, Autoftp, Dialect, Project, Scripted};

const ACCOUNT: Dialect = Dialect { account: Some(("me", "right")), ..Dialect::PLAIN };

fn write_secret(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    #[cfg(not(unix))]
    let _ = mode;
}

/// Expects that this logs in as `me`.
fn logs_in(project: &Project, server: &Scripted, args: &[&str], password_in_env: Option<&str>) {
    let host = server.host();
    let mut command = project.autoftp(&[args, &["-d", "-u", "me", &host]].concat());
    if let Some(password) = password_in_env {
        command.env("AUTOFTP_PASSWORD", password);
    }
    let mut run = Autoftp::spawn(command);
    run.wait_for("connected, files go to");
    run.stop();
    assert_eq!(run.count("right"), 0, "the password is never shown");
}

#[test]
fn a_file_wins_over_the_environment() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let file = project.outside("password");
    write_secret(&file, "right\r\nand more that does not matter\n", 0o600);
    let option = format!("--password-file={}", file.display());
    logs_in(&project, &server, &[&option], Some("wrong"));
}

#[test]
fn a_command_wins_over_the_environment() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let option = "--password-command=printf 'right\\nand more'";
    logs_in(&project, &server, &[option], Some("wrong"));
}

#[test]
fn the_environment_wins_over_netrc() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let netrc = "machine 127.0.0.1 login me password wrong\n";
    write_secret(&project.home().join(".netrc"), netrc, 0o600);
    logs_in(&project, &server, &[], Some("right"));
}

#[test]
fn a_password_file_in_the_project_is_never_sent() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    project.write("secret.py", "right\n");
    let args = ["--sync", "-u", "me", "--password-file", "secret.py", &server.host()];
    let mut run = project.watch(&args);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    project.write("secret.py", "right\n# touched\n");
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.stop();
    assert_eq!(server.files().len(), 2, "{:?}", server.files());
}

#[test]
fn a_password_file_that_is_of_no_use_is_told_at_once() {
    let project = Project::new();
    project.write("empty", "\nright\n");
    for (file, cause) in [("missing", "No such file"), ("empty", "first line is empty")] {
        let mut run = project.run(&["-u", "me", "--password-file", file, "127.0.0.1:1"]);
        assert_eq!(run.wait_exit(), 2);
        let error = run.stderr();
        assert!(error.contains(file) && error.contains(cause), "{error}");
    }
}

#[test]
fn a_password_command_that_fails_ends_it() {
    for (command, cause) in [
        ("false", "failed"),
        ("no-such-program-at-all", "cannot be run"),
        ("true", "first line is empty"),
    ] {
        let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
        let mut run = project.run(&["-u", "me", "--password-command", command, &server.host()]);
        assert_eq!(run.wait_exit(), 1);
        let error = run.stderr();
        assert!(error.contains(command) && error.contains(cause), "{error}");
        assert_eq!(server.commands("PASS"), [""; 0]);
    }
}

#[cfg(unix)]
#[test]
fn a_netrc_that_others_can_read_is_told() {
    for (mode, told) in [(0o600, 0), (0o644, 1)] {
        let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
        let netrc = "machine 127.0.0.1 login me password right\n";
        write_secret(&project.home().join(".netrc"), netrc, mode);
        let mut run = project.watch(&[&server.host()]);
        run.wait_for("connected");
        run.stop();
        assert_eq!(run.count("chmod 600"), told, "mode {mode:o}");
    }
}

#[test]
fn an_account_is_named_when_the_server_asks_for_it() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("PASS", Act::Reply("332 Account?"));
    server.on("ACCT", Act::Reply("230 Welcome"));
    let mut run = project.watch(&["-d", "--account", "lab 7", &server.host()]);
    run.wait_for("connected, files");
    assert_eq!(server.commands("ACCT"), ["ACCT lab 7"]);
    run.stop();
    assert_eq!(run.count("lab 7"), 0, "it may be a secret");
}

#[test]
fn an_account_that_is_asked_for_and_not_known_ends_it() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("PASS", Act::Reply("332 Account?"));
    let mut run = project.run(&[&server.host()]);
    assert_eq!(run.wait_exit(), 1);
    assert!(run.stderr().contains("--account"), "{}", run.stderr());
}

#[test]
fn a_server_that_repeats_the_password_does_not_get_it_shown() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("PASS", Act::Reply("530 The password s3cret-word is wrong"));
    let mut command = project.autoftp(&["-d", "-u", "me", &server.host()]);
    command.env("AUTOFTP_PASSWORD", "s3cret-word");
    let mut run = Autoftp::spawn(command);
    assert_eq!(run.wait_exit(), 1);
    assert!(run.stderr().contains("530"), "{}", run.stderr());
    assert_eq!(run.count("s3cret-word"), 0);
}

#[test]
fn a_server_that_wants_encryption_is_understood() {
    for reply in [
        "530 Non-anonymous sessions must use encryption.",
        "421 Sorry, cleartext sessions are not accepted on this server.",
        "550 SSL/TLS required on the control channel.",
    ] {
        let (project, server) = (Project::new(), Scripted::start());
        server.on("USER", Act::Reply(reply));
        let mut run = project.run(&[&server.host()]);
        assert_eq!(run.wait_exit(), 1, "{reply}");
        assert!(run.stderr().contains("use --tls"), "{}", run.stderr());
    }
}

#[test]
fn nothing_goes_in_the_clear_where_tls_is_asked_for() {
    for reply in ["500 What?", "502 Not implemented", "534 Policy", "504 No such mechanism"] {
        let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
        server.on("AUTH", Act::Reply(reply));
        let mut command = project.autoftp(&["--tls", "-u", "me", &server.host()]);
        command.env("AUTOFTP_PASSWORD", "right");
        let mut run = Autoftp::spawn(command);
        assert_eq!(run.wait_exit(), 1, "{reply}");
        assert!(run.stderr().contains("offers no TLS"), "{}", run.stderr());
        assert_eq!(server.commands(""), ["AUTH TLS"], "nothing else was said");
    }
}

#[test]
fn options_of_encryption_without_encryption_are_a_mistake() {
    let project = Project::new();
    for option in ["--insecure", "--cacert=a.pem", "--tls-server-name=a", "--client-cert=a"] {
        let mut run = project.run(&[option, "127.0.0.1:1"]);
        assert_eq!(run.wait_exit(), 2, "{option}");
        let error = run.stderr();
        assert!(error.contains("--tls") || error.contains("--client-key"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn scripts_do_not_get_the_password() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    project.write("script.sh", "echo \"[$AUTOFTP_PASSWORD]\" > result.out\n");
    let args = ["-u", "me", "-s", "*.src,sh script.sh", "-p", "*.out", &server.host()];
    let mut command = project.autoftp(&args);
    command.env("AUTOFTP_PASSWORD", "right");
    let mut run = Autoftp::spawn(command);
    run.wait_for("watching");
    project.write("a.src", "source");
    server.wait_stored("result.out", "[]\n");
    run.stop();
}

#[test]
fn a_server_that_knows_no_types_has_but_one() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("TYPE", Act::Reply("502 Not implemented"));
    let mut run = project.watch(&[&server.host()]);
    project.write("a.py", "a");
    server.wait_stored("a.py", "a");
    run.stop();
}

#[test]
fn a_netrc_that_cannot_be_read_is_told() {
    let (project, server) = (Project::new(), Scripted::start());
    write_secret(&project.home().join(".netrc"), "machine 127.0.0.1 login me pasword x\n", 0o600);
    let mut run = project.watch(&[&server.host()]);
    run.wait_for("connected");
    run.stop();
    assert_eq!(run.count("is not used"), 1, "{}", run.stdout());
    assert_eq!(server.commands("USER"), ["USER anonymous"]);
}

#[test]
fn a_refused_password_is_told_with_where_it_came_from() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let mut command = project.autoftp(&["-u", "me", &server.host()]);
    command.env("AUTOFTP_PASSWORD", "wrong");
    let mut run = Autoftp::spawn(command);
    assert_eq!(run.wait_exit(), 1);
    assert!(run.stderr().contains("(from AUTOFTP_PASSWORD)"), "{}", run.stderr());
}

#[test]
fn what_is_no_answer_to_auth_is_no_refusal() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "AUTH", Act::Reply("226 Stored"));
    let mut run = project.run(&["--tls", &server.host()]);
    assert_eq!(run.wait_exit(), 1);
    // The second answer is: the server has no TLS.
    assert_eq!(server.commands("AUTH").len(), 2);
    assert!(run.stderr().contains("offers no TLS"), "{}", run.stderr());
}
