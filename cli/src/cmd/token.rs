//! `token create`: the text goes to standard output alone, so that a script can take it; what it is good for is said beside it.

use serde_json::json;
use supercloud_proto::v1::{
    CreateTokenRequest, CreateTokenResponse, TokenRole, scheduler_service_client::SchedulerServiceClient,
};

use crate::{
    args::{Format, Role, TokenCommand},
    failure::Failure,
    output::{self, Shown, say},
    session::{Session, request_id},
    time::moment,
};

/// Makes a token.
pub(super) async fn create(
    session: &Session,
    role: TokenRole,
    name: &str,
    borough: &str,
    ttl_ms: u64,
) -> Result<CreateTokenResponse, Failure> {
    let (name, borough) = (name.to_owned(), borough.to_owned());
    let request = CreateTokenRequest { request_id: request_id()?, role: role.into(), name, borough, ttl_ms };
    session
        .call(request, async |channel, request| {
            SchedulerServiceClient::new(channel).create_token(request).await
        })
        .await
}

pub(super) async fn run(session: &Session, format: Format, command: &TokenCommand) -> Result<(), Failure> {
    let TokenCommand::Create { role, name, ttl } = command;
    let (wire, borough) = match role {
        Role::Scheduler => (TokenRole::Scheduler, String::new()),
        Role::Agent => (TokenRole::Agent, String::new()),
        Role::Operator => (TokenRole::Operator, String::new()),
        Role::Borough => (TokenRole::Borough, session.borough()),
    };
    let answer = create(session, wire, name, &borough, *ttl).await?;
    let expires = moment(answer.expires_ms);
    say(&format!("good for one join until {expires}; shown only now"));
    let shown = Shown {
        name: answer.token.clone(),
        value: json!({ "token": answer.token, "expires": expires }),
        row: Vec::new(),
    };
    output::one(format, &shown, || answer.token.clone())
}
