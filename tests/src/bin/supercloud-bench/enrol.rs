//! Certificates for hosts by the thousand, as an operator and a newcomer get them: a token each, traded for a certificate over the API.

use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use supercloud_proto::{
    pki::{Credentials, request},
    v1::{CreateTokenRequest, JoinRequest, TokenRole, scheduler_service_client::SchedulerServiceClient},
};
use supercloud_tests::Outcome;
use tonic::transport::Channel;

use crate::estate::Operator;

/// Hosts that join at a time through one node, which takes eight and lets go of one a little after its answer.
const AT_A_TIME: usize = 6;

/// Name of a host by its number.
pub(crate) fn host_name(number: usize) -> String {
    format!("h{number:05}")
}

/// Credentials for the first so many hosts, in the order of their numbers.
pub(crate) async fn enrol(
    nodes: &[String],
    operator: &Credentials,
    hosts: usize,
) -> Outcome<Vec<Credentials>> {
    let mut at = Vec::new();
    for node in nodes {
        at.push(Operator::at(node, operator).await?);
    }
    // Every node has its own hosts, and its own number of them at a time.
    let shares = at.iter().enumerate().map(|(first, node)| async move {
        let numbers = (first..hosts).step_by(nodes.len());
        let joins = stream::iter(numbers).map(|number| join(node.channel.clone(), operator, number));
        joins.buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await
    });
    let mut all = try_join_all(shares).await?.concat();
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, credentials)| credentials).collect())
}

async fn join(channel: Channel, operator: &Credentials, number: usize) -> Outcome<(usize, Credentials)> {
    let mut scheduler = SchedulerServiceClient::new(channel);
    let wanted = CreateTokenRequest {
        role: TokenRole::Agent.into(),
        name: host_name(number),
        ..CreateTokenRequest::default()
    };
    let token = scheduler.create_token(wanted).await?.into_inner().token;
    let made = request::generate()?;
    let asked = JoinRequest { token, csr_pem: made.csr_pem, ..JoinRequest::default() };
    let answer = scheduler.join(asked).await?.into_inner();
    Ok((number, Credentials::new(operator.ca().clone(), &answer.certificate_pem, &made.key_pem)?))
}
