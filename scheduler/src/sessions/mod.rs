//! Agents' sessions on this node, and the streams that agents open for logs and exec. A session sends orders from this node's own copy of the
//! state and carries reports and heartbeats towards the leader, whoever that is, so that a change of leader drops no session.
//!
//! ```text
//!   dispatcher ──wake──> session (one task an agent) ──orders──> agent
//!       ^                    │  ^── heartbeats, reports, inventory ──┘
//!   published states         └──> reporting, Core::propose, Core::heartbeats
//!   relay ──OpenStream──> session ──> agent ──Attach──> streams ──> relay
//! ```
//!
//! A part of the API's floor: it shares the API's words for callers and refusals, and nothing else of it.
//!
//! Files, from the ground: `outbox` (messages to the agent, cut to a size) · `streams` · `reporting` (reports into the log) · `hello` · `session` ·
//! `relay`.
//!
//! Decisions
//! * **One dispatcher compares states**, not every session: it walks what differs between the indexes of two states' orders, which costs as much
//!   as changed, and wakes the sessions of those hosts. Ten thousand sessions that slept on every change would wake ten thousand times for each.
//! * **Nothing waits for an agent.** What is sent goes into a bounded queue; who does not take it in [`SLOW`] is disconnected and comes back
//!   with a full set of orders.
//! * **Reports are sent on at once, one hand-in under way a host**; what comes meanwhile shares the next one. So a quiet host's report is
//!   not held up for the sake of a batch, and a busy one's come in batches by themselves. Over hosts `reporting` gathers them.
//! * **A session insists**: a report that did not get through (no leader, unknown outcome) is proposed again until it is taken, and
//!   acknowledged only then. Reports carry sequences, so that taking one twice changes nothing.

mod hello;
mod outbox;
pub mod relay;
mod reporting;
mod session;
mod streams;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use imbl::ordmap::DiffItem;
use supercloud_proto::{name::HostName, v1};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::Instant,
};

use crate::{core::Core, state::State};
use reporting::Reporting;
use streams::Streams;

pub use hello::{Admission, Greeted, Refusal, admission};
pub(crate) use session::serve;
pub(crate) use streams::Attached;

/// Sessions on a node: 10,000 agents fit on one node of three when the other two are gone, with room.
const MAX_SESSIONS: usize = 20_000;
/// Streams that a session can be asked to open and has not been told of yet.
const MAX_ASKED: usize = 64;
/// How long an agent may leave a message untaken.
const SLOW: Duration = Duration::from_secs(10);
/// A session whose agent was heard within this time lives; another installation under its name is refused.
const LIVING: Duration = Duration::from_secs(12);

/// The sessions on this node. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    core: Core,
    live: Mutex<Live>,
    streams: Streams,
    reporting: Reporting,
    places: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
}

/// The living sessions by host.
#[derive(Default)]
struct Live {
    next: u64,
    by_host: BTreeMap<HostName, Entry>,
}

struct Entry {
    number: u64,
    incarnation: String,
    heard: Instant,
    wake: Arc<Notify>,
    ask: mpsc::Sender<v1::OpenStream>,
    /// Dropped to end the session.
    _end: watch::Sender<()>,
}

/// A session's place among the living. Leaves it when dropped.
struct Place {
    sessions: Sessions,
    host: HostName,
    number: u64,
    wake: Arc<Notify>,
    asked: mpsc::Receiver<v1::OpenStream>,
    end: watch::Receiver<()>,
}

impl Sessions {
    /// Starts the dispatcher; it ends with the node. Sessions end when `ending` turns true.
    #[must_use]
    pub fn start(core: Core, ending: watch::Receiver<bool>) -> Self {
        let shared = Arc::new(Shared {
            streams: Streams::default(),
            reporting: Reporting::start(core.clone()),
            live: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_SESSIONS)),
            ending,
            core,
        });
        let sessions = Self { shared };
        tokio::spawn(sessions.clone().dispatch());
        sessions
    }

    fn core(&self) -> &Core {
        &self.shared.core
    }

    /// How many agents have a session here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.live().by_host.len()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.shared.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the sessions of hosts whose orders changed from one state to the next, or that were removed.
    async fn dispatch(self) {
        let mut states = self.core().changes();
        let mut ending = self.shared.ending.clone();
        let mut seen = State::default();
        loop {
            let now = states.borrow_and_update().clone();
            self.wake_changed(&seen, &now);
            seen = now;
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = ended(&mut ending) => return,
            }
        }
    }

    fn wake_changed(&self, before: &State, after: &State) {
        let live = self.live();
        if live.by_host.is_empty() {
            return;
        }
        for item in before.orders_indexes().diff(after.orders_indexes()) {
            let host = match item {
                DiffItem::Add(host, _)
                | DiffItem::Remove(host, _)
                | DiffItem::Update { new: (host, _), .. } => *host,
            };
            // One that was removed has its name in the state before.
            let name = after.host_name(host).or_else(|| before.host_name(host));
            if let Some(entry) = name.and_then(|name| live.by_host.get(name)) {
                entry.wake.notify_one();
            }
        }
    }

    /// Takes the place of a host's session. An older one of the same installation is ended; while one of another installation lives, the
    /// newcomer is refused: one of the two machines is a copy of the other.
    fn take_place(&self, host: &HostName, incarnation: &str) -> Result<Place, Refusal> {
        let mut live = self.live();
        if let Some(present) = live.by_host.get(host)
            && present.incarnation != incarnation
            && present.heard.elapsed() < LIVING
        {
            tracing::error!(%host, "two installations of an agent claim one host; the second is refused");
            return Err(Refusal::permanent(format!(
                "another installation of the agent of host {host} has a session: was the machine copied?"
            )));
        }
        live.next += 1;
        let number = live.next;
        let wake = Arc::new(Notify::new());
        let (ask, asked) = mpsc::channel(MAX_ASKED);
        let (hold, end) = watch::channel(());
        let entry = Entry {
            number,
            incarnation: incarnation.to_owned(),
            heard: Instant::now(),
            wake: wake.clone(),
            ask,
            _end: hold,
        };
        live.by_host.insert(host.clone(), entry);
        Ok(Place { sessions: self.clone(), host: host.clone(), number, wake, asked, end })
    }

    /// Asks the session of a host to open a stream; `false`: there is no session here, or too much is asked of it already.
    fn ask(&self, host: &HostName, open: v1::OpenStream) -> bool {
        let live = self.live();
        live.by_host.get(host).is_some_and(|entry| entry.ask.try_send(open).is_ok())
    }

    /// Hands a stream that an agent has opened to whoever waits for it, or gives it back.
    pub(crate) fn attach(
        &self,
        id: &str,
        speaks_for: impl Fn(&HostName) -> bool,
        stream: Attached,
    ) -> Result<(), Box<Attached>> {
        self.shared.streams.attach(id, speaks_for, stream).map_err(Box::new)
    }

    /// Whether a host's session is on this node.
    fn holds(&self, host: &HostName) -> bool {
        self.live().by_host.contains_key(host)
    }
}

impl Place {
    /// Notes that the agent was heard.
    fn heard(&self) {
        let mut live = self.sessions.live();
        if let Some(entry) = live.by_host.get_mut(&self.host)
            && entry.number == self.number
        {
            entry.heard = Instant::now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut live = self.sessions.live();
        if live.by_host.get(&self.host).is_some_and(|entry| entry.number == self.number) {
            live.by_host.remove(&self.host);
        }
    }
}

/// Ready when this node is to end.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // An error means that whoever would say so is gone.
    let _ = ending.wait_for(|ending| *ending).await;
}
