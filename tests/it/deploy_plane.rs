//! A real plane of the files in deploy/plane, set up as README says: what the scripts make, whom it
//! lets in, and what each may do there. And `make plane`. It is long because each right of each user is
//! tried.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use rstest::rstest;
use rustix::process::{Signal, kill_process_group};
use springtide::plane::{
    Command as Order, Entry, Log, MANAGER, Place, Plane as _, PlaneError, Report, Sent,
    redis_streams::{After, Door, Lobby, check},
};
use tempfile::TempDir;

use crate::support::{end, pid_of, wait_for};

/// How long a server or a script may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn script(name: &str, home: &Path, args: &[&str]) -> Output {
    run(Command::new(root().join("deploy/plane").join(name)).args(args).current_dir(home))
}

#[track_caller]
fn works(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn openssl(words: &str, home: &Path) -> Output {
    run(Command::new("openssl").args(words.split(' ')).current_dir(home))
}

/// The lines of README that set a plane up.
fn set_up() -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme.split("```").find(|b| b.starts_with("sh\n") && b.contains("prepare.sh")).unwrap();
    block.lines().skip(1).map(str::to_owned).collect()
}

/// A plane on loopback; gone with its files when dropped.
struct Plane {
    child: Child,
    port: u16,
    home: TempDir,
}

impl Plane {
    /// Sets one up with those names.
    fn named(names: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let args: Vec<&str> = ["plane"].iter().chain(names).copied().collect();
        works(&script("prepare.sh", home.path(), &args));
        Self::start("redis-server plane/redis.conf", home)
    }

    /// Starts what was set up in a folder, but on loopback and a free port.
    fn start(command: &str, home: TempDir) -> Self {
        let conf = home.path().join("plane/redis.conf");
        let text = fs::read_to_string(&conf).unwrap();
        let (child, port) = wait_for("a plane", WITHIN, || {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let ours = text
                .replace("\nbind * -::*\n", "\nbind 127.0.0.1\n")
                .replace("\ntls-port 6380\n", &format!("\ntls-port {port}\n"));
            assert!(ours.contains("bind 127.0.0.1") && ours.contains(&port.to_string()));
            fs::write(&conf, ours).unwrap();
            let said = fs::File::create(home.path().join("said")).unwrap();
            let mut words = command.split(' ');
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .current_dir(home.path())
                .stdin(Stdio::null())
                .stdout(said)
                .spawn()
                .expect("redis-server (Debian: redis-server) is installed");
            wait_for("its end or its beginning", WITHIN, || {
                if child.try_wait().unwrap().is_some() {
                    return Some(None);
                }
                let said = fs::read_to_string(home.path().join("said")).unwrap();
                let is_there = said.contains("Ready to accept connections");
                (is_there && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()).then_some(Some(()))
            })
            .map(|()| (child, port))
        });
        Self { child, port, home }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join("plane").join(name)
    }

    /// What it answers to a command; as nobody when the name is empty.
    fn says(&self, user: &str, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--tls", "--no-auth-warning", "--cacert"]);
        cli.arg(self.file("ca.pem"));
        if !user.is_empty() {
            let password = fs::read_to_string(self.file(&format!("{user}.password"))).unwrap();
            cli.args(["--user", &format!("springtide-{user}"), "--pass", password.trim()]);
        }
        let output = run(cli.args(command));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }

