//! The same journey to every FTP server that is to be had: each is started by the test itself, on a
//! free loopback port, for the length of one test.
//!
//! A server that is not on this machine is left out, which is said in one line. `.ci/run` installs
//! them all, below `target/`, and sets `AUTOFTP_ALL_SERVERS`, which makes leaving one out a failure.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "servers/encrypted.rs"]
mod encrypted;
#[path = "servers/inetd.rs"]
mod inetd;
#[path = "servers/journey.rs"]
mod journey;
#[path = "servers/kinds.rs"]
mod kinds;
#[path = "servers/left_out.rs"]
mod left_out;
#[path = "servers/private.rs"]
mod private;
#[path = "servers/processes.rs"]
mod processes;
#[path = "servers/running.rs"]
mod running;
#[allow(dead_code, unused_imports, reason = "the other tests need more")]
mod support;
#[path = "servers/unftp.rs"]
mod unftp;

macro_rules! journeys {
    ($journey:path) => {
        journeys! { $journey:
            aioftp ftp_srv ftpd_ssl inetutils_ftpd libunftp proftpd pure_ftpd pyftpdlib twisted vsftpd
        }
    };
    ($journey:path: $($name:ident)+) => { $(
        #[test]
        fn $name() {
            $journey(&crate::kinds::$name());
        }
    )+ };
}

mod everything_arrives_at {
    journeys!(crate::journey::journey);
}

mod everything_arrives_encrypted_at {
    journeys!(crate::encrypted::journey);
}
