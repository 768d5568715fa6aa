//! The settings, from `.autoftp` and the command line.
//!
//! In this order, later over earlier (lists extend, everything else replaces):
//! 1. the defaults,
//! 2. the file `.autoftp` in the watched directory,
//! 3. the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{ArgAction, CommandFactory, Parser};

use crate::ftp::tls::{self, Trust};
use crate::journal::store;
use crate::model::encoding::Encoding;
use crate::model::path::RelPath;
use crate::model::send_mode::SendMode;
use crate::rules::filter::{Filter, Rules, Serve};
use crate::settings::cli::{Cli, When};
use crate::settings::credentials::{self, CredentialOptions, Login};
use crate::settings::host::Host;
use crate::text::shortened;

/// The settings' file.
pub const FILE: &str = ".autoftp";

/// Everything the program was told, checked.
#[derive(Debug)]
pub struct Config {
    /// The watched directory, absolute and without symbolic links.
    pub root: PathBuf,
    /// Where to keep what is known of hosts across runs.
    pub state_dir: Option<PathBuf>,
    /// Where to send; at least one, unless boards fetch.
    pub hosts: Vec<Host>,
    /// Who to log in as on each of them.
    pub logins: Vec<Login>,
    /// Whom to trust, if any of them is to be spoken to through TLS.
    pub trust: Option<Trust>,
    /// The directory on the server, where HOST does not say it.
    pub remote_dir: Option<String>,
    /// The patterns, as given.
    pub rules: Rules,
    /// The patterns, ready to match.
    pub filter: Filter,
    /// The script of each rule in [`Rules::process`]: a program and its arguments.
    pub scripts: Vec<Vec<String>>,
    /// What to send after SITE; lines are separated by NUL.
    pub remote_command: Option<String>,
    /// Whether that follows a whole burst of uploads, not each one.
    pub remote_once: bool,
    /// Whether every file that matches is looked at, not only those that change.
    pub sync: bool,
    /// Whether to end when that is done.
    pub once: bool,
    /// Whether what the server has already is sent, too.
    pub force: bool,
    /// Whether files are stored under a temporary name first.
    pub atomic: bool,
    /// Whether removals and renames are done on the server, too.
    pub mirror: bool,
    /// Whether nothing is to be changed on the server.
    pub dry_run: bool,
    /// How long to wait for a silent server.
    pub timeout: Duration,
    /// Whether servers connect to us for each file.
    pub active: bool,
    /// How files are to be sent; without it, as fast as is safe.
    pub transfer: Option<SendMode>,
    /// Over how many sessions at most a burst is sent.
    pub parallel: usize,
    /// How names are written on the wire.
    pub encoding: Encoding,
    /// Where boards fetch.
    pub serve: Option<Serving>,
    /// Whether servers are only tried out.
    pub check: bool,
    /// How long a script may run.
    pub process_timeout: Duration,
    /// Look for changes this often instead of being told of them.
    pub poll: Option<Duration>,
    /// What to show.
    pub screen: Screen,
}

/// Where boards fetch, and which.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Where to listen.
    pub address: SocketAddr,
    /// What those who fetch have to know.
    pub token: Option<String>,
}

/// What to show, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// The FTP dialogue.
    pub debug: bool,
    /// Only problems, and what scripts print.
    pub quiet: bool,
    /// Also what is ignored.
    pub verbose: bool,
    /// Colours.
    pub color: When,
}

