//! TLS as servers should speak it, and as they should not.

use std::time::{Duration, Instant};

use crate::support::certificates::{Files, OTHER_NAME, Shown};
use crate::support::tls::{Fault, Front, Manner, TLS_1_2, TLS_1_3};
use crate::support::{Act, Autoftp, Dialect, Project, Scripted, side_by_side};

const ACCOUNT: Dialect = Dialect { account: Some(("me", "s3cret-word")), ..Dialect::PLAIN };

const BOTH: [Manner; 2] = [Manner::EXPLICIT, Manner::IMPLICIT];

/// The timeout of 1 s, two pauses before the next session, a greeting that does not come, and what
/// a loaded machine takes.
const SOON: Duration = Duration::from_secs(6);

/// A server and its front, with `autoftp` to be run.
struct Lab {
    project: Project,
    front: Front,
    server: Scripted,
}

impl Lab {
    fn new(manner: Manner) -> Lab {
        let server = Scripted::with(ACCOUNT);
        Lab { project: Project::new(), front: Front::start(&server, manner), server }
    }

    /// `autoftp ARGS ftps://me@127.0.0.1:PORT`, which is told whom to trust by the arguments.
    fn run(&self, args: &[&str]) -> Autoftp {
        let host = format!("ftps://me@{}", self.front.host());
        let mut command = self.project.autoftp(&[args, &["-d", "-p", "*", &host]].concat());
        command.env("AUTOFTP_PASSWORD", "s3cret-word");
        Autoftp::spawn(command)
    }

    /// The same, trusting the issuer; ready to catch saves.
    fn watch(&self, args: &[&str]) -> Autoftp {
        let run = self.run(&[args, &["--cacert", &self.issuer()]].concat());
        run.wait_for("watching");
        run
    }

    fn issuer(&self) -> String {
        self.front.files().issuer.display().to_string()
    }

    fn certificate(&self) -> String {
        self.front.files().certificate.display().to_string()
    }

    fn save(&self, path: &str, content: &str) {
        self.project.write(path, content);
        self.server.wait_file(path, content);
    }

    /// Ends it, and expects that nothing was said that is nobody's business.
    fn stop(&self, mut run: Autoftp) {
        run.stop();
        self.expect_discretion(&run);
    }

    fn expect_discretion(&self, run: &Autoftp) {
        assert_eq!(run.count("s3cret-word"), 0, "the password is never shown");
        let said = self.front.in_the_clear();
        assert!(said.iter().all(|line| line == "AUTH TLS"), "in the clear: {said:?}");
    }
}

#[test]
fn everything_arrives_encrypted() {
    let manners = BOTH.into_iter().flat_map(|manner| {
        let newer = Manner { versions: TLS_1_3, ..manner };
        [
            (manner, "TLS 1.2"),
            (Manner { versions: TLS_1_2, ..manner }, "TLS 1.2"),
            (newer, "TLS 1.3"),
        ]
    });
    side_by_side(manners, |(manner, version)| {
        let mut lab = Lab::new(manner);
        let run = lab.watch(&[]);
        run.wait_for(&format!("connected through {version}"));
        lab.save("a.txt", "one");
        lab.save("new/nested/b.txt", "b");
        lab.save("a.txt", "two");
        lab.save("empty.txt", "");
        lab.save("large.txt", &"large ".repeat(100_000));
        assert_eq!(run.count("connected through"), 1, "one session was enough for all");
        lab.server.stop();
        lab.project.write("a.txt", "three");
        run.wait_for_error("; trying again");
        lab.server.restart();
        lab.server.wait_file("a.txt", "three");
        lab.stop(run);
    });
}

/// At each point, with what drips there.
const DRIPS: [&str; 11] = [
    "handshake",
    "greeting",
    "USER",
    "PASS",
    "PASV",
    "STOR",
    "SIZE",
    "MKD",
    "PWD",
    "QUIT",
    "data handshake",
];

/// Whoever asks TLS for text waits for a whole record, of which a byte comes now and then.
#[test]
fn a_record_of_which_one_byte_comes_now_and_then_is_not_waited_for() {
    let cases = DRIPS.into_iter().flat_map(|point| BOTH.map(|manner| (point, manner)));
    // There it is in the clear.
    let cases = cases.filter(|(point, manner)| *point != "greeting" || manner.implicit);
    side_by_side(cases, |(point, manner)| {
        let lab = Lab::new(manner);
        lab.front.times(1, Fault::Drips(point));
        let mut run = lab.watch(&["--timeout", "1"]);
        let begun = Instant::now();
        for path in ["lib/a.txt", "lib/b.txt"] {
            lab.save(path, path);
        }
        assert!(begun.elapsed() < SOON, "{point} {manner:?}: {:?}", begun.elapsed());
        let begun = Instant::now();
        run.stop();
        assert!(begun.elapsed() < SOON, "{point} {manner:?}: {:?}", begun.elapsed());
        lab.expect_discretion(&run);
    });
}

