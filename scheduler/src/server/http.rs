//! The small HTTP port (7402) for whoever looks on: is the process there (`/livez`), can it serve (`/readyz`), how is it (`/metrics`). Plain HTTP,
//! on loopback unless told otherwise; it changes nothing and tells nothing of a borough. Knows no certificate.
//!
//! Decisions. *`/livez` and `/metrics` need no leader*, so that monitoring does not hang on a sick cluster. *`/readyz` performs a real linearizable
//! read*: a node that looks well and answers nothing is not ready.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration, time::SystemTime};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, header, header::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{core::Core, metrics, sessions::Sessions};

/// Connections at a time: a few scrapers and load balancers. More wait to be taken.
const MAX_CONNECTIONS: usize = 32;
/// Longest life of a connection; who looks on regularly connects again.
const MAX_LIFE: Duration = Duration::from_secs(60);
/// Within which a request's head must be there.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a request that are held.
const MAX_HEAD: usize = 16 << 10;
/// Within which the read of `/readyz` must be answered.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// Wait after a connection could not be taken: the process may be out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

/// What is looked at.
#[derive(Clone)]
pub(super) struct Onlooker {
    pub(super) core: Core,
    pub(super) sessions: Sessions,
    /// When the node's certificate expires.
    pub(super) expires: Option<SystemTime>,
    pub(super) ending: watch::Receiver<bool>,
}

/// Serves until it is ended from outside.
pub(super) async fn serve(listener: TcpListener, onlooker: Onlooker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Ended with this one.
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let onlooker = onlooker.clone();
                connections.spawn(async move {
                    let _held = place;
                    connection(stream, from, onlooker).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the HTTP port does not take a connection");
                sleep(ACCEPT_AGAIN).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, onlooker: Onlooker) {
    let answer = service_fn(move |request| {
        let onlooker = onlooker.clone();
        async move { Ok::<_, Infallible>(onlooker.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    // One that has lived long enough is simply cut off.
    if let Ok(Err(error)) = timeout(MAX_LIFE, connection).await {
        tracing::debug!(%from, %error, "an HTTP connection broke");
    }
}

fn answer(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn words(status: StatusCode, text: impl Into<String>) -> Answer {
    answer(status, "text/plain; charset=utf-8", text.into() + "\n")
}

impl Onlooker {
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return words(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        }
        match request.uri().path() {
            "/livez" => words(StatusCode::OK, "alive"),
            "/readyz" => match self.ready().await {
                Ok(()) => words(StatusCode::OK, "ready"),
                Err(why) => words(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}")),
            },
            "/metrics" => match self.core.metrics().text(&self.core, self.sessions.count(), self.expires) {
                Ok(text) => answer(StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(error) => words(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            _ => words(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics"),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        if *self.ending.borrow() {
            return Err("this node is shutting down".to_owned());
        }
        match timeout(READ_DEADLINE, self.core.read()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no read was confirmed within {} s", READ_DEADLINE.as_secs())),
        }
    }
}