impl Config {
    /// Settles the command line and the `.autoftp` file of `root` into settings.
    ///
    /// # Errors
    /// Says which option, or which line of the file, is wrong, and what was expected.
    pub fn resolve(cli: Cli, root: &Path) -> Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("the directory '{}' cannot be watched", root.display()))?;
        let tls_option = tls_option(&cli);
        ensure!(
            !cli.insecure || cli.cacert.is_none(),
            "--insecure trusts everybody, and --cacert does not: leave one out"
        );
        let given = cli.over(read_file(&root.join(FILE))?);

        let serve = serving(&given)?;
        ensure!(
            !given.hosts.is_empty() || !given.check,
            "HOST is missing: --check tries out what files are sent to"
        );
        ensure!(
            !given.hosts.is_empty() || serve.is_some(),
            "HOST is missing: say where to send, as in 'autoftp esp32.local', or put a line \
             'host: esp32.local' into {FILE}; for boards that fetch, use --serve"
        );
        let hosts = (given.hosts.iter())
            .map(|text| Host::parse(text, given.port))
            .map(|host| host.map(|host| Host { secure: host.secure || given.tls, ..host }))
            .collect::<Result<Vec<_>>>()?;
        if let Some(command) = &given.remote_command {
            let encoding = given.encoding.unwrap_or_default();
            ensure!(
                encoding.can_write(command),
                "--encoding latin1 cannot write the remote command"
            );
        }
        if let Some(file) = given.hosts.iter().find(|text| root.join(text).is_file()) {
            bail!("HOST '{file}' is a file here: put patterns in quotes, as in -p '*.py'");
        }
        for (n, host) in hosts.iter().enumerate() {
            let is_same = |other: &Host| Host { secure: host.secure, ..other.clone() } == *host;
            ensure!(!hosts[..n].iter().any(is_same), "HOST '{host}' is given twice");
        }
        let is_secure = hosts.iter().any(|host| host.secure);
        if let Some(option) = tls_option.filter(|_| !is_secure) {
            bail!(
                "{option} is about encryption, which is not asked for: add --tls, or use ftps://"
            );
        }
        let tls = tls_settings(&given, &root)?;
        let state_dir = store::directory();
        let process_timeout = given.process_timeout.unwrap_or(Duration::from_secs(60));
        ensure!(
            !(given.check && given.dry_run),
            "--check stores files of its own there, and --dry-run promises not to: leave one out"
        );
        let means = CredentialOptions {
            command_timeout: process_timeout,
            user: one_line("user", given.user.clone())?,
            password_file: file(&root, given.password_file.clone()),
            password_command: (given.password_command.as_deref().map(words).transpose())
                .context("--password-command")?,
            account: one_line("account", given.account.clone())?,
            allow_plaintext: given.allow_plaintext,
        };
        let logins = (hosts.iter())
            .map(|host| Login::find(host, &means, &root, state_dir.as_deref()))
            .collect::<Result<Vec<_>>>()?;
        let (mut rules, scripts) = rules(&given)?;
        let key = tls.client.as_ref().map(|(_, key)| key);
        let netrc = credentials::netrc_file();
        let output = output_files();
        let own = state_dir.iter().chain(&means.password_file).chain(key).chain(&netrc);
        rules.own = (own.chain(&output))
            .filter_map(|path| RelPath::new(real(path)?.strip_prefix(&root).ok()?).ok())
            .collect();
        rules.serve = match (&serve, rules.include.is_empty()) {
            (None, _) => Serve::Nothing,
            (Some(_), true) => Serve::Everything,
            (Some(_), false) => Serve::Included,
        };
        // Where nothing is sent, this would be said and not be so.
        if rules.include.is_empty() && !hosts.is_empty() {
            rules.include.push("*.py".to_owned());
        }
        Ok(Self {
            filter: Filter::new(&rules)?,
            root,
            state_dir,
            hosts,
            logins,
            trust: is_secure.then(|| Trust::new(&tls)).transpose()?,
            remote_dir: one_line("remote-dir", given.remote_dir)?,
            rules,
            scripts,
            remote_command: given.remote_command.as_deref().and_then(remote_command),
            remote_once: given.remote_once,
            sync: given.sync || given.once,
            once: given.once,
            force: given.force,
            atomic: given.atomic,
            mirror: given.mirror,
            dry_run: given.dry_run,
            timeout: given.timeout.unwrap_or(Duration::from_secs(10)),
            active: given.active,
            transfer: given.transfer,
            parallel: given.parallel.unwrap_or(1),
            encoding: given.encoding.unwrap_or_default(),
            serve,
            check: given.check,
            process_timeout,
            poll: given.poll,
            screen: Screen {
                debug: given.debug,
                quiet: given.quiet,
                verbose: given.verbose,
                color: given.color.unwrap_or_default(),
            },
        })
    }
}

/// The files that our own output goes to: a line about one of them would be a change of it.
fn output_files() -> Vec<PathBuf> {
    let opened = |stream| std::fs::read_link(format!("/proc/self/fd/{stream}")).ok();
    [1, 2].into_iter().filter_map(opened).filter(|path| path.is_file()).collect()
}

/// Where boards fetch, if they do.
fn serving(given: &Cli) -> Result<Option<Serving>> {
    let Some(address) = given.serve else {
        ensure!(given.serve_token.is_none(), "--serve-token is of use only with --serve: add it");
        return Ok(None);
    };
    ensure!(!given.once, "--once ends when all is sent, and --serve does not: leave one out");
    Ok(Some(Serving { address, token: given.serve_token.clone() }))
}

