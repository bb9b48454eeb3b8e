//! An attach stream: logs or an exec, piped between a driver and the node that asked. It ends when either side ends.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use supercloud_proto::{
    id::InstanceId,
    v1::{
        self, agent_service_client::AgentServiceClient, attach_up::Message as Up,
        exec_request::Message as Input, open_stream::Purpose,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};
use tracing::debug;

use super::OPEN_DEADLINE;
use crate::{
    driver::{Driver, DriverError, ExecIo, LogOptions, Seen},
    executor::Drivers,
    observed::View,
};

/// Pieces of output that may wait for the node; the driver waits when it is full.
const QUEUE: usize = 16;
/// How long the node may take to close a stream whose last piece was sent.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Why nothing is attached, as it is told to the caller.
struct Failure {
    code: Code,
    message: String,
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        let code = match &error {
            DriverError::Silent { .. } => Code::Unavailable,
            DriverError::Refused(_) => Code::FailedPrecondition,
            DriverError::Missing => Code::NotFound,
        };
        Self { code, message: error.to_string() }
    }
}

/// Where pieces go.
struct Sink(mpsc::Sender<v1::AttachUp>);

/// The node is gone: nobody wants the rest.
struct Gone;

impl Sink {
    async fn send(&self, message: Up) -> Result<(), Gone> {
        self.0.send(v1::AttachUp { message: Some(message) }).await.map_err(|_| Gone)
    }
}

/// Opens the stream and serves it to its end.
pub(super) async fn serve(
    mut client: AgentServiceClient<Channel>,
    open: v1::OpenStream,
    drivers: Arc<Drivers>,
    view: Arc<View>,
    has_room: bool,
) {
    let (up, queue) = mpsc::channel(QUEUE);
    let sink = Sink(up);
    if sink.send(Up::StreamId(open.stream_id.clone())).await.is_err() {
        return;
    }
    let call = client.attach(ReceiverStream::new(queue));
    let mut down = match tokio::time::timeout(OPEN_DEADLINE, call).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return debug!(stream = open.stream_id, %status, "not attached"),
        Err(_) => return debug!(stream = open.stream_id, "the node did not take the stream in time"),
    };
    let served = if has_room {
        pipe(&sink, &mut down, open.purpose, &drivers, &view).await
    } else {
        let message = "too many streams from this host at once".to_owned();
        Ok(Err(Failure { code: Code::ResourceExhausted, message }))
    };
    if let Ok(Err(Failure { code, message })) = served {
        let error = v1::AttachError { code: i32::from(code).unsigned_abs(), message };
        // It does not matter any more when the node is gone.
        let _ = sink.send(Up::Error(error)).await;
    }
    // The node closes its side once it has read the last piece; going earlier could cut that off.
    drop(sink);
    let closed = async { while let Ok(Some(_)) = down.message().await {} };
    let _ = tokio::time::timeout(CLOSE_DEADLINE, closed).await;
}

/// `Err`: the node is gone. Inside: what is to be told to the caller.
async fn pipe(
    sink: &Sink,
    down: &mut Streaming<v1::AttachDown>,
    purpose: Option<Purpose>,
    drivers: &Drivers,
    view: &View,
) -> Result<Result<(), Failure>, Gone> {
    match purpose {
        Some(Purpose::Logs(request)) => match find(&request.instance, &request.task, drivers, view) {
            Ok((driver, seen)) => logs(sink, down, driver, seen, &request).await,
            Err(failure) => Ok(Err(failure)),
        },
        Some(Purpose::Exec(start)) => match find(&start.instance, &start.task, drivers, view) {
            Ok((driver, seen)) => match driver.exec(seen, start).await {
                Ok(io) => exec(sink, down, io).await,
                Err(error) => Ok(Err(error.into())),
            },
            Err(failure) => Ok(Err(failure)),
        },
        None => {
            let message = "this host's agent does not know this kind of stream".to_owned();
            Ok(Err(Failure { code: Code::Unimplemented, message }))
        }
    }
}

/// The object that is meant. Without a task's name it must be the only one.
fn find<'a>(
    instance: &str,
    task: &str,
    drivers: &'a Drivers,
    view: &'a View,
) -> Result<(&'a Arc<dyn Driver>, &'a Seen), Failure> {
    let fail = |code, message: String| Failure { code, message };
    let id: InstanceId = instance.parse().map_err(|error: supercloud_proto::id::InvalidInstanceId| {
        fail(Code::InvalidArgument, error.to_string())
    })?;
    let none = || fail(Code::NotFound, format!("there is nothing of {instance} on this host"));
    let objects = view.get(&id).filter(|objects| !objects.is_empty()).ok_or_else(none)?;
    let names = || {
        let names: Vec<_> = objects.iter().map(|object| object.seen.mark.task.as_str()).collect();
        names.join(", ")
    };
    let object = match (task, &objects[..]) {
        ("", [only]) => only,
        ("", _) => {
            let message = format!("{instance} has several tasks ({}): name one", names());
            return Err(fail(Code::InvalidArgument, message));
        }
        (task, _) => objects
            .iter()
            .find(|object| object.seen.mark.task.as_str() == task)
            .ok_or_else(|| fail(Code::NotFound, format!("{instance} has no task {task}, but {}", names())))?,
    };
    let driver = drivers.get(&object.kind).ok_or_else(none)?;
    Ok((driver, &object.seen))
}

async fn logs(
    sink: &Sink,
    down: &mut Streaming<v1::AttachDown>,
    driver: &Arc<dyn Driver>,
    seen: &Seen,
    request: &v1::LogsRequest,
) -> Result<Result<(), Failure>, Gone> {
    let options = LogOptions { follow: request.follow, tail: request.tail };
    let mut pieces = match driver.logs(seen, options).await {
        Ok(pieces) => pieces,
        Err(error) => return Ok(Err(error.into())),
    };
    loop {
        tokio::select! {
            piece = pieces.next() => match piece {
                Some(Ok(piece)) => sink.send(Up::Logs(piece)).await?,
                Some(Err(error)) => return Ok(Err(error.into())),
                None => return Ok(Ok(())),
            },
            // The node says nothing on a stream of logs; when it closes, the reader has gone.
            message = down.message() => if !matches!(message, Ok(Some(_))) {
                return Err(Gone);
            },
        }
    }
}

async fn exec(
    sink: &Sink,
    down: &mut Streaming<v1::AttachDown>,
    io: ExecIo,
) -> Result<Result<(), Failure>, Gone> {
    let ExecIo { input, mut output } = io;
    let mut input = Some(input);
    loop {
        tokio::select! {
            piece = output.next() => match piece {
                Some(Ok(message)) => {
                    sink.send(Up::Exec(v1::ExecResponse { message: Some(message) })).await?;
                }
                Some(Err(error)) => return Ok(Err(error.into())),
                None => return Ok(Ok(())),
            },
            message = down.message() => match message {
                Ok(Some(message)) => feed(&mut input, message).await,
                // The caller has gone: dropping input and output ends the exec.
                Ok(None) | Err(_) => return Err(Gone),
            },
        }
    }
}

/// Hands one message to the exec. The end of standard input drops the sender, which is how a driver learns of it.
async fn feed(input: &mut Option<mpsc::Sender<Input>>, message: v1::AttachDown) {
    match message.exec.and_then(|exec| exec.message) {
        Some(Input::StdinEnd(_)) => *input = None,
        Some(message) => {
            if let Some(sender) = input
                && sender.send(message).await.is_err()
            {
                // The command reads no more; its output still counts.
                *input = None;
            }
        }
        None => {}
    }
}
