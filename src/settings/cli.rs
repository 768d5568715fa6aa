//! The command line. Every long option is also a key of the `.autoftp` file.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};

use crate::model::encoding::Encoding;
use crate::model::send_mode::SendMode;

const ABOUT: &str = "Watches this directory and sends every saved file to an FTP server at once";

const LONG_ABOUT: &str = "\
Watches this directory and sends every saved file to an FTP server at once.

Each save goes out over one session that is kept alive and made again when it breaks. \
Directories are created on the server as needed; nothing is removed there, unless --mirror asks \
for it. Files that change while the server is away are sent when it is back, the newest content \
once; what the server has already is not sent again.";

const EXAMPLES: &str = "\
Examples:
  autoftp esp32.local                         send each *.py that is saved
  autoftp esp32.local -p '*.py, *.html' -x test/
  autoftp esp32.local -s '*.py,mpy-cross' -p '*.mpy'
                                              compile each *.py, send what comes out
  autoftp ftp://me@nas:2121/projects/site -p '*'
  autoftp 192.168.4.1 192.168.4.2             two boards at once
  autoftp esp32.local --once                  send what is not there yet, and end
  autoftp ftps://me@example.com -p '*'        encrypted (FTPS)
  autoftp --check esp32.local                 tell what the server can do, and what to mend
  autoftp --serve 0.0.0.0:9090                boards fetch over HTTP what is saved

Settings can stand in a file named .autoftp in the directory, a 'key: value' a line, where the
keys are 'host' and the long options' names.

Exit status: 0 after Ctrl-C or --once with everything sent; 1 if a file is not delivered or a host
cannot be used (with --once also if a script fails, with --check if uploads do not work); 2 for a wrong command line or .autoftp; 130 after a second Ctrl-C.";

/// Options as given, on the command line or in `.autoftp`.
// The comments on the fields are the help text, where brackets are no links.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "autoftp",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_long_help = EXAMPLES,
    infer_long_args = true,
    args_override_self = true
)]
pub struct Cli {
    /// Where to send: NAME, NAME:PORT, [IPV6]:PORT, ftp://USER@NAME:PORT/DIR or ftps://...
    ///
    /// Several hosts each get every file; one that is away does not delay the others. A directory
    /// in an address is relative to where the login leads; //DIR is absolute.
    #[arg(value_name = "HOST")]
    pub hosts: Vec<String>,

    /// What to upload [default: *.py]
    ///
    /// A comma-separated list of patterns. A pattern matches from the right, component by
    /// component: '*.py' at any depth, 'lib/*.py' in any directory named lib. Wildcards do not
    /// cross '/', except '**'.
    #[arg(short = 'p', long, value_name = "PATTERNS", help_heading = "Files")]
    pub include: Vec<String>,

    /// What to ignore; covers everything beneath a directory, and wins over the rest
    #[arg(short = 'x', long, value_name = "PATTERNS", help_heading = "Files")]
    pub exclude: Vec<String>,

    /// Instead of uploading, run SCRIPT on each file that matches
    ///
    /// SCRIPT may have arguments; the file's path is added as ./path. It is run without a shell, in
    /// this directory. What it writes is seen as a change of its own. May be given several times;
    /// the first that matches is used.
    #[arg(short = 's', long, value_name = "PATTERN,SCRIPT", help_heading = "Files")]
    pub process: Vec<String>,

    /// Delete the local file once it is uploaded
    #[arg(short = 'k', long, alias = "updelete", value_name = "PATTERNS", help_heading = "Files")]
    pub up_delete: Vec<String>,

    /// At the start, send every matching file that is not known to be there
    ///
    /// Known is what was sent before, by any run, and still has its size there. Scripts are run on
    /// every file first. Should the server have lost files when it comes back, they are sent again.
    #[arg(long, help_heading = "Files")]
    pub sync: bool,

    /// The same, and end when all is delivered: 0, or 1 if something is not
    #[arg(long, help_heading = "Files")]
    pub once: bool,

