//! The journey through TLS, which every server here is told to insist on.

use crate::kinds::{Kind, PASSWORD_IN_URL, Tls, USER};
use crate::left_out;
use crate::private;
use crate::running::{Running, Wishes};
use crate::support::certificates::{NAME, OTHER_NAME, Shown};
use crate::support::{Project, side_by_side};

pub fn journey(kind: &Kind) {
    if !left_out::is_here(kind) {
        return;
    }
    if kind.tls.is_empty() {
        return private::run(|| nothing_goes_out_unencrypted(kind));
    }
    side_by_side(kind.tls, |tls| private::run(|| everything_arrives(kind, *tls)));
    let bad = [
        (Shown::SelfSigned, "from an issuer that is not trusted"),
        (Shown::WrongName, "its certificate is for example.com, not for localhost"),
        (Shown::Expired, "its certificate has expired on 2020-02-2"),
    ];
    side_by_side(bad, |(shown, said)| private::run(|| bad_certificate(kind, shown, said)));
}

fn start(kind: &Kind, tls: Tls, shown: Shown) -> Running<'_> {
    Running::start(kind, Wishes { tls: Some((tls, shown)), ..Wishes::default() })
}

fn url(server: &Running) -> String {
    format!("ftps://{USER}:{PASSWORD_IN_URL}@{NAME}:{}", server.port())
}

fn everything_arrives(kind: &Kind, tls: Tls) {
    let mut server = start(kind, tls, Shown::Good);
    let (project, issuer) = (Project::new(), server.issuer());
    let mut run = project.watch(&["-d", "-p", "*", "--cacert", &issuer, &url(&server)]);
    let version = if tls.newer { "TLS 1.3" } else { "TLS 1.2" };
    run.wait_for(&format!("connected through {version}"));

    let save = |server: &Running, path: &str, content: &[u8]| {
        project.write(path, content);
        server.wait_file(path, content);
    };
    save(&server, "a.txt", b"one");
    save(&server, "new/nested/b.txt", b"b");
    save(&server, "empty.txt", b"");
    save(&server, "large.bin", &crate::journey::large());
    save(&server, "a.txt", b"2");

    // One data connection after the other, each of which has to resume the session. With TLS 1.3,
    // proftpd lets it be resumed twice: a login for every other file takes its time.
    let burst = if tls.newer { kind.burst.min(100) } else { kind.burst };
    for number in 0..burst {
        project.write(format!("burst/{number}.txt"), number.to_string());
    }
    for number in 0..burst {
        server.wait_file(&format!("burst/{number}.txt"), number.to_string());
    }
    if !tls.newer {
        assert_eq!(run.count("connected through"), 1, "one session was enough for all");
    }

    server.stop();
    project.write("a.txt", "three");
    run.wait_for_error("; trying again");
    server.restart();
    server.wait_file("a.txt", "three");
    run.stop();
}

/// No password goes to a server that is not who it should be, unless that is said to be all right.
fn bad_certificate(kind: &Kind, shown: Shown, said: &str) {
    let server = start(kind, kind.tls[0], shown);
    let (project, issuer, url) = (Project::new(), server.issuer(), url(&server));
    let mut run = project.run(&["-d", "-p", "*", "--cacert", &issuer, &url]);
    run.wait_for_error(said);
    assert_eq!(run.wait_exit(), 1);
    assert_eq!(run.count("> USER"), 0);

    let mut run = project.watch(&["-d", "-p", "*", "--insecure", &url]);
    project.write("a.txt", "a");
    server.wait_file("a.txt", "a");
    run.stop();

    if shown == Shown::SelfSigned {
        // What its owner does: hand out the certificate itself.
        let certificate = server.certificate();
        let trust = ["--cacert", &certificate, "--tls-server-name", OTHER_NAME];
        let mut run = project.watch(&[&["-d", "-p", "*"], &trust[..], &[&url]].concat());
        project.write("b.txt", "b");
        server.wait_file("b.txt", "b");
        run.stop();
    }
}

fn nothing_goes_out_unencrypted(kind: &Kind) {
    let server = Running::start(kind, Wishes::default());
    let project = Project::new();
    let mut run = project.run(&["-d", "-p", "*", &url(&server)]);
    run.wait_for_error(kind.lacks_tls);
    assert_eq!(run.wait_exit(), 1);
    assert_eq!(run.count("> USER"), 0);
}
