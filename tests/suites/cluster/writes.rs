//! Three nodes under a stream of writes, while nodes are killed, hang and come back: what was acknowledged is there, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use supercloud_proto::v1::{
    CreateBoroughRequest, ListBoroughsRequest, borough_service_client::BoroughServiceClient,
};
use supercloud_tests::{
    Outcome, World, Wrong,
    api::Api,
    cli::{items, text},
    hold,
    wait::{LATER, SOON, until},
    world::{BOROUGHS, Shape},
    wrong,
};
use tonic::Code;

/// Writers at a time.
const WRITERS: usize = 4;
/// Writes that must be acknowledged between two disturbances.
const BETWEEN: usize = 40;
const THREE: Shape = Shape { nodes: 3, hosts: 0 };

/// Writers that go on until they are told to end.
struct Writers {
    end: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Outcome<BTreeMap<String, u64>>>>,
}

impl Writers {
    fn start(world: &World) -> Outcome<Self> {
        let (end, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..WRITERS).map(|writer| {
            let api = Api::new(&world.cluster.servers(), &world.cluster.credentials)?;
            let (end, acknowledged) = (Arc::clone(&end), Arc::clone(&acknowledged));
            Ok(thread::spawn(move || write(writer, &api, &end, &acknowledged)))
        });
        let threads = threads.collect::<Outcome<Vec<_>>>()?;
        Ok(Self { end, acknowledged, threads })
    }

    /// Waits until so many more writes are acknowledged.
    fn await_more(&self, more: usize) -> Outcome {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        until(&format!("{more} more writes are acknowledged"), LATER, || {
            let now = self.acknowledged.load(Ordering::Relaxed);
            hold(now >= goal, || format!("{now} of {goal}"))
        })
    }

    /// Ends them; all that was acknowledged, with the index of each.
    fn finish(self) -> Outcome<BTreeMap<String, u64>> {
        self.end.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for thread in self.threads {
            let written = thread.join().map_err(|_| Wrong("a writer broke down".to_owned()))??;
            all.extend(written);
        }
        Ok(all)
    }
}

/// Creates one borough after the other. A write whose fate is unknown is made again with the same request id: were it not for that id,
/// the second time would be refused as "exists already".
fn write(
    writer: usize,
    api: &Api,
    end: &AtomicBool,
    acknowledged: &AtomicUsize,
) -> Outcome<BTreeMap<String, u64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut written = BTreeMap::new();
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{writer}-{number}");
        let request = CreateBoroughRequest {
            request_id: format!("create-{name}"),
            name: name.clone(),
            title: String::new(),
        };
        let call = |channel| {
            let request = request.clone();
            async move { BoroughServiceClient::new(channel).create(request).await }
        };
        match runtime.block_on(api.call(call))? {
            Ok(answer) => written.insert(name, answer.index),
            Err(status) => return wrong(format!("{name} was refused: {status}")),
        };
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(written)
}

/// Holds that each node tells of all that was acknowledged, once, and that no two writes share an index.
fn must_be_there(world: &World, written: &BTreeMap<String, u64>) -> Outcome {
    let indexes: BTreeSet<u64> = written.values().copied().collect();
    hold(indexes.len() == written.len(), || "two writes have one index".to_owned())?;
    for node in &world.cluster.nodes {
        let one = world.cluster.cli.speaking_to(std::slice::from_ref(&node.place.api));
        until(&format!("{} tells of every write", node.place.api), SOON, || {
            let listed = one.json(&["borough", "list"])?;
            let names: Vec<&str> = items(&listed)?.iter().map(|borough| text(borough, "name")).collect();
            let found: BTreeSet<&str> = names.iter().copied().collect();
            hold(names.len() == found.len(), || "a borough is listed twice".to_owned())?;
            let lost: Vec<&String> = written.keys().filter(|name| !found.contains(name.as_str())).collect();
            hold(lost.is_empty(), || format!("lost: {lost:?}"))?;
            // A writer may have been ended before it heard of its last write; nothing else can be there.
            hold(found.len() <= written.len() + WRITERS + BOROUGHS.len(), || {
                format!("{} are listed", found.len())
            })
        })?;
    }
    Ok(())
}

