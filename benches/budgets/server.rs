//! The server under the clients: as little work a request as it takes, so that the clients are
//! what is measured. It speaks enough of the contract for users to log in, submit, and poll a job
//! that never ends.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Result;
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// Serves until standard input ends. Prints its port, and the port where it tells its count.
pub(crate) fn serve() -> Result<()> {
    let served = Arc::new(AtomicU64::new(0));
    let counts = std::net::TcpListener::bind("127.0.0.1:0")?;
    let count_port = counts.local_addr()?.port();
    let told = Arc::clone(&served);
    thread::spawn(move || {
        for mut asker in counts.incoming().flatten() {
            let _ = write!(asker, "{}", told.load(Ordering::Relaxed));
        }
    });
    let (end, ended) = oneshot::channel();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = end.send(());
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{} {count_port}", listener.local_addr()?.port());
        let accept = async {
            loop {
                let (socket, _) = listener.accept().await?;
                tokio::spawn(answer(socket, Arc::clone(&served)));
            }
        };
        tokio::select! {
            failed = accept => failed,
            _ = ended => Ok(()),
        }
    })
}

async fn answer(mut socket: TcpStream, served: Arc<AtomicU64>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut unread = BytesMut::with_capacity(1024);
    loop {
        let head = loop {
            if let Some(at) = head_length(&unread) {
                break at;
            }
            if socket.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        };
        let reply = reply(&unread[..head]);
        let whole = head + body_length(&unread[..head]);
        while unread.len() < whole {
            if socket.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        }
        unread.advance(whole);
        served.fetch_add(1, Ordering::Relaxed);
        socket.write_all(reply).await?;
    }
}

fn head_length(unread: &[u8]) -> Option<usize> {
    if unread.ends_with(b"\r\n\r\n") && unread.starts_with(b"GET") {
        return Some(unread.len());
    }
    unread.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

fn body_length(head: &[u8]) -> usize {
    if head.starts_with(b"GET") {
        return 0;
    }
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0)
}

macro_rules! reply {
    ($status:literal, $headers:literal, $length:literal, $body:literal) => {{
        const _: () = assert!($length == $body.len());
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\ncontent-type: application/json\r\n",
            $headers,
            "content-length: ",
            $length,
            "\r\n\r\n",
            $body
        )
        .as_bytes()
    }};
}

fn reply(head: &[u8]) -> &'static [u8] {
    match head {
        [b'G', b'E', b'T', b' ', b'/', b' ', ..] => reply!("200 OK", "", 26, r#"{"message":"Hello world!"}"#),
        h if h.starts_with(b"GET /jobs?") => reply!(
            "200 OK",
            "",
            94,
            r#"{"job_state":"RUNNING","job_tasks_status":[{"task_state":"RUNNING"}],"message":"Job status: "}"#
        ),
        h if h.starts_with(b"PUT /auth/register ") => reply!("201 CREATED", "", 2, "{}"),
        h if h.starts_with(b"POST /auth/login ") => reply!(
            "202 ACCEPTED",
            "set-cookie: access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3.c2lnbmF0dXJl; HttpOnly\r\n\
             set-cookie: refresh_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3.c2lnbmF0dXJl; HttpOnly\r\n",
            2,
            "{}"
        ),
        h if h.starts_with(b"POST /jobs/direct ") => {
            reply!("202 ACCEPTED", "", 49, r#"{"job_id":"8e2c5a0e-7f0b-4f43-9d0e-5c1d3b7a9e10"}"#)
        }
        _ => reply!("404 NOT FOUND", "", 2, "{}"),
    }
}