/// The directory without symbolic links, also if it is yet to be made.
fn real(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find_map(|above| {
        let rest = dir.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    })
}

/// The patterns that were given, and the script of each process rule.
fn rules(given: &Cli) -> Result<(Rules, Vec<Vec<String>>)> {
    let (process, scripts) = (given.process.iter())
        .map(|rule| process_rule(rule))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    let rules = Rules {
        include: items(&given.include),
        exclude: items(&given.exclude),
        process,
        up_delete: items(&given.up_delete),
        remote_match: items(&given.remote_match),
        default_ignores: !given.no_default_ignores,
        serve: Serve::Nothing,
        own: Vec::new(),
    };
    Ok((rules, scripts))
}

/// The items of comma-separated lists; blanks around them and empty ones are dropped.
fn items(lists: &[String]) -> Vec<String> {
    (lists.iter())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

/// Splits `PATTERN,SCRIPT ARGUMENTS`.
fn process_rule(rule: &str) -> Result<(String, Vec<String>)> {
    let (pattern, script) = rule
        .split_once(',')
        .map(|(pattern, script)| (pattern.trim(), script.trim()))
        .filter(|(pattern, script)| !pattern.is_empty() && !script.is_empty())
        .with_context(|| {
            format!("process '{rule}' is not PATTERN,SCRIPT: give it as in '*.py,mpy-cross'")
        })?;
    let words = words(script).with_context(|| format!("process '{}'", rule.escape_debug()))?;
    Ok((pattern.to_owned(), words))
}

/// The program and its arguments.
fn words(command: &str) -> Result<Vec<String>> {
    ensure!(!command.contains('\0'), "there is a NUL in it");
    // On Windows a backslash separates directories.
    let text = if cfg!(windows) { command.replace('\\', "\\\\") } else { command.to_owned() };
    let words = shlex::split(&text).context("its quotes are not closed")?;
    ensure!(!words.is_empty(), "there is no command in it");
    Ok(words)
}

/// A file that the user named; `~/` is the home directory, as a shell does not expand it in
/// [`FILE`].
fn file(root: &Path, named: Option<PathBuf>) -> Option<PathBuf> {
    let named = named?;
    let home = named.strip_prefix("~").ok().and_then(|rest| Some(std::env::home_dir()?.join(rest)));
    Some(root.join(home.unwrap_or(named)))
}

/// An option that is of no use without TLS.
fn tls_option(cli: &Cli) -> Option<&'static str> {
    let options = [
        ("--cacert", cli.cacert.is_some()),
        ("--tls-server-name", cli.tls_server_name.is_some()),
        ("--insecure", cli.insecure),
        ("--client-cert", cli.client_cert.is_some()),
        ("--client-key", cli.client_key.is_some()),
    ];
    options.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
}

/// What is said of TLS.
fn tls_settings(given: &Cli, root: &Path) -> Result<tls::Settings> {
    let file = |named: &Option<PathBuf>| file(root, named.clone());
    let client = match (file(&given.client_cert), file(&given.client_key)) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => bail!("--client-cert and --client-key are of use only together"),
    };
    let cacert = file(&given.cacert);
    let server_name = given.tls_server_name.clone();
    Ok(tls::Settings { cacert, server_name, insecure: given.insecure, client })
}

/// A value that goes on the control connection.
fn one_line(option: &str, value: Option<String>) -> Result<Option<String>> {
    if let Some(value) = &value {
        ensure!(
            !value.contains(char::is_control),
            "{option} '{}' has a control character in it",
            value.escape_debug()
        );
    }
    Ok(value.filter(|value| !value.is_empty()))
}

/// An FTP command is one line; uftpd turns NUL back into a line break.
fn remote_command(text: &str) -> Option<String> {
    let text = text.replace("\r\n", "\n").replace(['\n', '\r'], "\0");
    let text = text.trim_matches('\0');
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// Reads the settings' file; no file is no settings.
fn read_file(path: &Path) -> Result<Cli> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| anyhow!("{FILE} is not UTF-8 text: save it as UTF-8"))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Cli::default()),
        Err(error) => bail!("{FILE} cannot be read: {error}"),
    };
    parse_file(&text)
}

/// A line of the file that holds a setting, with what follows it.
struct Setting<'a> {
    line: usize,
    key: &'a str,
    value: Option<String>,
}

