//! Every bound of the two ports in one table. A limit that is missing here does not exist.

use std::time::Duration;

use supercloud_proto::v1::{
    agent_service_server::AgentServiceServer, borough_service_server::BoroughServiceServer,
    event_service_server::EventServiceServer, host_service_server::HostServiceServer,
    instance_service_server::InstanceServiceServer, scheduler_service_server::SchedulerServiceServer,
    volume_service_server::VolumeServiceServer, workload_service_server::WorkloadServiceServer,
};
use tonic::{service::Routes, transport::Server};

use crate::api::Api;

/// Largest message that the API takes: a plan of a hundred specs, or an agent's reports, fit many times.
pub(crate) const MAX_REQUEST: usize = 4 << 20;
/// Largest message that the API sends. Pages are cut at 3 MiB; a plan may be larger.
pub(crate) const MAX_RESPONSE: usize = 16 << 20;
/// How often an idle TCP connection is probed below HTTP/2.
pub(super) const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// The bounds of one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortLimits {
    /// Time within which a call is answered, or its stream opened; `None`: the calls have deadlines of their own.
    pub(crate) answer: Option<Duration>,
    /// Streams and calls at a time on one connection.
    pub(crate) streams: u32,
    /// Calls at a time on one connection that are worked on.
    pub(crate) concurrency: usize,
    /// Largest headers of a request.
    pub(crate) headers: u32,
    /// What may be under way unread on one stream.
    pub(crate) stream_window: u32,
    /// The same on one connection, so that one slow stream leaves room for others.
    pub(crate) connection_window: u32,
    /// How often a silent connection is probed.
    pub(crate) keepalive: Duration,
    /// How long the answer to a probe may take.
    pub(crate) keepalive_timeout: Duration,
    /// Streams that a client opened and reset before they were taken (rapid reset).
    pub(crate) reset_streams: usize,
}

/// Of the port for clients and agents.
pub(crate) const API: PortLimits = PortLimits {
    // Longer than a proposal's deadline of 10 s and a plan of a large estate.
    answer: Some(Duration::from_secs(30)),
    // An agent has a session and some dozens of attach streams; a client a few watches.
    streams: 256,
    concurrency: 256,
    headers: 16 << 10,
    stream_window: 1 << 20,
    connection_window: 4 << 20,
    keepalive: Duration::from_secs(10),
    keepalive_timeout: Duration::from_secs(5),
    reset_streams: 32,
};

/// Of the port for the other nodes. Their streams last, and what they send is large; they hold certificates.
pub(crate) const PEERS: PortLimits = PortLimits {
    answer: None,
    streams: 4_096,
    concurrency: 4_096,
    headers: 16 << 10,
    stream_window: 4 << 20,
    connection_window: 16 << 20,
    keepalive: Duration::from_secs(2),
    keepalive_timeout: Duration::from_secs(3),
    reset_streams: 32,
};

impl PortLimits {
    /// A server with these bounds.
    pub(crate) fn server(&self) -> Server {
        let server = Server::builder()
            .max_concurrent_streams(self.streams)
            .concurrency_limit_per_connection(self.concurrency)
            .http2_max_header_list_size(self.headers)
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .http2_keepalive_interval(Some(self.keepalive))
            .http2_keepalive_timeout(Some(self.keepalive_timeout))
            .http2_max_pending_accept_reset_streams(Some(self.reset_streams))
            .http2_max_local_error_reset_streams(Some(self.reset_streams));
        match self.answer {
            Some(answer) => server.timeout(answer),
            None => server,
        }
    }
}

/// The services of the API, each with its limits on messages.
pub(super) fn api_services(api: &Api) -> Routes {
    macro_rules! limited {
        ($($server:ident),*) => {{
            let mut routes = tonic::service::RoutesBuilder::default();
            $(routes.add_service(
                $server::new(api.clone())
                    .max_decoding_message_size(MAX_REQUEST)
                    .max_encoding_message_size(MAX_RESPONSE),
            );)*
            routes.routes()
        }};
    }
    limited!(
        WorkloadServiceServer,
        InstanceServiceServer,
        HostServiceServer,
        VolumeServiceServer,
        BoroughServiceServer,
        EventServiceServer,
        SchedulerServiceServer,
        AgentServiceServer
    )
}
