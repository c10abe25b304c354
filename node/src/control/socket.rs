//! The Unix socket of a data folder, from both sides.
//!
//! A socket's path has room for 107 bytes. A longer one is reached through `/proc/self/fd`: the
//! folder is opened, and the socket is named beneath the descriptor.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream};

/// The most bytes a socket's path may have (`sun_path`, less its final zero).
pub const SOCKET_PATH_MAX: usize = 107;

/// Which users may come in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerRule {
    uids: Vec<u32>,
}

impl PeerRule {
    /// The user this process runs as, and root.
    #[must_use]
    pub fn own() -> Self {
        Self::users(&[rustix::process::geteuid().as_raw(), 0])
    }

    /// These users alone.
    #[must_use]
    pub fn users(uids: &[u32]) -> Self {
        Self { uids: uids.to_vec() }
    }

    fn admits(&self, uid: u32) -> bool {
        self.uids.contains(&uid)
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its user on this machine.
    pub uid: u32,
}

/// The listening side. Removes the socket when it is dropped.
#[derive(Debug)]
pub struct ControlListener {
    listener: UnixListener,
    path: PathBuf,
    rule: PeerRule,
}

impl ControlListener {
    /// Listens on `path`, mode 0600. The caller holds the folder's lock: a socket that lies there
    /// already belongs to a process that is gone, and is removed.
    ///
    /// # Errors
    ///
    /// Where the folder does not let a socket be made.
    pub fn bind(path: &Path, rule: PeerRule) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_short_path(path, |short| UnixListener::bind(short))?;
        // The folder itself is 0700, so nobody comes in between the two calls; and whoever comes is
        // asked for its user all the same.
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), rule })
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        // Left behind it would be found stale; removing it here only saves that look.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener for ControlListener {
    type Io = UnixStream;
    type Addr = Peer;

    /// The next peer that may come in. One that may not is closed without a word.
    async fn accept(&mut self) -> (UnixStream, Peer) {
        loop {
            // axum's own accept waits a second where descriptors have run out, and goes on.
            let (stream, _) = Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if self.rule.admits(peer.uid()) => return (stream, Peer { uid: peer.uid() }),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused on the control socket: another user"),
                Err(error) => tracing::warn!(%error, "refused on the control socket: its user is not known"),
            }
        }
    }

    /// The user who listens: the socket itself has no name but its path.
    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { uid: rustix::process::geteuid().as_raw() })
    }
}

/// Connects to the socket at `path`.
///
/// # Errors
///
/// `NotFound` where there is none, `ConnectionRefused` where nobody listens on it any more.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = with_short_path(path, |short| std::os::unix::net::UnixStream::connect(short))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn with_short_path<T>(path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX {
        return call(path);
    }
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path of a socket names no file");
    let folder = File::open(path.parent().ok_or_else(no_name)?)?;
    let name = path.file_name().ok_or_else(no_name)?;
    // `folder` stays open until `call` has returned.
    call(&Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn says_hello(listener: &mut ControlListener, path: &Path) -> String {
        let (client, (mut server, _)) = tokio::join!(connect(path), listener.accept());
        let mut client = client.unwrap();
        server.write_all(b"hello").await.unwrap();
        drop(server);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test]
    async fn a_path_of_any_length_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        for deep in [0, 1, 8] {
            let mut path = folder.path().to_owned();
            (0..deep).for_each(|_| path.push("a-folder-with-a-name-of-some-length"));
            std::fs::create_dir_all(&path).unwrap();
            path.push("control.sock");
            let mut listener = ControlListener::bind(&path, PeerRule::own()).unwrap();
            assert_eq!(says_hello(&mut listener, &path).await, "hello", "{} bytes", path.as_os_str().len());
        }
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = ControlListener::bind(&path, PeerRule::own()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert_eq!(connect(&path).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_stale_socket_refuses_and_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        // A listener that is gone without its socket, as after a kill.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(connect(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let mut listener = ControlListener::bind(&path, PeerRule::own()).unwrap();
        assert_eq!(says_hello(&mut listener, &path).await, "hello");
    }

    #[tokio::test]
    async fn another_user_is_closed_without_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let somebody_else = rustix::process::geteuid().as_raw() + 1;
        let mut listener = ControlListener::bind(&path, PeerRule::users(&[somebody_else])).unwrap();
        let client = async {
            let mut heard = Vec::new();
            connect(&path).await.unwrap().read_to_end(&mut heard).await.unwrap();
            heard
        };
        let heard = tokio::select! {
            heard = client => heard,
            _ = listener.accept() => panic!("admitted"),
        };
        assert!(heard.is_empty());
    }

    #[test]
    fn the_owner_and_root_come_in_and_nobody_else() {
        let own = rustix::process::geteuid().as_raw();
        let rule = PeerRule::own();
        assert!(rule.admits(own) && rule.admits(0));
        assert!(!rule.admits(own + 1) && !rule.admits(65_534 + u32::from(own == 65_534)));
    }
}
