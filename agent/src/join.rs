//! How a new host gets its certificate: key and request are made here, the authority is known by the token's fingerprint, and a scheduler
//! trades the token for a certificate. The key never leaves the machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use supercloud_proto::{
    pki::{
        CaCertificate, Credentials, Identity, Servers, Token, Trust, client::NoServer, client::ServersError,
        join::fetch_ca, request,
    },
    v1::{JoinRequest, scheduler_service_client::SchedulerServiceClient},
};
use tonic::Status;

use crate::{agent::CREDENTIALS, belonging};

/// How long the scheduler may take to sign: the token is marked as used through the log first.
const SIGN_DEADLINE: Duration = Duration::from_secs(15);

/// Why a host did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined before. Its key must not be lost by accident.
    #[error("{path}: this host has credentials already; remove the file to join anew")]
    Joined {
        /// The credentials.
        path: PathBuf,
    },
    /// The token is none.
    #[error("the token is not one: {0}")]
    Token(String),
    /// No node showed the authority that the token names.
    #[error("the cluster's authority could not be had:\n{}", .0.join("\n"))]
    Authority(Vec<String>),
    /// The addresses are of no use.
    #[error(transparent)]
    Servers(#[from] ServersError),
    /// No node answers.
    #[error(transparent)]
    Unreachable(#[from] NoServer),
    /// The scheduler refuses.
    #[error("the scheduler refused: {}", .0.message())]
    Refused(Status),
    /// It did not answer; the token may be used up.
    #[error("the scheduler did not answer within {} s; the token may be used up", SIGN_DEADLINE.as_secs())]
    TimedOut,
    /// What it answered is of no use.
    #[error("the scheduler's answer is of no use: {0}")]
    Answer(String),
    /// The files cannot be written.
    #[error("{path}: {reason}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl From<(&Path, io::Error)> for JoinError {
    fn from((path, error): (&Path, io::Error)) -> Self {
        Self::Disk { path: path.to_owned(), reason: error.to_string() }
    }
}

/// Joins, and saves the credentials in `data_dir`. Returns the name that the certificate gives to this host.
pub async fn join(token: &str, servers: &[String], data_dir: &Path) -> Result<String, JoinError> {
    let path = data_dir.join(CREDENTIALS);
    if path.exists() {
        return Err(JoinError::Joined { path });
    }
    let token: Token = token.parse().map_err(|error| JoinError::Token(format!("{error}")))?;
    fs::create_dir_all(data_dir).map_err(|error| JoinError::from((data_dir, error)))?;
    let ca = authority(servers, &token).await?;
    let made = request::generate().map_err(|error| JoinError::Answer(error.to_string()))?;
    let connection = Servers::new(servers, Trust::Joining(&ca))?.connect().await?;
    let request = JoinRequest { token: token.reveal(), csr_pem: made.csr_pem, ..JoinRequest::default() };
    let mut client = SchedulerServiceClient::new(connection.channel);
    let answer = tokio::time::timeout(SIGN_DEADLINE, client.join(request)).await;
    let answer = answer.map_err(|_| JoinError::TimedOut)?.map_err(JoinError::Refused)?.into_inner();
    let credentials = Credentials::new(ca, &answer.certificate_pem, &made.key_pem)
        .map_err(|error| JoinError::Answer(error.to_string()))?;
    let Identity::Agent { host } = credentials.identity() else {
        return Err(JoinError::Answer(format!(
            "the token is for {}, not for an agent",
            credentials.identity()
        )));
    };
    let host = host.to_string();
    // Before the credentials: with them this host counts as joined.
    belonging::write(data_dir, &answer.cluster_id).map_err(|error| JoinError::Answer(error.to_string()))?;
    credentials
        .save(&path)
        .map_err(|error| JoinError::Disk { path: path.clone(), reason: error.to_string() })?;
    Ok(host)
}

/// From the first node that has it.
async fn authority(servers: &[String], token: &Token) -> Result<CaCertificate, JoinError> {
    let mut failures = Vec::new();
    for server in servers {
        match fetch_ca(server, token).await {
            Ok(ca) => return Ok(ca),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(JoinError::Authority(failures))
}
