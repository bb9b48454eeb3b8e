//! A TCP proxy that makes a network worse: delay, jitter, loss, a narrow pipe. It knows bytes and no protocol.
//!
//! Decisions
//! * **It stands in the namespace of the node before which it stands**, on a thread of its own: what it accepts comes from the true sender, so
//!   that what is dropped between two nodes (`netns`) is dropped for the proxy as well. A node's peer address is that of its proxy, since
//!   addresses are fixed when a node joins.
//! * **Loss is what TCP makes of it**: nothing is missing, but all that follows waits for the repetition ([`STALL`]), and now and then
//!   a connection breaks for good.
//! * **Bounded.** What waits in one direction is at most [`PIECES`] pieces of [`PIECE`] bytes; then the sender is not read from, as a
//!   full window would have it.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{Outcome, Wrong};

/// Bytes that are delayed as one; about what a node sends in one turn.
const PIECE: usize = 16 << 10;
/// Pieces under way in one direction.
const PIECES: usize = 1024;
/// How long what follows a lost packet waits: Linux's least time before a repetition.
const STALL: Duration = Duration::from_millis(200);
/// Longest time for reaching the node; it is on the same machine.
const CONNECT: Duration = Duration::from_secs(2);
/// Chances are counted in this many parts.
const PARTS: u32 = 10_000;

/// How bad the network is, in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Time on the way.
    pub delay: Duration,
    /// Up to so much more, at random.
    pub jitter: Duration,
    /// Of 10,000 pieces, how many have to be repeated.
    pub lost: u32,
    /// Of 10,000 pieces, how many break the connection.
    pub resets: u32,
    /// Bytes a second; 0: as many as there are.
    pub bandwidth: u64,
}

/// A running proxy. It and its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    conditions: Arc<Mutex<Conditions>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in a namespace (its file), or in the test's own. Chances are drawn from `seed`.
    pub fn start(
        namespace: Option<&Path>,
        listen: SocketAddr,
        target: SocketAddr,
        seed: u64,
    ) -> Outcome<Self> {
        let conditions = Arc::new(Mutex::new(Conditions::default()));
        let (end, ended) = oneshot::channel();
        let (ready, answer) = std::sync::mpsc::channel();
        let (namespace, shared) = (namespace.map(Path::to_owned), Arc::clone(&conditions));
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let (runtime, listener) = match listen_in(namespace, listen) {
                Ok(made) => made,
                Err(error) => return drop(ready.send(Err(error))),
            };
            // Who started it waits for this.
            let _ = ready.send(listener.local_addr().map_err(Into::into));
            let serving = serve(listener, target, shared, seed, ended);
            if let Err(error) = runtime.block_on(serving) {
                eprintln!("the proxy before {target} ended: {error}");
            }
        })?;
        let address = answer.recv().map_err(|_| Wrong("the proxy's thread ended".to_owned()))??;
        Ok(Self { address, conditions, end: Some(end), thread: Some(thread) })
    }

    /// From now on the network is like this.
    pub fn set(&self, conditions: Conditions) {
        *self.conditions.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // What it had to say it has printed.
            let _ = thread.join();
        }
    }
}

/// Moves this thread into the namespace, and listens there. Sockets belong to the namespace in which they are made.
fn listen_in(
    namespace: Option<PathBuf>,
    listen: SocketAddr,
) -> Outcome<(tokio::runtime::Runtime, StdListener)> {
    if let Some(path) = namespace {
        setns(std::fs::File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    }
    let listener = StdListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok((tokio::runtime::Builder::new_current_thread().enable_all().build()?, listener))
}

async fn serve(
    listener: StdListener,
    target: SocketAddr,
    conditions: Arc<Mutex<Conditions>>,
    seed: u64,
    mut ended: oneshot::Receiver<()>,
) -> Outcome {
    let listener = TcpListener::from_std(listener)?;
    for number in 0_u64.. {
        tokio::select! {
            _ = &mut ended => break,
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                tokio::spawn(carry(client, target, Arc::clone(&conditions), seed.wrapping_add(number << 1)));
            }
        }
    }
    Ok(())
}

/// Carries one connection until either side has ended it, or it breaks.
async fn carry(client: TcpStream, target: SocketAddr, conditions: Arc<Mutex<Conditions>>, seed: u64) {
    let Ok(Ok(node)) = timeout(CONNECT, TcpStream::connect(target)).await else { return };
    for stream in [&client, &node] {
        // Without it small messages would wait for each other, which is not asked for.
        let _ = stream.set_nodelay(true);
    }
    let (broken, _) = watch::channel(false);
    let (from_client, to_client) = client.into_split();
    let (from_node, to_node) = node.into_split();
    let there = direction(from_client, to_node, &conditions, seed, &broken);
    let back = direction(from_node, to_client, &conditions, seed + 1, &broken);
    tokio::join!(there, back);
}

