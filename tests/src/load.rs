//! Clients that read and write registers, each one call at a time, and record every call (`history`).
//!
//! Decisions
//! * **A write is made again under its request id** until it is answered for good, on one node after the other, for [`PATIENCE`]; then its
//!   fate is unknown. Now and then a client is impatient and makes one short attempt only, so that there are unknown fates at all.
//! * **Any node.** Half of the clients stay with the node that answered last, as real ones do; the others take one at random for each call, also
//!   one that is cut off: it is the one that could tell what is old.
//! * **An answer that no node may give** (a register that is not there, an internal error) ends the client, and [`Load::finish`] tells.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    Outcome, Wrong,
    history::{Answer, Ask, Content, History, Operation},
    hold, linearizable,
    registers::{Attempt, Registers},
    wait,
    ways::Ways,
    wrong,
};

/// Longest time for one attempt: longer than an election, so that a node that waits for one answers.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Longest time for one call with all its attempts.
const PATIENCE: Duration = Duration::from_secs(8);
/// What an impatient client gives a call.
const IMPATIENCE: Duration = Duration::from_millis(20);
/// Wait before another attempt.
const PAUSE: Duration = Duration::from_millis(20);
/// Within which every node answers once the network and all nodes are whole again.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// Looks at a register that is still being written by calls of an unknown fate; each client has one at most.
const LOOKS: usize = 20;
/// Of a hundred calls, how many read, how many write on a condition, and how many are impatient; the rest just writes.
const READS: u32 = 45;
const CONDITIONS: u32 = 15;
const IMPATIENT: u32 = 2;
/// Threads for all clients; the machine belongs to the nodes.
const THREADS: usize = 2;

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Clients at a time.
    pub clients: usize,
    /// Registers that they share.
    pub registers: usize,
}

/// What most scenarios use: two clients a register, so that calls overlap on each.
pub const USUAL: Size = Size { clients: 8, registers: 4 };

/// Running clients.
#[derive(Debug)]
pub struct Load {
    runtime: Runtime,
    shared: Arc<Shared>,
    begin: Vec<Content>,
    clients: Vec<JoinHandle<Outcome<Vec<Operation>>>>,
}

#[derive(Debug)]
struct Shared {
    registers: Registers,
    name: String,
    size: Size,
    ways: Ways,
    begun: Instant,
    end: AtomicBool,
    written: AtomicUsize,
    /// The next value: no two writes have the same.
    values: AtomicU64,
}

impl Load {
    /// Makes registers under this name, which must be new, and starts clients on all nodes.
    pub fn start(name: &str, servers: &[String], credentials: &Path, size: Size) -> Outcome<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
        let shared = Arc::new(Shared {
            registers: Registers::new(name)?,
            name: name.to_owned(),
            size,
            ways: runtime.block_on(Ways::open(servers, credentials))?,
            begun: Instant::now(),
            end: AtomicBool::new(false),
            written: AtomicUsize::new(0),
            values: AtomicU64::new(size.registers as u64),
        });
        let begin = runtime.block_on(shared.begin())?;
        let clients = (0..size.clients)
            .map(|client| {
                let client = Client::new(client, Arc::clone(&shared));
                runtime.spawn(client.run())
            })
            .collect();
        Ok(Self { runtime, shared, begin, clients })
    }

    /// Writes that were acknowledged so far.
    pub fn written(&self) -> usize {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged; how long that took.
    pub fn await_more(&self, more: usize, within: Duration) -> Outcome<Duration> {
        let (goal, begun) = (self.written() + more, Instant::now());
        wait::until(&format!("{more} more writes are acknowledged"), within, || {
            hold(self.written() >= goal, || format!("{} of {goal}", self.written()))?;
            hold(self.clients.iter().all(|client| !client.is_finished()), || "a client has ended".to_owned())
        })?;
        Ok(begun.elapsed())
    }

    /// Ends the clients and holds that what they saw has one order and is linearizable, and that every node has all that was
    /// acknowledged. All nodes must be running and in touch.
    pub fn finish(self) -> Outcome<History> {
        self.shared.end.store(true, Ordering::Relaxed);
        let mut history = History { operations: Vec::new(), begin: self.begin };
        for client in self.clients {
            history.operations.extend(self.runtime.block_on(client)??);
        }
        let last = self.runtime.block_on(self.shared.last(&mut history));
        let seen = last.and_then(|kept| self.shared.judge(&history, &kept));
        let tally = history.tally();
        eprintln!("{}: {tally}", self.shared.name);
        seen.map_err(|error| Wrong(format!("{} ({tally}): {error}", self.shared.name)))?;
        Ok(history)
    }
}

/// What each register holds in the end, with its kept versions.
type Kept = Vec<(Content, Vec<u64>)>;

impl Shared {
    /// Writes every register once.
    async fn begin(&self) -> Outcome<Vec<Content>> {
        let mut begin = Vec::new();
        for register in 0..self.size.registers {
            let value = register as u64;
            let id = format!("{}-begin-{register}", self.name);
            let (answer, _) = self.ask(register, Ask::Write(value), &id, 0, PATIENCE).await?;
            hold(matches!(answer, Answer::Written(_)), || format!("register {register}: {answer:?}"))?;
            begin.push(Content { revision: 1, value });
        }
        Ok(begin)
    }