    /// What `openssl s_client` finds of its certificate, and whether it would go on.
    fn trusted(&self, check: &str) -> Result<(), String> {
        let (port, ca) = (self.port, self.file("ca.pem").display().to_string());
        let words = format!(
            "s_client -connect 127.0.0.1:{port} -CAfile {ca} -verify_return_error {check} -brief -no_ign_eof"
        );
        let output = openssl(&words, self.home.path());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success() && said.contains("Verification: OK")).then_some(()).ok_or(said)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

#[test]
fn what_the_readme_says_sets_a_plane_up() {
    let [prepare, start, copy] = &set_up()[..] else { panic!("{:?}", set_up()) };
    let home = tempfile::tempdir().unwrap();
    symlink(root().join("deploy"), home.path().join("deploy")).unwrap();
    let shell = |line: &str| run(Command::new("bash").args(["-c", line]).current_dir(home.path()));
    let told = works(&shell(prepare));
    let folder = home.path().join("plane");
    let mut files: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let made = [
        "ca.key",
        "ca.pem",
        "data",
        "manager.password",
        "redis.conf",
        "secret",
        "server.key",
        "server.pem",
        "users.acl",
        "worker.password",
    ];
    assert_eq!(files, made);
    for file in made.iter().filter(|f| **f != "data") {
        assert!(told.contains(file), "{file} is not told");
        let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777;
        let expected = if file.ends_with(".pem") { 0o644 } else { 0o600 };
        assert_eq!(mode, expected, "{file}");
    }
    // Nothing secret is told.
    for file in ["manager.password", "worker.password", "secret"] {
        let secret = fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(secret.trim().len(), 64);
        assert!(!told.contains(secret.trim()));
    }

    // What is copied to the workers is there, with a program and an scp that only looks.
    let tools = home.path().join("tools");
    fs::create_dir(&tools).unwrap();
    for (name, text) in [
        ("springtide", "#!/bin/sh\n"),
        ("scp", "#!/bin/sh\nls \"$1\" \"$2\" \"$3\" \"$4\"; echo to \"$5\"\n"),
    ] {
        fs::write(tools.join(name), text).unwrap();
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let copied = works(&shell(&format!("PATH=$PWD/tools:$PATH; {copy}")));
    for word in [
        "springtide",
        "plane/ca.pem",
        "plane/worker.password",
        "plane/secret",
        "to w1.example:",
        "to w2.example:",
    ] {
        assert!(copied.contains(word), "{word}: {copied}");
    }

    let plane = Plane::start(start.strip_suffix(" &").unwrap(), home);
    assert_eq!(plane.says("worker", &["PING"]), "PONG");
    assert_eq!(plane.trusted("-verify_hostname plane.example"), Ok(()));
}

#[test]
fn a_plane_throws_nothing_away_and_is_who_it_says() {
    let mut plane = Plane::named(&["plane.example", "127.0.0.1", "::1"]);
    for name in ["-verify_hostname plane.example", "-verify_ip 127.0.0.1", "-verify_ip ::1"] {
        assert_eq!(plane.trusted(name), Ok(()), "{name}");
    }
    let said = plane.trusted("-verify_hostname other.example").unwrap_err();
    assert!(said.contains("ostname mismatch"), "{said}");
    let said = plane.trusted("-verify_ip 127.0.0.2").unwrap_err();
    assert!(said.contains("IP address mismatch"), "{said}");

    assert!(plane.says("manager", &["INFO", "memory"]).contains("maxmemory_policy:noeviction"));
    assert!(plane.says("manager", &["INFO", "persistence"]).contains("aof_enabled:1"));
    // What it took is there after a kill -9.
    plane.says("manager", &["SET", "springtide:r:manifest", "kept"]);
    end(&mut plane.child);
    let home = std::mem::replace(&mut plane.home, tempfile::tempdir().unwrap());
    let again = fs::read_to_string(home.path().join("plane/redis.conf")).unwrap();
    let again = again
        .replace("bind 127.0.0.1", "bind * -::*")
        .replace(&format!("tls-port {}", plane.port), "tls-port 6380");
    fs::write(home.path().join("plane/redis.conf"), again).unwrap();
    let plane = Plane::start("redis-server plane/redis.conf", home);
    assert_eq!(plane.says("worker", &["GET", "springtide:r:manifest"]), "kept");
}

/// Each command, and what the users are told: `+` for those who may.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("PING", "+", "+"),
    ("TIME", "+", "+"),
    ("INFO server", "+", "+"),
    ("XADD springtide:lobby * run r", "+", "-"),
    ("XREVRANGE springtide:lobby + - COUNT 1", "+", "+"),
    ("XREAD COUNT 1 STREAMS springtide:lobby 0-0", "+", "+"),
    ("SET springtide:r:manifest m", "+", "-"),
    ("GET springtide:r:manifest", "+", "+"),
    ("MGET springtide:r:manifest springtide:r:lease:manager", "+", "+"),
    ("EXISTS springtide:r:manifest", "+", "+"),
    ("DEL springtide:r:manifest", "+", "-"),
    ("XADD springtide:r:cmd * e start", "+", "-"),
    ("XTRIM springtide:r:cmd MAXLEN 0", "+", "-"),
    ("XREAD COUNT 1 STREAMS springtide:r:cmd 0-0", "+", "+"),
    ("XINFO STREAM springtide:r:cmd", "+", "+"),
    ("DEL springtide:r:cmd", "+", "-"),
    ("XADD springtide:r:roll * e me", "+", "+"),
    ("XADD springtide:r:res:w1 * e frame", "+", "+"),
    ("XREAD COUNT 1 STREAMS springtide:r:res:w1 0-0", "+", "+"),
    ("XRANGE springtide:r:roll - +", "+", "-"),
    ("EXPIRE springtide:r:res:w1 600", "+", "-"),
    ("PERSIST springtide:r:res:w1", "-", "-"),
    ("INCR springtide:r:epoch", "+", "+"),
    ("SET springtide:r:lease:manager 1 PX 5000", "+", "-"),
    ("PEXPIRE springtide:r:lease:manager 5000", "+", "-"),
    ("DEL springtide:r:lease:manager", "+", "-"),
    ("PTTL springtide:r:lease:manager", "+", "+"),
    ("GET springtide:r:lease:manager", "+", "+"),
    // A worker may go by any name but that one.
    ("SET springtide:r:lease:w1 1 PX 5000", "+", "+"),
    ("SET springtide:r:lease:m 1 PX 5000", "+", "+"),
    ("SET springtide:r:lease:man 1 PX 5000", "+", "+"),
    ("SET springtide:r:lease:manage 1 PX 5000", "+", "+"),
    ("SET springtide:r:lease:manager2 1 PX 5000", "+", "+"),
    ("SET springtide:r:lease:maker 1 PX 5000", "+", "+"),
    ("SET springtide:r:lease:managed 1 PX 5000", "+", "+"),
    ("PEXPIRE springtide:r:lease:w1 5000", "+", "+"),
    ("DEL springtide:r:lease:w1", "+", "+"),
    // A script may do what its user may.
    ("EVAL return(redis.call('GET',ARGV[1])) 0 springtide:r:lease:manager", "+", "+"),
    ("EVAL return(redis.call('SET',ARGV[1],1)) 0 springtide:r:lease:manager", "+", "-"),
    ("EVAL return(redis.call('SET',KEYS[1],1)) 1 springtide:r:lease:manager", "+", "-"),
    ("EVAL return(redis.call('XADD',ARGV[1],'*','e',1)) 0 springtide:r:cmd", "+", "-"),
    ("EVAL return(redis.call('FLUSHALL')) 0", "-", "-"),
    // Nobody has anything to do with these.
    ("GET elsewhere", "-", "-"),
    ("SET celery 1", "-", "-"),
    ("KEYS *", "-", "-"),
    ("SCAN 0", "-", "-"),
    ("FLUSHALL", "-", "-"),
    ("FLUSHDB", "-", "-"),
    ("CONFIG GET maxmemory", "-", "-"),
    ("CONFIG SET maxmemory-policy allkeys-lru", "-", "-"),
    ("ACL LIST", "-", "-"),
    ("MONITOR", "-", "-"),
    ("CLIENT KILL TYPE normal", "-", "-"),
    ("SHUTDOWN NOSAVE", "-", "-"),
    ("REPLICAOF 127.0.0.1 1", "-", "-"),
    ("SUBSCRIBE channel", "-", "-"),
    ("SELECT 1", "-", "-"),
    ("RENAME springtide:r:epoch springtide:r:cmd", "-", "-"),
];

#[test]
fn each_user_may_do_its_part_and_no_more() {
    let plane = Plane::named(&["plane.example"]);
    for (command, manager, worker) in RIGHTS {
        let words: Vec<&str> = command.split(' ').collect();
        for (user, may) in [("manager", manager), ("worker", worker)] {
            let said = plane.says(user, &words);
            let is_refused =
                said.starts_with("NOPERM") || said.contains("ACL failure") || said.contains("can't");
            assert_eq!(if is_refused { "-" } else { "+" }, *may, "{user}: {command}: {said}");
            assert!(is_refused || !said.starts_with("ERR"), "{user}: {command}: {said}");
        }
        assert!(plane.says("", &words).starts_with("NOAUTH"), "{command}");
    }
    // `default` is off, whatever password is tried.
    for password in ["", "x"] {
        let said = plane.says("", &["AUTH", "default", password]);
        assert!(said.starts_with("WRONGPASS"), "{said}");
    }
    let worker = fs::read_to_string(plane.file("worker.password")).unwrap();
    assert!(plane.says("", &["AUTH", "springtide-manager", worker.trim()]).starts_with("WRONGPASS"));
    // No plain text.
    let plain = run(Command::new("redis-cli").args(["-p", &plane.port.to_string(), "PING"]));
    assert!(!String::from_utf8_lossy(&plain.stdout).contains("PONG"));
}

/// The rights are those that the plane needs, tried by itself, and over its own TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_through_with_these_users() {
    let plane = Plane::named(&["localhost"]);
    let door = |user: &str, host: &str| {
        let url = format!("rediss://springtide-{user}@{host}:{}/0", plane.port);
        let password = fs::read_to_string(plane.file(&format!("{user}.password"))).unwrap();
        Door::new(&url, Some(password.trim().to_owned()), Some(&plane.file("ca.pem"))).unwrap()
    };
    for user in ["manager", "worker"] {
        let facts = check(&door(user, "localhost"), false, None).await.unwrap();
        assert!(!facts.run_id.is_empty());
    }
    let said = check(&door("worker", "127.0.0.1"), false, None).await.unwrap_err().to_string();
    assert!(said.contains("TLS failed"), "{said}");

