//! The way to an instance's output and input: through the session of its host, on this node or on another one.
//!
//! ```text
//!   caller ── Logs, Exec ──> this node ── OpenStream ──> agent (session here)  ── Attach ──> this node
//!                               └── Relay ──> the node that has the session ── OpenStream ──> agent ── Attach ──> that node
//! ```
//! Either end's going ends the whole: each part holds the next, and dropping one drops all.

use std::{future::ready, pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, future::BoxFuture, stream};
use supercloud_proto::{
    id::HostId,
    name::HostName,
    v1::{
        self, attach_up::Message as Up, exec_request::Message as Input, open_stream::Purpose,
        relay_request::Message as Relayed,
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Attached, Sessions};
use crate::{
    api::{ending::cut_off, refusals},
    core::Core,
    peer_service::{RelayAnswers, RelayHandler},
    raft::NodeId,
};

/// How long an agent may take to open a stream.
const ATTACH_DEADLINE: Duration = Duration::from_secs(5);
/// How long another node may take to be reached, and its agent to open a stream.
const RELAY_DEADLINE: Duration = Duration::from_secs(7);
/// How long a caller of exec may take to say what to run.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Messages of input on their way.
pub(crate) const INPUT_DEPTH: usize = 16;

/// Streams an instance's output from its host.
///
/// # Errors
/// `UNAVAILABLE` naming the host when no node has a session with it.
pub async fn logs(
    sessions: &Sessions,
    host: &HostName,
    request: v1::LogsRequest,
) -> Result<Pin<Box<dyn Stream<Item = Result<v1::LogsResponse, Status>> + Send>>, Status> {
    let Attached { up, down } = open(sessions, host, Purpose::Logs(request)).await?;
    let pieces = up.filter_map(move |message| {
        // Held until the stream ends: the agent takes its end for ours.
        let _held = &down;
        ready(match message.map(|message| message.message) {
            Ok(Some(Up::Logs(piece))) => Some(Ok(piece)),
            Ok(Some(Up::Error(error))) => Some(Err(agent_error(error))),
            Ok(_) => None,
            Err(status) => Some(Err(broken(&status))),
        })
    });
    Ok(Box::pin(cut_off(until_error(pieces), ended(sessions))))
}

/// The first message of an exec.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is no start, or has no command.
pub async fn exec_start(input: &mut Streaming<v1::ExecRequest>) -> Result<v1::ExecStart, Status> {
    let first = timeout(START_DEADLINE, input.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("nothing was said about what to run"))??;
    let Some(Input::Start(start)) = first.and_then(|first| first.message) else {
        return Err(refusals::problem("start", "a start as the first message", "something else"));
    };
    if start.command.is_empty() {
        return Err(refusals::problem("start.command", "a command with its arguments", "nothing"));
    }
    Ok(start)
}

/// Runs a command in an instance on its host and connects it to the caller.
///
/// # Errors
/// `UNAVAILABLE` naming the host when no node has a session with it.
pub async fn exec(
    sessions: &Sessions,
    host: &HostName,
    start: v1::ExecStart,
    input: Streaming<v1::ExecRequest>,
) -> Result<Pin<Box<dyn Stream<Item = Result<v1::ExecResponse, Status>> + Send>>, Status> {
    let Attached { up, down } = open(sessions, host, Purpose::Exec(start)).await?;
    let pump = Pump(tokio::spawn(pump(input, down.clone())));
    let pieces = up.filter_map(move |message| {
        let _held = (&down, &pump);
        ready(match message.map(|message| message.message) {
            Ok(Some(Up::Exec(piece))) => Some(Ok(piece)),
            Ok(Some(Up::Error(error))) => Some(Err(agent_error(error))),
            Ok(_) => None,
            Err(status) => Some(Err(broken(&status))),
        })
    });
    Ok(Box::pin(cut_off(until_error(pieces), ended(sessions))))
}

/// Ends with whoever holds it.
struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Passes a caller's input on. A caller who only closes its side has said the last of standard input.
async fn pump(mut input: Streaming<v1::ExecRequest>, down: mpsc::Sender<v1::AttachDown>) {
    loop {
        let exec = match input.message().await {
            Ok(Some(exec)) => exec,
            Ok(None) => v1::ExecRequest { message: Some(Input::StdinEnd(true)) },
            Err(_) => return,
        };
        let last = matches!(exec.message, Some(Input::StdinEnd(true)));
        if down.send(v1::AttachDown { exec: Some(exec) }).await.is_err() {
            return;
        }
        if last {
            // The terminal's size may still change.
            while let Ok(Some(exec)) = input.message().await {
                if down.send(v1::AttachDown { exec: Some(exec) }).await.is_err() {
                    return;
                }
            }
            return;
        }
    }
}

/// Passes everything on up to and with the first error.
fn until_error<T: Send + 'static>(
    pieces: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    pieces.scan(false, |failed, piece| {
        let over = std::mem::replace(failed, piece.is_err());
        ready((!over).then_some(piece))
    })
}

fn ended(sessions: &Sessions) -> impl Future<Output = ()> + Send + 'static {
    let mut ending = sessions.shared.ending.clone();
    async move {
        // An error means that whoever would say so is gone.
        let _ = ending.wait_for(|ending| *ending).await;
    }
}

