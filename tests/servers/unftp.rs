//! libunftp with accounts, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use libunftp::ServerBuilder;
use libunftp::options::{ActivePassiveMode, FtpsRequired, TlsFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use tokio::sync::oneshot;
use unftp_core::auth::{AuthenticationError, Authenticator, Credentials, Principal};
use unftp_sbe_fs::Filesystem;

use crate::kinds::{ID, PASSWORD, Setup, USER};
use crate::private;

pub struct Unftp {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Unftp {
    pub fn start(setup: &Setup) -> Unftp {
        let root = setup.root.clone();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, setup.port));
        let mut builder = ServerBuilder::with_authenticator(
            Box::new(move || Filesystem::new(root.clone()).unwrap()),
            Arc::new(Accounts),
        )
        .active_passive_mode(ActivePassiveMode::ActiveAndPassive);
        if let Some(idle) = setup.idle {
            builder = builder.idle_session_timeout(idle.as_secs());
        }
        if let Some((tls, files)) = &setup.tls {
            let versions = if tls.newer {
                TlsFlags::V1_3 | TlsFlags::RESUMPTION_TICKETS
            } else {
                TlsFlags::LATEST_VERSIONS | TlsFlags::RESUMPTION_SESS_ID
            };
            builder = builder
                .ftps(&files.certificate, &files.key)
                .ftps_required(FtpsRequired::All, FtpsRequired::All)
                .ftps_tls_flags(versions);
        }
        let server = builder.build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            // This thread's own, and inherited by those that it starts.
            if private::is_root() {
                set_thread_groups(&[]).unwrap();
                set_thread_gid(Gid::from_raw(ID)).unwrap();
                set_thread_uid(Uid::from_raw(ID)).unwrap();
            }
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = server.listen(address.to_string()) => drop(ended),
                    _ = stopped => {}
                }
            });
            // Sessions are cut, not waited for.
            runtime.shutdown_background();
        });
        Unftp { stop: Some(stop), thread: Some(thread) }
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Unftp {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}

#[derive(Debug)]
struct Accounts;

#[async_trait::async_trait]
impl Authenticator for Accounts {
    async fn authenticate(
        &self,
        user: &str,
        given: &Credentials,
    ) -> Result<Principal, AuthenticationError> {
        match user {
            "anonymous" => {}
            USER if given.password.as_deref() == Some(PASSWORD) => {}
            USER => return Err(AuthenticationError::BadPassword),
            _ => return Err(AuthenticationError::BadUser),
        }
        Ok(Principal { username: user.to_owned() })
    }
}
