//! Calls to libvirt: blocking, on threads of their own, each with a deadline. It knows how to ask and nothing of what is asked.
//!
//! A lane has a few worker threads, each with its own connection, and one bounded queue. A call whose deadline passes while it runs
//! has a stuck worker: it is abandoned and another takes its place, up to [`MAX_STUCK`]; after that the lane answers `Silent` at once,
//! until a stuck one comes back. A call whose deadline passes in the queue is not made at all. Keepalive ends calls to a daemon that
//! hangs as a whole, so that threads come back. A connection is looked at before each call and opened anew when it is dead.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use virt::{
    connect::Connect,
    error::{Error, ErrorDomain, ErrorNumber},
};

use super::raw;
use crate::driver::DriverError;

/// Calls that may wait in one lane: far more than one agent has instances in work at a time.
const MAX_QUEUED: usize = 256;
/// Workers of one lane that may hang before it gives up: each is a thread, a connection and a slot of the daemon.
const MAX_STUCK: usize = 4;
/// A connection is asked for a sign of life this often, in seconds,
const KEEPALIVE_INTERVAL_S: i32 = 5;
/// and taken for dead after this many without.
const KEEPALIVE_COUNT: u32 = 6;

/// A queue of calls with its workers. Clones share them; with the last one the workers end.
#[derive(Clone)]
pub(super) struct Lane {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    label: &'static str,
    uri: String,
    workers: usize,
    queue: Mutex<mpsc::Receiver<Job>>,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    serving: usize,
    stuck: usize,
}

/// A call with all that it takes along; it is handed the connection, or why there is none, and answers its caller itself.
type Run = Box<dyn FnOnce(Result<&Connect, DriverError>) + Send>;

struct Job {
    run: Run,
    ticket: Arc<Ticket>,
}

/// Where a call is; caller and worker agree on it by compare and swap.
struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const ABANDONED: u8 = 3;

impl Ticket {
    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Lane {
    /// A lane with this many workers. The label names its threads; nothing is opened yet.
    pub(super) fn start(label: &'static str, uri: &str, workers: usize) -> Self {
        raw::ensure_event_loop();
        let (jobs, queue) = mpsc::channel(MAX_QUEUED);
        let shared = Arc::new(Shared {
            label,
            uri: uri.to_owned(),
            workers,
            queue: Mutex::new(queue),
            count: Mutex::default(),
        });
        (0..workers).for_each(|_| Shared::add_worker(&shared, &mut lock(&shared.count)));
        Self { jobs, shared }
    }

    /// Whether this is that lane, and not another one to the same place.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Makes a call and waits for its answer until the deadline. `what` names it in the reason of a `Silent`.
    pub(super) async fn call<T, F>(
        &self,
        what: &'static str,
        deadline: Duration,
        job: F,
    ) -> Result<T, DriverError>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, DriverError> + Send + 'static,
    {
        if lock(&self.shared.count).serving == 0 {
            return Err(silent(format!("{what} was not tried: {MAX_STUCK} earlier calls still hang")));
        }
        let (answer, answered) = oneshot::channel();
        let ticket = Arc::new(Ticket(AtomicU8::new(WAITING)));
        // Nobody to answer: the caller has given up, and its deadline has dealt with this call.
        let run = Box::new(move |connection: Result<&Connect, DriverError>| {
            let _ = answer.send(connection.and_then(job));
        });
        let queued = self.jobs.try_send(Job { run, ticket: Arc::clone(&ticket) });
        queued.map_err(|_| silent(format!("{what} was not tried: {MAX_QUEUED} calls wait already")))?;

        // A task of its own, so that a caller that is dropped in mid-wait does not leave a stuck worker unnoticed.
        let shared = Arc::clone(&self.shared);
        let waiting = tokio::spawn(async move {
            match tokio::time::timeout(deadline, answered).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(silent(format!("{what}: the call broke off"))),
                Err(_) => {
                    let where_it_was = shared.give_up(&ticket);
                    Err(silent(format!("{what}: no answer within {deadline:?}, {where_it_was}")))
                }
            }
        });
        waiting.await.unwrap_or_else(|_| Err(silent(format!("{what}: the agent is ending"))))
    }
}

impl Shared {
    fn add_worker(shared: &Arc<Self>, count: &mut Count) {
        let worker = Arc::clone(shared);
        let spawned = thread::Builder::new().name(shared.label.to_owned()).spawn(move || serve(&worker));
        match spawned {
            Ok(_) => count.serving += 1,
            Err(error) => tracing::error!(%error, lane = shared.label, "no thread for calls to libvirt"),
        }
    }

    /// Takes a call back whose deadline has passed; says where it was.
    fn give_up(self: &Arc<Self>, ticket: &Ticket) -> &'static str {
        if ticket.change(WAITING, ABANDONED) {
            return "still in the queue";
        }
        if !ticket.change(RUNNING, ABANDONED) {
            return "its answer came too late";
        }
        let mut count = lock(&self.count);
        count.serving -= 1;
        count.stuck += 1;
        tracing::warn!(lane = self.label, stuck = count.stuck, "a call to libvirt hangs");
        if count.stuck <= MAX_STUCK {
            Self::add_worker(self, &mut count);
        }
        "the call hangs"
    }

    /// An abandoned worker has come back. Whether it is needed.
    fn returned(&self) -> bool {
        let mut count = lock(&self.count);
        count.stuck -= 1;
        let needed = count.serving < self.workers;
        count.serving += usize::from(needed);
        needed
    }
}