fn parse_file(text: &str) -> Result<Cli> {
    let mut args = vec!["autoftp".to_owned()];
    let mut hosts = Vec::new();
    for setting in settings(text)? {
        if setting.key == "host" {
            let host = setting.value.filter(|value| !value.is_empty()).with_context(|| {
                format!(
                    "{FILE}:{}: host has no value: give it as 'host: esp32.local'",
                    setting.line
                )
            })?;
            Host::parse(&host, None).with_context(|| format!("{FILE}:{}", setting.line))?;
            hosts = vec![host];
            continue;
        }
        let arg = argument(&setting).with_context(|| format!("{FILE}:{}", setting.line))?;
        let Some(arg) = arg else { continue };
        // Each by itself first, so that a message can name the line.
        check(&arg).with_context(|| format!("{FILE}:{}", setting.line))?;
        args.push(arg);
    }
    Ok(Cli { hosts, ..Cli::try_parse_from(args)? })
}

/// Checks one setting, as the argument that it stands for.
fn check(arg: &str) -> Result<()> {
    let given = Cli::try_parse_from(["autoftp", arg]).map_err(|error| {
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default();
        anyhow!("{}", message.trim_start_matches("error: "))
    })?;
    Filter::new(&rules(&given)?.0).map(drop)
}

/// Splits the file into settings. Values stand on the key's line, except that `remote-command` may
/// go on over the lines that follow, up to the next key.
fn settings(text: &str) -> Result<Vec<Setting<'_>>> {
    let mut found: Vec<Setting> = Vec::new();
    let mut command_goes_on = false;
    for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let (word, value) = match line.split_once(':') {
            Some((word, value)) => (word.trim_end(), Some(value.trim().to_owned())),
            None => (line.trim_end(), None),
        };
        if command_goes_on && !is_key(word) {
            if let Some(Setting { value: Some(command), .. }) = found.last_mut() {
                command.push('\n');
                command.push_str(line);
            }
            continue;
        }
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        ensure!(
            !line.starts_with(char::is_whitespace),
            "{FILE}:{}: '{}' is indented: a setting is 'key: value' from the first column",
            number + 1,
            shortened(line.trim())
        );
        command_goes_on = word == "remote-command";
        let value = if command_goes_on { Some(value.unwrap_or_default()) } else { value };
        found.push(Setting { line: number + 1, key: word, value });
    }
    Ok(found)
}

/// The names that are keys: the long options, and `host`.
fn is_key(word: &str) -> bool {
    word == "host" || option(word).is_some()
}

fn option(word: &str) -> Option<clap::Arg> {
    Cli::command()
        .get_arguments()
        .find(|&arg| {
            arg.get_long() == Some(word)
                || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&word))
        })
        .cloned()
}

/// What the setting would be on the command line; `None` for a boolean that is turned off.
fn argument(setting: &Setting) -> Result<Option<String>> {
    let key = setting.key;
    let value = setting.value.as_deref();
    if let (None, Some((word, _))) = (value, key.split_once(char::is_whitespace))
        && is_key(word)
    {
        bail!("'{word}' lacks its colon: a setting is '{word}: value'");
    }
    let Some(option) = option(key) else {
        bail!("unknown key '{}'{}", shortened(key), suggestion(key));
    };
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "true" | "yes" | "on" | "1") => Ok(Some(format!("--{key}"))),
            Some("false" | "no" | "off" | "0") => Ok(None),
            Some(other) => bail!("{key} is true or false, not '{}'", shortened(other)),
        };
    }
    match value {
        Some("") | None if matches!(key, "poll" | "serve") => Ok(Some(format!("--{key}"))),
        Some(value) if key == "serve" => Ok(match value.to_ascii_lowercase().as_str() {
            "false" | "no" | "off" => None,
            "true" | "yes" | "on" => Some("--serve".to_owned()),
            _ => Some(format!("--serve={value}")),
        }),
        Some("") => Ok(None),
        Some(value) => Ok(Some(format!("--{key}={value}"))),
        None => bail!("{key} has no value: give it as '{key}: VALUE'"),
    }
}

