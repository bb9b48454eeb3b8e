//! The way to the cluster: any node will do, and a call that a dead or hanging node swallowed is made again on another one. Every
//! changing call carries a request id, so that making it again is safe.

use std::time::{Duration, Instant};

use supercloud_proto::{
    name::{BoroughName, WorkloadName},
    pki::{Servers, address::ServerAddress, client::Trust},
};
use tonic::{Code, Response, Status, metadata::MetadataMap, transport::Channel};

use crate::{
    args::{Format, Global},
    failure::Failure,
    output::{self, Age},
    settings::{self, Context},
};

/// Deadline of one attempt at a call. A node that cannot find a leader says so before that.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);
/// Attempts at a call, over all nodes: enough to meet each of five nodes and one of them again after an election.
const ATTEMPTS: usize = 6;
/// After so long no further attempt begins: an election has ended long before, and a cluster without a majority is told as such.
const PATIENCE: Duration = Duration::from_secs(8);
/// Wait before another attempt, so that an election can end.
const PAUSE: Duration = Duration::from_millis(250);

/// Header of the answer to a stale read: how long ago the node heard the leader, in milliseconds; no number: never.
const STALE_MS: &str = "supercloud-stale-ms";

/// An open way to the cluster.
pub struct Session {
    servers: Servers,
    /// The settings in force.
    pub context: Context,
    /// Whether reads may lag behind.
    pub stale: bool,
    /// Whether what is printed is for programs, which find the age of a stale read in it.
    for_programs: bool,
}

impl Session {
    /// Takes the settings; connects with the first call.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let context = settings::resolve(global)?;
        if context.servers.is_empty() {
            return Err(Failure::Usage(
                "no scheduler address: name one with --server, SUPERCLOUD_SERVER or a context in the settings file"
                    .to_owned(),
            ));
        }
        let credentials = settings::credentials(&context)?;
        let trust = credentials.as_ref().map_or(Trust::Plain, Trust::Mutual);
        let servers =
            Servers::new(&context.servers, trust).map_err(|error| Failure::Usage(error.to_string()))?;
        let for_programs = matches!(global.output, Format::Json | Format::Yaml);
        Ok(Self { servers, context, stale: global.stale, for_programs })
    }

    /// Makes a call, on another node where one does not answer.
    pub async fn call<R, T>(
        &self,
        request: R,
        call: impl AsyncFn(Channel, R) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure>
    where
        R: Clone,
    {
        let began = Instant::now();
        let mut last = Failure::Unreachable("no attempt was made".to_owned());
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                if began.elapsed() > PATIENCE {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            let connection = match self.servers.connect().await {
                Ok(connection) => connection,
                Err(error) if error.is_distrust() => return Err(error.into()),
                Err(error) => {
                    last = error.into();
                    continue;
                }
            };
            match tokio::time::timeout(ATTEMPT_DEADLINE, call(connection.channel, request.clone())).await {
                Ok(Ok(response)) => {
                    self.note_age(&connection.address, response.metadata());
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) if !is_worth_another(&status) => return Err(status.into()),
                Ok(Err(status)) => last = status.into(),
                Err(_) => last = Failure::Unreachable(format!("{} does not answer", connection.address)),
            }
            self.servers.avoid(&connection.address);
        }
        Err(last)
    }

    /// Remembers, and says to people, how old the answer to a stale read is.
    fn note_age(&self, node: &ServerAddress, answer: &MetadataMap) {
        let Some(age) = answer.get(STALE_MS).and_then(|age| age.to_str().ok()) else { return };
        let age = age.parse().map_or(Age::Never, Age::Heard);
        if output::note_age(age) && !self.for_programs {
            match age {
                Age::Heard(millis) => {
                    let (seconds, tenths) = (millis / 1000, millis % 1000 / 100);
                    output::say(&format!(
                        "as {node} has it, which heard the leader {seconds}.{tenths} s ago"
                    ));
                }
                Age::Never => {
                    output::say(&format!("as {node} has it, which has heard no leader since it started"))
                }
            }
        }
    }

    /// Opens a stream on the first node that answers; streams are not made again by themselves.
    pub async fn channel(&self) -> Result<Channel, Failure> {
        Ok(self.servers.connect().await?.channel)
    }

    /// The borough that is meant where none is named; empty: all that the caller may see.
    pub fn borough(&self) -> String {
        self.context.borough.clone().unwrap_or_default()
    }

    /// Borough and workload from `WORKLOAD` or `BOROUGH/WORKLOAD`.
    pub fn workload(&self, text: &str) -> Result<(String, String), Failure> {
        let (borough, workload) = match text.split_once('/') {
            Some((borough, workload)) => (borough.to_owned(), workload.to_owned()),
            None => (self.borough(), text.to_owned()),
        };
        if borough.is_empty() {
            return Err(Failure::Usage(format!(
                "which borough's {workload:?}? Write BOROUGH/{workload}, or set --borough or SUPERCLOUD_BOROUGH"
            )));
        }
        BoroughName::new(&borough).map_err(|error| Failure::Usage(format!("borough: {error}")))?;
        WorkloadName::new(&workload).map_err(|error| Failure::Usage(format!("workload: {error}")))?;
        Ok((borough, workload))
    }
}

/// Whether another node, or the same one a little later, may do better. `UNKNOWN` is no node's answer: it is what a connection that broke in
/// mid-answer is called here.
fn is_worth_another(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

/// Gathers a list page by page. `page` is given a token, empty for the first page, and answers with the items and the token of the next page,
/// empty behind the last.
pub async fn pages<T>(
    page: impl AsyncFn(String) -> Result<(Vec<T>, String), Failure>,
) -> Result<Vec<T>, Failure> {
    let (mut all, mut token) = page(String::new()).await?;
    while !token.is_empty() {
        let (more, next) = page(token).await?;
        all.extend(more);
        token = next;
    }
    Ok(all)
}

/// A fresh request id.
pub fn request_id() -> Result<String, Failure> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Failed(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