    let ttl = Duration::from_secs(20);
    let manager = Lobby::at(&door("manager", "localhost")).open_run("r", "what it is").await.unwrap();
    let lease = manager.take(MANAGER, ttl).await.unwrap();
    manager.announce().await.unwrap();
    let order = Entry::Command(Order::End);
    manager.append(&Log::Commands, &order, Some(&lease)).await.unwrap();

    let lobby = Lobby::at(&door("worker", "localhost"));
    let offer = lobby.next_run(&After::Nothing).await.unwrap();
    assert_eq!(offer.run, "r");
    let worker = lobby.of_run("r").await.unwrap();
    let me = worker.take("w1", ttl).await.unwrap();
    worker.append(&Log::Roll, &Entry::Member(me.clone()), None).await.unwrap();
    let report = Entry::Sent(Arc::new(Sent { from: me.clone(), report: Report::Leaving }));
    let mine = Log::Reports("w1".into());
    worker.append(&mine, &report, Some(&me)).await.unwrap();
    worker.renew(&me, ttl).await.unwrap();
    worker.time().await.unwrap();
    assert!(worker.end_of(&Log::Commands).await.unwrap() > Place::default());
    assert!(worker.holders(&[MANAGER, "w1"]).await.unwrap().iter().all(Option::is_some));
    let from = |log: &Log| BTreeMap::from([(log.clone(), Place::default())]);
    let heard = worker.read(&mut from(&Log::Commands), Duration::ZERO).await.unwrap();
    assert_eq!(heard, std::slice::from_ref(&order));
    // What is the manager's.
    for refused in [
        worker.append(&Log::Commands, &order, Some(&me)).await,
        worker.renew(&lease, ttl).await,
        worker.release(&lease).await,
        worker.announce().await,
        worker.close().await,
        worker.trim(&BTreeMap::from([(mine.clone(), Place(1, 0))]), &lease).await,
    ] {
        assert!(matches!(&refused, Err(PlaneError::Refused(_))), "{refused:?}");
    }
    assert_eq!(
        manager.read(&mut from(&Log::Roll), Duration::ZERO).await.unwrap(),
        [Entry::Member(me.clone())]
    );
    let mut places = from(&mine);
    assert_eq!(manager.read(&mut places, Duration::ZERO).await.unwrap(), [report]);
    manager.trim(&places, &lease).await.unwrap();
    manager.renew(&lease, ttl).await.unwrap();
    worker.release(&me).await.unwrap();
    manager.close().await.unwrap();
    manager.release(&lease).await.unwrap();
    assert!(matches!(lobby.of_run("r").await, Err(PlaneError::Gone)));
}