#[test]
fn leaders_killed_and_restarted_under_writes_lose_and_double_nothing() -> Outcome {
    World::with(THREE, |world| {
        let writers = Writers::start(world)?;
        for _ in 0..3 {
            writers.await_more(BETWEEN)?;
            let leader = world.cluster.leader()?;
            world.cluster.nodes[leader].kill()?;
            writers.await_more(BETWEEN)?;
            world.cluster.nodes[leader].start()?;
        }
        writers.await_more(BETWEEN)?;
        let written = writers.finish()?;
        must_be_there(world, &written)
    })
}

#[test]
fn a_leader_that_hangs_is_replaced_and_comes_back_without_harm() -> Outcome {
    World::with(THREE, |world| {
        let writers = Writers::start(world)?;
        writers.await_more(BETWEEN)?;
        let leader = world.cluster.leader()?;
        world.cluster.nodes[leader].process()?.pause()?;
        writers.await_more(BETWEEN)?;
        world.cluster.nodes[leader].process()?.resume()?;
        writers.await_more(BETWEEN)?;
        let written = writers.finish()?;
        must_be_there(world, &written)
    })
}

#[test]
fn all_nodes_killed_at_once_under_writes_lose_nothing() -> Outcome {
    World::with(THREE, |world| {
        let writers = Writers::start(world)?;
        for _ in 0..2 {
            writers.await_more(BETWEEN)?;
            for node in &mut world.cluster.nodes {
                node.kill()?;
            }
            for node in &mut world.cluster.nodes {
                node.start()?;
            }
        }
        writers.await_more(BETWEEN)?;
        let written = writers.finish()?;
        must_be_there(world, &written)
    })
}

#[test]
fn one_node_keeps_the_same_promise() -> Outcome {
    World::with(Shape { nodes: 1, hosts: 0 }, |world| {
        let writers = Writers::start(world)?;
        for _ in 0..2 {
            writers.await_more(BETWEEN)?;
            world.cluster.nodes[0].kill()?;
            world.cluster.nodes[0].start()?;
        }
        writers.await_more(BETWEEN)?;
        let written = writers.finish()?;
        must_be_there(world, &written)
    })
}

#[test]
fn the_same_request_twice_is_answered_twice_and_done_once() -> Outcome {
    World::with(THREE, |world| {
        let api = Api::new(&world.cluster.servers(), &world.cluster.credentials)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let create = |request_id: &str, name: &str| {
            let request = CreateBoroughRequest {
                request_id: request_id.to_owned(),
                name: name.to_owned(),
                title: String::new(),
            };
            runtime.block_on(api.call(|channel| {
                let request = request.clone();
                async move { BoroughServiceClient::new(channel).create(request).await }
            }))
        };
        let first = create("request-1", "barnet")?.map_err(|status| Wrong(status.to_string()))?;
        let again = create("request-1", "barnet")?.map_err(|status| Wrong(status.to_string()))?;
        assert_eq!(first.index, again.index);
        let exists = create("request-2", "barnet")?.map(|_| ()).map_err(|status| status.code());
        assert_eq!(exists, Err(Code::AlreadyExists));
        let misused = create("request-1", "bexley")?.map(|_| ()).map_err(|status| status.code());
        assert!(misused.is_err(), "one id for two requests: {misused:?}");

        // The memory of requests is part of the state: another leader has it too.
        let leader = world.cluster.leader()?;
        world.cluster.nodes[leader].kill()?;
        let later = create("request-1", "barnet")?.map_err(|status| Wrong(status.to_string()))?;
        assert_eq!(first.index, later.index);
        let listed = runtime.block_on(api.call(|channel| async move {
            BoroughServiceClient::new(channel).list(ListBoroughsRequest { stale: false }).await
        }))?;
        let listed = listed.map_err(|status| Wrong(status.to_string()))?;
        hold(listed.boroughs.iter().filter(|one| one.name == "barnet").count() == 1, || format!("{listed:?}"))
    })
}