    /// Send what is saved even if the server has that content already
    #[arg(long, help_heading = "Files")]
    pub force: bool,

    /// Store each file under a temporary name first and then rename it
    ///
    /// So nobody there ever sees half a file. It takes two more round trips.
    #[arg(long, help_heading = "Files")]
    pub atomic: bool,

    /// Also remove and rename on the server what is removed and renamed here
    ///
    /// Only what matches, a second after it went, and a directory only when it is empty there.
    /// Nothing is removed for being missing here at the start.
    #[arg(long, help_heading = "Files")]
    pub mirror: bool,

    /// Do not ignore what editors and version control leave (*~, .*.swp, .git, node_modules, ...)
    #[arg(long, help_heading = "Files")]
    pub no_default_ignores: bool,

    /// Run SITE CMD on the server after each upload; %%f is the file's name up to its first dot
    ///
    /// Lines are joined by NUL, which uftpd turns into line breaks again.
    #[arg(short = 'r', long, value_name = "CMD", help_heading = "Files")]
    pub remote_command: Option<String>,

    /// Run the remote command only after uploads that match
    #[arg(short = 'm', long, value_name = "PATTERNS", help_heading = "Files")]
    pub remote_match: Vec<String>,

    /// Run the remote command only once after a burst of uploads, for the last of them
    #[arg(long, help_heading = "Files")]
    pub remote_once: bool,

    /// Who to log in as [default: from netrc, else anonymous]
    ///
    /// The password comes from --password-file, --password-command, AUTOFTP_PASSWORD or netrc,
    /// the first that is there; else it is asked for.
    #[arg(short, long, value_name = "NAME", help_heading = "Server")]
    pub user: Option<String>,

    /// Read the password from the first line of FILE
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub password_file: Option<PathBuf>,

    /// Run CMD for the password: the first line that it prints (no shell)
    #[arg(long, value_name = "CMD", help_heading = "Server")]
    pub password_command: Option<String>,

    /// The account to name when the server asks for one (ACCT) [default: from netrc]
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    pub account: Option<String>,

    /// Send a password unencrypted to a public address, too
    #[arg(long, help_heading = "Server")]
    pub allow_plaintext: bool,

    /// The port, where HOST does not say it [default: 21, or 990 with ftps://]
    #[arg(long, value_name = "N", value_parser = port, help_heading = "Server")]
    pub port: Option<u16>,

    /// The directory on the server to send to [default: where the login leads]
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    pub remote_dir: Option<String>,

    /// How long to wait for a silent server [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Server")]
    pub timeout: Option<Duration>,

    /// Have the server connect to this computer for each file (active mode)
    ///
    /// For servers that know no passive mode. Firewalls and NAT on this side stop it.
    #[arg(long, help_heading = "Server")]
    pub active: bool,

    /// How to send a file [default: as fast as is safe there]
    ///
    /// A slower way than that is used throughout; a faster one only where just its safety is in
    /// doubt, as with a server that has one data port.
    #[arg(long, value_enum, value_name = "WAY", help_heading = "Server")]
    pub transfer: Option<SendMode>,

    /// Send bursts over up to N sessions at once [default: 1]
    ///
    /// For big servers; boards get one session only.
    #[arg(long, value_name = "N", value_parser = sessions, help_heading = "Server")]
    pub parallel: Option<usize>,

    /// How names are written on the wire [default: utf-8]
    #[arg(long, value_enum, ignore_case = true, value_name = "ENCODING", help_heading = "Server")]
    pub encoding: Option<Encoding>,

    /// Encrypt everything, or send nothing (FTPS); as does ftps://
    ///
    /// On port 990, which ftps:// without a port means, TLS begins at once; elsewhere as the server
    /// wants it (AUTH TLS where it greets unencrypted). Certificates are checked.
    #[arg(long, help_heading = "Encryption")]
    pub tls: bool,

    /// Trust the certificates in FILE (PEM) instead of those that this computer trusts
    ///
    /// The server's own certificate may be one of them, also if it is self-signed.
    #[arg(long, value_name = "FILE", help_heading = "Encryption")]
    pub cacert: Option<PathBuf>,