#[test]
fn without_passwords_it_does_not_start() {
    let home = tempfile::tempdir().unwrap();
    works(&script("prepare.sh", home.path(), &["plane", "plane.example"]));
    fs::copy(root().join("deploy/plane/users.acl"), home.path().join("plane/users.acl")).unwrap();
    let output = run(Command::new("redis-server").arg("plane/redis.conf").current_dir(home.path()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("users.acl:2"), "{said}");
}

#[test]
fn a_certificate_is_made_anew_by_the_same_authority_and_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let make = || script("certificates.sh", home.path(), &["keys", "plane.example", "192.0.2.7"]);
    works(&make());
    let read = |file: &str| fs::read(home.path().join("keys").join(file)).unwrap();
    let (ca, server) = (read("ca.pem"), read("server.pem"));
    let output = make();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("keys/server.pem is there already"));
    assert_eq!(read("server.pem"), server);

    for file in ["server.pem", "server.key"] {
        fs::rename(home.path().join("keys").join(file), home.path().join(file)).unwrap();
    }
    assert!(works(&make()).contains("used as it was"));
    assert_eq!(read("ca.pem"), ca);
    assert_ne!(read("server.pem"), server);
    for certificate in ["server.pem", "keys/server.pem"] {
        works(&openssl(&format!("verify -x509_strict -CAfile keys/ca.pem {certificate}"), home.path()));
    }

    fs::remove_file(home.path().join("keys/ca.key")).unwrap();
    for file in ["server.pem", "server.key"] {
        fs::remove_file(home.path().join("keys").join(file)).unwrap();
    }
    let output = make();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not its key"));
    assert_eq!(fs::read_dir(home.path().join("keys")).unwrap().count(), 1);
}

