//! A body of 1 GiB, and the memory it takes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::process::{Server, mib};

const PIECES: usize = 1_024;

/// Measures and draws the table.
pub(crate) fn measure() -> Result<String> {
    let upstream = Server::upstream()?;
    let tap = Server::tap(upstream.addr)?;
    send(tap.addr, 1)?;
    let (_, before) = tap.memory()?;
    let direct = send(upstream.addr, PIECES)?;
    let cpu = tap.cpu()?;
    let through = send(tap.addr, PIECES)?;
    let (cpu, (_, most)) = (tap.cpu()? - cpu, tap.memory()?);
    Ok(format!(
        "## A body of 1 GiB\n\n| direct | through the tap | its CPU | its memory at most, before | after |\n\
         |---:|---:|---:|---:|---:|\n| {:.2} s | {:.2} s | {:.2} s | {:.1} MiB | {:.1} MiB |\n",
        direct.as_secs_f64(),
        through.as_secs_f64(),
        cpu.as_secs_f64(),
        mib(before),
        mib(most)
    ))
}

/// Posts so many MiB, and how long that took.
fn send(to: SocketAddr, pieces: usize) -> Result<Duration> {
    let piece = vec![b'x'; 1 << 20];
    let began = Instant::now();
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "POST /results HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        pieces << 20
    )?;
    for _ in 0..pieces {
        stream.write_all(&piece)?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 202 "), "it answered {:?}", String::from_utf8_lossy(&answer));
    Ok(began.elapsed())
}
