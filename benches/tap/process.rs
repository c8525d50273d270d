//! Processes under measurement, watched from outside through `/proc`.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A server of some kind, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// Its files, if it has any.
    _folder: Option<TempDir>,
}

impl Server {
    /// The target.
    pub(crate) fn upstream() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::saying_where(command.arg("upstream"))
    }

    /// `springtide tap` before it.
    pub(crate) fn tap(upstream: SocketAddr) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_springtide"));
        let upstream = format!("http://{upstream}");
        Self::saying_where(command.args(["tap", "--listen", "127.0.0.1:0", "--upstream", &upstream]))
    }

    /// nginx before it, as a plain proxy of one process; `None` when it is not installed.
    pub(crate) fn nginx(upstream: SocketAddr) -> Result<Option<Self>> {
        let quiet = || Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
        if quiet().is_err() {
            return Ok(None);
        }
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder = tempfile::tempdir()?;
        let at = folder.path().display();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_max_body_size 0; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen {addr} backlog=4096; location / {{\n\
             proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_request_buffering off; }} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config)?;
        let child = Command::new("nginx").arg("-c").arg(&file).stdin(Stdio::null()).spawn()?;
        let server = Self { child, addr, _folder: Some(folder) };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(addr).is_err() {
            ensure!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Some(server))
    }

    fn saying_where(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let addr = line.trim().trim_start_matches("listening on http://").parse();
        addr.map(|addr| Self { child, addr, _folder: None }).with_context(|| format!("it said {line:?}"))
    }

    /// CPU time, user and system, of all its threads that are there.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            ns += stat.split(' ').next().context("no schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(ns))
    }

    /// Resident memory now, and the most it ever was, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let process = procfs::process::Process::new(self.child.id().try_into()?)?;
        let status = process.status()?;
        let (now, most) = (status.vmrss.context("no VmRSS")?, status.vmhwm.context("no VmHWM")?);
        Ok((now * 1024, most * 1024))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
