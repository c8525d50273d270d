//! `springtide backend` and `springtide tap` as processes of their own, and a way to ask them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Signal, kill_process};
use springtide::standin::Truth;

use crate::support::{PROGRAM, end, pid_of};

/// A command that listens until it is ended, as a process: `springtide backend` or `springtide tap`.
pub(crate) struct Served {
    /// The process.
    pub(crate) child: Child,
    /// Its base URL.
    pub(crate) url: String,
}

impl Served {
    /// Starts one on a free port with these flags, separated by blanks.
    pub(crate) fn start(command: &str, flags: &str) -> Self {
        Self::start_at("127.0.0.1:0", command, flags)
    }

    /// The same at an address.
    pub(crate) fn start_at(listen: &str, command: &str, flags: &str) -> Self {
        let mut child = Command::new(PROGRAM)
            .args([command, "--listen", listen])
            .args(flags.split_whitespace())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        // It says where it listens or it ends; either way there is an end to this.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            end(&mut child);
            panic!("springtide {command} said {line:?}");
        };
        Self { url: url.to_owned(), child }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid_of(&self.child), signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// `springtide backend`, as a process.
pub(crate) struct Backend {
    served: Served,
    /// Its base URL.
    pub(crate) url: String,
}

impl Backend {
    /// Starts one on a free port with these flags, separated by blanks.
    pub(crate) fn start(flags: &str) -> Self {
        let served = Served::start("backend", flags);
        Self { url: served.url.clone(), served }
    }

    /// What it knows to be true so far.
    pub(crate) fn truth(&self) -> Truth {
        serde_json::from_slice(&ask(&self.url, "GET", "/_truth", "")).unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.served.signal(signal);
    }
}

/// Sends one request and returns the body of the answer.
pub(crate) fn ask(url: &str, method: &str, path: &str, body: &str) -> Vec<u8> {
    let addr: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    // An answer without a length has no body.
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).unwrap();
    answer
}
