//! A real redis-server of a test's own: on a free loopback port, without files, gone with its owner.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::support::{end, pid_of, wait_for};

/// How long a server may take to answer, or to end.
const WITHIN: Duration = Duration::from_secs(20);

/// How it is locked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Open,
    Password,
    /// TLS with a certificate that the system does not know, and a password.
    Tls,
}

/// The password of the locked ones.
pub(crate) const PASSWORD: &str = "se-cret";

/// A running redis-server; killed when dropped.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    lock: Lock,
    options: Vec<String>,
    home: TempDir,
}

impl RedisServer {
    /// Starts one that anybody may use.
    pub(crate) fn start() -> Self {
        Self::locked(Lock::Open, &[])
    }

    /// Starts one that anybody may use, with words for its command line.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::locked(Lock::Open, options)
    }

    /// Starts one that asks for [`PASSWORD`].
    pub(crate) fn start_with_password() -> Self {
        Self::locked(Lock::Password, &[])
    }

    /// Starts one that speaks TLS only and asks for [`PASSWORD`]; [`ca`](Self::ca) is what to trust.
    pub(crate) fn start_with_tls() -> Self {
        Self::locked(Lock::Tls, &[])
    }

    fn locked(lock: Lock, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
        let home = tempfile::tempdir().unwrap();
        if lock == Lock::Tls {
            make_certificates(&home);
        }
        // The port is free now; if somebody takes it first the server ends, and another is tried.
        let (child, port) = wait_for("a redis-server", WITHIN, || {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            launch(port, lock, &options, &home).map(|child| (child, port))
        });
        Self { child, port, lock, options, home }
    }

    /// The URL, with the password.
    pub(crate) fn url(&self) -> String {
        match self.lock {
            Lock::Open => format!("redis://127.0.0.1:{}/0", self.port),
            Lock::Password => format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port),
            Lock::Tls => format!("rediss://:{PASSWORD}@127.0.0.1:{}/0", self.port),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate to trust, in PEM.
    pub(crate) fn ca(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// Kills it, and all that it held.
    pub(crate) fn stop(&mut self) {
        end(&mut self.child);
    }

    /// Starts it on the same port, empty unless it was told to write a file.
    pub(crate) fn start_again(&mut self) {
        self.stop();
        self.child = wait_for("the redis-server again", WITHIN, || {
            launch(self.port, self.lock, &self.options, &self.home)
        });
    }

    /// Stops it as it is (SIGSTOP): it takes connections and says nothing, until it is woken.
    pub(crate) fn freeze(&self) {
        kill_process(pid_of(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn wake(&self) {
        kill_process(pid_of(&self.child), Signal::CONT).unwrap();
    }

    /// A connection to an open one or one with a password.
    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// One figure of INFO.
    pub(crate) fn info(&self, figure: &str) -> u64 {
        let info: String = redis::cmd("INFO").query(&mut self.connection()).unwrap();
        let value = info.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("INFO has no {figure}")).trim().parse().unwrap()
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut self.connection()).unwrap();
        keys.sort();
        keys
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `None` when it ended instead of serving.
fn launch(port: u16, lock: Lock, options: &[String], home: &TempDir) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).arg("--dir").arg(home.path());
    if lock != Lock::Open {
        command.args(["--requirepass", PASSWORD]);
    }
    if lock == Lock::Tls {
        let file = |name: &str| home.path().join(name);
        command.args(["--port", "0", "--tls-auth-clients", "no", "--tls-port"]).arg(port.to_string());
        command.arg("--tls-cert-file").arg(file("server.pem")).arg("--tls-key-file").arg(file("server.key"));
        command.arg("--tls-ca-cert-file").arg(file("ca.pem"));
    } else {
        command.arg("--port").arg(port.to_string());
    }
    command.args(options);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = spawned.expect("redis-server (Debian: redis-server) is installed");
    let answers = wait_for("an answer of redis-server", WITHIN, || {
        if child.try_wait().unwrap().is_some() {
            return Some(false);
        }
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(|_| true)
    });
    // Whoever answers may be another server that took the port: then this one ends at once.
    std::thread::sleep(Duration::from_millis(20));
    (answers && child.try_wait().unwrap().is_none()).then_some(child)
}

/// An authority, and a certificate for 127.0.0.1 by it.
fn make_certificates(home: &TempDir) {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        command.args(words.split_whitespace()).current_dir(home.path());
        let output = command.stdin(Stdio::null()).output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test"));
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    fs::write(home.path().join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
}
