//! A real redis-server and child processes, ended when dropped.

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// A plane's Redis on a free port, as `deploy/plane/redis.conf` has it but for the passwords.
pub(crate) struct Redis {
    child: Child,
    pub(crate) url: String,
    _folder: TempDir,
}

impl Redis {
    pub(crate) fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--maxclients", "9000"])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"])
            .args(["--loglevel", "warning", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server does not start; `make plane` installs it")?;
        let redis = Self { child, url: format!("redis://127.0.0.1:{port}/0"), _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program in another role.
pub(crate) struct Role(Child);

impl Role {
    pub(crate) fn of(words: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Ok(Self(command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
    }

    /// The line it says in the end.
    pub(crate) fn says(mut self, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it does not come to an end");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().context("no stdout")?).read_line(&mut line)?;
        if line.trim().is_empty() {
            bail!("it said nothing and ended with {}", self.0.wait()?);
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
