//! What agents call: the session, and the streams they open for logs and exec. All that happens in them stands in `sessions`.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use supercloud_proto::v1::{self, agent_service_server::AgentService, attach_up::Message as Up};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, open};
use crate::sessions::{self, Attached, relay};

/// How long an agent may take to say which stream it has opened.
const ID_DEADLINE: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl AgentService for Api {
    type SessionStream = ReceiverStream<Result<v1::SchedulerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (caller, incoming) = open(request)?;
        let outgoing = sessions::serve(&self.sessions, caller, incoming)?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::AttachDown, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachUp>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (caller, mut up) = open(request)?;
        let first = timeout(ID_DEADLINE, up.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no stream was named"))??;
        let Some(Up::StreamId(id)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message must name the stream"));
        };
        let (down, input) = mpsc::channel(relay::INPUT_DEPTH);
        let attached = Attached { up: up.boxed(), down };
        self.sessions
            .attach(&id, |host| caller.speaks_for(host), attached)
            .map_err(|_| Status::not_found("nobody waits for this stream, or it is another host's"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(input).map(Ok))))
    }
}
