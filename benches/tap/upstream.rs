//! A target that reads a post, whatever its length, and says 202.

use std::io::{self, Write};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const ANSWER: &[u8] =
    b"HTTP/1.1 202 ACCEPTED\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 26\r\n\r\n{\"message\":\"Task updated\"}";

/// Serves on a port of its own, whose address it prints, until it is killed.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(converse(stream));
        }
    })
}

/// One post, then the end, as YAPTIDE's workers ask for.
async fn converse(mut stream: TcpStream) -> Option<()> {
    let (mut buffer, mut filled) = (vec![0; 64 * 1024], 0);
    let (head, length) = loop {
        let read = stream.read(&mut buffer[filled..]).await.ok().filter(|n| *n > 0)?;
        filled += read;
        if let Some(head) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            break (head + 4, length(&buffer[..head])?);
        }
    };
    let mut left = length.saturating_sub((filled - head) as u64);
    while left > 0 {
        left -= stream.read(&mut buffer).await.ok().filter(|n| *n > 0)? as u64;
    }
    stream.write_all(ANSWER).await.ok()?;
    stream.shutdown().await.ok()
}

fn length(head: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()
}
