//! `scheduler list` and `status`, answered by any node with or without a leader; `promote`, `remove` and `transfer-leader`, which any node passes on to
//! the leader; `add`, which makes a token and says what to do with it.

use serde_json::json;
use supercloud_proto::{
    pki::address::ServerAddress,
    problem::{Problem, quoted},
    v1::{
        ListNodesRequest, ListNodesResponse, PromoteNodeRequest, RemoveNodeRequest, SchedulerHealthRequest,
        TokenRole, TransferLeadershipRequest, scheduler_service_client::SchedulerServiceClient,
    },
};

use super::{snapshot, token};
use crate::{
    args::{Format, Global, SchedulerCommand},
    failure::Failure,
    output::{self, Shown, say},
    session::{Session, request_id},
    show::{health, node},
    time::moment,
};

pub(super) async fn run(global: &Global, format: Format, command: &SchedulerCommand) -> Result<(), Failure> {
    let open = || Session::new(global);
    match command {
        SchedulerCommand::List => list(&open()?, format).await,
        SchedulerCommand::Status => status(&open()?, format).await,
        SchedulerCommand::Add { api_address, peer_address, ttl } => {
            add(&open()?, format, api_address, peer_address, *ttl).await
        }
        SchedulerCommand::Promote { node } => promote(&open()?, *node).await,
        SchedulerCommand::Remove { node } => remove(&open()?, *node).await,
        SchedulerCommand::TransferLeader { node } => transfer(&open()?, *node).await,
        SchedulerCommand::Snapshot(command) => snapshot::run(global, format, command).await,
    }
}

async fn nodes(session: &Session) -> Result<ListNodesResponse, Failure> {
    session
        .call(ListNodesRequest {}, async |channel, request| {
            SchedulerServiceClient::new(channel).list(request).await
        })
        .await
}

async fn list(session: &Session, format: Format) -> Result<(), Failure> {
    let answer = nodes(session).await?;
    if matches!(format, Format::Json | Format::Yaml) {
        return output::document(format, &node::cluster(&answer));
    }
    let shown: Vec<Shown> = answer.nodes.iter().map(node::shown).collect();
    output::list(format, &node::HEADINGS, &shown)
}

async fn status(session: &Session, format: Format) -> Result<(), Failure> {
    let answer = session
        .call(SchedulerHealthRequest {}, async |channel, request| {
            SchedulerServiceClient::new(channel).health(request).await
        })
        .await?;
    let shown = Shown { name: answer.cluster_id.clone(), value: health::value(&answer), row: Vec::new() };
    output::one(format, &shown, || health::text(&answer, format == Format::Wide))
}

/// Where a further node asks to be let in: the leader's address, or that of the node that answered.
fn way_in(answer: &ListNodesResponse) -> String {
    let of = |id: u64| answer.nodes.iter().find(|node| node.id == id);
    of(answer.leader).or(of(answer.answered_by)).map(|node| node.api_address.clone()).unwrap_or_default()
}

async fn add(
    session: &Session,
    format: Format,
    api_address: &str,
    peer_address: &str,
    ttl: u64,
) -> Result<(), Failure> {
    let is_whole =
        |text: &str| text.parse::<ServerAddress>().is_ok_and(|address| address.to_string() == text);
    for (flag, text) in [("--api-address", api_address), ("--peer-address", peer_address)] {
        if !is_whole(text) {
            let problem = Problem::new(flag, "HOST:PORT at which the others will reach it", quoted(text));
            return Err(Failure::Usage(problem.to_string()));
        }
    }
    let server = way_in(&nodes(session).await?);
    let made = token::create(session, TokenRole::Scheduler, "", "", ttl).await?;
    let expires = moment(made.expires_ms);
    let commands = [
        format!(
            "supercloud-scheduler join --token {} --server {server} --api-address {api_address} --peer-address {peer_address}",
            made.token
        ),
        "chown -R supercloud: /var/lib/supercloud/scheduler".to_owned(),
        "systemctl enable --now supercloud-scheduler".to_owned(),
    ];
    say(&format!(
        "run this on the new machine, as root, before {expires}; the token is good once and shown only now"
    ));
    let shown = Shown {
        name: made.token.clone(),
        value: json!({ "token": made.token, "expires": expires, "commands": commands }),
        row: Vec::new(),
    };
    output::one(format, &shown, || commands.join("\n"))?;
    say(
        "it joins as a learner, which counts in no majority, and votes by itself once it has caught up: `supercloud scheduler status`",
    );
    Ok(())
}

async fn promote(session: &Session, node: u64) -> Result<(), Failure> {
    let request = PromoteNodeRequest { request_id: request_id()?, node_id: node };
    session
        .call(request, async |channel, request| SchedulerServiceClient::new(channel).promote(request).await)
        .await?;
    output::line(&format!("node {node} votes"))
}

async fn remove(session: &Session, node: u64) -> Result<(), Failure> {
    let request = RemoveNodeRequest { request_id: request_id()?, node_id: node };
    session
        .call(request, async |channel, request| SchedulerServiceClient::new(channel).remove(request).await)
        .await?;
    output::line(&format!("node {node} removed; where it still runs, stop it: it cannot come back"))
}

async fn transfer(session: &Session, node: Option<u64>) -> Result<(), Failure> {
    let request = TransferLeadershipRequest { request_id: request_id()?, node_id: node.unwrap_or_default() };
    let answer = session
        .call(request, async |channel, request| {
            SchedulerServiceClient::new(channel).transfer_leadership(request).await
        })
        .await?;
    output::line(&format!("node {} leads", answer.leader))
}