#[test]
fn ctrl_c_ends_it_while_a_record_drips() {
    let cases = DRIPS.into_iter().flat_map(|point| BOTH.map(|manner| (point, manner)));
    let cases = cases.filter(|(point, manner)| *point != "greeting" || manner.implicit);
    side_by_side(cases, |(point, manner)| {
        let lab = Lab::new(manner);
        lab.front.on(Fault::Drips(point));
        let mut run = lab.watch(&["--timeout", "1"]);
        lab.project.write("lib/a.txt", "a");
        if point == "QUIT" {
            lab.server.wait_file("lib/a.txt", "a");
        } else {
            lab.front.wait_dripping();
        }
        let begun = Instant::now();
        run.interrupt_and_wait();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "{point} {manner:?}: {took:?}");
    });
}

/// The end of what the server sends on the data connection is not the end of what it takes, but one
/// that stops taking, too, has said why.
#[test]
fn a_refusal_in_the_middle_of_a_file_is_told_at_once() {
    side_by_side([TLS_1_2, TLS_1_3], |versions| {
        let lab = Lab::new(Manner { versions, ..Manner::EXPLICIT });
        lab.server.times(1, "STOR", Act::DropThen("452 disk full"));
        lab.front.times(1, Fault::HalfClosesData);
        let run = lab.watch(&[]);
        let begun = Instant::now();
        lab.project.write("large.bin", vec![b'x'; 5_000_000]);
        run.wait_for_error("452 disk full");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(lab.server.wait_any_stored("large.bin"), "it is tried again");
        lab.stop(run);
    });
}

/// Nor is a connection that breaks there a reason to go on writing.
#[test]
fn who_closes_its_side_of_the_data_connection_early_gets_the_file() {
    let lab = Lab::new(Manner::EXPLICIT);
    lab.front.on(Fault::SaysNothingOnData);
    let run = lab.watch(&[]);
    lab.save("large.txt", &"large ".repeat(500_000));
    assert_eq!(lab.server.commands("STOR").len(), 1);
    lab.stop(run);
}

#[test]
fn nobody_else_can_take_the_data_connection() {
    side_by_side([TLS_1_2, TLS_1_3], |versions| {
        let manner = Manner { versions, other_on_data: true, ..Manner::EXPLICIT };
        let lab = Lab::new(manner);
        let mut run = lab.watch(&["--timeout", "1"]);
        lab.project.write("a.txt", "a secret");
        run.wait_for_error("somebody else answers its data connections: its certificate is from");
        run.interrupt_and_wait();
        lab.expect_discretion(&run);
        assert_eq!(lab.server.stored(), []);
    });
}

#[test]
fn no_file_goes_out_in_the_clear() {
    side_by_side(BOTH, |manner| {
        let lab = Lab::new(manner);
        lab.front.times(1, Fault::ClearData);
        let run = lab.watch(&["--timeout", "1"]);
        lab.project.write("a.txt", "a secret");
        run.wait_for_error("its data connection, in TLS: ");
        lab.server.wait_stored("a.txt", "a secret");
        lab.stop(run);
        // What came in the clear was the beginning of a handshake.
        let stored = lab.server.stored();
        let [(_, garbage), (_, _)] = &stored[..] else { panic!("{stored:?}") };
        assert!(!garbage.contains("secret"), "{garbage:?}");
    });
}

#[test]
fn who_agrees_to_tls_and_does_not_speak_it_gets_no_password() {
    let lab = Lab::new(Manner::EXPLICIT);
    lab.front.on(Fault::StaysInTheClear);
    let mut run = lab.run(&["--insecure"]);
    run.wait_for_error("it does not speak TLS here");
    assert_eq!(run.wait_exit(), 1);
    assert!(lab.front.in_the_clear().iter().all(|said| !said.contains("USER")));
    assert_eq!(lab.server.commands(""), [""; 0]);
}

