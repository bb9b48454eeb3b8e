//! The API without the operator's command, for what a command cannot do: many calls at once, and the same request twice.

use std::{future::Future, path::Path, time::Duration};

use supercloud_proto::pki::{
    Credentials, Servers,
    client::{Connection, Trust},
};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{Outcome, Wrong};

/// Longest time for one attempt at a call.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Wait before another attempt.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts at a call before it counts as lost: much longer than any election.
const ATTEMPTS: usize = 150;

/// A client that goes on with another node where one does not answer.
#[derive(Debug)]
pub struct Api {
    servers: Servers,
}

impl Api {
    /// A client of these nodes with these credentials.
    pub fn new(servers: &[String], credentials: &Path) -> Outcome<Self> {
        let credentials = Credentials::load(credentials)?;
        Ok(Self { servers: Servers::new(servers, Trust::Mutual(&credentials))? })
    }

    /// An open way to some node.
    pub async fn connect(&self) -> Outcome<Connection> {
        Ok(self.servers.connect().await?)
    }

    /// Makes a call until some node answers it for good. Only for calls that bear a request id, or change nothing.
    pub async fn call<T, F, Fut>(&self, call: F) -> Outcome<Result<T, Status>>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match self.servers.connect().await {
                Err(error) => last = error.to_string(),
                Ok(connection) => {
                    match tokio::time::timeout(ATTEMPT, call(connection.channel)).await {
                        Ok(Ok(answer)) => return Ok(Ok(answer.into_inner())),
                        Ok(Err(status)) if !may_be_made_again(&status) => return Ok(Err(status)),
                        Ok(Err(status)) => last = status.to_string(),
                        Err(_) => last = format!("{} did not answer", connection.address),
                    }
                    self.servers.avoid(&connection.address);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Wrong(format!("no node answered for good: {last}")).into())
    }
}

/// `UNKNOWN` is no node's answer: it is what a broken connection is called here.
fn may_be_made_again(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::Unknown
    )
}
