//! `--check`: what it finds out, what it advises, and that it leaves nothing behind.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use crate::support::{Act, Autoftp, Dialect, Project, Scripted};

/// Runs a check to its end: the exit code, the report and the advice.
fn check(server: &Scripted, args: &[&str]) -> (i32, String, String) {
    let project = Project::new();
    let host = server.host();
    let mut run = project.run(&[args, &["--check", &host]].concat());
    let code = run.wait_exit();
    (code, run.stdout(), run.stderr())
}

#[test]
fn a_good_server_is_told_so_and_left_as_it_was() {
    let server = Scripted::start();
    server.put("mine.py", "mine");
    let (code, report, advice) = check(&server, &[]);
    assert_eq!((code, advice.as_str()), (0, ""), "{report}");
    for said in ["round trip", "PASV", "SIZE tells", "replaces a file", "are made", "uploads work"]
    {
        assert!(report.contains(said), "{said}: {report}");
    }
    assert_eq!(server.files(), [("mine.py".to_owned(), "mine".to_owned())]);
    assert_eq!(server.directories(), [""; 0]);
    assert!(!server.stored().is_empty());
}

#[test]
fn every_host_is_tried() {
    let (project, server, other) = (Project::new(), Scripted::start(), Scripted::start());
    other.on("STOR", Act::Reply("550 No"));
    let mut run = project.run(&["--check", &other.host(), &server.host()]);
    assert_eq!(run.wait_exit(), 1);
    assert!(!server.stored().is_empty());
    assert!(run.stderr().contains(&other.host()) && !run.stderr().contains(&server.host()));
}

#[test]
fn what_is_missing_is_told() {
    let no_rename = Dialect { rename_over: Some("550 It exists"), ..Dialect::PLAIN };
    let server = Scripted::with(no_rename);
    for verb in ["SIZE", "SITE"] {
        server.on(verb, Act::Reply("502 Not implemented"));
    }
    let (code, report, _) = check(&server, &[]);
    assert_eq!(code, 0, "{report}");
    for said in ["is believed", "for a moment", "SITE is not known"] {
        assert!(report.contains(said), "{said}: {report}");
    }
    assert_eq!(server.files(), []);
}

#[test]
fn each_fault_has_its_advice() {
    let table: &[(&str, &str, &str)] = &[
        ("greeting", "421 Too many connections", "another client has its place"),
        ("USER", "530 Login incorrect", "check --user"),
        ("USER", "530 Sessions must use encryption", "use --tls"),
        ("PASV", "502 Not implemented", "try --active"),
        ("STOR", "550 Permission denied", "try another --user, or --remote-dir"),
        ("STOR", "532 Account?", "try --account"),
    ];
    for (verb, reply, advice) in table {
        let server = Scripted::start();
        server.on(verb, Act::Reply(reply));
        if *verb == "PASV" {
            server.on("EPSV", Act::Reply(reply));
        }
        let (code, report, said) = check(&server, &[]);
        assert_eq!(code, 1, "{reply}: {report}");
        assert!(said.contains(advice), "{reply}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(server.files(), []);
    }
}

#[test]
fn a_full_disk_is_told_from_a_refusal() {
    let server = Scripted::start();
    server.times(1, "STOR", Act::TakeThen("451 Error writing file"));
    let (code, _, advice) = check(&server, &[]);
    assert_eq!(code, 1);
    assert!(advice.contains("its disk is full"), "{advice}");
    assert_eq!(server.files(), []);
}

#[test]
fn ftpdlite_lets_only_its_administrator_write() {
    let server = Scripted::start();
    server.on("greeting", Act::Say("220 FTPdLite (MicroPython)"));
    server.on("STOR", Act::Reply("550 No access"));
    let (_, _, advice) = check(&server, &[]);
    assert!(advice.contains("anonymous may not write: try --user ftpadmin"), "{advice}");
}

#[test]
fn a_wrong_passive_address_does_no_harm_and_is_told() {
    let server = Scripted::start();
    server.on("PASV", Act::Say("227 Entering Passive Mode (10,1,2,3,{p1},{p2})."));
    let (code, _, advice) = check(&server, &[]);
    assert_eq!(code, 0);
    assert!(advice.contains("10.1.2.3"), "{advice}");
}

#[test]
fn a_data_port_that_cannot_be_reached_is_told() {
    let server = Scripted::start();
    // Port 1 of this computer refuses; a firewall that says nothing is told the same way.
    server.on("PASV", Act::Reply("227 Entering Passive Mode (127,0,0,1,0,1)."));
    let (code, _, advice) = check(&server, &[]);
    assert_eq!(code, 1);
    assert!(advice.contains("firewall") && advice.contains("--active"), "{advice}");
}

#[test]
fn what_is_no_ftp_server_is_told() {
    for (says, advice) in [
        ("SSH-2.0-OpenSSH_9.9\r\n", "no FTP server"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "no FTP server"),
        ("\x15\x03\x01", "use ftps://"),
        ("", "without a greeting"),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let _ = connection.unwrap().write_all(says.as_bytes());
            }
        });
        let project = Project::new();
        let mut run = project.run(&["--check", &host]);
        assert_eq!(run.wait_exit(), 1, "{says}");
        assert!(run.stderr().contains(advice), "{says}: {}", run.stderr());
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_does_not_leave_anything_behind() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("RNFR", Act::Hold);
    let mut run: Autoftp = project.run(&["--check", &server.host()]);
    server.wait_commands(1, "RNFR");
    assert!(!server.files().is_empty());
    run.interrupt();
    run.wait_for("stopping");
    server.release();
    assert_eq!(run.wait_exit(), 1);
    assert_eq!(server.files(), []);
    assert_eq!(server.directories(), [""; 0]);
}
