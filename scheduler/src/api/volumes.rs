//! Volumes: where they live, seen and given up by the borough whose they are and by operators.

use std::{str::FromStr, sync::Arc};

use supercloud_proto::{
    name::{BoroughName, HostName, WorkloadKey, WorkloadName},
    problem::{Faults, Problem, Problems, quoted},
    v1::{self, volume_service_server::VolumeService},
};
use tonic::{Request, Response, Status};

use super::{Api, caller::Caller, input, open};
use crate::state::{Command, Home, Homes, State};

/// A slot of a workload, as a page's token has it: `BOROUGH/WORKLOAD/SLOT`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: WorkloadKey,
    slot: u32,
}

impl Place {
    fn token(key: &WorkloadKey, home: &Home) -> String {
        format!("{}/{}/{}", key.borough, key.workload, home.slot)
    }
}

impl FromStr for Place {
    type Err = Problems;

    fn from_str(text: &str) -> Result<Self, Problems> {
        let wrong = || Problem::new("", "a token from the answer before", quoted(text));
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or_else(wrong);
        let borough = next()?.parse::<BoroughName>().map_err(|_| wrong())?;
        let workload = next()?.parse::<WorkloadName>().map_err(|_| wrong())?;
        let slot = next()?.parse().map_err(|_| wrong())?;
        Ok(Self { key: WorkloadKey { borough, workload }, slot })
    }
}

fn shown(state: &State, key: &WorkloadKey, home: &Home) -> v1::VolumeHome {
    let host = state.host(home.host);
    let users = host.into_iter().flat_map(|host| state.users_of_volumes(key, host));
    v1::VolumeHome {
        borough: (&key.borough).into(),
        workload: (&key.workload).into(),
        slot: home.slot,
        host: host.map(|host| String::from(&host.name)).unwrap_or_default(),
        since_ms: home.since,
        used_by: users.map(|instance| instance.id.to_string()).collect(),
    }
}

/// A page of what the caller may see, of one borough or of all.
fn page(
    state: &State,
    caller: &Caller,
    borough: Option<&BoroughName>,
    after: Option<&Place>,
    size: usize,
) -> input::Page<v1::VolumeHome> {
    let is_wanted = |key: &WorkloadKey| {
        caller.sees(&key.borough)
            && borough.is_none_or(|wanted| key.borough == *wanted)
            && after.is_none_or(|after| *key >= after.key)
    };
    let seen = state.homes().iter().filter(|(key, _)| is_wanted(key));
    let each = |(key, homes): (_, &'_ Arc<Homes>)| -> Vec<(&WorkloadKey, Home)> {
        homes.iter().map(|home| (key, *home)).collect()
    };
    let is_later = |(key, home): &(&WorkloadKey, Home)| {
        after.is_none_or(|after| (*key, home.slot) > (&after.key, after.slot))
    };
    input::page(
        seen.flat_map(each).filter(is_later),
        size,
        |(key, home)| Place::token(key, home),
        |(key, home)| shown(state, key, home),
    )
}

fn forgotten(request: v1::ForgetVolumesRequest) -> Result<(String, WorkloadKey, HostName), Status> {
    let mut faults = Faults::default();
    let id = input::request_id(&mut faults, request.request_id);
    let borough: Option<BoroughName> = faults.take("borough", request.borough.parse());
    let workload: Option<WorkloadName> = faults.take("workload", request.workload.parse());
    let host: Option<HostName> = faults.take("host", request.host.parse());
    let key = borough.zip(workload).map(|(borough, workload)| WorkloadKey { borough, workload });
    input::finish(faults, key.zip(host).map(|(key, host)| (id, key, host)))
}

#[tonic::async_trait]
impl VolumeService for Api {
    async fn list(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let borough: Option<BoroughName> = input::optional(&mut faults, "borough", &request.borough);
        let after: Option<Place> = input::optional(&mut faults, "page_token", &request.page_token);
        let size = input::page_size(&mut faults, "page_size", request.page_size);
        input::finish(faults, Some(()))?;
        let state = self.state(request.stale).await?;
        let page = page(&state, &caller, borough.as_ref(), after.as_ref(), size);
        let index = state.applied();
        Ok(self.answer(
            request.stale,
            v1::ListVolumesResponse { volumes: page.items, next_page_token: page.next, index },
        ))
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetVolumesRequest>,
    ) -> Result<Response<v1::ForgetVolumesResponse>, Status> {
        let (caller, request) = open(request)?;
        let (id, key, host) = forgotten(request)?;
        caller.must_see(&key.borough, format!("home of {key} on {host}"))?;
        let changed = self.change(&caller.by(), &id, Command::ForgetVolumes { key, host }).await?;
        Ok(Response::new(v1::ForgetVolumesResponse { index: changed.index }))
    }
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{
        id::HostId,
        pki::Identity,
        spec::{Driver, Mount},
    };

    use super::*;
    use crate::state::{
        level::KNOWN,
        tests::world::{World, service},
    };

    fn world() -> World {
        let mut world = World::with_hosts(&["h1", "h2"]);
        world.must(Command::RaiseLevel { level: KNOWN });
        world.must(Command::CreateBorough { name: "brent".parse().unwrap(), title: "Brent".to_owned() });
        for (borough, name) in [("camden", "db"), ("brent", "db"), ("camden", "cache")] {
            let mut spec = service(name, 2);
            spec.borough = borough.parse().unwrap();
            let Driver::Container(container) = &mut spec.tasks[0].driver else { panic!("a container") };
            let volume = "data".parse().unwrap();
            container.mounts.push(Mount { volume, path: "/data".to_owned(), read_only: false });
            world.apply_spec(&spec);
        }
        world.place_all(&[HostId(1), HostId(2)]);
        world
    }

    fn listed(page: &input::Page<v1::VolumeHome>) -> Vec<String> {
        let text =
            |one: &v1::VolumeHome| format!("{}/{} {} {}", one.borough, one.workload, one.slot, one.host);
        page.items.iter().map(text).collect()
    }

    #[test]
    fn pages_follow_each_other_and_boroughs_see_their_own() {
        let world = world();
        let all = page(&world.state, &Caller::Dev, None, None, 9);
        let whole = [
            "brent/db 0 h1",
            "brent/db 1 h2",
            "camden/cache 0 h1",
            "camden/cache 1 h2",
            "camden/db 0 h1",
            "camden/db 1 h2",
        ];
        assert_eq!((listed(&all), all.next.as_str()), (whole.map(str::to_owned).to_vec(), ""));
        assert!(all.items.iter().all(|one| one.used_by.len() == 1 && one.since_ms == world.now));
        let first = page(&world.state, &Caller::Dev, None, None, 3);
        assert_eq!(
            (listed(&first), first.next.as_str()),
            (whole[..3].iter().map(ToString::to_string).collect(), "camden/cache/0")
        );
        let after: Place = first.next.parse().unwrap();
        let rest = page(&world.state, &Caller::Dev, None, Some(&after), 9);
        assert_eq!(listed(&rest), whole[3..]);
        let bob = Identity::Borough { borough: "brent".parse().unwrap(), name: "bob".parse().unwrap() };
        let own = page(&world.state, &Caller::Known(bob), None, None, 9);
        assert_eq!(listed(&own), whole[..2]);
        let camden = "camden".parse().unwrap();
        assert_eq!(listed(&page(&world.state, &Caller::Dev, Some(&camden), None, 9)), whole[2..]);
        assert!("camden/db".parse::<Place>().is_err() && "camden/db/x".parse::<Place>().is_err());
    }
}
