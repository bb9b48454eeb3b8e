//! Hosts and sites: seen by all, changed by operators. The instances on a host are shown to those whose they are.

use std::sync::Arc;

use supercloud_proto::{
    name::{HostName, SiteName},
    problem::{Faults, Problem},
    v1::{self, host_service_server::HostService},
};
use tonic::{Request, Response, Status};

use super::{Api, input, open, refusals, show};
use crate::state::{Change, Command, Done, Host, SiteChange, State, codec};

/// Hosts by name, those after `after`.
fn by_name(state: &State, after: Option<&HostName>, site: Option<&SiteName>) -> Vec<Arc<Host>> {
    let wanted = |host: &&Arc<Host>| {
        after.is_none_or(|after| host.name > *after) && site.is_none_or(|site| host.inventory.site == *site)
    };
    let mut hosts: Vec<Arc<Host>> = state.hosts().values().filter(wanted).cloned().collect();
    hosts.sort_unstable_by(|one, two| one.name.cmp(&two.name));
    hosts
}

/// The name of a host and the request id of a change.
fn change_of(request_id: String, name: &str) -> Result<(String, HostName), Status> {
    let mut faults = Faults::default();
    let id = input::request_id(&mut faults, request_id);
    let name: Option<HostName> = faults.take("name", name.parse());
    input::finish(faults, name.map(|name| (id, name)))
}

/// A change of a site's policy. Whether what comes of it can be is for the state to say.
fn changed_site(request: v1::SetSiteRequest) -> Result<(String, SiteName, SiteChange), Status> {
    let mut faults = Faults::default();
    let id = input::request_id(&mut faults, request.request_id);
    let name: Option<SiteName> = faults.take("name", request.name.parse());
    let change = faults.take("change", codec::parse_site_change(request.change.unwrap_or_default()));
    if change == Some(SiteChange::default()) {
        faults.push(Problem::new("change", "something to change", "nothing"));
    }
    input::finish(faults, name.zip(change).map(|(name, change)| (id, name, change)))
}

#[tonic::async_trait]
impl HostService for Api {
    async fn list(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let (_, request) = open(request)?;
        let mut faults = Faults::default();
        let site: Option<SiteName> = input::optional(&mut faults, "site", &request.site);
        let after: Option<HostName> = input::optional(&mut faults, "page_token", &request.page_token);
        let size = input::page_size(&mut faults, "page_size", request.page_size);
        input::finish(faults, Some(()))?;
        let state = self.state(request.stale).await?;
        let hosts = by_name(&state, after.as_ref(), site.as_ref());
        let page = input::page(
            hosts.into_iter(),
            size,
            |host| host.name.to_string(),
            |host| show::host(&state, host),
        );
        let index = state.applied();
        Ok(self.answer(
            request.stale,
            v1::ListHostsResponse { hosts: page.items, next_page_token: page.next, index },
        ))
    }

    async fn get(
        &self,
        request: Request<v1::GetHostRequest>,
    ) -> Result<Response<v1::GetHostResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let name: Option<HostName> = faults.take("name", request.name.parse());
        let name = input::finish(faults, name)?;
        let state = self.state(request.stale).await?;
        let host =
            state.host_named(name.as_str()).ok_or_else(|| refusals::not_found(format!("host {name}")))?;
        let seen = state.instances_on(host.id).filter(|instance| caller.sees(&instance.workload().borough));
        let instances =
            show::within(seen.map(|instance| state.instance_message(instance)), input::MAX_PAGE_BYTES);
        let index = state.applied();
        Ok(self.answer(
            request.stale,
            v1::GetHostResponse { host: Some(show::host(&state, host)), instances, index },
        ))
    }

    async fn list_sites(
        &self,
        request: Request<v1::ListSitesRequest>,
    ) -> Result<Response<v1::ListSitesResponse>, Status> {
        let (_, request) = open(request)?;
        let state = self.state(request.stale).await?;
        let index = state.applied();
        Ok(self.answer(request.stale, v1::ListSitesResponse { sites: show::sites(&state), index }))
    }

    async fn set_site(
        &self,
        request: Request<v1::SetSiteRequest>,
    ) -> Result<Response<v1::SetSiteResponse>, Status> {
        let (caller, request) = open(request)?;
        let (id, name, change) = changed_site(request)?;
        let done = self.change(&caller.by(), &id, Command::SetSite { name: name.clone(), change }).await?;
        let Done::Applied(change) = done.done else {
            return Err(Status::internal("the change of a site was answered with something else"));
        };
        let site = show::site(&done.state, &name);
        Ok(Response::new(v1::SetSiteResponse {
            site: Some(site),
            changed: change != Change::Unchanged,
            index: done.index,
        }))
    }

    async fn set_schedulable(
        &self,
        request: Request<v1::SetSchedulableRequest>,
    ) -> Result<Response<v1::SetSchedulableResponse>, Status> {
        let (caller, request) = open(request)?;
        let (id, name) = change_of(request.request_id, &request.name)?;
        let command = Command::SetSchedulable { name: name.clone(), schedulable: request.schedulable };
        let changed = self.change(&caller.by(), &id, command).await?;
        let host = changed.state.host_named(name.as_str()).map(|host| show::host(&changed.state, host));
        Ok(Response::new(v1::SetSchedulableResponse { host, index: changed.index }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveHostRequest>,
    ) -> Result<Response<v1::RemoveHostResponse>, Status> {
        let (caller, request) = open(request)?;
        let (id, name) = change_of(request.request_id, &request.name)?;
        let changed = self.change(&caller.by(), &id, Command::RemoveHost { name }).await?;
        let Done::Instances(instances) = changed.done else {
            return Err(Status::internal("the removal of a host was answered with something else"));
        };
        Ok(Response::new(v1::RemoveHostResponse { instances, index: changed.index }))
    }
}
