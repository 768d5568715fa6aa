//! `--serve`: boards fetch over HTTP what is saved, in the API of OTA-promoter.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use socket2::{Domain, Socket, Type};

use crate::support::watched::DEADLINE;
use crate::support::{Autoftp, Bench, Project, Server, side_by_side};

/// What boards fetch from.
struct Site {
    address: SocketAddr,
    agent: ureq::Agent,
}

/// What a board gets.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

/// What `/files` says.
#[derive(Clone, Debug)]
struct Listing {
    /// Paths and their checksums.
    files: Vec<(String, String)>,
    version: String,
}

impl Answer {
    /// The header's value; empty where there is none.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| str::from_utf8(value.as_bytes()).unwrap())
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn expect(&self, status: u16, body: impl AsRef<[u8]>) {
        assert_eq!((self.status, self.body.as_slice()), (status, body.as_ref()), "{self:?}");
    }

    fn expect_error(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), JSON);
        let text = self.text();
        assert!(text.starts_with(r#"{"Message":""#) && text.ends_with(r#""}"#), "{text}");
    }
}

impl Listing {
    fn paths(&self) -> Vec<&str> {
        self.files.iter().map(|(path, _)| path.as_str()).collect()
    }

    fn checksum(&self, path: &str) -> &str {
        let found = self.files.iter().find(|(other, _)| other == path);
        found.map(|(_, checksum)| checksum.as_str()).unwrap()
    }

    fn has(&self, path: &str, content: &[u8]) -> bool {
        self.files.contains(&(path.to_owned(), checksum(path, content)))
    }
}

impl Site {
    /// Waits until the program says where it is.
    fn of(run: &Autoftp) -> Site {
        let line = run.wait_for("%% serving   http://");
        let (_, url) = line.text.split_once("http://").unwrap();
        Site {
            address: url.split('/').next().unwrap().parse().unwrap(),
            agent: ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(3 * DEADLINE))
                .build()
                .new_agent(),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).unwrap()
    }

    fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers).unwrap()
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ureq::Error> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) = self.agent.run(request.body(()).unwrap())?.into_parts();
        let body = body.into_with_config().limit(u64::MAX).read_to_vec()?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    fn list(&self) -> Listing {
        let answer = self.get("/files");
        assert_eq!(answer.status, 200, "{answer:?}");
        let (files, version) = answer.text().rsplit_once(r#"],"version":""#).unwrap();
        let files = files.split(r#"{"path":""#).skip(1).map(|file| {
            let (path, rest) = file.split_once(r#"","checksum":""#).unwrap();
            (path.to_owned(), rest[..40].to_owned())
        });
        Listing { files: files.collect(), version: version[..40].to_owned() }
    }

    /// Waits for such a list, as a board does.
    fn wait_list(&self, what: &str, wanted: impl Fn(&Listing) -> bool) -> Listing {
        let begun = Instant::now();
        loop {
            let listing = self.list();
            if wanted(&listing) {
                return listing;
            }
            assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}: {listing:?}");
            self.get(&format!("/files/version?wait=1&version={}", listing.version));
        }
    }

    fn wait_paths(&self, paths: &[&str]) -> Listing {
        self.wait_list(&format!("{paths:?}"), |listing| listing.paths() == paths)
    }

    fn wait_content(&self, path: &str, content: impl AsRef<[u8]>) -> Listing {
        self.wait_list(path, |listing| listing.has(path, content.as_ref()))
    }

    /// Fetches a file as it is listed now.
    fn fetch(&self, path: &str) -> Answer {
        self.get(&format!("/files/{}", self.list().checksum(path)))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A client that has no room for what it does not read.
    fn connect_narrowly(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends these bytes; all that comes, until the server closes.
    fn say(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // It may have had enough before the end.
        let _ = stream.write_all(bytes);
        read_on(&mut stream).0
    }

    fn expect_alive(&self) {
        assert_eq!(self.get("/files").status, 200);
    }
}

/// All that still comes, and whether it comes to a clean end.
fn read_on(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, true),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server neither answers nor closes")
            }
            Err(_) => return (all, false),
        }
    }
}

/// The rest of a head, and of what follows it nothing.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn version_in(answer: &Answer) -> String {
    let version = answer.text().strip_prefix(r#"{"version":""#).unwrap();
    version.strip_suffix(r#""}"#).unwrap().to_owned()
}

fn sha1(bytes: &[u8]) -> String {
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    sum.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn checksum(path: &str, content: &[u8]) -> String {
    sha1(&[content, path.as_bytes()].concat())
}

/// A project that boards can fetch from.
struct Stand {
    site: Site,
    run: Autoftp,
    project: Project,
}

impl Stand {
    fn start(args: &[&str]) -> Stand {
        Stand::start_with(args, |_| ())
    }

    fn start_with(args: &[&str], fill: impl FnOnce(&Project)) -> Stand {
        let project = Project::new();
        fill(&project);
        let run = project.run(&[&["--serve", "127.0.0.1:0"], args].concat());
        Stand { site: Site::of(&run), run, project }
    }

    /// Saves a file and waits until it is published.
    fn save(&self, path: &str, content: impl AsRef<[u8]>) -> Listing {
        self.project.write(path, &content);
        self.site.wait_content(path, content)
    }
}

/// Disturbs again and again during a test.
fn during<R>(disturb: impl FnMut(u64) + Send, test: impl FnOnce() -> R) -> R {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut disturb = disturb;
            for turn in 1.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                disturb(turn);
            }
        });
        let result = catch_unwind(AssertUnwindSafe(test));
        is_over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Writes over what is there, which is as long.
fn write_over(path: &std::path::Path, content: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all(content).unwrap();
}

const JSON: &str = "application/json;charset=utf-8";

/// The checksums and versions in here were computed with Python: `hashlib.sha1(content + path)` and
/// `hashlib.sha1(''.join(checksums))`.
const NOTHING: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

/// Of `digits.txt` with "0123456789", and the version where it is alone.
const DIGITS: &str = "f6286e10b19499dac7bfa55fbefd0bd2dae7e4b8";
const DIGITS_VERSION: &str = "fc084f4d44a39fbcd0b265819ed9b7acfd7fc841";

fn digits(args: &[&str]) -> Stand {
    Stand::start_with(args, |project| project.write("digits.txt", "0123456789"))
}