fn agent_error(error: v1::AttachError) -> Status {
    let code = i32::try_from(error.code).map_or(Code::Unknown, Code::from);
    // An agent that says OK with an error is not to be believed about the OK.
    let code = if code == Code::Ok { Code::Unknown } else { code };
    Status::new(code, error.message)
}

fn broken(status: &Status) -> Status {
    Status::unavailable(format!("the connection to the host broke: {}", status.message()))
}

/// Opens a stream to a host through whichever node has its session.
async fn open(sessions: &Sessions, host: &HostName, purpose: Purpose) -> Result<Attached, Status> {
    if sessions.holds(host) {
        return open_here(sessions, host, purpose).await;
    }
    open_elsewhere(sessions.core(), host, &purpose).await
}

/// Opens a stream over a session on this node. `NOT_FOUND`: there is none.
pub(crate) async fn open_here(
    sessions: &Sessions,
    host: &HostName,
    purpose: Purpose,
) -> Result<Attached, Status> {
    if !sessions.holds(host) {
        return Err(Status::not_found(format!("the session of host {host} is not on this node")));
    }
    let mut expected = sessions.shared.streams.expect(host).map_err(|error| {
        Status::resource_exhausted(format!("no stream to host {host} can be opened: {error}"))
    })?;
    let open = v1::OpenStream { stream_id: expected.id.clone(), purpose: Some(purpose) };
    if !sessions.ask(host, open) {
        return Err(Status::unavailable(format!("host {host} cannot be asked for a stream now")));
    }
    match timeout(ATTACH_DEADLINE, &mut expected.attached).await {
        Ok(Ok(attached)) => Ok(attached),
        _ => Err(Status::unavailable(format!(
            "host {host} opened no stream within {} s",
            ATTACH_DEADLINE.as_secs()
        ))),
    }
}

/// Asks the other nodes for the session.
async fn open_elsewhere(core: &Core, host: &HostName, purpose: &Purpose) -> Result<Attached, Status> {
    let state = core.view();
    let host_id = state.host_named(host.as_str()).map_or(0, |host| host.id.0);
    let status = core.status();
    let others: Vec<_> = status.members.members.keys().copied().filter(|id| *id != status.id).collect();
    let mut last = None;
    for node in others {
        match relay(core.clone(), node, host_id, purpose.clone()).await {
            Ok(attached) => return Ok(attached),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => last = Some(status),
        }
    }
    let because = last.map(|status| format!(" ({})", status.message())).unwrap_or_default();
    Err(Status::unavailable(format!("host {host} has no session with any node{because}")))
}

/// Asks one other node.
fn relay(
    core: Core,
    node: NodeId,
    host_id: u32,
    purpose: Purpose,
) -> BoxFuture<'static, Result<Attached, Status>> {
    let open = v1::OpenStream { stream_id: String::new(), purpose: Some(purpose) };
    let first = Relayed::Open(v1::RelayOpen { host_id, open: Some(open) });
    let (down, input) = mpsc::channel::<v1::AttachDown>(INPUT_DEPTH);
    let rest = ReceiverStream::new(input).map(Relayed::Down);
    let requests =
        stream::iter([first]).chain(rest).map(|message| v1::RelayRequest { message: Some(message) });
    let call = async move {
        let client = core.peer(node).await;
        let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
        let responses = client.relay(requests).await?.into_inner();
        let up = responses.filter_map(|response| ready(response.map(|response| response.up).transpose()));
        Ok(Attached { up: up.boxed(), down })
    };
    let late = move |_| Err(Status::unavailable(format!("node {node} did not answer")));
    Box::pin(async move { timeout(RELAY_DEADLINE, call).await.unwrap_or_else(late) })
}

/// Serves the relays of other nodes.
pub struct Relays(pub Sessions);

#[tonic::async_trait]
impl RelayHandler for Relays {
    fn agents(&self) -> usize {
        self.0.count()
    }

    /// Opens a stream here and joins the two.
    async fn relay(&self, mut requests: Streaming<v1::RelayRequest>) -> Result<RelayAnswers, Status> {
        let first = timeout(START_DEADLINE, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("nothing was said about what to open"))??;
        let Some(Relayed::Open(open)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message must say what to open"));
        };
        let host_id = HostId(open.host_id);
        let host = self.0.core().view().host_name(host_id).cloned();
        let host =
            host.ok_or_else(|| Status::not_found(format!("host number {host_id} is not known here")))?;
        let purpose = open.open.and_then(|open| open.purpose);
        let purpose = purpose.ok_or_else(|| Status::invalid_argument("it is not said what to open"))?;
        let Attached { up, down } = open_here(&self.0, &host, purpose).await?;
        let pump = Pump(tokio::spawn(pass_down(requests, down.clone())));
        let responses = up.map(move |message| {
            let _held = (&down, &pump);
            message.map(|up| v1::RelayResponse { up: Some(up) })
        });
        Ok(Box::pin(cut_off(responses, ended(&self.0))))
    }
}

async fn pass_down(mut requests: Streaming<v1::RelayRequest>, down: mpsc::Sender<v1::AttachDown>) {
    while let Ok(Some(request)) = requests.message().await {
        let Some(Relayed::Down(piece)) = request.message else { continue };
        if down.send(piece).await.is_err() {
            return;
        }
    }
}