#[test]
fn files_that_would_not_be_encrypted_are_not_sent() {
    side_by_side(BOTH, |manner| {
        let lab = Lab::new(manner);
        lab.front.on(Fault::RefusesProtection("534 No"));
        let mut run = lab.run(&["--cacert", &lab.issuer()]);
        run.wait_for_error("it does not encrypt data connections (PBSZ 0, PROT P): 534 No");
        assert_eq!(run.wait_exit(), 1);
        assert_eq!(lab.server.commands("STOR"), [""; 0]);
        lab.expect_discretion(&run);
    });
}

/// Somebody in between may put replies behind the server's agreement to AUTH TLS, before anything is
/// encrypted. Nothing of that may be heard as the server's.
#[test]
fn what_was_said_before_the_handshake_is_no_reply() {
    let replies = [
        "230 Logged in\r\n",
        "331 Password?\r\n230 Logged in\r\n",
        "200 PBSZ=0\r\n200 Private\r\n230 Logged in\r\n",
        "230-Logged",
        "230 Logged in\r\n230 Logged in\r\n200 OK\r\n257 \"/elsewhere\"\r\n",
    ];
    side_by_side(replies, |injected| {
        let lab = Lab::new(Manner::EXPLICIT);
        lab.front.times(1, Fault::Injects(injected));
        let run = lab.watch(&["--timeout", "1"]);
        lab.save("a.txt", "a");
        lab.stop(run);
        assert_eq!(run_commands(&lab), ["USER me", "PASS s3cret-word"], "{injected:?}");
    });
}

/// What a login consists of, of the last session.
fn run_commands(lab: &Lab) -> Vec<String> {
    let commands = lab.server.commands("");
    let login = commands.iter().rposition(|line| line.starts_with("USER")).unwrap();
    commands[login..login + 2].to_vec()
}

/// It is refused, and told why, before any password is sent.
fn expect_refusal(lab: &Lab, args: &[&str], said: &str) {
    let mut run = lab.run(args);
    let error = run.wait_for_error(said);
    assert_eq!(run.wait_exit(), 1, "{}", error.text);
    assert_eq!(lab.server.commands(""), [""; 0]);
    lab.expect_discretion(&run);
}

fn expect_success(lab: &Lab, args: &[&str]) {
    let run = lab.run(args);
    run.wait_for("watching");
    lab.save("a.txt", "a");
    lab.stop(run);
}

#[test]
fn certificates_that_are_no_good_are_refused() {
    let bad = [
        (Shown::SelfSigned, "from an issuer that is not trusted (self-signed?)"),
        (Shown::Authority, "its certificate is self-signed, and not trusted"),
        (
            Shown::WrongName,
            "its certificate is for example.com, not for 127.0.0.1: if this is the right server, \
             use --tls-server-name example.com",
        ),
        (Shown::Expired, "its certificate has expired on 2020-02-2"),
        (Shown::NotYetValid, "its certificate is not valid before 2090-02-2"),
    ];
    let cases = bad.into_iter().flat_map(|bad| [TLS_1_2, TLS_1_3].map(|versions| (bad, versions)));
    side_by_side(cases, |((shown, said), versions)| {
        let lab = Lab::new(Manner { shown, versions, ..Manner::EXPLICIT });
        expect_refusal(&lab, &["--cacert", &lab.issuer()], said);
        expect_success(&lab, &["--insecure"]);
    });
}

#[test]
fn an_issuer_that_nobody_knows_is_refused() {
    let (lab, other) = (Lab::new(Manner::EXPLICIT), Lab::new(Manner::EXPLICIT));
    let said = "from an issuer that is not trusted (self-signed?): if this is the right server, use \
                --cacert";
    expect_refusal(&lab, &["--cacert", &other.issuer()], said);
}

/// What its owner does: hand out the certificate itself.
#[test]
fn a_certificate_that_is_given_is_trusted() {
    let good = [Shown::Good, Shown::Authority, Shown::CommonName("127.0.0.1")];
    side_by_side(good, |shown| {
        let lab = Lab::new(Manner { shown, ..Manner::EXPLICIT });
        expect_success(&lab, &["--cacert", &lab.certificate()]);
    });
}

#[test]
fn a_certificate_that_is_given_is_for_its_name_only() {
    let others =
        [Shown::SelfSigned, Shown::OtherAuthority, Shown::WrongName, Shown::CommonName(OTHER_NAME)];
    side_by_side(others, |shown| {
        let lab = Lab::new(Manner { shown, ..Manner::EXPLICIT });
        let certificate = lab.certificate();
        let said = "its certificate is for example.com, not for 127.0.0.1: if this is the right \
                    server, use --tls-server-name example.com";
        expect_refusal(&lab, &["--cacert", &certificate], said);
        let trust = ["--cacert", &certificate, "--tls-server-name"];
        expect_refusal(
            &lab,
            &[&trust[..], &["a.example.com"]].concat(),
            "is for example.com, not for a.",
        );
        expect_success(&lab, &[&trust[..], &[OTHER_NAME]].concat());
    });
}