/// The life of a worker.
fn serve(shared: &Shared) {
    let mut connection = None;
    loop {
        // Only waiting holds the queue; a worker in mid-call does not.
        let job = lock(&shared.queue).blocking_recv();
        let Some(job) = job else { return };
        if !job.ticket.change(WAITING, RUNNING) {
            continue;
        }
        // The crate panics when an object cannot be freed. That must cost one call, not the lane.
        let ran = catch_unwind(AssertUnwindSafe(|| (job.run)(open(&mut connection, &shared.uri))));
        if ran.is_err() {
            tracing::error!(lane = shared.label, "a call to libvirt panicked");
        }
        if !job.ticket.change(RUNNING, DONE) && !shared.returned() {
            return;
        }
    }
}

/// The connection, opened anew where there is none or it is dead.
fn open<'a>(connection: &'a mut Option<Connect>, uri: &str) -> Result<&'a Connect, DriverError> {
    let alive = connection.as_ref().is_some_and(|open| open.is_alive().unwrap_or(false));
    if !alive {
        *connection = None;
        *connection = Some(connect(uri).map_err(|error| silent(format!("{uri}: {}", error.message())))?);
    }
    connection.as_ref().ok_or_else(|| silent(format!("{uri}: no connection")))
}

/// Opens a connection with keepalive.
pub(super) fn connect(uri: &str) -> Result<Connect, Error> {
    let connection = Connect::open(Some(uri))?;
    if let Err(error) = connection.set_keep_alive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT) {
        // The test driver has no wire and so no keepalive.
        tracing::debug!(%error, uri, "no keepalive");
    }
    Ok(connection)
}

/// libvirt does not answer.
pub(super) fn silent(reason: impl Into<String>) -> DriverError {
    DriverError::Silent { runtime: "libvirt", reason: reason.into() }
}

/// What an error of libvirt means to a caller. What concerns the wire or a lock held too long says nothing of the task.
pub(super) fn explain(what: &str, error: &Error) -> DriverError {
    let on_the_wire = [ErrorDomain::Rpc, ErrorDomain::Remote].iter().any(|domain| error.domain().is(*domain));
    if error.code().is(ErrorNumber::NoDomain) {
        DriverError::Missing
    } else if on_the_wire || error.code().is(ErrorNumber::OperationTimeout) {
        silent(format!("{what}: {}", error.message()))
    } else {
        DriverError::Refused(format!("{what}: {}", error.message()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    fn is_silent<T>(result: Result<T, DriverError>, part: &str) -> bool {
        matches!(result, Err(DriverError::Silent { reason, .. }) if reason.contains(part))
    }

    /// A call that hangs until the sender is dropped. A worker must have taken it up by its deadline.
    async fn hang(lane: &Lane) -> blocking::Sender<()> {
        let (release, hold) = blocking::channel::<()>();
        let result = lane.call("hang", 10 * SHORT, move |_| Ok(hold.recv().is_ok())).await;
        assert!(is_silent(result, "the call hangs"));
        release
    }

    async fn domains(lane: &Lane) -> Result<u32, DriverError> {
        lane.call("count", LONG, |c| c.num_of_domains().map_err(|e| explain("count", &e))).await
    }

    #[tokio::test]
    async fn a_stuck_worker_is_replaced_and_too_many_are_told() {
        let lane = Lane::start("test", "test:///default", 1);
        let mut held = Vec::new();
        for _ in 0..=MAX_STUCK {
            assert!(domains(&lane).await.is_ok());
            held.push(hang(&lane).await);
        }
        assert!(is_silent(domains(&lane).await, "still hang"));

        held.clear();
        let back = async {
            while domains(&lane).await.is_err() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(LONG, back).await.expect("a worker comes back");
    }

    #[tokio::test]
    async fn a_call_given_up_in_the_queue_is_never_made() {
        let lane = Lane::start("test", "test:///default", 1);
        let (release, hold) = blocking::channel::<()>();
        let first = lane.call("first", LONG, move |_| Ok(hold.recv().is_ok()));
        let (made, was_made) = blocking::channel::<()>();
        let second = async {
            let result = lane.call("second", SHORT, move |_| Ok(made.send(()).is_ok())).await;
            assert!(is_silent(result, "still in the queue"));
            drop(release);
        };
        let (first, ()) = tokio::join!(first, second);
        assert!(matches!(first, Ok(false)));
        assert!(domains(&lane).await.is_ok());
        assert!(was_made.recv().is_err());
    }

    #[tokio::test]
    async fn a_panic_costs_one_call() {
        let lane = Lane::start("test", "test:///default", 1);
        let result: Result<(), _> = lane.call("panic", LONG, |_| panic!("on purpose")).await;
        assert!(is_silent(result, "broke off"));
        assert!(domains(&lane).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_listening_is_silence() {
        let lane = Lane::start("test", "qemu:///system?socket=/nonexistent/socket", 1);
        assert!(is_silent(domains(&lane).await, "/nonexistent/socket"));
    }
}
