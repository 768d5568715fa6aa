//! What belongs to one server only: mounts and system accounts that no other process sees, and that
//! are gone when it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::kinds::{ID, USER};

/// Of [`crate::kinds::PASSWORD`].
pub const PASSWORD_HASH: &str = "$6$autoftp$oSNVyMkC.FwTRaQ2/d5SEHlzYtQ9MexrkgdWlPNxdD3uQmLikXAS69z0j2U0g.wVD.499UwsNkwDqBUgxVulC1";

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether mounts can be made that nobody else sees; some containers do not let even root do it.
pub fn can_mount() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| thread::spawn(|| detach().is_ok()).join().unwrap())
}

/// Runs `test` where its mounts are nobody else's business, if that is possible.
pub fn run(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if can_mount() {
                detach().unwrap();
            }
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Gives this thread, and all threads and processes that it starts, mounts of its own.
fn detach() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this, what is mounted here would be mounted everywhere.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// Puts accounts in the place of the machine's: [`USER`] and the anonymous `ftp` at home in `root`,
/// and PAM that asks the password file and nothing else.
pub fn accounts(beside: &Path, root: &Path) {
    let home = root.display();
    let put = |name: &str, content: String| {
        let file = beside.join(name);
        fs::write(&file, content).unwrap();
        bind(&file, &Path::new("/etc").join(name));
    };
    put(
        "passwd",
        format!(
            "root:x:0:0:root:/:/bin/sh\n\
             nobody:x:65534:65534:nobody:/:/bin/sh\n\
             ftp:x:{ID}:{ID}:anonymous:{home}:/bin/sh\n\
             {USER}:x:{ID}:{ID}:the tester:{home}:/bin/sh\n"
        ),
    );
    put("group", format!("root:x:0:\nnogroup:x:65534:\nftp:x:{ID}:\n"));
    put("shadow", format!("ftp:*:19000::::::\n{USER}:{PASSWORD_HASH}:19000::::::\n"));
    let pam = beside.join("pam.d");
    fs::create_dir_all(&pam).unwrap();
    // ftpd-ssl does not ask for a password unless pam_ftp does.
    let rules = "auth sufficient pam_ftp.so\n\
                 auth required pam_unix.so\n\
                 account required pam_unix.so\n\
                 session required pam_permit.so\n";
    fs::write(pam.join("other"), rules).unwrap();
    bind(&pam, Path::new("/etc/pam.d"));
}

fn bind(what: &Path, place: &Path) {
    mount(Some(what), place, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// A disk so small that it is soon full.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Of one megabyte, in this directory, for the server's account.
    pub fn mount(place: &Path) -> SmallDisk {
        fs::create_dir_all(place).unwrap();
        let options = format!("size=1m,uid={ID},gid={ID},mode=755");
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        SmallDisk(place.to_path_buf())
    }

    /// Makes room for eight megabytes.
    pub fn grow(&self) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some("size=8m")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is left of it goes with the thread.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Hands a directory over to the server's account.
pub fn give_away(directory: &Path) {
    if is_root() {
        std::os::unix::fs::chown(directory, Some(ID), Some(ID)).unwrap();
    }
}