    /// Makes one call, on one node after the other from `first` on; its answer, and the node to begin with next time.
    async fn ask(
        &self,
        register: usize,
        ask: Ask,
        id: &str,
        first: usize,
        patience: Duration,
    ) -> Outcome<(Answer, usize)> {
        let (begun, mut maybe) = (Instant::now(), false);
        for attempt in 0.. {
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            let node = self.ways.to((first + attempt) % self.ways.count());
            match timeout(ATTEMPT.min(left), self.registers.attempt(node, register, ask, id)).await {
                Ok(Attempt::Answered(answer)) => return Ok((answer, first + attempt)),
                Ok(Attempt::Absurd(status)) => return wrong(format!("{ask:?} was answered with {status}")),
                Ok(Attempt::NotDone(_)) => {}
                Ok(Attempt::MaybeDone(_)) | Err(_) => maybe = true,
            }
            sleep(PAUSE.min(patience.saturating_sub(begun.elapsed()))).await;
        }
        let nothing_written = !maybe || ask == Ask::Read;
        Ok((if nothing_written { Answer::Failed } else { Answer::Unknown }, first + 1))
    }

    /// Reads every register from every node, as part of the history, and what the nodes keep of each.
    async fn last(&self, history: &mut History) -> Outcome<Kept> {
        let mut kept = Vec::new();
        for register in 0..self.size.registers {
            for place in 0..self.ways.count() {
                let operation = self.last_read(register, place).await?;
                history.operations.push(operation);
            }
            kept.push(self.kept(register).await?);
        }
        Ok(kept)
    }

    /// Reads a register from one node, as soon as that one answers.
    async fn last_read(&self, register: usize, place: usize) -> Outcome<Operation> {
        let (begun, mut last) = (Instant::now(), String::new());
        while begun.elapsed() < BACK_WITHIN {
            let asked = self.begun.elapsed();
            match timeout(ATTEMPT, self.registers.read(self.ways.to(place), register, false)).await {
                Ok(Ok((content, index))) => {
                    let (answer, answered) = (Answer::Content(content, index), self.begun.elapsed());
                    let client = self.size.clients;
                    return Ok(Operation { client, register, ask: Ask::Read, asked, answer, answered });
                }
                Ok(Err(status)) => last = status.to_string(),
                Err(_) => "no answer".clone_into(&mut last),
            }
            sleep(PAUSE).await;
        }
        wrong(format!("node {place} does not answer within {} s: {last}", BACK_WITHIN.as_secs()))
    }

    /// A register's content with its kept versions, which belong together: a write of an unknown fate may still come between.
    async fn kept(&self, register: usize) -> Outcome<(Content, Vec<u64>)> {
        for attempt in 0..LOOKS {
            let node = || self.ways.to(attempt % self.ways.count());
            let before = self.registers.read(node(), register, false).await?.0;
            let kept = self.registers.kept(node(), register).await?;
            if self.registers.read(node(), register, false).await?.0 == before {
                return Ok((before, kept));
            }
        }
        wrong(format!("register {register} does not come to rest"))
    }

    fn judge(&self, history: &History, kept: &Kept) -> Outcome {
        history.must_have_one_order()?;
        for (register, (last, kept)) in kept.iter().enumerate() {
            history.must_be_kept(register, *last, kept)?;
        }
        linearizable::must_be(history)
    }
}

/// One client.
struct Client {
    number: usize,
    shared: Arc<Shared>,
    chance: StdRng,
    /// The node that it asks first.
    node: usize,
    /// The version of each register that this client saw last.
    seen: Vec<u64>,
    history: Vec<Operation>,
}

impl Client {
    fn new(number: usize, shared: Arc<Shared>) -> Self {
        let seen = vec![1; shared.size.registers];
        let (chance, node) = (StdRng::seed_from_u64(number as u64), number);
        Self { number, shared, chance, node, seen, history: Vec::new() }
    }

    async fn run(mut self) -> Outcome<Vec<Operation>> {
        for call in 0.. {
            if self.shared.end.load(Ordering::Relaxed) {
                break;
            }
            let operation = self.call(call).await?;
            self.history.push(operation);
        }
        Ok(self.history)
    }

    async fn call(&mut self, call: usize) -> Outcome<Operation> {
        let shared = Arc::clone(&self.shared);
        let register = self.chance.random_range(0..shared.size.registers);
        let ask = self.choose(register);
        if self.number % 2 == 1 {
            self.node = self.chance.random_range(0..shared.ways.count());
        }
        let patience = if self.chance.random_range(0..100) < IMPATIENT { IMPATIENCE } else { PATIENCE };
        let id = format!("{}-{}-{call}", shared.name, self.number);
        let asked = shared.begun.elapsed();
        let (answer, node) = shared.ask(register, ask, &id, self.node, patience).await?;
        self.node = node % shared.ways.count();
        let answered = shared.begun.elapsed();
        match answer {
            Answer::Content(content, _) => self.seen[register] = content.revision,
            Answer::Written(_) => drop(shared.written.fetch_add(1, Ordering::Relaxed)),
            Answer::OtherVersion | Answer::Failed | Answer::Unknown => {}
        }
        Ok(Operation { client: self.number, register, ask, asked, answer, answered })
    }

    fn choose(&mut self, register: usize) -> Ask {
        let value = || self.shared.values.fetch_add(1, Ordering::Relaxed);
        match self.chance.random_range(0..100) {
            chance if chance < READS => Ask::Read,
            chance if chance < READS + CONDITIONS => Ask::WriteIf(self.seen[register], value()),
            _ => Ask::Write(value()),
        }
    }
}
