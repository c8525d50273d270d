//! A server that answers as it is told, right or wrong: a target that is not the stand-in.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A whole answer: status and JSON, or whatever text.
    Text(u16, String),
    /// These bytes and the end of the connection.
    Raw(Vec<u8>),
    /// The end of the connection, without a byte.
    Close,
    /// Nothing, until the client goes or the server ends.
    Hang,
}

/// A request, read whole.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) body: String,
}

/// A running server. It ends when dropped.
pub(crate) struct Odd {
    pub(crate) url: String,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    connections: AtomicU64,
    requests: Mutex<BTreeMap<String, u64>>,
}

impl Odd {
    /// Answers each request as `answer` says; `keep_alive` is whether connections are kept.
    pub(crate) fn start(keep_alive: bool, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (of_server, answer) = (Arc::clone(&shared), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if of_server.over.load(Ordering::Relaxed) {
                    return;
                }
                of_server.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, answer) = (Arc::clone(&of_server), Arc::clone(&answer));
                std::thread::spawn(move || converse(stream, keep_alive, &shared, &*answer));
            }
        });
        Self { url: format!("http://{addr}"), addr, shared }
    }

    /// Answers everything in the same way.
    pub(crate) fn always(reply: Reply) -> Self {
        Self::start(false, move |_| reply.clone())
    }

    /// A small backend that completes each job at its second poll, with two numbers as results;
    /// `other` may answer differently by `METHOD /path`.
    pub(crate) fn backend(
        keep_alive: bool,
        other: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let jobs: Mutex<Vec<(String, u32)>> = Mutex::default();
        Self::start(keep_alive, move |asked| {
            let route = route(&asked.line);
            if let Some(reply) = other(&route) {
                return reply;
            }
            let mut jobs = jobs.lock().unwrap();
            match route.as_str() {
                "GET /" => Reply::json(200, json!("Hello World!")),
                "PUT /auth/register" => Reply::json(201, json!({"message": "User created"})),
                "POST /auth/login" => Reply::session(),
                "POST /jobs/direct" => {
                    let title = serde_json::from_str::<Value>(&asked.body).unwrap()["title"].to_string();
                    jobs.push((serde_json::from_str(&title).unwrap(), 0));
                    Reply::json(202, json!({"job_id": format!("job-{}", jobs.len() - 1), "message": "ok"}))
                }
                "GET /jobs" => {
                    let number: usize =
                        asked.line.split("job-").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
                    jobs[number].1 += 1;
                    let state = if jobs[number].1 > 1 { "COMPLETED" } else { "RUNNING" };
                    Reply::json(200, json!({"job_state": state, "message": "ok", "job_tasks_status": []}))
                }
                "GET /results" => Reply::Text(200, results(2)),
                "DELETE /jobs/direct" => Reply::json(200, json!({"message": "Cancelled sucessfully"})),
                "GET /user/simulations" => {
                    let rows: Vec<Value> = jobs
                        .iter()
                        .enumerate()
                        .map(|(n, (title, _))| json!({"job_id": format!("job-{n}"), "title": title, "end_time": null}))
                        .collect();
                    Reply::json(
                        200,
                        json!({"page_count": 1, "simulations_count": rows.len(), "simulations": rows}),
                    )
                }
                _ => Reply::json(404, json!({"message": "no such route"})),
            }
        })
    }

    /// Connections that were accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Requests by `METHOD /path`.
    pub(crate) fn requests(&self) -> BTreeMap<String, u64> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}

impl Reply {
    /// An answer in JSON.
    pub(crate) fn json(status: u16, value: Value) -> Self {
        Self::Text(status, value.to_string())
    }

    fn session() -> Self {
        let body = r#"{"message":"Successfully logged in"}"#;
        let head = format!(
            "HTTP/1.1 202 Accepted\r\nContent-Length: {}\r\nSet-Cookie: access_token=a; Path=/\r\nSet-Cookie: refresh_token=b; Path=/\r\n\r\n",
            body.len()
        );
        Self::Raw(format!("{head}{body}").into())
    }
}

/// A way to a server that takes time in each direction. It ends when dropped.
pub(crate) struct Road {
    pub(crate) url: String,
    addr: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Road {
    /// For a server that closes each connection after its answer.
    pub(crate) fn to(url: &str, takes: Duration) -> Self {
        let server: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, over) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || {
                    let Ok(server) = TcpStream::connect(server) else { return };
                    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
                        return;
                    };
                    std::thread::spawn(move || carry(from_client, to_server, takes));
                    carry(server, client, takes);
                });
            }
        });
        Self { url: format!("http://{addr}"), addr, over }
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}

/// Carries what comes from one to the other; the first bytes take so long, the rest follows.
fn carry(mut from: TcpStream, mut to: TcpStream, takes: Duration) {
    let mut piece = vec![0; 64 * 1024];
    let mut first = true;
    while let Ok(n @ 1..) = from.read(&mut piece) {
        if std::mem::take(&mut first) {
            // Not a wait for something: the length of the road.
            std::thread::sleep(takes);
        }
        if to.write_all(&piece[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Results of one estimator with so many numbers.
pub(crate) fn results(numbers: usize) -> String {
    let values: Vec<f64> = (0..numbers).map(|n| n as f64 / 7.0).collect();
    json!({
        "estimators": [{"name": "e", "metadata": {}, "pages": [{
            "dimensions": 1,
            "data": {"name": "D", "unit": "1", "values": values},
            "metadata": {"page_number": "0"},
        }]}],
        "message": "Results",
    })
    .to_string()
}

/// `METHOD /path`, without the query.
fn route(line: &str) -> String {
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    format!("{method} {}", target.split('?').next().unwrap_or_default())
}

/// One connection to its end. Whatever goes wrong on it is what the test is about.
fn converse(stream: TcpStream, keep_alive: bool, shared: &Shared, answer: &dyn Fn(&Asked) -> Reply) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let Ok(mut out) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader, shared) {
        *shared.requests.lock().unwrap().entry(route(&asked.line)).or_default() += 1;
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        match answer(&asked) {
            Reply::Text(status, text) => {
                let head =
                    format!("HTTP/1.1 {status} Status\r\n{close}Content-Length: {}\r\n\r\n", text.len());
                if out.write_all(format!("{head}{text}").as_bytes()).is_err() || !keep_alive {
                    break;
                }
            }
            // A session is an answer like any other, but for its headers.
            Reply::Raw(bytes) => {
                let whole = bytes.starts_with(b"HTTP/1.1 202");
                if out.write_all(&bytes).is_err() || !(whole && keep_alive) {
                    break;
                }
            }
            Reply::Close => break,
            Reply::Hang => {
                let mut byte = [0];
                while !shared.over.load(Ordering::Relaxed) {
                    match reader.read(&mut byte) {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(e) if is_pause(&e) => {}
                        Err(_) => return,
                    }
                }
                return;
            }
        }
    }
    let _ = out.shutdown(Shutdown::Both);
}

fn is_pause(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// The next request; `None` when there will be none.
fn read(reader: &mut BufReader<TcpStream>, shared: &Shared) -> Option<Asked> {
    let (mut head, mut length) = (Vec::new(), 0);
    let mut line = Vec::new();
    loop {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(e) if is_pause(&e) && !shared.over.load(Ordering::Relaxed) => continue,
            Err(_) => return None,
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        if let Some(value) = text.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
        if text.is_empty() {
            break;
        }
        head.push(text);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line: head.first()?.clone(), body: String::from_utf8_lossy(&body).into_owned() })
}