/// That it is given does not make it last.
#[test]
fn a_certificate_that_is_given_has_its_time() {
    let bad = [(Shown::Expired, "has expired"), (Shown::NotYetValid, "is not valid before")];
    side_by_side(bad, |(shown, said)| {
        let lab = Lab::new(Manner { shown, ..Manner::EXPLICIT });
        expect_refusal(&lab, &["--cacert", &lab.certificate()], said);
    });
}

#[test]
fn a_server_that_wants_a_certificate_gets_it() {
    let manners = BOTH.into_iter().flat_map(|manner| {
        [TLS_1_2, TLS_1_3].map(|versions| Manner { versions, wants_client: true, ..manner })
    });
    side_by_side(manners, |manner| {
        let (lab, elsewhere) = (Lab::new(manner), Lab::new(manner));
        let issuer = lab.issuer();
        let trust = ["--timeout", "1", "--cacert", &issuer];
        let shown = |files: &Files, expect: &dyn Fn(&[&str])| {
            let [certificate, key] =
                [&files.client, &files.client_key].map(|path| path.to_str().unwrap());
            expect(&[&trust[..], &["--client-cert", certificate, "--client-key", key]].concat());
        };
        expect_refusal(&lab, &trust, "--client-cert");
        shown(elsewhere.front.files(), &|args| expect_refusal(&lab, args, "--client-cert"));
        shown(lab.front.files(), &|args| expect_success(&lab, args));
    });
}

/// A server may hang up for a version that it does not speak: the other one is tried, but only once.
#[test]
fn a_handshake_that_was_cut_is_not_held_against_a_version() {
    let cases = BOTH.into_iter().flat_map(|manner| [1, 2].map(|cuts| (manner, cuts)));
    side_by_side(cases, |(manner, cuts)| {
        let mut lab = Lab::new(manner);
        lab.front.times(cuts, Fault::CutsHandshake);
        let run = lab.watch(&[]);
        run.wait_for(if cuts == 1 {
            "connected through TLS 1.3"
        } else {
            "connected through TLS 1.2"
        });
        lab.save("a.txt", "one");
        for content in ["two", "three"] {
            lab.server.restart();
            lab.save("a.txt", content);
        }
        let newer = run.count("connected through TLS 1.3");
        assert_eq!(newer, usize::from(cuts == 1), "{cuts} {manner:?}");
        assert!(run.count("connected through TLS 1.2") >= 2, "{cuts} {manner:?}");
        lab.stop(run);
    });
}

/// With TLS 1.3 each data connection takes a ticket to be the session's, and a session that has none
/// left is renewed, of which nobody need know.
#[test]
fn a_server_that_is_sparing_with_tickets_gets_every_file() {
    let cases = [1, 2, 3].into_iter().flat_map(|tickets| BOTH.map(|manner| (tickets, manner)));
    side_by_side(cases, |(tickets, manner)| {
        let manner = Manner { versions: TLS_1_3, tickets: Some(tickets), ..manner };
        let lab = Lab::new(manner);
        let run = lab.watch(&[]);
        for number in 0..12 {
            lab.project.write(format!("burst/{number}.txt"), number.to_string());
        }
        for number in 0..12 {
            lab.server.wait_file(&format!("burst/{number}.txt"), &number.to_string());
        }
        lab.save("a.txt", "a");
        assert_eq!(run.count("connected through"), 1, "{tickets} {manner:?}");
        assert_eq!(run.stderr(), "", "{tickets} {manner:?}");
        lab.stop(run);
    });
}

/// The first file takes two data connections, because its directory has to be made in between.
#[test]
fn tickets_that_run_out_while_a_directory_is_made_are_counted_from_then_on() {
    side_by_side(BOTH, |manner| {
        let lab = Lab::new(Manner { versions: TLS_1_3, tickets: Some(1), ..manner });
        lab.server.times(1, "USER", Act::Hold);
        let run = lab.watch(&[]);
        lab.server.wait_commands(1, "USER");
        for number in ["0", "1"] {
            lab.project.write(format!("new/{number}.txt"), number);
        }
        for number in ["0", "1"] {
            lab.project.wait_ordered(&format!("new/{number}.txt"));
        }
        lab.server.release();
        for number in ["0", "1"] {
            lab.server.wait_file(&format!("new/{number}.txt"), number);
        }
        assert_eq!(run.stderr(), "", "{manner:?}");
        lab.stop(run);
    });
}

