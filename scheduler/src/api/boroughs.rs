//! Boroughs: created and changed by operators, seen by all for what is theirs.

use supercloud_proto::{
    name::BoroughName,
    problem::{Faults, Problem, quoted},
    v1::{self, borough_service_server::BoroughService},
};
use tonic::{Request, Response, Status};

use super::{Api, input, open, refusals, show};
use crate::state::{BoroughChange, Change, Command, Done, codec};

/// Longest title, in characters.
const MAX_TITLE: usize = 100;

fn new_borough(request: v1::CreateBoroughRequest) -> Result<(String, Command), Status> {
    let mut faults = Faults::default();
    let id = input::request_id(&mut faults, request.request_id);
    let name: Option<BoroughName> = faults.take("name", request.name.parse());
    let title = if request.title.is_empty() { request.name } else { request.title };
    check_title(&mut faults, "title", &title);
    input::finish(faults, name.map(|name| (id, Command::CreateBorough { name, title })))
}

/// A change of a borough. Whether what comes of it can be is for the state to say.
fn changed_borough(request: v1::SetBoroughRequest) -> Result<(String, Command), Status> {
    let mut faults = Faults::default();
    let id = input::request_id(&mut faults, request.request_id);
    let name: Option<BoroughName> = faults.take("name", request.name.parse());
    let mut change = codec::parse_borough_change(request.change.unwrap_or_default());
    if change == BoroughChange::default() {
        faults.push(Problem::new("change", "something to change", "nothing"));
    }
    if let Some(title) = &mut change.title {
        check_title(&mut faults, "change.title", title);
        if title.is_empty() {
            *title = request.name;
        }
    }
    input::finish(faults, name.map(|name| (id, Command::SetBorough { name, change })))
}

fn check_title(faults: &mut Faults, path: &str, title: &str) {
    if title.chars().count() > MAX_TITLE || title.chars().any(char::is_control) {
        let expected = format!("up to {MAX_TITLE} characters, none of them a control character");
        faults.push(Problem::new(path, expected, quoted(title)));
    }
}

#[tonic::async_trait]
impl BoroughService for Api {
    async fn create(
        &self,
        request: Request<v1::CreateBoroughRequest>,
    ) -> Result<Response<v1::CreateBoroughResponse>, Status> {
        let (caller, request) = open(request)?;
        let name = request.name.clone();
        let (id, command) = new_borough(request)?;
        let changed = self.change(&caller.by(), &id, command).await?;
        let borough = show::boroughs(&changed.state, |known| known.as_str() == name).pop();
        Ok(Response::new(v1::CreateBoroughResponse { borough, index: changed.index }))
    }

    async fn set(
        &self,
        request: Request<v1::SetBoroughRequest>,
    ) -> Result<Response<v1::SetBoroughResponse>, Status> {
        let (caller, request) = open(request)?;
        let name = request.name.clone();
        let (id, command) = changed_borough(request)?;
        let done = self.change(&caller.by(), &id, command).await?;
        let Done::Applied(change) = done.done else {
            return Err(Status::internal("the change of a borough was answered with something else"));
        };
        let borough = show::boroughs(&done.state, |known| known.as_str() == name).pop();
        let changed = change != Change::Unchanged;
        Ok(Response::new(v1::SetBoroughResponse { borough, changed, index: done.index }))
    }

    async fn list(
        &self,
        request: Request<v1::ListBoroughsRequest>,
    ) -> Result<Response<v1::ListBoroughsResponse>, Status> {
        let (caller, request) = open(request)?;
        let state = self.state(request.stale).await?;
        let index = state.applied();
        let boroughs = self.heavy(move || show::boroughs(&state, |name| caller.sees(name))).await?;
        Ok(self.answer(request.stale, v1::ListBoroughsResponse { boroughs, index }))
    }

    async fn get(
        &self,
        request: Request<v1::GetBoroughRequest>,
    ) -> Result<Response<v1::GetBoroughResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let name: Option<BoroughName> = faults.take("name", request.name.parse());
        let name = input::finish(faults, name)?;
        caller.must_see(&name, format!("borough {name}"))?;
        let state = self.state(request.stale).await?;
        let index = state.applied();
        let wanted = name.clone();
        let mut found = self.heavy(move || show::boroughs(&state, |known| *known == wanted)).await?;
        let borough = found.pop().ok_or_else(|| refusals::not_found(format!("borough {name}")))?;
        Ok(self.answer(request.stale, v1::GetBoroughResponse { borough: Some(borough), index }))
    }
}
