//! The whole thing in one command: `cargo run --example demo`.
//!
//! Starts a real FTP server on this machine and autoftp on a scratch project beside it, saves a
//! file and shows it arrive. Then it is your turn to edit, until Ctrl-C.

#![allow(clippy::unwrap_used, reason = "a demo may panic")]

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;
use std::{env, fs, io};

#[path = "../tests/support/server.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod server;
#[path = "../tests/support/watched.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod watched;

fn main() {
    let scratch = tempfile::TempDir::with_prefix("autoftp-demo-").unwrap();
    let (project, remote) = (scratch.path().join("project"), scratch.path().join("on-the-server"));
    fs::create_dir_all(project.join("lib")).unwrap();
    fs::create_dir(&remote).unwrap();
    fs::write(project.join("main.py"), "print('hello')\n").unwrap();
    fs::write(project.join("lib/util.py"), "ANSWER = 42\n").unwrap();

    let server = server::Server::start(&remote);
    println!("An FTP server runs on {}. In a project directory one would now type", server.host());
    println!("\n    autoftp {} -p '*.py'\n", server.host());
    let (mut autoftp, mut shown) = start(&project, &server.host());
    assert!(show_until(&mut shown, "watching"), "autoftp did not start");

    let edited = "print('hello, board')\n";
    println!("\n(the demo saves main.py)\n");
    let saved = Instant::now();
    fs::write(project.join("main.py"), edited).unwrap();
    server.wait_file("main.py", edited);
    let took = saved.elapsed();
    show_until(&mut shown, "main.py");
    assert_eq!(fs::read_to_string(remote.join("main.py")).unwrap(), edited);
    println!(
        "\nmain.py arrived {:.0} ms after it was saved, byte for byte.",
        took.as_secs_f64() * 1000.0
    );

    if env::var_os("AUTOFTP_DEMO_ONCE").is_some() || !io::stdin().is_terminal() {
        autoftp.kill().unwrap();
        autoftp.wait().unwrap();
        return;
    }
    println!("\nYour turn. Edit, add or move *.py files in\n\n    {}\n", project.display());
    println!("and find them in\n\n    {}\n\nCtrl-C ends it.\n", remote.display());
    // Ctrl-C reaches both programs; this one waits for autoftp's goodbye, and then clears the
    // scratch directory away.
    ctrlc::set_handler(|| ()).unwrap();
    io::copy(&mut shown, &mut io::stdout()).unwrap();
    autoftp.wait().unwrap();
}

/// Builds autoftp, as `cargo run --example` does not, and starts it in the project.
fn start(project: &Path, host: &str) -> (Child, BufReader<ChildStdout>) {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--bin", "autoftp", "--manifest-path", manifest]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "autoftp could not be built");
    // It lies one directory above the examples.
    let program = env::current_exe().unwrap().parent().unwrap().with_file_name("autoftp");
    let mut autoftp = Command::new(program)
        .args([host, "-p", "*.py"])
        .current_dir(project)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let shown = BufReader::new(autoftp.stdout.take().unwrap());
    (autoftp, shown)
}

/// Prints what autoftp says, up to the line that is waited for; false when it never comes.
fn show_until(shown: &mut impl BufRead, awaited: &str) -> bool {
    let mut line = String::new();
    while shown.read_line(&mut line).is_ok_and(|count| count > 0) {
        print!("{line}");
        if line.contains(awaited) {
            return true;
        }
        line.clear();
    }
    false
}
