//! The forms of HOST, and who logs in where.

use std::fs;
use std::net::TcpListener;

use crate::support::{Autoftp, Dialect, Project, Scripted};

const ACCOUNT: Dialect = Dialect { account: Some(("me", "pass word%1")), ..Dialect::PLAIN };

/// Saves a file and sees it arrive.
fn delivers(project: &Project, run: &mut Autoftp, server: &Scripted, stored_as: &str) {
    run.wait_for("watching");
    project.write("a.py", "a");
    server.wait_stored(stored_as, "a");
    run.stop();
}

#[test]
fn a_name_and_a_port() {
    // Where a name has several addresses, each is tried: this server listens on one.
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.run(&[&format!("localhost:{}", server.port())]);
    delivers(&project, &mut run, &server, "a.py");
    assert_eq!(server.commands("USER"), ["USER anonymous"]);
}

#[test]
fn the_port_option() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.run(&["--port", &server.port().to_string(), "127.0.0.1"]);
    delivers(&project, &mut run, &server, "a.py");
}

#[test]
fn an_ipv6_address_and_a_port() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return eprintln!("no IPv6 here: nothing to test");
    };
    let (project, server) = (Project::new(), Scripted::listen(listener, Dialect::PLAIN));
    let mut run = project.run(&[&server.host()]);
    delivers(&project, &mut run, &server, "a.py");
    assert_eq!(server.commands("PASV"), [""; 0], "PASV has no room for an IPv6 address");
}

#[test]
fn a_url_with_user_and_directory() {
    let (project, server) = (Project::new(), Scripted::start());
    server.make_directory("my dir");
    server.make_directory("my dir/flash");
    let url = format!("ftp://someone@127.0.0.1:{}/my%20dir/flash", server.port());
    let mut command = project.autoftp(&[&url]);
    command.env("AUTOFTP_PASSWORD", "any");
    let mut run = Autoftp::spawn(command);
    delivers(&project, &mut run, &server, "my dir/flash/a.py");
    assert_eq!(server.commands("USER"), ["USER someone"]);
    assert!(run.stdout().contains("/my dir/flash"), "{}", run.stdout());
}

#[test]
fn the_remote_dir_option() {
    let (project, server) = (Project::new(), Scripted::start());
    server.make_directory("flash");
    let mut run = project.run(&["--remote-dir", "flash", &server.host()]);
    delivers(&project, &mut run, &server, "flash/a.py");
}

#[test]
fn the_remote_dir_is_found_again_after_a_reconnect() {
    let (project, mut server) = (Project::new(), Scripted::start());
    server.make_directory("flash");
    let mut run = project.watch(&["--remote-dir", "flash", &server.host()]);
    project.write("a.py", "one");
    server.wait_stored("flash/a.py", "one");
    server.restart();
    project.write("a.py", "two");
    server.wait_stored("flash/a.py", "two");
    run.stop();
}

#[test]
fn a_remote_dir_that_is_not_there_ends_it() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.run(&["--remote-dir", "no/such/place", &server.host()]);
    assert_eq!(run.wait_exit(), 1);
    assert!(run.stderr().contains("no/such/place"), "{}", run.stderr());
}

#[test]
fn user_option_and_password_from_the_environment() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let mut command = project.autoftp(&["-d", "-u", "me", &server.host()]);
    command.env("AUTOFTP_PASSWORD", "pass word%1");
    let mut run = Autoftp::spawn(command);
    delivers(&project, &mut run, &server, "a.py");
    assert_eq!(run.count("pass word"), 0, "the password is never shown");
    assert!(run.count("PASS ****") > 0);
}

#[test]
fn password_from_netrc() {
    let (project, server) = (
        Project::new(),
        Scripted::with(Dialect { account: Some(("me", "secret")), ..Dialect::PLAIN }),
    );
    write_netrc(&project.home().join(".netrc"), "machine 127.0.0.1 login me password secret\n");
    let mut run = project.run(&["-u", "me", &server.host()]);
    delivers(&project, &mut run, &server, "a.py");
}

#[test]
fn user_and_password_from_the_file_that_netrc_names() {
    let (project, server) = (
        Project::new(),
        Scripted::with(Dialect { account: Some(("me", "secret")), ..Dialect::PLAIN }),
    );
    let netrc = project.outside("my-netrc");
    write_netrc(
        &netrc,
        "machine elsewhere login you password other\n\
         machine 127.0.0.1\n  login me\n  password secret\n",
    );
    let mut command = project.autoftp(&[&server.host()]);
    command.env("NETRC", netrc);
    let mut run = Autoftp::spawn(command);
    delivers(&project, &mut run, &server, "a.py");
}

/// As private as some readers of the file insist on.
fn write_netrc(path: &std::path::Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn a_wrong_password_ends_it_and_is_not_shown() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let mut command = project.autoftp(&["-u", "me", &server.host()]);
    command.env("AUTOFTP_PASSWORD", "not-this-one");
    let mut run = Autoftp::spawn(command);
    assert_eq!(run.wait_exit(), 1);
    let errors = run.stderr();
    assert!(errors.contains("me") && errors.contains("127.0.0.1"), "{errors}");
    assert_eq!(run.count("not-this-one"), 0);
}

#[test]
fn a_user_without_a_password_and_no_terminal_to_ask_on_ends_it() {
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let mut run = project.run(&["-u", "me", &server.host()]);
    assert_ne!(run.wait_exit(), 0);
    assert!(run.stderr().contains("AUTOFTP_PASSWORD"), "{}", run.stderr());
}

#[test]
fn a_password_with_a_newline_is_refused() {
    // It would be a command of its own on the wire.
    let (project, server) = (Project::new(), Scripted::with(ACCOUNT));
    let mut command = project.autoftp(&["-u", "me", &server.host()]);
    command.env("AUTOFTP_PASSWORD", "secret\r\nDELE a.py");
    let mut run = Autoftp::spawn(command);
    assert_ne!(run.wait_exit(), 0);
    assert_eq!(server.commands("DELE"), [""; 0]);
    assert_eq!(run.count("secret"), 0);
}
