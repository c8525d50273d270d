//! Processes under measurement: pinned to a core, watched from outside through `/proc`.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The core of the server, and that of the client.
const SERVER_CORE: &str = "1";
const CLIENT_CORE: &str = "0";

/// The server, until it is dropped.
pub(crate) struct Server {
    child: Child,
    /// It ends when this does.
    _stdin: Option<ChildStdin>,
    /// Where it is.
    pub(crate) url: String,
    count_port: u16,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let mut child = pinned(SERVER_CORE, &own(&["serve"])?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("taskset (util-linux) is needed to pin processes to cores")?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let (port, count_port) = line.trim().split_once(' ').context("the server did not start")?;
        Ok(Self {
            child,
            _stdin: stdin,
            url: format!("http://127.0.0.1:{port}"),
            count_port: count_port.parse()?,
        })
    }

    /// How many requests it has answered.
    pub(crate) fn served(&self) -> Result<u64> {
        let mut text = String::new();
        TcpStream::connect(("127.0.0.1", self.count_port))?.read_to_string(&mut text)?;
        Ok(text.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client on its core, killed when dropped.
pub(crate) struct Client(Child);

impl Client {
    /// Starts `command`, whose first word is the program.
    pub(crate) fn start(command: &[String]) -> Result<Self> {
        let child = pinned(CLIENT_CORE, command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start {}", command[0]))?;
        Ok(Self(child))
    }

    /// CPU time, user and system, of all its threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            ns += stat.split(' ').next().context("no schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(ns))
    }

    /// Resident memory now, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id()))?;
        let line = text.lines().find_map(|l| l.strip_prefix("Rss:")).context("no Rss")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Waits until `server` has answered that many requests.
    pub(crate) fn wait_for(&mut self, server: &Server, requests: u64, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while server.served()? < requests {
            if let Some(status) = self.0.try_wait()? {
                bail!("the client ended early: {status}");
            }
            if Instant::now() > deadline {
                bail!("{} of {requests} requests after {within:?}", server.served()?);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What it printed, once it has ended.
    pub(crate) fn output(mut self, within: Duration) -> Result<String> {
        let mut stdout = self.0.stdout.take().context("no stdout")?;
        let deadline = Instant::now() + within;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the client does not end");
            }
            thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        stdout.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The words that start this program in another role.
pub(crate) fn own(role: &[&str]) -> Result<Vec<String>> {
    let exe = std::env::current_exe()?.to_str().context("path is not UTF-8")?.to_owned();
    Ok(std::iter::once(exe).chain(role.iter().map(|w| (*w).to_owned())).collect())
}

fn pinned(core: &str, command: &[String]) -> Command {
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", core]).args(command);
    taskset
}

/// Raises the limit on open files as far as it goes; children inherit it.
pub(crate) fn allow_sockets() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
