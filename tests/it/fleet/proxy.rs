//! A way to a plane on which frames are lost, doubled or overtaken.
//!
//! It speaks as much RESP as it takes to tell commands and replies apart. Every reply goes back in the
//! order of its command, also where a command was kept from the plane (then it answers as Redis would)
//! or was sent twice (then the second reply is swallowed).

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// What befalls a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes.
    Passes,
    /// It is taken for sent and never arrives.
    Lost,
    /// It arrives twice.
    Twice,
    /// The one behind it arrives first, if there is one soon.
    Overtaken,
}

/// Which frame: how many there were on this proxy before, and whether it is the final one of a cell.
pub(super) type Choice = fn(u64, bool) -> Fate;

/// How long a frame that is to be overtaken waits for the next one.
const WAITS: Duration = Duration::from_millis(1_500);

/// A proxy on loopback. When it is dropped its connections end.
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listens: Option<JoinHandle<()>>,
}

struct Shared {
    plane: u16,
    choice: Choice,
    frames: AtomicU64,
    /// Frames that did not just pass.
    touched: AtomicU64,
    over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// What is to be done about the next reply.
enum Reply {
    /// It is the client's.
    Pass,
    /// It is that of a command that the client does not know of.
    Swallow,
    /// There is none: this one is said.
    Say(&'static [u8]),
}

/// Appended, as the script for it says.
const APPENDED: &[u8] = b":1\r\n";

impl Proxy {
    /// Starts one before a plane on a port of loopback.
    pub(super) fn before(plane: u16, choice: Choice) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            plane,
            choice,
            frames: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            over: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let listens = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    if shared.over.load(Ordering::SeqCst) {
                        return;
                    }
                    // Whoever hung up meanwhile, or finds no plane, tries again.
                    let _ = client.and_then(|client| shared.connect(client));
                }
            })
        };
        Self { port, shared, listens: Some(listens) }
    }

    /// Where it listens, as a plane.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// How many frames came by.
    pub(super) fn frames(&self) -> u64 {
        self.shared.frames.load(Ordering::SeqCst)
    }

    /// How many of them did not just pass.
    pub(super) fn touched(&self) -> u64 {
        self.shared.touched.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // It may have nobody to accept.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(listens) = self.listens.take() {
            let _ = listens.join();
        }
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let plane = TcpStream::connect((Ipv4Addr::LOCALHOST, self.plane))?;
        client.set_nodelay(true)?;
        plane.set_nodelay(true)?;
        self.open.lock().unwrap().extend([client.try_clone()?, plane.try_clone()?]);
        let (sender, replies) = mpsc::channel();
        let ends = [client.try_clone()?, plane.try_clone()?];
        let (to_plane, from_plane) = (plane.try_clone()?, plane);
        let (to_client, from_client) = (client.try_clone()?, client);
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            // It ends with its connection, and takes the other way down.
            let _ = shared.forth(from_client, to_plane, &sender);
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        });
        let ends = [to_client.try_clone()?, from_plane.try_clone()?];
        std::thread::spawn(move || {
            let _ = back(from_plane, to_client, &replies);
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        });
        Ok(())
    }

    /// Commands, from the client to the plane.
    fn forth(
        &self,
        client: TcpStream,
        mut plane: TcpStream,
        replies: &mpsc::Sender<Reply>,
    ) -> io::Result<()> {
        let mut commands = BufReader::new(client.try_clone()?);
        let mut waits: Option<Vec<u8>> = None;
        let expect = |reply| replies.send(reply).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
        loop {
            if waits.is_some() && commands.buffer().is_empty() {
                client.set_read_timeout(Some(WAITS))?;
                let more = commands.fill_buf().map(<[u8]>::len);
                client.set_read_timeout(None)?;
                match more {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        // Nothing else comes: it is only late.
                        expect(Reply::Swallow)?;
                        plane.write_all(&waits.take().unwrap_or_default())?;
                        continue;
                    }
                    Err(e) => return Err(e),
                }
            }
            let command = message(&mut commands)?;
            let Some(is_final) = frame_in(&command) else {
                expect(Reply::Pass)?;
                plane.write_all(&command)?;
                continue;
            };
            let number = self.frames.fetch_add(1, Ordering::SeqCst);
            if let Some(overtaken) = waits.take() {
                expect(Reply::Pass)?;
                expect(Reply::Swallow)?;
                plane.write_all(&[command, overtaken].concat())?;
                continue;
            }
            let fate = (self.choice)(number, is_final);
            if fate != Fate::Passes {
                self.touched.fetch_add(1, Ordering::SeqCst);
            }
            match fate {
                Fate::Passes => {
                    expect(Reply::Pass)?;
                    plane.write_all(&command)?;
                }
                Fate::Lost => expect(Reply::Say(APPENDED))?,
                Fate::Twice => {
                    expect(Reply::Pass)?;
                    expect(Reply::Swallow)?;
                    plane.write_all(&[command.clone(), command].concat())?;
                }
                Fate::Overtaken => {
                    expect(Reply::Say(APPENDED))?;
                    waits = Some(command);
                }
            }
        }
    }
}