/// The key that was meant, if one is near.
fn suggestion(word: &str) -> String {
    const NEAR: f64 = 0.8;
    let word = word.to_ascii_lowercase().replace('_', "-");
    let nearest = Cli::command()
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(ToOwned::to_owned))
        .chain(["host".to_owned()])
        .map(|key| (strsim::jaro_winkler(&key, &word), key))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((likeness, key)) if likeness > NEAR => format!(": did you mean '{key}'?"),
        _ => ": the keys are the long options' names, see autoftp --help".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Cli {
        parse_file(text).expect("a good file")
    }

    fn fault(text: &str) -> String {
        format!("{:#}", parse_file(text).expect_err("a bad file"))
    }

    #[test]
    fn the_file_of_the_original_s_readme() {
        let cli = file(
            "host: esp32.local\ninclude: *.mpy, *.inc\nexclude: test/*\nprocess: *.py, mpy-cross\n\
             up-delete: *.mpy\nremote-match: *main.mpy, lib/*.mpy\nremote-command:\n\
             print(\"Reloading Main:\")\nreload('%%f','main')\n",
        );
        assert_eq!(cli.hosts, ["esp32.local"]);
        assert_eq!(items(&cli.include), ["*.mpy", "*.inc"]);
        assert_eq!(cli.process, ["*.py, mpy-cross"]);
        assert_eq!(
            cli.remote_command.as_deref().and_then(remote_command).as_deref(),
            Some("print(\"Reloading Main:\")\0reload('%%f','main')")
        );
    }

    #[test]
    fn a_remote_command_ends_only_at_a_key() {
        // The original ended it at any line that merely starts like a key.
        let cli = file(
            "remote-command: if 1:\n    # indented: kept\n    debugging = 1\ndebugging stuff\n\n\
             x: 1\ndebug\n",
        );
        assert_eq!(
            cli.remote_command.as_deref(),
            Some("if 1:\n    # indented: kept\n    debugging = 1\ndebugging stuff\n\nx: 1")
        );
        assert!(cli.debug);
    }

    #[test]
    fn a_host_is_no_option_and_the_last_one_counts() {
        let cli = file("host: a\nhost: -n");
        assert_eq!(cli.hosts, ["-n"]);
        assert!(!cli.dry_run);
    }

    #[test]
    fn booleans() {
        assert!(file("debug").debug && file("debug:").debug && file("debug: yes").debug);
        assert!(!file("debug: false").debug, "the original enabled it");
        assert!(file("# comment\n\ndry-run: true\r\n").dry_run);
        assert_eq!(file("poll").poll, Some(Duration::from_secs(2)));
        assert_eq!(file("poll: 5").poll, Some(Duration::from_secs(5)));
    }

    #[test]
    fn faults_name_the_line() {
        let table = [
            ("\nincludes: *.py", ".autoftp:2: unknown key 'includes': did you mean 'include'?"),
            ("up_delete: *", "did you mean 'up-delete'?"),
            ("include: a\n  *.py", ".autoftp:2: '*.py' is indented"),
            ("port: x", ".autoftp:1: "),
            ("debug: maybe", ".autoftp:1: debug is true or false, not 'maybe'"),
            ("include", ".autoftp:1: include has no value"),
            ("host:", ".autoftp:1: host has no value"),
            ("*.py", ".autoftp:1: unknown key '*.py'"),
        ];
        for (text, expected) in table {
            assert!(fault(text).contains(expected), "{text:?}: {}", fault(text));
        }
    }

    #[test]
    fn the_command_line_extends_lists_and_replaces_the_rest() {
        let cli = Cli::try_parse_from(["autoftp", "-p", "b", "-r", "new", "h2"]).expect("good");
        let both = cli.over(file("host: h1\ninclude: a\nremote-command: old\ntimeout: 3"));
        assert_eq!(both.hosts, ["h2"]);
        assert_eq!(both.include, ["a", "b"]);
        assert_eq!(both.remote_command.as_deref(), Some("new"));
        assert_eq!(both.timeout, Some(Duration::from_secs(3)));
    }

    #[test]
    fn rules_and_lists() {
        assert_eq!(items(&["a, ,b,".into(), "".into()]), ["a", "b"]);
        assert_eq!(
            process_rule("*.py, mpy-cross -O2 'a b'").expect("good"),
            ("*.py".to_owned(), vec!["mpy-cross".into(), "-O2".into(), "a b".into()])
        );
        for bad in ["*.py", "*.py,", ",cc", "*.c,cc 'x"] {
            assert!(process_rule(bad).is_err(), "{bad}");
        }
        assert_eq!(remote_command("a\r\nb\n"), Some("a\0b".into()));
        assert_eq!(remote_command(" \n"), None);
    }
}