    /// The name that the certificate has to be for [default: that of HOST]
    #[arg(long, value_name = "NAME", help_heading = "Encryption")]
    pub tls_server_name: Option<String>,

    /// Do not check certificates: who is in between can read and change everything
    #[arg(long, help_heading = "Encryption")]
    pub insecure: bool,

    /// Show the server this certificate (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Encryption")]
    pub client_cert: Option<PathBuf>,

    /// The key of --client-cert (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Encryption")]
    pub client_key: Option<PathBuf>,

    /// Publish the files for boards that fetch them over HTTP, with or without a HOST [default
    /// ADDR: 127.0.0.1:9090]
    ///
    /// In the API of OTA-promoter. ADDR is IP:PORT, IP or PORT; without an IP, only this computer
    /// can fetch: 0.0.0.0 lets everybody in who can reach it. Without -p, all files are published
    /// that are not ignored. What .promoterignore names is left out.
    #[arg(long, value_name = "ADDR", value_parser = serve_address, num_args = 0..=1,
          default_missing_value = SERVE_DEFAULT, help_heading = "Boards that fetch")]
    pub serve: Option<SocketAddr>,

    /// Answer only those who know TOKEN: as http://ADDR/TOKEN/files or 'Authorization: Bearer TOKEN'
    #[arg(long, value_name = "TOKEN", value_parser = token, help_heading = "Boards that fetch")]
    pub serve_token: Option<String>,

    /// Try out what HOST can do, tell what to mend, and end
    ///
    /// Uploads, renames and removes files of its own there, named autoftp-check-*.
    #[arg(long, help_heading = "Running")]
    pub check: bool,

    /// How long a script may run [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Running")]
    pub process_timeout: Option<Duration>,

    /// Look for changes every so often instead of being told of them [default: 2]
    ///
    /// For directories whose changes the system does not report. Used by itself where that is
    /// known (network file systems), and when no more directories can be watched. In a very large
    /// tree the pauses grow, so that looking takes at most a twentieth of the time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, num_args = 0..=1, require_equals = true,
          default_missing_value = "2", help_heading = "Running")]
    pub poll: Option<Duration>,

    /// Run scripts, but send, publish and delete nothing and run no remote command
    #[arg(short = 'n', long, help_heading = "Running")]
    pub dry_run: bool,

    /// Show the FTP dialogue, and each HTTP request
    #[arg(short = 'd', long, help_heading = "Screen")]
    pub debug: bool,

    /// Show only problems and what scripts print
    #[arg(short, long, help_heading = "Screen")]
    pub quiet: bool,

    /// Also show what is ignored or unchanged, and why
    #[arg(short, long, action = ArgAction::SetTrue, help_heading = "Screen")]
    pub verbose: bool,

    /// When to colour [default: auto]
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "Screen")]
    pub color: Option<When>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR or CLICOLOR=0 is set; CLICOLOR_FORCE=1 forces them.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Cli {
    /// Reads the command line; prints help and usage errors itself, and ends the program then.
    pub fn from_args() -> Self {
        Self::parse_from(arguments(std::env::args_os()))
    }

    /// These options laid over `base`: lists extend it, the rest replaces it.
    pub fn over(self, base: Self) -> Self {
        let extend = |mut base: Vec<String>, more: Vec<String>| {
            base.extend(more);
            base
        };
        Self {
            hosts: if self.hosts.is_empty() { base.hosts } else { self.hosts },
            include: extend(base.include, self.include),
            exclude: extend(base.exclude, self.exclude),
            process: extend(base.process, self.process),
            up_delete: extend(base.up_delete, self.up_delete),
            sync: self.sync || base.sync,
            // What the command line asks for wins over what does not go with it.
            once: self.once || base.once && self.serve.is_none(),
            force: self.force || base.force,
            atomic: self.atomic || base.atomic,
            mirror: self.mirror || base.mirror,
            remote_once: self.remote_once || base.remote_once,
            no_default_ignores: self.no_default_ignores || base.no_default_ignores,
            remote_command: self.remote_command.or(base.remote_command),
            remote_match: extend(base.remote_match, self.remote_match),
            user: self.user.or(base.user),
            password_file: self.password_file.or(base.password_file),
            password_command: self.password_command.or(base.password_command),
            account: self.account.or(base.account),
            allow_plaintext: self.allow_plaintext || base.allow_plaintext,
            port: self.port.or(base.port),
            remote_dir: self.remote_dir.or(base.remote_dir),
            timeout: self.timeout.or(base.timeout),
            active: self.active || base.active,
            transfer: self.transfer.or(base.transfer),
            parallel: self.parallel.or(base.parallel),
            encoding: self.encoding.or(base.encoding),
            tls: self.tls || base.tls,
            cacert: self.cacert.clone().or(base.cacert).filter(|_| !self.insecure),
            tls_server_name: self.tls_server_name.or(base.tls_server_name),
            // Who says whom to trust does not trust anybody.
            insecure: self.insecure || base.insecure && self.cacert.is_none(),
            client_cert: self.client_cert.or(base.client_cert),
            client_key: self.client_key.or(base.client_key),
            serve: self.serve.or(base.serve.filter(|_| !self.once)),
            serve_token: self.serve_token.or(base.serve_token.filter(|_| !self.once)),
            check: self.check || base.check,
            process_timeout: self.process_timeout.or(base.process_timeout),
            poll: self.poll.or(base.poll),
            dry_run: self.dry_run || base.dry_run,
            debug: self.debug || base.debug,
            quiet: self.quiet || base.quiet,
            verbose: self.verbose || base.verbose,
            color: self.color.or(base.color),
        }
    }
}

