//! A page fetched from a published port, as any client would.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Outcome, Wrong, wrong};

/// Longest wait for each of: the connection, the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Larger pages are not read on.
const MOST: u64 = 64 * 1024;

/// The page at `/`.
pub fn fetch(address: &str, port: u64) -> Outcome<String> {
    let address: SocketAddr = format!("{address}:{port}")
        .parse()
        .map_err(|error| Wrong(format!("{address:?} is no address: {error}")))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.split_once("\r\n\r\n") {
        Some((head, page)) if head.contains(" 200 ") => Ok(page.to_owned()),
        _ => wrong(format!("no page: {answer:?}")),
    }
}