#[rstest]
#[case("certificates.sh", &[], 2, "usage")]
#[case("certificates.sh", &["keys"], 2, "usage")]
#[case("certificates.sh", &["keys", ""], 2, "neither a host name nor an address")]
#[case("certificates.sh", &["keys", "a b"], 2, "'a b'")]
#[case("certificates.sh", &["keys", "x,DNS:y"], 2, "'x,DNS:y'")]
#[case("certificates.sh", &["keys", "-help"], 2, "'-help'")]
#[case("certificates.sh", &["keys", "rediss://plane.example"], 2, "neither")]
#[case("certificates.sh", &["keys", "300.1.2.3"], 1, "could not make a certificate for IP:300.1.2.3")]
#[case("prepare.sh", &["keys"], 2, "usage")]
#[case("prepare.sh", &["here", "plane.example"], 2, "here is there already")]
#[case("prepare.sh", &["a b", "plane.example"], 2, "letters, digits")]
#[case("prepare.sh", &["keys", "a_b"], 2, "'a_b'")]
fn a_mistake_is_told_and_leaves_nothing(
    #[case] name: &str,
    #[case] args: &[&str],
    #[case] code: i32,
    #[case] part: &str,
) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("here")).unwrap();
    let output = script(name, home.path(), args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(part), "{said}");
    for left in fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()) {
        assert_eq!(fs::read_dir(&left).unwrap().count(), 0, "{}", left.display());
    }
}

#[test]
fn make_plane_serves_until_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    let home = folder.path().join("tmp");
    fs::create_dir(&home).unwrap();
    let mut make = Command::new("make")
        .args(["--no-print-directory", "plane"])
        .current_dir(root())
        .env("TMPDIR", &home)
        // What a test runner in make would hand down.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .stdin(Stdio::null())
        .stdout(fs::File::create(&said).unwrap())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = pid_of(&make);
    let url = wait_for("the URL", WITHIN, || {
        let said = fs::read_to_string(&said).unwrap();
        said.lines().find(|l| l.starts_with("redis://127.0.0.1:")).map(str::to_owned)
    });
    let client = redis::Client::open(url).unwrap();
    let mut plane = wait_for("an answer", WITHIN, || client.get_connection().ok());
    let mut setting = |name: &str| -> String {
        let said: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query(&mut plane).unwrap();
        said[1].clone()
    };
    assert_eq!(setting("maxmemory-policy"), "noeviction");
    assert_eq!(setting("appendonly"), "yes");
    assert_eq!(setting("appendfsync"), "always");
    assert_eq!(setting("bind"), "127.0.0.1");
    let data = PathBuf::from(setting("dir"));
    assert!(data.starts_with(&home) && data.join("appendonlydir").is_dir(), "{}", data.display());

    // As a terminal does it: to all of them.
    kill_process_group(group, Signal::INT).unwrap();
    wait_for("the end of make", WITHIN, || make.try_wait().unwrap());
    wait_for("the end of Redis", WITHIN, || client.get_connection().err());
    assert!(!data.exists());
}