/// The long options of the Python original, whose unique abbreviations (`--inc`) people use.
const ORIGINAL: [&str; 9] = [
    "include",
    "exclude",
    "process",
    "up-delete",
    "remote-command",
    "remote-match",
    "dry-run",
    "debug",
    "help",
];

/// The arguments as clap is to see them.
fn arguments(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.peekable();
    let mut all = Vec::new();
    while let Some(arg) = args.next() {
        // A HOST that follows is none of its business.
        let is_address = |next: &OsString| {
            let is_meant = |text: &str| {
                let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                is_number || text.starts_with([':', '[']) || text.starts_with("http:")
            };
            next.to_str().is_some_and(|text| serve_address(text).is_ok() || is_meant(text))
        };
        if arg == "--serve" && !args.peek().is_some_and(is_address) {
            all.push(format!("--serve={SERVE_DEFAULT}").into());
        } else if arg == "--" {
            all.push(arg);
            all.extend(args.by_ref());
        } else {
            all.push(expand(arg));
        }
    }
    all
}

/// Completes an abbreviation of an [`ORIGINAL`] option, so that no newer option can make it
/// ambiguous.
fn expand(arg: OsString) -> OsString {
    use clap::CommandFactory;
    let Some(text) = arg.to_str().and_then(|text| text.strip_prefix("--")) else {
        return arg;
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let mut fits = ORIGINAL.iter().filter(|option| option.starts_with(name));
    let (Some(option), None, false) = (fits.next(), fits.next(), name.is_empty()) else {
        return arg;
    };
    if Cli::command().get_arguments().any(|arg| arg.get_long() == Some(name)) {
        return arg;
    }
    match value {
        Some(value) => format!("--{option}={value}").into(),
        None => format!("--{option}").into(),
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a port is a number from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

fn sessions(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=16) => Ok(number),
        _ => Err("give a number from 1 to 16".to_owned()),
    }
}

/// What `--serve` means by itself.
const SERVE_DEFAULT: &str = "127.0.0.1:9090";

/// The port of OTA-promoter.
const SERVE_PORT: u16 = 9090;

fn serve_address(text: &str) -> Result<SocketAddr, String> {
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let port = text.strip_prefix("localhost").unwrap_or(text);
    let text = if port.is_empty() || port.starts_with(':') { port } else { text };
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if text.is_empty() {
        Ok(SocketAddr::new(HERE, SERVE_PORT))
    } else if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
        Ok(SocketAddr::new(HERE, port))
    } else if let Ok(ip) = bare.parse() {
        Ok(SocketAddr::new(ip, SERVE_PORT))
    } else {
        text.parse().map_err(|_| {
            "give IP:PORT, IP or PORT of this computer, such as 0.0.0.0:9090".to_owned()
        })
    }
}

