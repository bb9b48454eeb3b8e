//! Rules for join tokens: made once, used once, forgotten when lapsed.

use std::sync::Arc;

use supercloud_proto::id::UnixMillis;

use super::Step;
use crate::state::{
    command::{Done, Rejection},
    model::{EventKind, Grant, Subject, Token},
};

/// Most tokens that are open at a time.
const MAX_TOKENS: usize = 10_000;

impl Step<'_> {
    pub(super) fn create_token(
        &mut self,
        id: &str,
        secret_hash: &[u8],
        grant: &Grant,
        expires: UnixMillis,
    ) -> Result<Done, Rejection> {
        self.forget_lapsed();
        if self.state.tokens.len() >= MAX_TOKENS {
            return Err(Rejection::Limit(format!(
                "{MAX_TOKENS} join tokens are open; wait until some lapse"
            )));
        }
        if self.state.tokens.contains_key(id) {
            return Err(Rejection::Exists(format!("token {id}")));
        }
        let token =
            Token { id: id.to_owned(), secret_hash: secret_hash.to_owned(), grant: grant.clone(), expires };
        self.state.tokens.insert(id.to_owned(), Arc::new(token));
        self.event(
            EventKind::TokenCreated,
            Subject::default(),
            format!("token {id} created for {}", describe(grant)),
        );
        Ok(Done::Nothing)
    }

    /// Uses a token up. Whether it is unknown, used, lapsed or wrong is not told apart: who holds it knows, who guesses shall not.
    pub(super) fn use_token(&mut self, id: &str, secret_hash: &[u8]) -> Result<Done, Rejection> {
        self.forget_lapsed();
        let token = self.state.tokens.get(id).filter(|token| token.secret_hash == secret_hash).cloned();
        let Some(token) = token else {
            return Err(Rejection::Denied("the token is unknown, used or lapsed".to_owned()));
        };
        self.state.tokens.remove(id);
        let message = format!("token {id} used by {}", describe(&token.grant));
        self.event(EventKind::TokenUsed, Subject::default(), message);
        Ok(Done::Granted(token.grant.clone()))
    }

    fn forget_lapsed(&mut self) {
        let now = self.time;
        let lapsed: Vec<String> = self
            .state
            .tokens
            .values()
            .filter(|token| token.expires <= now)
            .map(|token| token.id.clone())
            .collect();
        for id in lapsed {
            self.state.tokens.remove(&id);
        }
    }
}

fn describe(grant: &Grant) -> String {
    match grant {
        Grant::Scheduler => "a scheduler node".to_owned(),
        Grant::Agent(host) => format!("the agent of host {host}"),
        Grant::Operator(name) => format!("operator {name}"),
        Grant::Borough(borough, name) => format!("{name} of borough {borough}"),
    }
}
