//! The servers: how each is started, and how it differs from the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::inetd::Sessions;
use crate::left_out::node_modules;
use crate::private::{self, PASSWORD_HASH};
use crate::support::certificates::Files;
use crate::unftp::Unftp;

/// The account with a password.
pub const USER: &str = "maker";
pub const PASSWORD: &str = "p@ss:w/rd 1";
/// The same, as it stands in an address.
pub const PASSWORD_IN_URL: &str = "p%40ss%3Aw%2Frd%201";

/// The user and group, of no account of the machine, that files are stored as: root would be let in
/// everywhere.
pub const ID: u32 = 42_121;

pub struct Kind {
    pub name: &'static str,
    pub source: Source,
    pub start: fn(&Setup) -> Start,
    /// Only root may start it.
    pub needs_root: bool,
    /// It knows the accounts of the system only, and gets some that nobody else sees.
    pub needs_accounts: bool,
    pub anonymous: Anonymous,
    /// Where the anonymous one may write, seen from where the login leads.
    pub anonymous_directory: &'static str,
    pub idle: Idle,
    pub site: Site,
    /// It makes data connections, too.
    pub active: bool,
    /// How it can encrypt.
    pub tls: &'static [Tls],
    /// What is said of one that cannot.
    pub lacks_tls: &'static str,
    /// So many encrypted saves are made at once.
    pub burst: usize,
    /// What it makes of some names.
    pub name_there: fn(&str) -> String,
}