#[test]
fn version_list_and_files_are_those_of_ota_promoter() {
    let binary: Vec<u8> = (0..=255).collect();
    let files: [(&str, &[u8], &str); 5] = [
        ("Zoë's \"new\" page.html", b"<p>\n", "375330934bc99c8a76ace1dd6f03f4893433b7d3"),
        ("a/b", b"one\n", "31e10062511160a0df2ec9368098062760f84e18"),
        ("a/deep/er.bin", &binary, "88786c72e13f8737526999ca1e1370a30170e8f8"),
        ("a.py", b"", "bb88d7506cfdcbc88cc950c4af72a3e28c024a77"),
        ("b.py", b"one\n", "f9da03b08d09f3a903f3d2288eac15bacc69932c"),
    ];
    let version = "7ae5c694b4eeac10cdbc93337b51e5d9591792f3";
    let stand = Stand::start_with(&[], |project| {
        for (path, content, _) in files.iter().rev() {
            project.write(path, content);
        }
    });
    let answer = stand.site.get("/files/version");
    answer.expect(200, format!(r#"{{"version":"{version}"}}"#));
    assert_eq!(answer.header("content-type"), JSON);
    let answer = stand.site.get("/files");
    let list = files.map(|(path, _, sum)| {
        format!(r#"{{"path":"{}","checksum":"{sum}"}}"#, path.replace('"', "\\\""))
    });
    answer.expect(200, format!(r#"{{"files":[{}],"version":"{version}"}}"#, list.join(",")));
    assert_eq!(answer.header("content-type"), JSON);
    for (path, content, sum) in files {
        for from in ["file", "files"] {
            let answer = stand.site.get(&format!("/{from}/{sum}"));
            answer.expect(200, content);
            assert_eq!(answer.header("x-target-path"), path);
            assert_eq!(answer.header("content-length"), content.len().to_string());
            let disposition = match path.split('/').next_back().unwrap() {
                "Zoë's \"new\" page.html" => {
                    "attachment; filename=\"Zo_'s _new_ page.html\"; \
                     filename*=UTF-8''Zo%C3%AB%27s%20%22new%22%20page.html"
                }
                name => &format!("attachment; filename={name}"),
            };
            assert_eq!(answer.header("content-disposition"), disposition);
        }
    }
}

#[test]
fn an_empty_list_is_a_list() {
    let stand = Stand::start(&[]);
    stand.site.get("/files").expect(200, format!(r#"{{"files":[],"version":"{NOTHING}"}}"#));
    stand.site.get("/files/version").expect(200, format!(r#"{{"version":"{NOTHING}"}}"#));
    stand.project.write("digits.txt", "0123456789");
    let listing = stand.site.wait_paths(&["digits.txt"]);
    assert_eq!((listing.checksum("digits.txt"), &*listing.version), (DIGITS, DIGITS_VERSION));
}

#[test]
fn errors_say_what_is_wrong() {
    let stand = digits(&[]);
    for unknown in [&"0".repeat(40), &DIGITS.to_uppercase(), &DIGITS[1..], "digits.txt", ""] {
        for from in ["file", "files"] {
            stand.site.get(&format!("/{from}/{unknown}")).expect_error(400);
        }
    }
    for unknown in ["/", "/file", "/nothing", "/files/version/x", "/digits.txt"] {
        stand.site.get(unknown).expect_error(404);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = stand.site.say(
            format!("{method} /files HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        );
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
        assert!(answer.contains(r#"{"Message":""#), "{answer}");
    }
}

#[test]
fn what_promoterignore_names_is_not_published_also_when_it_is_edited() {
    side_by_side([&[][..], &["-p", "*.py"]], |args| {
        let stand = Stand::start_with(args, |project| {
            project.write(".promoterignore", "\\.promoterignore\ntest/.*\n  b\\.py  \n\n");
            for path in ["a.py", "b.py", "ab.py", "lib/b.py", "test/a.py", "test/deep/a.py"] {
                project.write(path, path);
            }
        });
        assert_eq!(stand.site.list().paths(), ["a.py", "ab.py", "lib/b.py"]);
        stand.project.write("test/new.py", "never");
        stand.project.write(".promoterignore", "\\.promoterignore\n[ab]+\\.py");
        let others = ["lib/b.py", "test/a.py", "test/deep/a.py", "test/new.py"];
        stand.site.wait_paths(&others);
        stand.project.rename(".promoterignore", "ignore.py");
        stand.site.wait_paths(&[
            "a.py",
            "ab.py",
            "b.py",
            "ignore.py",
            "lib/b.py",
            "test/a.py",
            "test/deep/a.py",
            "test/new.py",
        ]);
    });
}

#[test]
fn a_malformed_promoterignore_is_an_error_at_the_start() {
    let project = Project::new();
    project.write(".promoterignore", "a\n\nb(c\n");
    let mut run = project.run(&["--serve", "127.0.0.1:0"]);
    assert_ne!(run.wait_exit(), 0);
    assert!(run.stderr().contains(".promoterignore:3: 'b(c'"), "{}", run.stderr());
}

#[test]
fn when_promoterignore_becomes_malformed_the_rules_before_it_stay() {
    let stand = Stand::start_with(&[], |project| {
        project.write(".promoterignore", "\\.promoterignore|a\\.py");
        project.write("a.py", "a");
    });
    stand.project.write(".promoterignore", "b\\.py\n*");
    stand.run.wait_for_error(".promoterignore:2: '*'");
    stand.project.write("a.py", "changed");
    stand.project.write("b.py", "b");
    stand.site.wait_paths(&["b.py"]);
    stand.project.write(".promoterignore", "\\.promoterignore|b\\.py");
    stand.site.wait_paths(&["a.py"]);
}

#[test]
fn only_what_is_included_and_not_excluded_is_published() {
    let stand = Stand::start_with(&["-p", "*.py,lib/*", "-x", "test/*,*_old.py"], |project| {
        for path in ["a.py", "a_old.py", "a.txt", "lib/b.txt", "test/a.py", "test/deep/a.py"] {
            project.write(path, path);
        }
    });
    assert_eq!(stand.site.list().paths(), ["a.py", "lib/b.txt"]);
    for path in ["b_old.py", "test/b.py", "b.txt"] {
        stand.project.write(path, "never");
    }
    stand.save("sentinel.py", "later");
    assert_eq!(stand.site.list().paths(), ["a.py", "lib/b.txt", "sentinel.py"]);
}

/// Junk, settings, secrets, links, and what scripts are run on.
const PRIVATE: [&str; 10] = [
    ".autoftp",
    ".git/config",
    ".netrc",
    "4913",
    "__pycache__/a.pyc",
    "a.src",
    "a~",
    "lib/.DS_Store",
    "lib/.netrc",
    "secret",
];

#[test]
fn neither_junk_nor_secrets_nor_links_are_published() {
    let fill = |project: &Project| {
        for path in PRIVATE {
            project.write(path, "");
        }
        fs::write(project.outside("outside.txt"), "outside").unwrap();
        fs::create_dir_all(project.outside("directory")).unwrap();
        fs::write(project.outside("directory/file.txt"), "outside").unwrap();
        for (to, from) in [
            ("page.html", "link.html"),
            ("../outside.txt", "link.txt"),
            ("../directory", "linked"),
            ("lib", "linked-lib"),
            ("nowhere", "dangling"),
        ] {
            symlink(to, project.path(from)).unwrap();
        }
    };
    let args = ["-s", "*.src,true", "--password-file", "secret"];
    let stand = Stand::start_with(&args, |project| {
        project.write("page.html", "page");
        project.write("lib/a", "a");
        fill(project);
    });
    assert_eq!(stand.site.list().paths(), ["lib/a", "page.html"]);
    for path in ["link.html", "link.txt", "linked", "linked-lib", "dangling"] {
        stand.project.remove(path);
    }
    fill(&stand.project);
    stand.project.write("page.html", "page, saved again");
    stand.save("sentinel", "later");
    assert_eq!(stand.site.list().paths(), ["lib/a", "page.html", "sentinel"]);
}

#[test]
fn with_a_host_python_is_sent_and_everything_published() {
    let mut bench = Bench::start(&["--serve", "127.0.0.1:0"]);
    let site = Site::of(&bench.run);
    bench.project.write("page.html", "page");
    bench.save("a.py", "a");
    site.wait_paths(&["a.py", "page.html"]);
    assert_eq!(bench.finish(), ["a.py"]);
}

#[test]
fn a_host_may_follow_the_option() {
    let project = Project::new();
    let server = Server::start(&project.make_outside("remote"));
    let mut run = project.watch(&["-n", "--serve", &format!("ftp://{}", server.host())]);
    project.write("a.py", "a");
    run.wait_for("would send");
    run.stop();
}

#[test]
fn a_file_that_has_changed_since_it_was_listed_is_not_served() {
    // The list is as old as the last look.
    let stand = Stand::start_with(&["--poll=600"], |project| {
        project.write("short.bin", filled(SHORT, 1));
        project.write("long.bin", filled(LONG, 1));
        project.write("replaced.bin", filled(SHORT, 1));
        project.write("gone.bin", "gone");
    });
    let listing = stand.site.list();
    write_over(&stand.project.path("short.bin"), &filled(SHORT, 2));
    write_over(&stand.project.path("long.bin"), &filled(LONG, 2));
    fs::write(stand.project.outside("aside"), filled(SHORT, 2)).unwrap();
    fs::rename(stand.project.outside("aside"), stand.project.path("replaced.bin")).unwrap();
    stand.project.remove("gone.bin");
    for (path, checksum) in &listing.files {
        let answer = stand.site.get(&format!("/files/{checksum}"));
        assert_eq!(answer.status, 400, "{path}: {:?}", answer.headers);
        answer.expect_error(400);
    }
    assert_eq!(stand.site.list().version, listing.version, "no other list was made");
}

const SHORT: usize = 50_000;
/// It is not read as a whole.
const LONG: usize = 1_500_000;

/// So many bytes, other ones in each turn.
fn filled(len: usize, turn: u64) -> Vec<u8> {
    vec![(turn % 251) as u8; len]
}

/// Lists and fetches while a file changes: what is served is what was listed.
fn expect_what_is_listed(stand: &Stand, times: usize, disturb: impl FnMut(u64) + Send) {
    let mut served = BTreeSet::new();
    let begun = Instant::now();
    during(disturb, || {
        while served.len() < times {
            assert!(begun.elapsed() < DEADLINE, "only {} were served", served.len());
            for (path, listed) in stand.site.list().files {
                match stand.site.ask("GET", &format!("/file/{listed}"), &[]) {
                    Ok(answer) if answer.status == 200 => {
                        assert_eq!(checksum(&path, &answer.body), listed, "{path}");
                        served.insert(listed);
                    }
                    Ok(answer) => answer.expect_error(400),
                    // It has changed meanwhile, and was cut.
                    Err(error) => assert!(path == "long.bin", "{path}: {error}"),
                }
            }
        }
    });
}

#[test]
fn a_file_that_changes_all_the_time_is_served_as_it_was_listed() {
    side_by_side([true, false], |is_in_place| {
        let stand = Stand::start_with(&[], |project| project.write("a.bin", filled(SHORT, 0)));
        let (path, aside) = (stand.project.path("a.bin"), stand.project.outside("aside"));
        expect_what_is_listed(&stand, 3, |turn| {
            // What never rests is not listed for a second. The rests become longer, for whoever is
            // slow.
            if turn % 61 == 0 {
                thread::sleep(Duration::from_millis(20 + turn / 61));
            }
            if is_in_place {
                write_over(&path, &filled(SHORT, turn));
            } else {
                fs::write(&aside, filled(SHORT, turn)).unwrap();
                fs::rename(&aside, &path).unwrap();
            }
        });
    });
}

#[test]
fn a_long_file_that_changes_all_the_time_is_served_as_it_was_listed_or_cut() {
    side_by_side([true, false], |is_in_place| {
        let stand = Stand::start_with(&[], |project| project.write("long.bin", filled(LONG, 0)));
        let (path, aside) = (stand.project.path("long.bin"), stand.project.outside("aside"));
        expect_what_is_listed(&stand, 2, |turn| {
            // A file that was changed just now is not served yet.
            thread::sleep(Duration::from_millis(if turn % 4 == 0 { 50 * turn } else { 25 }));
            if is_in_place {
                write_over(&path, &filled(LONG, turn));
            } else {
                fs::write(&aside, filled(LONG, turn)).unwrap();
                fs::rename(&aside, &path).unwrap();
            }
        });
    });
}

/// Longer than what systems hold for a connection.
const HUGE: usize = 8 * 1024 * 1024;

fn huge(args: &[&str]) -> Stand {
    Stand::start_with(args, |project| {
        project.write("huge.bin", filled(HUGE, 1));
        // What was written just now is not served.
        let file = File::options().write(true).open(project.path("huge.bin")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    })
}

/// Asks for the file as the published client does, and takes its beginning.
fn begin_fetching(stand: &Stand) -> (TcpStream, String) {
    let listed = stand.site.list().checksum("huge.bin").to_owned();
    let mut stream = stand.site.connect_narrowly();
    write!(stream, "GET /file/{listed} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let head = read_head(&mut stream);
    assert!(head.contains(" 200 "), "{head}");
    stream.read_exact(&mut [0; 1000]).unwrap();
    (stream, listed)
}

#[test]
fn a_file_that_changes_while_it_is_fetched_is_cut_with_a_reset() {
    // The last one hides it, as cp -p and unpacking do.
    side_by_side(["rewritten", "cut", "set back"], |how| {
        let stand = huge(&[]);
        let (mut stream, _) = begin_fetching(&stand);
        let file = File::options().write(true).open(stand.project.path("huge.bin")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        if how == "cut" {
            file.set_len(HUGE as u64 / 2).unwrap();
        } else {
            write_over(&stand.project.path("huge.bin"), &filled(HUGE, 2));
        }
        if how == "set back" {
            file.set_modified(modified).unwrap();
        }
        let (rest, is_clean) = read_on(&mut stream);
        assert!(!is_clean && rest.len() + 1000 < HUGE);
        assert!(rest.iter().all(|byte| *byte == 1), "bytes of the new content");
    });
}

#[test]
fn a_file_that_is_replaced_while_it_is_fetched_is_not_mixed() {
    let stand = huge(&[]);
    let (mut stream, _) = begin_fetching(&stand);
    fs::write(stand.project.outside("aside"), filled(HUGE, 2)).unwrap();
    fs::rename(stand.project.outside("aside"), stand.project.path("huge.bin")).unwrap();
    let (rest, is_clean) = read_on(&mut stream);
    assert_eq!(is_clean, rest.len() + 1000 == HUGE);
    assert!(rest.iter().all(|byte| *byte == 1), "bytes of the new content");
}

const MANY: usize = 500;

fn many_paths() -> Vec<String> {
    (0..MANY).map(|number| format!("{}/{number}.py", number % 7)).collect()
}

#[test]
fn list_and_version_are_of_one_moment() {
    let paths = many_paths();
    let write_all = |project: &Project, turn: u64| {
        for path in &paths {
            project.write(path, filled(1, turn));
        }
    };
    let stand = Stand::start_with(&[], |project| write_all(project, 0));
    let mut versions = BTreeSet::new();
    let begun = Instant::now();
    let storm = |turn| {
        write_all(&stand.project, turn);
        thread::sleep(Duration::from_millis(turn % 8 * 5));
    };
    during(storm, || {
        while versions.len() < 4 {
            assert!(begun.elapsed() < DEADLINE, "only {} versions", versions.len());
            let listing = stand.site.list();
            assert_eq!(listing.files.len(), MANY);
            let sums: String = listing.files.iter().map(|(_, sum)| sum.as_str()).collect();
            assert_eq!(sha1(sums.as_bytes()), listing.version);
            versions.insert(listing.version);
        }
    });
}

#[test]
fn files_that_are_written_together_are_published_together() {
    let paths = many_paths();
    let stand = Stand::start_with(&["--verbose"], |project| {
        for path in &paths {
            project.write(path, "before");
        }
    });
    for path in &paths {
        stand.project.write(path, "after");
    }
    stand.site.wait_list("all", |listing| paths.iter().all(|path| listing.has(path, b"after")));
    stand.run.wait_for(" version ");
    let versions = stand.run.count(" version ");
    assert!(versions < 10, "{versions} versions");
}

#[test]
fn who_waits_for_a_new_version_hears_of_it_at_once() {
    let stand = digits(&[]);
    let begun = Instant::now();
    let by_version = format!("/files/version?wait=60&version={DIGITS_VERSION}");
    let tag = [("If-None-Match", format!("\"{DIGITS_VERSION}\""))];
    let tag = tag.each_ref().map(|(name, value)| (*name, value.as_str()));
    let waits = [(&*by_version, &[][..]), ("/files/version?wait=60.5", &tag)];
    let site = &stand.site;
    thread::scope(|scope| {
        let waiting =
            waits.map(|(path, headers)| scope.spawn(move || site.get_with(path, headers)));
        stand.project.write("a.py", "a");
        for answer in waiting {
            let answer = answer.join().unwrap();
            assert_eq!(answer.status, 200);
            assert_ne!(version_in(&answer), DIGITS_VERSION);
        }
    });
    assert!(begun.elapsed() < DEADLINE);
}

#[test]
fn who_has_an_old_version_need_not_wait() {
    let stand = digits(&[]);
    let begun = Instant::now();
    let old = format!("/files/version?wait=60&version={NOTHING}");
    stand.site.get(&old).expect(200, format!(r#"{{"version":"{DIGITS_VERSION}"}}"#));
    let tag = format!("\"{NOTHING}\"");
    let answer = stand.site.get_with("/files/version?wait=60", &[("If-None-Match", &tag)]);
    answer.expect(200, format!(r#"{{"version":"{DIGITS_VERSION}"}}"#));
    assert!(begun.elapsed() < DEADLINE);
}

#[test]
fn after_the_wait_the_version_is_the_same() {
    let stand = digits(&[]);
    let begun = Instant::now();
    for path in ["/files/version?wait=0.2", "/files/version?wait=0"] {
        stand.site.get(path).expect(200, format!(r#"{{"version":"{DIGITS_VERSION}"}}"#));
    }
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let tag = format!("\"{DIGITS_VERSION}\"");
    let answer = stand.site.get_with("/files/version?wait=0.1", &[("If-None-Match", &tag)]);
    answer.expect(304, "");
    for bad in ["x", "", "-1", "NaN", "inf", "1,5"] {
        stand.site.get(&format!("/files/version?wait={bad}")).expect_error(400);
    }
}

#[test]
fn head_says_what_get_would() {
    let stand = digits(&[]);
    for path in ["/files/version", "/files", &format!("/file/{DIGITS}"), "/file/nothing", "/x"] {
        let (get, head) = (stand.site.get(path), stand.site.ask("HEAD", path, &[]).unwrap());
        head.expect(get.status, "");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        for name in ["content-type", "etag", "cache-control", "x-target-path"] {
            assert_eq!(head.header(name), get.header(name), "{path}");
        }
    }
}

#[test]
fn a_part_of_a_file_may_be_fetched() {
    let stand = digits(&[]);
    let path = format!("/file/{DIGITS}");
    for (range, part, place) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=-20", "0123456789", "bytes 0-9/10"),
        ("bytes=9-99", "9", "bytes 9-9/10"),
    ] {
        let answer = stand.site.get_with(&path, &[("Range", range)]);
        answer.expect(206, part);
        assert_eq!(answer.header("content-range"), place);
        assert_eq!(answer.header("etag"), format!("\"{DIGITS}\""));
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=99-100"] {
        let answer = stand.site.get_with(&path, &[("Range", range)]);
        answer.expect_error(416);
        assert_eq!(answer.header("content-range"), "bytes */10");
    }
    for range in ["bytes=0-1,4-5", "bytes=5-2", "lines=0-1", "bytes=x"] {
        stand.site.get_with(&path, &[("Range", range)]).expect(200, "0123456789");
    }
    let tag = format!("\"{DIGITS}\"");
    let range = ("Range", "bytes=0-3");
    stand.site.get_with(&path, &[range, ("If-Range", &tag)]).expect(206, "0123");
    let other = format!("\"{NOTHING}\"");
    stand.site.get_with(&path, &[range, ("If-Range", &other)]).expect(200, "0123456789");
    stand.site.get_with(&path, &[range, ("If-None-Match", &tag)]).expect(304, "");
}

#[test]
fn a_part_of_a_long_file_may_be_fetched() {
    let content: Vec<u8> = (0..LONG).map(|at| (at / 1000) as u8).collect();
    let stand = Stand::start_with(&[], |project| project.write("long.bin", &content));
    let path = format!("/file/{}", checksum("long.bin", &content));
    let begun = Instant::now();
    let (from, to) = (LONG - 1_200_001, LONG - 100_000);
    let range = format!("bytes={from}-{to}");
    let answer = loop {
        let answer = stand.site.get_with(&path, &[("Range", &range)]);
        // One that was written just now is not served.
        if answer.status != 400 || begun.elapsed() > DEADLINE {
            break answer;
        }
    };
    assert_eq!(answer.status, 206);
    assert!(answer.body == content[from..=to]);
    assert_eq!(answer.header("content-range"), format!("bytes {from}-{to}/{LONG}"));
}

#[test]
fn who_has_a_version_is_told_no_more() {
    let stand = digits(&[]);
    for (path, tag, cache) in [
        (&*format!("/file/{DIGITS}"), DIGITS, "immutable"),
        ("/files", DIGITS_VERSION, "no-cache"),
        ("/files/version", DIGITS_VERSION, "no-cache"),
    ] {
        let tag = format!("\"{tag}\"");
        let answer = stand.site.get(path);
        assert_eq!(answer.header("etag"), tag);
        assert!(answer.header("cache-control").contains(cache), "{path}: {answer:?}");
        for given in [&tag, "*", &format!("\"x\", W/{tag}")] {
            let answer = stand.site.get_with(path, &[("If-None-Match", given)]);
            answer.expect(304, "");
            assert_eq!(answer.header("etag"), tag);
            // A cache would write it over what it has.
            assert_eq!(answer.header("content-type"), "");
        }
        let answer = stand.site.get_with(path, &[("If-None-Match", "\"other\"")]);
        assert_eq!(answer.status, 200);
    }
    let missing = stand.site.get("/file/nothing");
    assert_eq!(missing.header("cache-control"), "no-store");
}

#[test]
fn a_client_of_http_1_0_reads_to_the_end() {
    let stand = digits(&[]);
    for (path, body) in [
        ("/files/version", format!(r#"{{"version":"{DIGITS_VERSION}"}}"#)),
        (&format!("/file/{DIGITS}"), "0123456789".to_owned()),
    ] {
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", stand.site.address);
        let answer = String::from_utf8(stand.site.say(request.as_bytes())).unwrap();
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        assert_eq!(rest, body);
    }
    let stand = huge(&[]);
    let (mut stream, listed) = begin_fetching(&stand);
    let (rest, is_clean) = read_on(&mut stream);
    assert!(is_clean);
    assert_eq!(checksum("huge.bin", &[vec![1; 1000], rest].concat()), listed);
}

#[test]
fn without_the_token_nothing_is_told() {
    let stand = digits(&["--serve-token", "Open-Sesame", "-d"]);
    let file = format!("/file/{DIGITS}");
    let paths = ["/files/version", "/files", &file];
    for path in paths {
        for (prefix, headers) in [
            ("", &[][..]),
            ("/", &[]),
            ("/open-sesame", &[]),
            ("/Open-Sesam", &[]),
            ("/Open-Sesame2", &[]),
            ("/x/Open-Sesame", &[]),
            ("/Open%2DSesame", &[]),
            ("", &[("Authorization", "Bearer Open-Sesame2")]),
            ("", &[("Authorization", "Bearer")]),
            ("", &[("Authorization", "Basic Open-Sesame")]),
            ("", &[("Authorization", "Open-Sesame")]),
        ] {
            let answer = stand.site.get_with(&format!("{prefix}{path}"), headers);
            answer.expect_error(401);
            assert!(!answer.header("www-authenticate").is_empty());
            assert_eq!(answer.header("etag"), "");
        }
        let answer = stand.site.get(&format!("/Open-Sesame{path}"));
        assert_eq!(answer.status, 200);
        for scheme in ["Bearer", "bearer"] {
            let given = format!("{scheme} Open-Sesame");
            let header = stand.site.get_with(path, &[("Authorization", &given)]);
            header.expect(200, &answer.body);
        }
    }
    stand.site.get("/files/sentinel").expect_error(401);
    stand.site.get("/Open-Sesame/files/sentinel").expect_error(400);
    stand.run.wait_for("/files/sentinel 400");
    for line in stand.run.lines() {
        let is_the_address = line.text.starts_with("%% serving ");
        assert!(is_the_address || !line.text.contains("Open-Sesam"), "{}", line.text);
    }
}

#[test]
fn requests_are_shown_when_debugging() {
    let stand = digits(&["-d"]);
    stand.site.get("/files/version?wait=0");
    stand
        .site
        .say("GET /file/\u{9b}31m HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".as_bytes());
    stand.run.wait_for("< 127.0.0.1 GET /files/version?wait=0 200");
    stand.run.wait_for(" 400");
    assert!(!stand.run.stdout().contains('\u{9b}'));
}

#[test]
fn odd_requests_get_nothing_and_disturb_nobody() {
    let mut bench = Bench::start_with(&["--serve", "127.0.0.1:0"], |project| {
        project.write("a.py", "a");
        fs::write(project.outside("secret.py"), "secret").unwrap();
    });
    let site = Site::of(&bench.run);
    let long = "a".repeat(100_000);
    let paths = [
        "/files/../../etc/passwd",
        "/files/../a.py",
        "/../secret.py",
        "/files/..%2f..%2fetc%2fpasswd",
        "/files/%2e%2e/%2e%2e/etc/passwd",
        "/files/..\\..\\secret.py",
        "/files//etc/passwd",
        "/etc/passwd",
        "//files",
        "/files/",
        "/files/version/",
        "/%66iles",
        "/files%2fversion",
        "/files/a.py",
        "/files/\0",
        "/files/%00",
        "/files/version\0",
        "files",
        "*",
        "",
        &format!("/files/{long}"),
        &format!("/files?{long}"),
        "file:///etc/passwd",
    ];
    let requests =
        paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let header = "X-Header: value\r\n".repeat(10_000);
    let others = [
        format!("GET /files HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /files HTTP/1.1\r\nHost: x\r\n{header}\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /files HTTP/7.5\r\n\r\n".to_owned(),
        "GET /files\r\n\r\n".to_owned(),
        "GET /files HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "GET /files HTTP/1.1\r\n: x\r\n\r\n".to_owned(),
        "USER anonymous\r\nPASS x\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\u{3}\u{3}\r\n\r\n".to_owned(),
        "\u{0}\u{1}\u{2}ü\r\n\r\n".to_owned(),
    ];
    for request in requests.iter().chain(&others) {
        let answer = site.say(request.as_bytes());
        let (answer, asked) = (String::from_utf8_lossy(&answer), &request[..request.len().min(90)]);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{asked:?}: {answer}");
        assert!(!answer.contains("root:") && !answer.contains("secret"), "{asked:?}: {answer}");
    }
    // In one flight, and with nobody to take the answers.
    let mut stream = site.connect();
    stream.write_all("GET /files HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000).as_bytes()).unwrap();
    drop(stream);
    site.expect_alive();
    bench.save("b.py", "b");
    site.wait_paths(&["a.py", "b.py"]);
    assert_eq!(bench.finish(), ["b.py"]);
}

#[test]
fn who_takes_too_long_for_a_request_is_dropped_and_holds_up_nobody() {
    let stand = digits(&[]);
    let begins = [
        "",
        "G",
        "GET /files HTTP/1.1\r\n",
        "GET /files HTTP/1.1\r\nHost: x\r\nX-Half: ",
        // It was answered once.
        "GET /files HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /files HTTP/1.1\r\nHost: x\r\n\r\nGET /fil",
    ];
    let ended = AtomicBool::new(false);
    let (site, ended) = (&stand.site, &ended);
    thread::scope(|scope| {
        let mut slow = Vec::new();
        for begin in begins {
            let mut stream = stand.site.connect();
            stream.write_all(begin.as_bytes()).unwrap();
            slow.push(scope.spawn(move || read_on(&mut stream)));
        }
        // A byte now and then is not enough.
        let mut stream = stand.site.connect();
        let mut trickle = stream.try_clone().unwrap();
        scope.spawn(move || {
            let head = "GET /files HTTP/1.1\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'a'));
            for byte in head {
                if ended.load(Ordering::Relaxed) || trickle.write_all(&[byte]).is_err() {
                    break;
                }
                site.expect_alive();
                thread::sleep(Duration::from_millis(200));
            }
        });
        slow.push(scope.spawn(move || {
            let read = read_on(&mut stream);
            ended.store(true, Ordering::Relaxed);
            read
        }));
        // Others are served meanwhile.
        stand.save("a.py", "a");
        for (thread, begin) in slow.into_iter().zip(begins.iter().chain(&["slowly"])) {
            let (answer, _) = thread.join().unwrap();
            let answer = String::from_utf8(answer).unwrap();
            let answers = answer.matches("HTTP/1.1 200 ").count();
            assert_eq!(answers, begin.matches("\r\n\r\n").count(), "{begin:?}: {answer}");
        }
    });
    stand.site.expect_alive();
}

/// As many connections as the system gives us, and the program as many again.
fn crowd() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // Other tests run beside this one.
    limit.map_or(2000, |limit| usize::try_from(limit / 3).unwrap().min(2000))
}

#[test]
fn a_crowd_that_asks_for_nothing_shuts_nobody_out() {
    let mut bench = Bench::start(&["--serve", "127.0.0.1:0"]);
    let site = Site::of(&bench.run);
    let crowd: Vec<TcpStream> = (0..crowd()).map(|_| site.connect()).collect();
    site.expect_alive();
    bench.save("a.py", "a");
    let listing = site.wait_paths(&["a.py"]);
    site.get(&format!("/file/{}", listing.checksum("a.py"))).expect(200, "a");
    assert_eq!(bench.finish(), ["a.py"]);
    drop(crowd);
}

#[test]
fn a_file_that_is_deleted_is_published_no_more() {
    let stand = digits(&[]);
    let listing = stand.save("a.py", "a");
    stand.project.remove("a.py");
    let after = stand.site.wait_paths(&["digits.txt"]);
    assert_eq!(after.version, DIGITS_VERSION);
    stand.site.get(&format!("/file/{}", listing.checksum("a.py"))).expect_error(400);
    fs::create_dir(stand.project.path("lib")).unwrap();
    stand.project.rename("digits.txt", "lib/digits.txt");
    stand.site.wait_paths(&["lib/digits.txt"]);
}

#[test]
fn what_becomes_a_link_is_published_no_more() {
    let stand = Stand::start_with(&[], |project| {
        for path in ["a.py", "b.py", "lib/c.py", "lib/deep/d.py"] {
            project.write(path, path);
        }
    });
    let before = stand.site.list();
    stand.project.rename("lib", "other");
    stand.site.wait_paths(&["a.py", "b.py", "other/c.py", "other/deep/d.py"]);
    let aside = stand.project.outside("aside");
    fs::rename(stand.project.path("other"), &aside).unwrap();
    symlink(&aside, stand.project.path("other")).unwrap();
    stand.project.remove("b.py");
    symlink("a.py", stand.project.path("b.py")).unwrap();
    stand.site.wait_paths(&["a.py"]);
    for path in ["b.py", "lib/c.py"] {
        stand.site.get(&format!("/file/{}", before.checksum(path))).expect_error(400);
    }
}

#[test]
fn when_all_files_vanish_at_once_the_list_stays() {
    let stand = Stand::start_with(&[], |project| {
        for path in ["a.py", "b.py", "c.py"] {
            project.write(path, path);
        }
    });
    let before = stand.site.list();
    stand.run.signal(rustix::process::Signal::STOP);
    for path in ["a.py", "b.py", "c.py"] {
        stand.project.remove(path);
    }
    stand.run.signal(rustix::process::Signal::CONT);
    stand.run.wait_for("no file is left to publish, so the list for boards stays as it was");
    assert_eq!(stand.site.list().version, before.version);
}

#[test]
fn a_project_that_was_removed_and_made_anew_has_only_its_new_files() {
    let stand = Stand::start_with(&[], |project| {
        for path in ["a.py", "b.py", "lib/c.py"] {
            project.write(path, "old");
        }
    });
    fs::remove_dir_all(stand.project.root()).unwrap();
    stand.project.write("b.py", "new");
    stand.project.write("d.py", "new");
    let listing = stand.site.wait_paths(&["b.py", "d.py"]);
    assert!(listing.has("b.py", b"new"));
    stand.save("b.py", "saved after that");
}

const COMPILER: &str = "{ echo compiled; cat \"$1\"; } > \"${1%.py}.mpy\"\n";

#[test]
fn what_scripts_make_is_published() {
    let stand = Stand::start_with(&["-s", "*.py,sh compile.sh", "-p", "*.mpy"], |project| {
        project.write("compile.sh", COMPILER);
    });
    stand.project.write("a.py", "a");
    stand.project.write("lib/b.py", "b");
    let listing = stand.site.wait_paths(&["a.mpy", "lib/b.mpy"]);
    assert!(listing.has("lib/b.mpy", b"compiled\nb"));
    stand.project.write("a.py", "changed");
    stand.site.wait_content("a.mpy", "compiled\nchanged");
    stand.site.fetch("a.mpy").expect(200, "compiled\nchanged");
}

#[test]
fn what_is_only_published_is_not_deleted() {
    let mut stand = Stand::start(&["-p", "*.mpy", "-k", "*.mpy"]);
    stand.save("a.mpy", "a");
    stand.site.fetch("a.mpy").expect(200, "a");
    stand.save("sentinel.mpy", "later");
    stand.run.stop();
    assert!(stand.project.has("a.mpy"));
    assert_eq!(stand.run.count("deleted"), 0);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    for (args, named) in [
        (&["--serve-token", "x", "h"][..], "--serve"),
        (&["--serve", "127.0.0.1:0", "--once"], "--once"),
        (&["--serve", "127.0.0.1:0", "--once", "h"], "--once"),
        (&["--serve", "127.0.0.1:0", "--serve-token", "a/b"], "--serve-token"),
        (&["--serve=no.such.address"], "--serve"),
        (&["--serve", "99999"], "--serve"),
        (&["--serve", "http://0.0.0.0:9090"], "--serve"),
        (&["--serve-token", "x"], "--serve-token is of use only with --serve"),
        (&["--serve", "--serve-token", "files"], "choose another"),
        (&["--serve", "--check"], "--check tries out"),
    ] {
        let project = Project::new();
        let mut run = project.run(args);
        assert_eq!(run.wait_exit(), 2, "{args:?}");
        assert!(run.stderr().contains(named), "{args:?}: {}", run.stderr());
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let project = Project::new();
    let mut run = project.run(&["--serve", &port.to_string()]);
    assert_eq!(run.wait_exit(), 1);
    let error = run.stderr();
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn who_can_reach_it_is_said() {
    side_by_side(
        [
            (&["127.0.0.1:0"][..], "this computer only"),
            (&["0.0.0.0:0"], "whoever can reach this computer; --serve-token"),
            (&["0.0.0.0:0", "--serve-token", "abc"], "whoever can reach this computer and knows"),
        ],
        |(args, whom)| {
            let project = Project::new();
            let mut run = project.run(&[&["--serve"], args].concat());
            run.wait_for("%% serving   http://");
            run.wait_for(whom);
            run.stop();
        },
    );
}

#[test]
fn a_dry_run_opens_no_port() {
    // It would be missed if it was needed.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let project = Project::new();
    let mut run =
        project.watch(&["--dry-run", "--serve", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(run.interrupt_and_wait(), 0);
    assert_eq!(run.count("%% serving"), 0);
    assert_eq!(run.stderr(), "");
}

#[test]
fn the_settings_file_may_say_it() {
    let project = Project::new();
    project.write(".autoftp", "serve: 127.0.0.1:0\nserve-token: abc\ninclude: *.py\n");
    project.write("a.py", "a");
    project.write("a.txt", "a");
    let run = project.run(&[]);
    let site = Site::of(&run);
    let files = site.get("/abc/files");
    assert_eq!(files.status, 200);
    assert!(files.text().contains("a.py") && !files.text().contains("a.txt"), "{}", files.text());
    site.get("/files").expect_error(401);
}

#[test]
fn ctrl_c_ends_it_with_a_summary() {
    let mut stand = digits(&[]);
    let mut idle = stand.site.connect();
    stand.site.get(&format!("/file/{DIGITS}")).expect(200, "0123456789");
    let path = format!("/files/version?wait=60&version={DIGITS_VERSION}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| stand.site.ask("GET", &path, &[]));
        stand.run.wait_for("fetched  127.0.0.1");
        let begun = Instant::now();
        stand.run.interrupt();
        // Whoever waits for a version is answered, if it was heard before that.
        if let Ok(answer) = waiting.join().unwrap() {
            answer.expect(200, format!(r#"{{"version":"{DIGITS_VERSION}"}}"#));
        }
        assert!(begun.elapsed() < DEADLINE);
    });
    assert_eq!(stand.run.wait_exit(), 0);
    stand.run.wait_for("%% done      1 file fetched (10 B)");
    assert_eq!(read_on(&mut idle).0, b"");
}

#[test]
fn a_file_that_is_being_fetched_at_ctrl_c_is_fetched_to_the_end() {
    let mut stand = huge(&[]);
    let (mut stream, listed) = begin_fetching(&stand);
    stand.run.interrupt();
    let begun = Instant::now();
    while TcpStream::connect(stand.site.address).is_ok() {
        assert!(begun.elapsed() < DEADLINE, "it still lets people in");
        thread::sleep(Duration::from_millis(5));
    }
    let (rest, is_clean) = read_on(&mut stream);
    assert!(is_clean);
    assert_eq!(checksum("huge.bin", &[vec![1; 1000], rest].concat()), listed);
    assert_eq!(stand.run.wait_exit(), 0);
    stand.run.wait_for("1 file fetched");
}

#[test]
fn a_file_that_nobody_takes_at_ctrl_c_is_cut_with_a_reset() {
    let mut stand = huge(&["--timeout", "1"]);
    let (mut stream, _) = begin_fetching(&stand);
    stand.run.interrupt_and_wait();
    let (rest, is_clean) = read_on(&mut stream);
    assert!(!is_clean && rest.len() + 1000 < HUGE, "{} bytes, and then a clean end", rest.len());
}

#[test]
fn a_file_that_cannot_be_read_is_named_once_and_left_out() {
    let project = Project::new();
    for path in ["a.py", "locked.py"] {
        project.write(path, "content");
    }
    let lock = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(project.path("locked.py"), mode).unwrap();
    };
    lock(0);
    let program = env!("CARGO_BIN_EXE_autoftp");
    let mut command = project.command(program);
    if rustix::process::geteuid().is_root() {
        // Root can read it, unless it gives that up.
        let powerless = ["--bounding-set", "-dac_override,-dac_read_search"];
        let probe =
            Command::new("setpriv").args(powerless).arg("true").stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            return eprintln!("no setpriv: root can read everything");
        }
        command = project.command("setpriv");
        command.args(powerless).arg(program);
    }
    command.args(["--serve", "127.0.0.1:0"]);
    let run = Autoftp::spawn(command);
    let site = Site::of(&run);
    assert_eq!(site.list().paths(), ["a.py"]);
    run.wait_for_error("locked.py");
    lock(0o200);
    write_over(&project.path("locked.py"), b"CONTENT");
    project.write("b.py", "b");
    site.wait_paths(&["a.py", "b.py"]);
    assert_eq!(run.count("locked.py"), 1);
    // Nobody is told of that.
    lock(0o600);
    let listing = site.wait_paths(&["a.py", "b.py", "locked.py"]);
    assert!(listing.has("locked.py", b"CONTENT"), "{listing:?}");
}

#[test]
fn when_all_files_vanish_at_once_with_a_directory_last_the_list_stays() {
    let stand = Stand::start_with(&[], |project| {
        for path in ["a.py", "b.py", "lib/c.py"] {
            project.write(path, path);
        }
    });
    let before = stand.site.list();
    for path in ["a.py", "b.py"] {
        stand.project.remove(path);
    }
    fs::remove_dir_all(stand.project.path("lib")).unwrap();
    stand.run.wait_for("no file is left to publish");
    assert_eq!(stand.site.list().version, before.version);
    stand.project.write("d.py", "new");
    stand.site.wait_paths(&["d.py"]);
}

#[test]
fn what_is_compiled_anew_is_not_taken_from_boards_meanwhile() {
    let script = "*.py,sh -c 'cp \"$1\" \"${1%.py}.mpy\"' compile";
    let stand = Stand::start_with(&["-s", script, "-p", "*.mpy", "--sync"], |project| {
        project.write("a.py", "a");
        project.write("b.py", "b");
    });
    stand.project.write("c.py", "c");
    let before = stand.site.wait_paths(&["a.mpy", "b.mpy", "c.mpy"]);
    for path in before.paths() {
        stand.project.remove(path);
    }
    stand.run.wait_for("no file is left to publish");
    assert_eq!(stand.site.list().version, before.version);
    stand.project.write("b.py", "B");
    stand.site.wait_paths(&["b.mpy"]);
}

/// Failed when a second of scripts was enough for the first list to be published half.
#[test]
fn with_sync_the_first_list_is_whole() {
    let script = "*.py,sh -c 'sleep 0.3; cp \"$1\" \"${1%.py}.mpy\"' compile";
    let paths: Vec<String> = (10..22).map(|number| format!("{number}.mpy")).collect();
    let stand = Stand::start_with(&["-s", script, "-p", "*.mpy", "--sync"], |project| {
        for path in &paths {
            project.write(path, "old");
            project.write(path.replace("mpy", "py"), "new");
        }
    });
    assert_eq!(stand.site.list().paths(), paths);
}

#[test]
fn rules_that_are_not_there_in_a_project_made_anew_do_not_stay() {
    let stand = Stand::start_with(&[], |project| {
        project.write(".promoterignore", "b\\.py");
        project.write("b.py", "old");
        project.write("a.py", "old");
    });
    fs::remove_dir_all(stand.project.root()).unwrap();
    stand.project.write("b.py", "new");
    stand.project.write("c.py", "new");
    stand.site.wait_paths(&["b.py", "c.py"]);
}

#[test]
fn an_edit_of_promoterignore_counts_also_where_it_is_excluded() {
    let stand = Stand::start_with(&["-x", ".*"], |project| {
        project.write(".promoterignore", "b\\.py");
        project.write("a.py", "a");
        project.write("b.py", "b");
    });
    assert_eq!(stand.site.list().paths(), ["a.py"]);
    stand.project.write(".promoterignore", "a\\.py");
    stand.site.wait_paths(&["b.py"]);
}

#[test]
fn a_dot_in_promoterignore_is_a_character() {
    let stand = Stand::start_with(&[], |project| {
        project.write(".promoterignore", ".\\.py\n\\.promoterignore\n[ä-ü]x");
        for path in ["a.py", "ü.py", "öx", "z"] {
            project.write(path, "");
        }
    });
    assert_eq!(stand.site.list().paths(), ["z"]);
}

#[test]
fn half_a_request_does_not_hold_up_ctrl_c() {
    let mut stand = digits(&[]);
    let mut stream = stand.site.connect();
    stream.write_all(b"GET /fi").unwrap();
    // Accepted and read, as what came later is.
    stand.site.expect_alive();
    let begun = Instant::now();
    stand.run.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_long_file_from_the_future_is_served() {
    let stand = Stand::start_with(&[], |project| {
        project.write("long.bin", filled(LONG, 1));
        let file = File::options().write(true).open(project.path("long.bin")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    });
    assert_eq!(stand.site.fetch("long.bin").status, 200);
}

#[test]
fn a_token_in_the_wrong_place_is_not_shown() {
    let stand = digits(&["--serve-token", "Open-Sesame", "-d"]);
    stand.site.get("/files?token=Open-Sesame").expect_error(401);
    let line = stand.run.wait_for(" 401");
    assert!(!line.text.contains("Open-Sesame"), "{}", line.text);
}

/// Failed when what was saved under a directory's old name stayed listed.
#[test]
fn what_is_saved_while_its_directory_is_renamed_is_published_under_the_new_name() {
    let stand = digits(&[]);
    let mut expected = vec!["digits.txt".to_owned()];
    for number in 10..40 {
        let (from, to) = (format!("from{number}"), format!("to{number}"));
        stand.project.write(format!("{from}/a.py"), "old");
        let mut file = File::create(stand.project.path(format!("{from}/a.py"))).unwrap();
        stand.project.rename(&from, &to);
        file.write_all(b"new").unwrap();
        expected.push(format!("{to}/a.py"));
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let listing = stand.site.wait_paths(&expected);
    assert!(listing.files.iter().skip(1).all(|(path, _)| listing.has(path, b"new")), "{listing:?}");
}

/// Failed when the removal of what was never closed told nobody.
#[test]
fn a_file_that_was_open_for_long_and_is_removed_is_published_no_more() {
    let stand = digits(&[]);
    let mut file = File::create(stand.project.path("held.log")).unwrap();
    file.write_all(b"held").unwrap();
    stand.site.wait_content("held.log", "held");
    stand.project.remove("held.log");
    stand.site.wait_paths(&["digits.txt"]);
}

/// Failed when each line about the output was a change of it.
#[test]
fn what_the_program_prints_into_the_project_is_not_published() {
    let project = Project::new();
    project.write("a.py", "a");
    let output = File::create(project.path("out.log")).unwrap();
    let mut command = project.autoftp(&["--serve", "127.0.0.1:0"]);
    let mut child = command.stdout(output).spawn().unwrap();
    let begun = Instant::now();
    let said = loop {
        let said = fs::read_to_string(project.path("out.log")).unwrap();
        if said.contains("file for this computer") {
            break said;
        }
        assert!(begun.elapsed() < DEADLINE, "{said}");
        thread::sleep(Duration::from_millis(5));
    };
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::INT,
    )
    .unwrap();
    child.wait().unwrap();
    assert!(said.contains(" 1 file for this computer only"), "{said}");
}

/// What changes without the system's notice costs the boards an answer, and no more.
#[test]
fn what_changed_unnoticed_is_published_when_it_was_asked_for_in_vain() {
    let stand = digits(&["--poll=600"]);
    let before = stand.site.list();
    stand.project.write("digits.txt", "9876543210");
    stand.project.write("more.txt", "unnoticed");
    let begun = Instant::now();
    while stand.site.list().version == before.version {
        let answer = stand.site.get(&format!("/file/{}", before.checksum("digits.txt")));
        answer.expect_error(400);
        assert!(begun.elapsed() < DEADLINE);
        thread::sleep(Duration::from_millis(50));
    }
    stand.site.fetch("digits.txt").expect(200, "9876543210");
}

/// Failed when an answer counted as taken once the system had yet to take it.
#[test]
fn who_takes_an_answer_slowly_is_not_the_first_to_go() {
    let stand = Stand::start_with(&[], |project| project.write("whole.bin", filled(1 << 20, 1)));
    let checksum = stand.site.list().checksum("whole.bin").to_owned();
    let mut slow: Vec<TcpStream> = (0..20).map(|_| stand.site.connect_narrowly()).collect();
    for stream in &mut slow {
        write!(stream, "GET /file/{checksum} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        read_head(stream);
    }
    let crowd: Vec<TcpStream> = (0..crowd()).map(|_| stand.site.connect()).collect();
    // By a connection of its own: one that was kept may have had to go.
    let answer = stand.site.say(b"GET /files HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{answer:?}");
    for stream in &mut slow {
        let (body, is_clean) = read_on(stream);
        assert!(is_clean && body.len() == 1 << 20, "{}, {is_clean}", body.len());
    }
    drop(crowd);
}

/// A web page whose name leads here all of a sudden is not to read what only this computer is to.
#[test]
fn a_name_of_the_internet_is_none_of_this_computer() {
    let status = |stand: &Stand, request: &str| {
        let answer = stand.site.say(request.as_bytes());
        String::from_utf8_lossy(&answer)[9..12].to_owned()
    };
    let ask =
        |host: &str| format!("GET /files HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let stand = digits(&[]);
    for near in
        ["127.0.0.1:9090", "localhost", "[::1]:9090", "[::1]", "pc:80", "pc.local", "10.0.0.1"]
    {
        assert_eq!(status(&stand, &ask(near)), "200", "{near}");
    }
    for far in ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "EVIL.example."] {
        assert_eq!(status(&stand, &ask(far)), "400", "{far}");
    }
    assert_eq!(status(&stand, "GET /files HTTP/1.1\r\nConnection: close\r\n\r\n"), "400");
    assert_eq!(
        status(
            &stand,
            "GET http://evil.example/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ),
        "400"
    );
    assert_eq!(status(&stand, "GET /files HTTP/1.0\r\n\r\n"), "200");
    let stand = digits(&["--serve-token", "known"]);
    let answer = stand
        .site
        .say(b"GET /known/files HTTP/1.1\r\nHost: board.example\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn once_on_the_command_line_wins_over_serve_in_the_settings_file() {
    let project = Project::new();
    let server = Server::start(&project.make_outside("remote"));
    project.write(".autoftp", format!("serve\nserve-token: abc\nhost: {}\n", server.host()));
    project.write("a.py", "a");
    assert!(project.autoftp(&["--once"]).output().unwrap().status.success());
    server.wait_file("a.py", "a");
}

/// Failed when the old name stayed for a second.
#[test]
fn what_is_renamed_is_published_under_one_name() {
    let stand = Stand::start_with(&[], |project| {
        for path in ["a.py", "lib/b.py", "lib/c.py"] {
            project.write(path, path);
        }
    });
    let mut before = stand.site.wait_paths(&["a.py", "lib/b.py", "lib/c.py"]);
    for (from, to, paths) in [
        ("a.py", "z.py", ["lib/b.py", "lib/c.py", "z.py"]),
        ("lib", "new", ["new/b.py", "new/c.py", "z.py"]),
    ] {
        stand.project.rename(from, to);
        stand.site.get(&format!("/files/version?wait=20&version={}", before.version));
        before = stand.site.list();
        assert_eq!(before.paths(), paths);
    }
}

#[test]
fn files_with_credentials_are_published_only_if_they_are_named() {
    let fill = |project: &Project| {
        for path in [".env", ".env.local", "sub/.ssh/config", "id_rsa", "a.py"] {
            project.write(path, path);
        }
    };
    assert_eq!(Stand::start_with(&[], fill).site.list().paths(), ["a.py"]);
    let named = Stand::start_with(&["-p", ".env, *.py"], fill);
    assert_eq!(named.site.list().paths(), [".env", "a.py"]);
}

#[test]
fn serve_in_the_settings_file_may_be_turned_off() {
    let project = Project::new();
    project.write(".autoftp", "serve: false\n");
    let mut run = project.run(&[]);
    assert_eq!(run.wait_exit(), 2);
    assert!(run.stderr().contains("HOST is missing"), "{}", run.stderr());
}

/// nginx gave its copy to those who did not know the token.
#[test]
fn what_a_token_guards_is_kept_apart_by_caches() {
    let stand = digits(&["--serve-token", "known"]);
    let answer = stand.site.get_with("/files", &[("Authorization", "Bearer known")]);
    assert_eq!((answer.status, answer.header("vary")), (200, "authorization"));
}

/// Failed when only what had changed meanwhile was listed, without the rules.
#[test]
fn a_project_that_was_away_is_published_whole_when_it_is_back() {
    side_by_side([&[][..], &["--poll=0.2"]], |args| {
        let stand = Stand::start_with(args, |project| {
            project.write(".promoterignore", "secret");
            for path in ["a.py", "b.py", "lib/c.py", "secret"] {
                project.write(path, path);
            }
        });
        let before = stand.site.list();
        let away = stand.project.outside("away");
        fs::rename(stand.project.root(), &away).unwrap();
        stand.run.wait_for_error("has gone");
        fs::rename(&away, stand.project.root()).unwrap();
        stand.run.wait_for("is back");
        stand.project.write("secret", "saved");
        stand.project.write("a.py", "saved");
        let known = before.version;
        let listing = stand.site.wait_list("another version", |listing| listing.version != known);
        assert_eq!(listing.paths(), before.files.iter().map(|(path, _)| path).collect::<Vec<_>>());
    });
}

/// Failed when whoever asked for the old content had the half of the new one published.
#[test]
fn half_a_file_is_not_published_because_it_is_asked_for() {
    let (old, new) = (filled(30_000, 1), filled(30_000, 2));
    let stand = Stand::start_with(&[], |project| project.write("fw.bin", &old));
    let before = stand.site.list().checksum("fw.bin").to_owned();
    let mut file = File::create(stand.project.path("fw.bin")).unwrap();
    for piece in new.chunks(1000) {
        file.write_all(piece).unwrap();
        stand.site.get(&format!("/file/{before}")).expect_error(400);
        assert_eq!(stand.site.list().checksum("fw.bin"), before);
        thread::sleep(Duration::from_millis(50));
    }
    drop(file);
    stand.site.wait_content("fw.bin", new);
}

/// Failed when what was to be written anew was published as gone with the first that was.
#[test]
fn what_is_written_anew_within_a_second_is_never_missing() {
    let paths = ["a.mpy", "b.mpy", "c.mpy", "d.mpy"];
    let stand = Stand::start_with(&[], |project| {
        for path in paths {
            project.write(path, "old");
        }
    });
    for path in paths {
        stand.project.remove(path);
    }
    for path in paths {
        stand.project.write(path, "new");
        thread::sleep(Duration::from_millis(30));
        assert_eq!(stand.site.list().paths(), paths);
    }
    let listing = stand.site.wait_content("d.mpy", "new");
    assert!(paths.iter().all(|path| listing.has(path, b"new")), "{listing:?}");
}

/// Failed when newcomers were the first to go, before they could say a word.
#[test]
fn where_all_places_are_taken_by_those_who_wait_newcomers_are_answered() {
    let stand = digits(&[]);
    let (waiting, newcomers) = (crowd(), 50);
    let ask = |path: &str| {
        let mut stream = stand.site.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
    };
    let waiting: Vec<_> = (0..waiting).map(|_| ask("/files/version?wait=60")).collect();
    let newcomers: Vec<TcpStream> = (0..newcomers).map(|_| stand.site.connect()).collect();
    for mut stream in newcomers {
        write!(stream, "GET /files/version HTTP/1.0\r\n\r\n").unwrap();
        let (answer, is_clean) = read_on(&mut stream);
        assert!(is_clean && answer.starts_with(b"HTTP/1.0 200"), "{answer:?}");
    }
    drop(waiting);
}

/// Failed when the first file of a rebuild was the whole list.
#[test]
fn what_is_made_anew_after_all_was_gone_is_published_as_a_whole() {
    let paths = ["a.bin", "b.bin", "c.bin", "d.bin"];
    let stand = Stand::start_with(&[], |project| {
        for path in paths {
            project.write(path, "old");
        }
    });
    for path in paths {
        stand.project.remove(path);
    }
    stand.run.wait_for("no file is left to publish");
    for path in paths {
        stand.project.write(path, "new");
        assert_eq!(stand.site.list().paths(), paths);
        thread::sleep(Duration::from_millis(250));
    }
    let listing = stand.site.wait_content("d.bin", "new");
    assert!(paths.iter().all(|path| listing.has(path, b"new")), "{listing:?}");
}

/// Failed when each save waited for what something else had removed before.
#[test]
fn a_save_does_not_wait_for_what_was_removed_long_before() {
    let stand = digits(&[]);
    stand.save("other.txt", "other");
    stand.project.remove("other.txt");
    thread::sleep(Duration::from_millis(200));
    // It is there before the other one has gone, which takes a second.
    assert_eq!(stand.save("a.py", "saved").paths(), ["a.py", "digits.txt", "other.txt"]);
    stand.site.wait_paths(&["a.py", "digits.txt"]);
}

#[test]
fn who_publishes_nothing_is_told_what_that_may_mean() {
    let stand = Stand::start(&["-s", "*.py,true", "-p", "*.mpy"]);
    stand
        .run
        .wait_for("the list is empty: a board that fetches now may delete all that it has; --sync");
}