/// 1.2 has one that is good for all.
#[test]
fn in_tls_1_2_one_session_is_resumed_for_every_file() {
    let lab = Lab::new(Manner { tickets: Some(1), ..Manner::EXPLICIT });
    let run = lab.watch(&[]);
    for number in 0..20 {
        lab.save(&format!("{number}.txt"), "a");
    }
    assert_eq!(lab.server.sessions(), 1);
    lab.stop(run);
}

/// It says nothing for so long that it might want TLS from the start.
#[test]
fn a_server_that_is_slow_to_greet_is_asked_for_tls() {
    let mut lab = Lab::new(Manner::EXPLICIT);
    lab.server.times(1, "greeting", Act::Hold);
    let mut run = lab.watch(&[]);
    // The beginning of a handshake, which is none of the server's commands.
    lab.front.wait_in_the_clear();
    lab.server.release();
    lab.save("a.txt", "one");
    lab.server.restart();
    lab.save("a.txt", "two");
    run.stop();
    assert_eq!(lab.server.commands("USER").len(), 2, "it was known the second time");
    assert!(lab.front.in_the_clear().iter().all(|said| !said.contains("USER")));
    lab.server.forgive();
}

/// What is survived in the clear is survived encrypted: there is another reader beneath the replies.
#[test]
fn what_a_server_does_wrong_it_may_do_in_tls() {
    let acts = [Act::Silence, Act::Reset, Act::Flood("220 and so on "), Act::Babble("226 Stored")];
    let points = ["PASS", "TYPE", "PASV", "STOR", "150", "226", "SIZE", "MKD", "QUIT"];
    let cases = acts.into_iter().flat_map(|act| points.map(|point| (point, act)));
    side_by_side(cases, |(point, act)| {
        let lab = Lab::new(Manner::EXPLICIT);
        lab.server.times(1, point, act);
        let run = lab.watch(&["--timeout", "1"]);
        let begun = Instant::now();
        for path in ["lib/a.txt", "lib/b.txt"] {
            lab.save(path, path);
        }
        lab.stop(run);
        assert!(begun.elapsed() < 2 * SOON, "{point} {act:?}: {:?}", begun.elapsed());
        // It has brought it upon itself that a command comes before the last one is answered.
        lab.server.forgive();
    });
}

/// The server connects, and is the one that shows a certificate all the same.
#[test]
fn who_connects_for_the_data_has_to_be_the_server() {
    side_by_side([false, true], |other_on_data| {
        let lab = Lab::new(Manner { other_on_data, ..Manner::EXPLICIT });
        let mut run = lab.watch(&["--active"]);
        if other_on_data {
            lab.project.write("a.txt", "a secret");
            run.wait_for_error(
                "somebody else answers its data connections: its certificate is from",
            );
            run.interrupt_and_wait();
            assert_eq!(lab.server.stored(), []);
        } else {
            lab.save("a.txt", "a secret");
            lab.save("large.txt", &"large ".repeat(100_000));
            lab.stop(run);
        }
    });
}

#[test]
fn a_check_finds_nothing_wrong_with_it() {
    let newer = Manner { versions: TLS_1_3, tickets: Some(1), ..Manner::EXPLICIT };
    let cases = [(BOTH[0], "TLS 1.2"), (BOTH[1], "TLS 1.2"), (newer, "TLS 1.3")];
    side_by_side(cases, |(manner, version)| {
        let lab = Lab::new(manner);
        let mut run = lab.run(&["--check", "--cacert", &lab.issuer()]);
        assert_eq!(run.wait_exit(), 0, "{manner:?}");
        assert!(run.count(version) > 0, "{manner:?}: {}", run.stdout());
        assert_eq!(run.stderr(), "", "{manner:?}");
        assert_eq!(lab.server.files(), []);
        lab.expect_discretion(&run);
    });
}

/// As in the clear, where what counts is that the last piece handed over got smaller.
#[test]
fn a_slow_transfer_outlasts_the_timeout_while_bytes_flow() {
    let lab = Lab::new(Manner::EXPLICIT);
    lab.front.on(Fault::CrawlsOnData);
    let run = lab.watch(&["--timeout", "1"]);
    let content = "large ".repeat(50_000);
    lab.project.write("large.txt", &content);
    run.wait_for("large.txt ");
    assert_eq!(run.stderr(), "");
    lab.server.wait_file("large.txt", &content);
    lab.stop(run);
}
