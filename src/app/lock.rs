//! The lock on a target: a matrix loads it alone. It holds among the runs of one host, whoever starts
//! them, and the kernel takes it away from a process that ends, however it ends.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::target::Origin;

/// Who else may load the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Nobody: a matrix.
    Alone,
    /// Other single runs, but no matrix.
    WithRuns,
}

/// Held as long as the value lives.
#[derive(Debug)]
pub(super) struct Lock {
    held: Vec<(File, PathBuf)>,
}

impl Drop for Lock {
    /// Takes its files away, unless others hold them too.
    fn drop(&mut self) {
        for (file, path) in &self.held {
            if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Lock {
    /// Locks a target. Every address that its name stands for is locked, so that `localhost` and
    /// `127.0.0.1` are one target.
    ///
    /// # Errors
    /// When another run holds it.
    pub(super) fn on(origin: &Origin, share: Share) -> Result<Self> {
        let url = origin.url();
        let authority = url.split("//").nth(1).unwrap_or(url).split('/').next().unwrap_or_default();
        let default = if url.starts_with("https") { 443 } else { 80 };
        let resolved = authority
            .to_socket_addrs()
            .or_else(|_| (authority.trim_matches(['[', ']']), default).to_socket_addrs());
        // A name that cannot be resolved gives an error of its own, soon.
        let addresses: BTreeSet<SocketAddr> =
            resolved.map(|all| all.map(canonical).collect()).unwrap_or_default();
        let folder = ["/run/lock".into(), std::env::temp_dir()]
            .into_iter()
            .find(|f: &PathBuf| f.is_dir())
            .unwrap_or_else(|| "/tmp".into());
        let files = addresses.iter().map(|address| lock(&folder, address, share, url));
        Ok(Self { held: files.collect::<Result<_>>()? })
    }
}

fn lock(folder: &Path, address: &SocketAddr, share: Share, url: &str) -> Result<(File, PathBuf)> {
    let name: String = address
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let path = folder.join(format!("springtide-{name}.lock"));
    let context = || format!("the lock {}", path.display());
    let mut file = open(&path).with_context(context)?;
    let operation = match share {
        Share::Alone => FlockOperation::NonBlockingLockExclusive,
        Share::WithRuns => FlockOperation::NonBlockingLockShared,
    };
    match flock(&file, operation) {
        // Whoever held it before may have taken it away in the meantime: then it locks nothing.
        Ok(()) if !is_at(&file, &path) => return lock(folder, address, share, url),
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let who = match holder.trim() {
                "" => "a run".to_owned(),
                pid => format!("a matrix (process {pid})"),
            };
            bail!(
                "--host {url}: {who} of springtide loads this target now, and a matrix must load it alone; wait for its end"
            );
        }
        Err(e) => return Err(e).with_context(context),
    }
    if share == Share::Alone {
        // For the message above only; a file of somebody else's cannot be written, and need not.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    } else {
        let _ = file.set_len(0);
    }
    Ok((file, path))
}

/// The same target by its other addresses: `0.0.0.0` is this host, and so is `::ffff:127.0.0.1`.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Holds a run's folder, so that no other process goes on with the same run meanwhile.
///
/// # Errors
/// When another does.
pub(super) fn folder(folder: &Path) -> Result<File> {
    let context = || folder.display().to_string();
    let held = File::open(folder).with_context(context)?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(held),
        Err(Errno::WOULDBLOCK) => {
            bail!("{}: the run goes on in another process; wait for its end, or end it", folder.display())
        }
        Err(e) => Err(e).with_context(context),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let number = |m: &fs::Metadata| (m.dev(), m.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if number(&a) == number(&b))
}

/// Opens the file for writing, or for reading where another user made it: that is enough to lock it.
fn open(path: &Path) -> std::io::Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o666)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .or_else(|_| File::open(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_alone_and_runs_are_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let origin = |host: &str| Origin::new(&format!("http://{host}:{port}"), None).unwrap();
        let run = Lock::on(&origin("127.0.0.1"), Share::WithRuns).unwrap();
        let another = Lock::on(&origin("127.0.0.1"), Share::WithRuns).unwrap();
        let refused = Lock::on(&origin("127.0.0.1"), Share::Alone).unwrap_err().to_string();
        assert!(refused.contains("a run of springtide"), "{refused}");
        drop((run, another));
        let matrix = Lock::on(&origin("localhost"), Share::Alone).unwrap();
        for same in ["0.0.0.0", "[::ffff:127.0.0.1]"] {
            Lock::on(&origin(same), Share::Alone).unwrap_err();
        }
        for share in [Share::Alone, Share::WithRuns] {
            let refused = Lock::on(&origin("127.0.0.1"), share).unwrap_err().to_string();
            assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        }
        drop(matrix);
        let last = Lock::on(&origin("127.0.0.1"), Share::Alone).unwrap();
        let path = last.held[0].1.clone();
        assert!(path.is_file());
        drop(last);
        assert!(!path.exists(), "nothing is left behind");
    }
}
