//! `token create`: the text goes to standard output alone, so that a script can take it; what it is good for is said beside it.

use serde_json::json;
use supercloud_proto::v1::{CreateTokenRequest, TokenRole, scheduler_service_client::SchedulerServiceClient};

use crate::{
    args::{Format, Role, TokenCommand},
    failure::Failure,
    output::{self, Shown, say},
    session::{Session, request_id},
    time::moment,
};

pub(super) async fn run(session: &Session, format: Format, command: &TokenCommand) -> Result<(), Failure> {
    let TokenCommand::Create { role, name, ttl } = command;
    let (wire, borough) = match role {
        Role::Scheduler => (TokenRole::Scheduler, String::new()),
        Role::Agent => (TokenRole::Agent, String::new()),
        Role::Operator => (TokenRole::Operator, String::new()),
        Role::Borough => (TokenRole::Borough, session.borough()),
    };
    let request = CreateTokenRequest {
        request_id: request_id()?,
        role: wire.into(),
        name: name.clone(),
        borough,
        ttl_ms: *ttl,
    };
    let answer = session
        .call(request, async |channel, request| {
            SchedulerServiceClient::new(channel).create_token(request).await
        })
        .await?;
    let expires = moment(answer.expires_ms);
    say(&format!("good for one join until {expires}; shown only now"));
    let shown = Shown {
        name: answer.token.clone(),
        value: json!({ "token": answer.token, "expires": expires }),
        row: Vec::new(),
    };
    output::one(format, &shown, || answer.token.clone())
}