fn token(text: &str) -> Result<String, String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    if matches!(text, "." | ".." | "file" | "files") {
        return Err("that has a meaning of its own in an address: choose another".to_owned());
    }
    if text.is_empty() || !text.chars().all(is_fit) {
        return Err(
            "it is part of an address: give letters, digits, '-', '_', '.' and '~'".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// A time in seconds, with a fraction if need be.
fn seconds(text: &str) -> Result<Duration, String> {
    const DAY: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=DAY).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, from 0.1 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Cli {
        let args = std::iter::once("autoftp").chain(args.iter().copied());
        Cli::try_parse_from(arguments(args.map(Into::into))).expect("good arguments")
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_the_original_takes_them() {
        let cli = parse(&["-dn", "h", "-p*.py", "-x=a", "--include=b,c", "-r", "1", "-r2"]);
        assert!(cli.debug && cli.dry_run);
        assert_eq!(cli.hosts, ["h"]);
        assert_eq!(cli.include, ["*.py", "b,c"]);
        assert_eq!(cli.exclude, ["a"]);
        assert_eq!(cli.remote_command.as_deref(), Some("2"));
        assert_eq!(parse(&["--", "-h"]).hosts, ["-h"]);
        assert_eq!(parse(&["--updelete", "a", "h"]).up_delete, ["a"]);
    }

    #[test]
    fn abbreviations_of_the_original_stay_unambiguous() {
        let cli = parse(&[
            "--i",
            "i",
            "--exc=x",
            "--p",
            "*.py,cc",
            "--u",
            "k",
            "--remote-c",
            "r",
            "--remote-m",
            "m",
            "--dr",
            "--de",
        ]);
        assert_eq!(cli.include, ["i"]);
        assert_eq!(cli.exclude, ["x"]);
        assert_eq!(cli.process, ["*.py,cc"]);
        assert_eq!(cli.up_delete, ["k"]);
        assert_eq!(cli.remote_command.as_deref(), Some("r"));
        assert_eq!(cli.remote_match, ["m"]);
        assert!(cli.dry_run && cli.debug);
        let cli = parse(&["--user", "u", "--process-t", "3", "--poll", "h"]);
        assert_eq!(cli.user.as_deref(), Some("u"));
        assert_eq!(cli.process_timeout, Some(Duration::from_secs(3)));
        assert_eq!(cli.poll, Some(Duration::from_secs(2)));
        assert_eq!(cli.hosts, ["h"]);
    }

    #[test]
    fn where_to_serve() {
        let table = [
            ("9090", "127.0.0.1:9090"),
            (":8080", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:9090"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0", "0.0.0.0:9090"),
            ("192.168.1.2:0", "192.168.1.2:0"),
            ("::", "[::]:9090"),
            ("[::1]", "[::1]:9090"),
            ("[::1]:80", "[::1]:80"),
        ];
        for (text, address) in table {
            assert_eq!(parse(&["--serve", text]).serve, address.parse().ok(), "{text}");
        }
        let cli = parse(&["--serve", "esp32.local", "-q"]);
        assert_eq!(
            (cli.serve, cli.hosts),
            ("127.0.0.1:9090".parse().ok(), vec!["esp32.local".into()])
        );
        assert_eq!(parse(&["--", "--serve", "80"]).hosts, ["--serve", "80"]);
        for bad in ["esp32.local:80", "1.2.3", "99999", "localhost.evil", "localhost1"] {
            serve_address(bad).expect_err(bad);
        }
        for bad in ["", "a/b", "a b", "..", "files", "ü"] {
            token(bad).expect_err(bad);
        }
    }
}
