//! Rules for sites: what holds for their hosts.

use supercloud_proto::{id::HostId, name::SiteName};

use super::{Step, telling::differences};
use crate::state::{
    command::{Change, Done, Rejection},
    model::{EventKind, Subject},
    site::{SiteChange, SitePolicy},
};

/// Most sites with a policy that is not the usual one: a city has tens.
const MOST_SITES: usize = 1_000;

impl Step<'_> {
    /// Changes the policy of a site, and counts anew what is given away of its hosts. It may have none yet.
    pub(super) fn set_site(&mut self, name: &SiteName, change: SiteChange) -> Result<Done, Rejection> {
        let before = self.state.policy_of(name);
        let after = before.with(change);
        let problems = after.problems();
        if !problems.is_empty() {
            return Err(Rejection::Invalid(problems));
        }
        if before == after {
            return Ok(Done::Applied(Change::Unchanged));
        }
        let is_usual = after == SitePolicy::default();
        if !is_usual && !self.state.sites.contains_key(name) && self.state.sites.len() >= MOST_SITES {
            return Err(Rejection::Limit(format!("there are {MOST_SITES} sites with a policy of their own")));
        }
        if is_usual {
            self.state.sites.remove(name);
        } else {
            self.state.sites.insert(name.clone(), after);
        }
        let there = self.state.hosts.values().filter(|host| host.inventory.site == *name);
        let hosts: Vec<HostId> = there.map(|host| host.id).collect();
        hosts.into_iter().for_each(|host| self.state.follow_policy(host));
        let message = format!("site {name}: {}", differences(before.facts(), after.facts()));
        self.event(EventKind::SiteChanged, Subject::default(), message);
        Ok(Done::Applied(Change::Updated))
    }
}