/// Where a server comes from.
#[derive(Clone, Copy)]
pub enum Source {
    /// The path of the program in its package.
    Debian(&'static str),
    /// A module from PyPI.
    Python(&'static str),
    /// A module from npm.
    Node(&'static str),
    /// Part of this program.
    Crate,
}

/// What it lets those do who have no account.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    Writes,
    /// Nothing that is there can be replaced.
    WritesNewFiles,
    /// They may log in and read.
    Reads,
}

/// How it ends a session that is not used.
#[derive(Clone, Copy)]
pub enum Idle {
    /// After a second, if it is told to.
    Told,
    /// It cannot be told so, and its session process is killed instead.
    Killed,
}

/// A way to encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// It begins at once; else after AUTH TLS.
    pub implicit: bool,
    /// It speaks TLS 1.3 and nothing older.
    pub newer: bool,
}

const EXPLICIT: Tls = Tls { implicit: false, newer: false };
const EXPLICIT_1_3: Tls = Tls { implicit: false, newer: true };
const IMPLICIT: Tls = Tls { implicit: true, newer: false };
const IMPLICIT_1_3: Tls = Tls { implicit: true, newer: true };

/// What it makes of `SITE`.
#[derive(Clone, Copy)]
pub enum Site {
    /// It has `CHMOD`.
    Chmod,
    /// It has none, and says this.
    Refused(&'static str),
}

/// What one start of a server is to be like.
pub struct Setup {
    /// What it serves.
    pub root: PathBuf,
    /// For its own files.
    pub own: PathBuf,
    pub port: u16,
    /// After how long an idle session is to end.
    pub idle: Option<Duration>,
    /// How to encrypt, and with what.
    pub tls: Option<(Tls, Files)>,
}

pub enum Start {
    /// It accepts by itself, and stays in the foreground.
    Daemon(Command),
    /// It serves one session on its standard input and output.
    Inetd(Sessions),
    /// It runs in this process.
    Here(Unftp),
}

impl Setup {
    fn idle_seconds(&self) -> u64 {
        self.idle.map_or(300, |idle| idle.as_secs())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.own.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The small program beside this file that runs a server written in this language.
    fn script(&self, source: Source, script: &str) -> Command {
        let mut command = Command::new(source.program());
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(script))
            .env("NODE_PATH", node_modules())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("ROOT", &self.root)
            .env("PORT", self.port.to_string())
            .env("IDLE", self.idle_seconds().to_string())
            .env("ACCOUNT", USER)
            .env("PASSWORD", PASSWORD);
        if let Some((tls, files)) = &self.tls {
            command.env("CERTIFICATE", &files.certificate).env("KEY", &files.key);
            command.env("TLS", if tls.newer { "1.3" } else { "1.2" });
            command.env("ENTRY", if tls.implicit { "implicit" } else { "explicit" });
        }
        if private::is_root() {
            command.env("RUN_AS", ID.to_string());
        }
        command
    }
}

/// The environment that makes OpenSSL speak only TLS 1.3, if that is wished, in servers that have no
/// setting for it.
fn openssl_limits(setup: &Setup) -> Option<(&'static str, PathBuf)> {
    let limits = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = limits\n\
                  [limits]\nMinProtocol = TLSv1.3\n";
    let (tls, _) = setup.tls.as_ref()?;
    tls.newer.then(|| ("OPENSSL_CONF", setup.write("openssl.cnf", limits)))
}

pub fn all() -> Vec<Kind> {
    vec![
        aioftp(),
        ftp_srv(),
        ftpd_ssl(),
        inetutils_ftpd(),
        libunftp(),
        proftpd(),
        pure_ftpd(),
        pyftpdlib(),
        twisted(),
        vsftpd(),
    ]
}

pub fn pyftpdlib() -> Kind {
    Kind {
        name: "pyftpdlib",
        source: Source::Python("pyftpdlib"),
        start: |setup| Start::Daemon(setup.script(Source::Python("pyftpdlib"), "run_pyftpdlib.py")),
        needs_root: false,
        needs_accounts: false,
        anonymous: Anonymous::Writes,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Chmod,
        active: true,
        tls: &[EXPLICIT, EXPLICIT_1_3],
        lacks_tls: "it offers no TLS",
        burst: 30,
        name_there: str::to_owned,
    }
}

pub fn twisted() -> Kind {
    Kind {
        name: "twisted",
        source: Source::Python("twisted"),
        start: |setup| Start::Daemon(setup.script(Source::Python("twisted"), "run_twisted.py")),
        needs_root: false,
        needs_accounts: false,
        // Its anonymous shell is one that reads.
        anonymous: Anonymous::Reads,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Refused("502"),
        active: true,
        tls: &[],
        lacks_tls: "it offers no TLS",
        burst: 30,
        // It takes each byte of a name for a letter of Latin-1.
        name_there: |name| name.bytes().map(char::from).collect(),
    }
}

pub fn aioftp() -> Kind {
    Kind {
        name: "aioftp",
        source: Source::Python("aioftp"),
        start: |setup| Start::Daemon(setup.script(Source::Python("aioftp"), "run_aioftp.py")),
        needs_root: false,
        needs_accounts: false,
        anonymous: Anonymous::Writes,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Refused("502"),
        active: false,
        tls: &[IMPLICIT, IMPLICIT_1_3],
        lacks_tls: "it offers no TLS",
        burst: 30,
        name_there: str::to_owned,
    }
}

pub fn ftp_srv() -> Kind {
    Kind {
        name: "ftp-srv",
        source: Source::Node("ftp-srv"),
        start: |setup| Start::Daemon(setup.script(Source::Node("ftp-srv"), "run_ftp_srv.js")),
        needs_root: false,
        needs_accounts: false,
        anonymous: Anonymous::Writes,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Chmod,
        active: true,
        tls: &[EXPLICIT, EXPLICIT_1_3, IMPLICIT, IMPLICIT_1_3],
        lacks_tls: "it offers no TLS",
        burst: 30,
        // It strips quotes as a shell does.
        name_there: |name| name.replace('"', ""),
    }
}

pub fn libunftp() -> Kind {
    Kind {
        name: "libunftp",
        source: Source::Crate,
        start: |setup| Start::Here(Unftp::start(setup)),
        needs_root: false,
        needs_accounts: false,
        anonymous: Anonymous::Writes,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Refused("50"),
        active: true,
        tls: &[EXPLICIT, EXPLICIT_1_3],
        lacks_tls: "it offers no TLS",
        burst: 30,
        name_there: str::to_owned,
    }
}

pub fn vsftpd() -> Kind {
    const SOURCE: Source = Source::Debian("usr/sbin/vsftpd");
    Kind {
        name: "vsftpd",
        source: SOURCE,
        start: |setup| {
            let empty = setup.own.join("empty");
            let _ = fs::create_dir(&empty);
            let tls = setup.tls.as_ref().map_or_else(String::new, |(tls, files)| {
                format!(
                    "ssl_enable=YES\nimplicit_ssl={implicit}\nssl_ciphers=HIGH\n\
                     strict_ssl_read_eof=YES\n\
                     rsa_cert_file={certificate}\nrsa_private_key_file={key}\n",
                    implicit = if tls.implicit { "YES" } else { "NO" },
                    certificate = files.certificate.display(),
                    key = files.key.display(),
                )
            });
            let configuration = format!(
                "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\n\
                 secure_chroot_dir={empty}\n\
                 local_enable=YES\nchroot_local_user=YES\nlocal_umask=022\n\
                 anonymous_enable=YES\nanon_root={top}\nanon_umask=022\n\
                 anon_upload_enable=YES\nanon_mkdir_write_enable=YES\nanon_other_write_enable=YES\n\
                 write_enable=YES\nallow_writeable_chroot=YES\n\
                 idle_session_timeout={idle}\n{tls}",
                port = setup.port,
                empty = empty.display(),
                top = setup.root.parent().unwrap().display(),
                idle = setup.idle_seconds(),
            );
            let mut command = Command::new(SOURCE.program());
            command.arg(setup.write("vsftpd.conf", &configuration));
            command.envs(openssl_limits(setup));
            Start::Daemon(command)
        },
        needs_root: true,
        needs_accounts: true,
        anonymous: Anonymous::Writes,
        // It lets nobody in where the anonymous one may write to the topmost directory.
        anonymous_directory: "/root",
        idle: Idle::Told,
        site: Site::Chmod,
        active: true,
        tls: &[EXPLICIT, EXPLICIT_1_3, IMPLICIT, IMPLICIT_1_3],
        lacks_tls: "it offers no TLS",
        burst: 500,
        name_there: str::to_owned,
    }
}

pub fn proftpd() -> Kind {
    const SOURCE: Source = Source::Debian("usr/sbin/proftpd");
    Kind {
        name: "proftpd",
        source: SOURCE,
        start: |setup| {
            let account = |name: &str, hash: &str| {
                format!("{name}:{hash}:{ID}:{ID}::{}:/bin/false\n", setup.root.display())
            };
            let lines = account(USER, PASSWORD_HASH) + &account("visitor", "*");
            let accounts = setup.write("accounts", &lines);
            // It takes a file that others can read for a mistake.
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&accounts, private).unwrap();
            let groups = setup.write("groups", &format!("{USER}:x:{ID}:\n"));
            // Where the modules are, seen from the program.
            let program = SOURCE.program();
            let modules = program.parent().and_then(Path::parent).unwrap().join("lib/proftpd");
            let tls = setup.tls.as_ref().map_or_else(String::new, |(tls, files)| {
                format!(
                    "LoadModule mod_tls.c\nTLSEngine on\nTLSRequired on\nTLSProtocol {versions}\n\
                     TLSLog {own}/tls.log\n{options}\
                     TLSECCertificateFile {certificate}\nTLSECCertificateKeyFile {key}\n",
                    versions = if tls.newer { "TLSv1.3" } else { "TLSv1.2 TLSv1.3" },
                    own = setup.own.display(),
                    options = if tls.implicit { "TLSOptions UseImplicitSSL\n" } else { "" },
                    certificate = files.certificate.display(),
                    key = files.key.display(),
                )
            });
            let configuration = format!(
                "ServerType standalone\nDefaultAddress 127.0.0.1\nSocketBindTight on\nPort {port}\n\
                 UseIPv6 off\nUseReverseDNS off\nDefaultServer on\n\
                 ModulePath {modules}\nPidFile {own}/pid\nScoreboardFile {own}/scoreboard\n\
                 DelayTable none\nSystemLog {own}/system.log\nWtmpLog off\n\
                 AuthOrder mod_auth_file.c\nAuthUserFile {accounts}\nAuthGroupFile {groups}\n\
                 RequireValidShell off\nDefaultRoot ~\nUser nobody\nGroup nogroup\n\
                 AllowOverwrite on\nTimeoutIdle {idle}\n{tls}\
                 <Anonymous {root}>\n\
                 User visitor\nGroup {USER}\nUserAlias anonymous visitor\n\
                 RequireValidShell off\nAllowOverwrite on\n\
                 </Anonymous>\n",
                port = setup.port,
                modules = modules.display(),
                own = setup.own.display(),
                accounts = accounts.display(),
                groups = groups.display(),
                root = setup.root.display(),
                idle = setup.idle_seconds(),
            );
            let mut command = Command::new(program);
            command.args(["-n", "-c"]).arg(setup.write("proftpd.conf", &configuration));
            Start::Daemon(command)
        },
        needs_root: true,
        needs_accounts: false,
        anonymous: Anonymous::Writes,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Chmod,
        active: true,
        tls: &[EXPLICIT, EXPLICIT_1_3, IMPLICIT, IMPLICIT_1_3],
        lacks_tls: "it offers no TLS",
        burst: 500,
        name_there: str::to_owned,
    }
}

pub fn pure_ftpd() -> Kind {
    const SOURCE: Source = Source::Debian("usr/sbin/pure-ftpd");
    Kind {
        name: "pure-ftpd",
        source: SOURCE,
        start: |setup| {
            let account = format!(
                "{USER}:{PASSWORD_HASH}:{ID}:{ID}::{}/./::::::::::::\n",
                setup.root.display()
            );
            let accounts = setup.write("accounts", &account);
            let database = setup.own.join("accounts.db");
            let program = SOURCE.program();
            let made = Command::new(program.with_file_name("../bin/pure-pw"))
                .arg("mkdb")
                .arg(&database)
                .arg("-f")
                .arg(&accounts)
                .status();
            assert!(made.unwrap().success(), "pure-pw failed");
            let mut command = Command::new(program);
            command
                // Numeric names, an account's directory is its root, and directories may be made
                // by anybody.
                .args(["-H", "-4", "-u", "1", "-A", "-M"])
                .args(["-S", &format!("127.0.0.1,{}", setup.port)])
                .args(["-l", &format!("puredb:{}", database.display())])
                .arg("-g")
                .arg(setup.own.join("pid"));
            if let Some((_, files)) = &setup.tls {
                let (certificate, key) = (files.certificate.display(), files.key.display());
                // 3: neither passwords nor files go unencrypted.
                command.args(["-Y", "3", "-2", &format!("{certificate},{key}")]);
            }
            command.envs(openssl_limits(setup));
            Start::Daemon(command)
        },
        needs_root: true,
        // The anonymous one lives where the system's ftp does.
        needs_accounts: true,
        anonymous: Anonymous::WritesNewFiles,
        anonymous_directory: "",
        // It counts whole minutes.
        idle: Idle::Killed,
        site: Site::Chmod,
        active: true,
        tls: &[EXPLICIT, EXPLICIT_1_3],
        lacks_tls: "it offers no TLS",
        burst: 30,
        name_there: str::to_owned,
    }
}

/// One process for each session, which ends when nothing is said for a while.
fn with_inetd(source: Source, setup: &Setup) -> Start {
    let idle = setup.idle_seconds().to_string();
    Start::Inetd(Box::new(move || {
        let mut command = Command::new(source.program());
        command.args(["-t", &idle]);
        command
    }))
}

pub fn inetutils_ftpd() -> Kind {
    const SOURCE: Source = Source::Debian("usr/sbin/ftpd");
    Kind {
        name: "inetutils-ftpd",
        source: SOURCE,
        start: |setup| with_inetd(SOURCE, setup),
        needs_root: true,
        needs_accounts: true,
        anonymous: Anonymous::Writes,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Chmod,
        active: true,
        tls: &[],
        lacks_tls: "it offers no TLS",
        burst: 30,
        name_there: str::to_owned,
    }
}

pub fn ftpd_ssl() -> Kind {
    const SOURCE: Source = Source::Debian("usr/sbin/in.ftpd");
    Kind {
        name: "ftpd-ssl",
        source: SOURCE,
        start: |setup| with_inetd(SOURCE, setup),
        needs_root: true,
        needs_accounts: true,
        anonymous: Anonymous::Writes,
        anonymous_directory: "",
        idle: Idle::Told,
        site: Site::Chmod,
        active: true,
        // It agrees to AUTH TLS, but the one in Debian 12 loads no certificate, whatever it is told.
        tls: &[],
        lacks_tls: "TLS",
        burst: 30,
        name_there: str::to_owned,
    }
}