/// Replies, from the plane to the client.
fn back(plane: TcpStream, mut client: TcpStream, replies: &mpsc::Receiver<Reply>) -> io::Result<()> {
    let mut plane = BufReader::new(plane);
    while let Ok(reply) = replies.recv() {
        match reply {
            Reply::Pass => client.write_all(&message(&mut plane)?)?,
            Reply::Swallow => drop(message(&mut plane)?),
            Reply::Say(reply) => client.write_all(reply)?,
        }
    }
    Ok(())
}

/// Whether a command appends a frame; and whether that is the final one of its cell.
fn frame_in(command: &[u8]) -> Option<bool> {
    let has = |text: &[u8]| command.windows(text.len()).any(|w| w == text);
    has(b"\"report\":{\"frame\":").then(|| has(b"\"body\":{\"final\":"))
}

/// One whole message of RESP, with everything in it.
fn message(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    let mut left = 1;
    while left > 0 {
        left -= 1;
        let begin = whole.len();
        from.read_until(b'\n', &mut whole)?;
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "not RESP");
        let line = whole[begin..].strip_suffix(b"\r\n").ok_or_else(odd)?;
        let (kind, rest) = line.split_first().ok_or_else(odd)?;
        let number = || std::str::from_utf8(rest).ok().and_then(|n| n.parse::<i64>().ok()).ok_or_else(odd);
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            b'$' | b'=' => {
                if let Ok(length @ 0..) = u64::try_from(number()?) {
                    from.take(length + 2).read_to_end(&mut whole)?;
                }
            }
            b'*' | b'~' | b'>' => left += u64::try_from(number()?).unwrap_or(0),
            b'%' => left += 2 * u64::try_from(number()?).unwrap_or(0),
            _ => return Err(odd()),
        }
    }
    Ok(whole)
}

/// The proxy itself has to be right: a message is found whole, whatever is in it.
#[test]
fn messages_are_told_apart() {
    let text = b"*2\r\n$3\r\na\r\n\r\n*1\r\n:7\r\n+OK\r\n$-1\r\n*-1\r\n";
    let mut from = BufReader::with_capacity(3, &text[..]);
    let mut found = Vec::new();
    while let Ok(one) = message(&mut from) {
        found.push(String::from_utf8(one).unwrap());
    }
    assert_eq!(found, ["*2\r\n$3\r\na\r\n\r\n*1\r\n:7\r\n", "+OK\r\n", "$-1\r\n", "*-1\r\n"]);
    assert_eq!(frame_in(br#"{"from":{},"report":{"frame":{"seq":3,"body":{"final":{}}}}}"#), Some(true));
    assert_eq!(frame_in(br#"{"from":{},"report":{"frame":{"seq":3,"body":{"delta":{}}}}}"#), Some(false));
    assert_eq!(frame_in(br#"{"from":{},"report":{"merging":{"cell":3}}}"#), None);
}