/// A piece and when it arrives; `None`: the connection breaks.
type Piece = (Instant, Option<Vec<u8>>);

async fn direction(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    conditions: &Mutex<Conditions>,
    seed: u64,
    broken: &watch::Sender<bool>,
) {
    let (send, receive) = mpsc::channel(PIECES);
    let mut cut = broken.subscribe();
    let carried = async { tokio::join!(take(from, send, conditions, seed), give(to, receive, broken)) };
    tokio::select! {
        _ = carried => {}
        // Both directions of a connection break together; dropping its halves with unread bytes resets it.
        _ = cut.wait_for(|cut| *cut) => {}
    }
}

/// Reads pieces and says when each is to arrive: never before the one before it.
async fn take(mut from: OwnedReadHalf, send: mpsc::Sender<Piece>, conditions: &Mutex<Conditions>, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut due = Instant::now();
    loop {
        let mut piece = vec![0; PIECE];
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        piece.truncate(length);
        let now = *conditions.lock().unwrap_or_else(PoisonError::into_inner);
        due = due.max(Instant::now() + now.time_on_the_way(&mut chance)) + now.time_in_the_pipe(length);
        let breaks = chance.random_range(0..PARTS) < now.resets;
        if send.send((due, (!breaks).then_some(piece))).await.is_err() {
            return;
        }
    }
}

/// Writes pieces when their time has come; ends the other side's reading when nothing more comes.
async fn give(mut to: OwnedWriteHalf, mut pieces: mpsc::Receiver<Piece>, broken: &watch::Sender<bool>) {
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        let written = match piece {
            Some(piece) => to.write_all(&piece).await.is_ok(),
            None => false,
        };
        if !written {
            broken.send_replace(true);
            return;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

impl Conditions {
    fn time_on_the_way(&self, chance: &mut StdRng) -> Duration {
        let more = self.jitter.mul_f64(chance.random_range(0.0..1.0));
        let stalls = chance.random_range(0..PARTS) < self.lost;
        self.delay + more + if stalls { STALL } else { Duration::ZERO }
    }

    fn time_in_the_pipe(&self, length: usize) -> Duration {
        match self.bandwidth {
            0 => Duration::ZERO,
            a_second => Duration::from_secs_f64(length as f64 / a_second as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpStream as StdStream},
    };

    use super::*;
    use crate::wait::timed;

    /// A server that gives back whatever it gets, and a proxy before it.
    fn echo() -> Outcome<(SocketAddr, Proxy)> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let target = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut back = stream.try_clone()?;
                    std::io::copy(&mut &stream, &mut back)
                });
            }
        });
        let proxy = Proxy::start(None, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), target, 7)?;
        Ok((target, proxy))
    }

    /// Sends bytes through and returns what came back, and how long that took.
    fn there_and_back(proxy: &Proxy, bytes: &[u8]) -> Outcome<(std::io::Result<Vec<u8>>, Duration)> {
        let mut stream = StdStream::connect(proxy.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answer = vec![0; bytes.len()];
        let (result, took) = timed(|| {
            stream.write_all(bytes)?;
            stream.read_exact(&mut answer)
        });
        Ok((result.map(|()| answer), took))
    }

    #[test]
    fn bytes_arrive_whole_in_order_and_as_late_as_is_asked() -> Outcome {
        let (_, proxy) = echo()?;
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let far = Conditions { delay: Duration::from_millis(100), ..Conditions::default() };
        let narrow = Conditions { bandwidth: 4_000_000, ..Conditions::default() };
        let lossy = Conditions { lost: PARTS, ..Conditions::default() };
        for (conditions, least) in [
            (Conditions::default(), Duration::ZERO),
            (far, far.delay * 2),
            (narrow, Duration::from_millis(200)),
            (lossy, STALL * 2),
        ] {
            proxy.set(conditions);
            let (answer, took) = there_and_back(&proxy, &bytes)?;
            assert!(answer? == bytes, "{conditions:?}");
            assert!(took >= least, "{conditions:?}: {took:?}");
        }
        Ok(())
    }

    #[test]
    fn a_connection_breaks_and_the_next_one_does_not() -> Outcome {
        let (_, proxy) = echo()?;
        proxy.set(Conditions { resets: PARTS, ..Conditions::default() });
        assert!(there_and_back(&proxy, b"lost")?.0.is_err());
        proxy.set(Conditions::default());
        assert_eq!(there_and_back(&proxy, b"kept")?.0?, b"kept");
        Ok(())
    }

    #[test]
    fn a_proxy_ends_with_its_connections() -> Outcome {
        let (_, proxy) = echo()?;
        let mut open = StdStream::connect(proxy.address)?;
        open.set_read_timeout(Some(Duration::from_secs(10)))?;
        let address = proxy.address;
        drop(proxy);
        assert!(!matches!(open.read(&mut [0; 1]), Ok(1..)));
        assert!(StdStream::connect(address).is_err());
        Ok(())
    }
}
