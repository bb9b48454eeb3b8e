//! A small world for tests of `reconcile`: objects that actions change, a clock that is moved by hand, and the properties that must hold
//! in whatever state the world is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use supercloud_proto::{
    cores::{Cores, cpu_list},
    id::{InstanceId, LogIndex, Millis},
    instance::{Desired, InstanceState},
    name::{BoroughName, HostName, TaskName, WorkloadKey, WorkloadName},
    order::Order,
    spec::{Class, Container, Driver, DriverKind, Resources, Restart, Task, WorkloadKind},
};

use super::{
    Action, Doing, Histories, Input, Lease, Now, Plan, Sight, Status,
    history::{Outcome, TaskHistory},
    reconcile,
};
use crate::driver::{Mark, Owner, Phase, Seen};

pub(crate) fn instance(number: u64) -> InstanceId {
    InstanceId { index: number, ordinal: 0 }
}

pub(crate) fn service(number: u64) -> Order {
    let container = Container { image: "hello:1".to_owned(), ..Container::default() };
    Order {
        instance: instance(number),
        index: 10,
        workload: WorkloadKey {
            borough: BoroughName::new("camden").expect("a name"),
            workload: WorkloadName::new("web").expect("a name"),
        },
        revision: 1,
        slot: 0,
        desired: Desired::Run,
        reason: String::new(),
        kind: WorkloadKind::Service,
        tasks: vec![Task {
            name: TaskName::new("main").expect("a name"),
            driver: Driver::Container(container),
        }],
        resources: Resources::default(),
        ports: Vec::new(),
        restart: Restart::default(),
        stop_grace: 10_000,
        exclusive: false,
        devices: Vec::new(),
        class: Class::default(),
        cores: None,
    }
}

pub(crate) fn batch(number: u64) -> Order {
    Order { kind: WorkloadKind::Batch, ..service(number) }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) orders: BTreeMap<InstanceId, Arc<Order>>,
    pub(crate) objects: BTreeMap<(InstanceId, TaskName), Seen>,
    pub(crate) sights: BTreeMap<DriverKind, Sight>,
    pub(crate) histories: Histories,
    pub(crate) in_flight: BTreeMap<InstanceId, Doing>,
    pub(crate) lease: Lease,
    /// The host's processors.
    pub(crate) cpus: Vec<u16>,
    pub(crate) may_begin: bool,
    pub(crate) now: Now,
    /// Why every start is refused.
    pub(crate) refuse: Option<String>,
    said: BTreeMap<InstanceId, Status>,
    owner: Owner,
}

impl World {
    pub(crate) fn new(orders: Vec<Order>) -> Self {
        let host = HostName::new("h1").expect("a name");
        Self {
            orders: orders.into_iter().map(|order| (order.instance, Arc::new(order))).collect(),
            objects: BTreeMap::new(),
            sights: BTreeMap::from([(DriverKind::Docker, Sight::Seen(Vec::new()))]),
            histories: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            lease: Lease { until: 1_000_000, confirmed: true },
            cpus: (0..8).collect(),
            may_begin: true,
            now: Now { unix: 1_700_000_000_000, boot: 50_000 },
            refuse: None,
            said: BTreeMap::new(),
            owner: Owner { cluster: "c".repeat(32), host },
        }
    }

    fn seen(&self, id: InstanceId, task: &TaskName, order_index: LogIndex, phase: Phase) -> Seen {
        let mark = Mark {
            owner: self.owner.clone(),
            instance: id,
            workload: service(1).workload,
            revision: 1,
            task: task.clone(),
            order_index,
        };
        Seen { mark, runtime_id: format!("{id}.{task}"), phase, cpus: None }
    }

    /// Puts the instance's task `main` into a phase.
    pub(crate) fn put(&mut self, number: u64, order_index: LogIndex, phase: Phase) {
        let task = TaskName::new("main").expect("a name");
        let seen = self.seen(instance(number), &task, order_index, phase);
        self.objects.insert((instance(number), task), seen);
        self.look();
    }

    /// Lets the instance's objects run on other processors.
    pub(crate) fn move_to(&mut self, number: u64, cpus: Option<Vec<u16>>) {
        let own = self.objects.values_mut().filter(|seen| seen.mark.instance == instance(number));
        own.for_each(|seen| seen.cpus = cpus.clone());
        self.look();
    }

    /// Takes the instance's objects away.
    pub(crate) fn take(&mut self, number: u64) {
        self.objects.retain(|(id, _), _| *id != instance(number));
        self.look();
    }

    pub(crate) fn object(&self, number: u64) -> Option<&Seen> {
        self.objects.values().find(|seen| seen.mark.instance == instance(number))
    }

    pub(crate) fn order_stop(&mut self, number: u64) {
        let order = self.orders.get_mut(&instance(number)).expect("ordered");
        let order = Arc::make_mut(order);
        order.desired = Desired::Stop;
        order.index += 1;
    }

    pub(crate) fn silence(&mut self, kind: DriverKind) {
        self.sights.insert(kind, Sight::Silent { since: self.now.boot, reason: "no answer".to_owned() });
    }

    pub(crate) fn advance(&mut self, by: Millis) {
        self.now.unix += by;
        self.now.boot += by;
    }

    fn look(&mut self) {
        if let Some(Sight::Seen(seen)) = self.sights.get_mut(&DriverKind::Docker) {
            *seen = self.objects.values().cloned().collect();
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        reconcile(&Input {
            owner: &self.owner,
            orders: &self.orders,
            sights: &self.sights,
            histories: &self.histories,
            in_flight: &self.in_flight,
            lease: self.lease,
            cpus: &self.cpus,
            may_begin: self.may_begin,
            now: self.now,
        })
    }

    pub(crate) fn status(&self, number: u64) -> &Status {
        &self.said[&instance(number)]
    }

    pub(crate) fn state(&self, number: u64) -> InstanceState {
        self.status(number).state
    }

    pub(crate) fn restarts(&self, number: u64) -> u32 {
        self.status(number).tasks[0].restarts
    }

    pub(crate) fn history(&self, number: u64) -> &TaskHistory {
        self.histories[&instance(number)].values().next().expect("a task")
    }

    fn history_mut(&mut self, id: InstanceId, task: &TaskName) -> &mut TaskHistory {
        self.histories.entry(id).or_default().entry(task.clone()).or_default()
    }

    /// One round: plans, keeps, acts, looks again. Returns what was done.
    pub(crate) fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        for (id, task, history) in plan.histories {
            *self.history_mut(id, &task) = history;
        }
        self.said.extend(plan.states);
        let done = plan.actions.into_iter().map(|action| self.act(action)).collect();
        self.look();
        done
    }

    /// Rounds, the waits passing at once, until nothing is left to do. The lease goes on.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..200 {
            let step = self.step();
            let wait =
                self.plan().wake_in.filter(|wait| *wait < self.lease.until.saturating_sub(self.now.boot));
            if step.is_empty() && wait.is_none() && self.plan().actions.is_empty() {
                return done;
            }
            done.extend(step);
            self.advance(wait.unwrap_or(0));
        }
        panic!("does not settle: {done:?}");
    }

    fn act(&mut self, action: Action) -> String {
        match action {
            Action::Start { run, counted } => {
                let (id, task) = (run.mark.instance, run.mark.task.clone());
                let now = self.now.unix;
                let running = self
                    .objects
                    .get(&(id, task.clone()))
                    .is_some_and(|seen| matches!(seen.phase, Phase::Running { .. }));
                assert!(!running, "{id}/{task} is started while it runs");
                if let Some(reason) = self.refuse.clone() {
                    self.history_mut(id, &task).refused(now, counted, &reason);
                } else {
                    let mut seen = self.seen(id, &task, run.mark.order_index, Phase::Running { since: None });
                    seen.cpus = run.pin.map(|pin| pin.cpus);
                    self.objects.insert((id, task.clone()), seen);
                    self.history_mut(id, &task).started(now, counted);
                }
                format!("start {id}/{task}")
            }
            Action::Stop { instance, objects, grace } => {
                for object in objects {
                    let key = (instance, object.seen.mark.task);
                    let object = self.objects.get_mut(&key).expect("only what is there is stopped");
                    object.phase =
                        Phase::Ended { exit_code: Some(143), at: None, reason: "stopped".to_owned() };
                }
                format!("stop {instance} grace {grace}")
            }
            Action::Pin { instance, objects, pin } => {
                for object in objects {
                    let key = (instance, object.seen.mark.task);
                    self.objects.get_mut(&key).expect("only what is there is pinned").cpus =
                        Some(pin.cpus.clone());
                }
                format!("pin {instance} to {}", cpu_list(pin.cpus.into_iter()))
            }
            Action::Remove { instance, objects } => {
                for object in objects {
                    self.objects.remove(&(instance, object.seen.mark.task));
                }
                format!("remove {instance}")
            }
        }
    }
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Created),
        Just(Phase::Running { since: None }),
        prop_oneof![Just(0), Just(1), Just(137)].prop_map(|code| Phase::Ended {
            exit_code: Some(code),
            at: None,
            reason: format!("exit code {code}"),
        }),
    ]
}

prop_compose! {
    fn any_order(number: u64)(
        stop in any::<bool>(), is_batch in any::<bool>(), exclusive in any::<bool>(),
        attempts in 0u32..4, index in 5u64..15, two in any::<bool>(), own in proptest::option::weighted(0.4, 1u16..3),
    ) -> Order {
        let mut order = if is_batch { batch(number) } else { service(number) };
        order.desired = if stop { Desired::Stop } else { Desired::Run };
        order.restart.attempts = attempts;
        order.exclusive = exclusive;
        order.index = index;
        // No two of them share one, and some processor is left for others.
        let first = number as u16 * 2 - 1;
        order.cores = own.filter(|_| first < 7).map(|own| Cores {
            cpus: (first..first + own).filter(|cpu| *cpu < 7).collect(),
            node: None,
        });
        if two {
            let name = TaskName::new("side").expect("a name");
            order.tasks.push(Task { name, ..order.tasks[0].clone() });
        }
        order
    }
}

prop_compose! {
    fn any_world()(
        orders in (1u64..6).prop_flat_map(|n| (1..=n).map(any_order).collect::<Vec<_>>()),
        objects in proptest::collection::vec((1u64..9, any::<bool>(), 5u64..15, any_phase(), proptest::option::of(any::<u8>())), 0..12),
        lapsed in any::<bool>(), confirmed in any::<bool>(), refuse in any::<bool>(),
    ) -> World {
        let mut world = World::new(orders);
        for (number, side, index, phase, cpus) in objects {
            let task = TaskName::new(if side { "side" } else { "main" }).expect("a name");
            let mut seen = world.seen(instance(number), &task, index, phase);
            seen.cpus = cpus.map(|bits| (0..8).filter(|bit| bits >> bit & 1 == 1).collect());
            world.objects.insert((instance(number), task), seen);
        }
        world.lease.confirmed = confirmed;
        if lapsed {
            world.lease.until = 0;
        }
        world.refuse = refuse.then(|| "refused".to_owned());
        world.look();
        world
    }
}

impl World {
    /// What must hold of every single plan.
    fn judge(&self, plan: &Plan) {
        let mut touched = BTreeSet::new();
        for action in &plan.actions {
            let id = action.instance();
            let order = self.orders.get(&id).unwrap_or_else(|| panic!("{action:?} without an order"));
            assert!(touched.insert(id), "two actions for {id}");
            assert!(!self.in_flight.contains_key(&id), "an action beside another for {id}");
            let newer = self
                .objects
                .values()
                .any(|seen| seen.mark.instance == id && seen.mark.order_index > order.index);
            assert!(!newer, "{action:?} obeys an order that is too old");
            match action {
                Action::Remove { .. } => assert_eq!(order.desired, Desired::Stop, "{action:?}"),
                Action::Start { .. } => {
                    assert_eq!(order.desired, Desired::Run);
                    assert!(!order.exclusive || self.lease.lets_start(self.now.boot), "{action:?}");
                }
                Action::Pin { pin, .. } => assert!(!pin.cpus.is_empty(), "{action:?}"),
                Action::Stop { .. } => {}
            }
        }
    }

    /// Nothing runs on the cores of another instance, of all that there are orders for that are not too old.
    fn check_cores(&self) {
        let running = |of: &Order| -> Vec<&Seen> {
            let own = self.objects.values().filter(|seen| seen.mark.instance == of.instance);
            if own.clone().any(|seen| seen.mark.order_index > of.index) {
                return Vec::new();
            }
            own.filter(|seen| matches!(seen.phase, Phase::Running { .. })).collect()
        };
        for order in self.orders.values() {
            for seen in running(order) {
                let cpus = seen.cpus.as_ref().unwrap_or(&self.cpus);
                if let Some(cores) = &order.cores {
                    assert_eq!(**cpus, *cores.cpus, "{} runs on its own cores", order.instance);
                }
                let others = self.orders.values().filter(|other| other.instance != order.instance);
                for other in others.filter(|other| !running(other).is_empty()) {
                    let theirs = other.cores.iter().flat_map(|cores| &cores.cpus);
                    assert!(
                        theirs.into_iter().all(|cpu| !cpus.contains(cpu)),
                        "{} is not alone",
                        other.instance
                    );
                }
            }
        }
    }

    /// Whether the instance has come to what its order says, or to a rightful end of it.
    fn is_at_rest(&self, order: &Order) -> bool {
        let objects: Vec<_> =
            self.objects.values().filter(|seen| seen.mark.instance == order.instance).collect();
        if objects.iter().any(|seen| seen.mark.order_index > order.index) {
            return true;
        }
        let runs = |task: &Task| {
            objects
                .iter()
                .any(|seen| seen.mark.task == task.name && matches!(seen.phase, Phase::Running { .. }))
        };
        match self.said[&order.instance].state {
            InstanceState::Stopped => order.desired == Desired::Stop && objects.is_empty(),
            InstanceState::Running => order.tasks.iter().any(runs),
            InstanceState::Completed => order.kind == WorkloadKind::Batch,
            InstanceState::Failed => {
                let given_up = |history: &TaskHistory| history.outcome == Some(Outcome::GivenUp);
                self.histories[&order.instance].values().any(given_up) && !order.tasks.iter().any(runs)
            }
            InstanceState::Restarting | InstanceState::Placed => {
                order.exclusive && !self.lease.lets_start(self.now.boot)
            }
            _ => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn converges_from_any_world_and_touches_nothing_unordered(world in any_world()) {
        let mut world = world;
        let unordered = |world: &World| -> BTreeMap<_, _> {
            let mut objects = world.objects.clone();
            objects.retain(|(id, _), _| !world.orders.contains_key(id));
            objects
        };
        let before = unordered(&world);
        let mut rounds = 0;
        loop {
            let plan = world.plan();
            world.judge(&plan);
            prop_assert_eq!(format!("{:?}", world.plan()), format!("{plan:?}"), "a plan depends on its input only");
            let wait = plan.wake_in.filter(|wait| *wait < 900_000);
            if world.step().is_empty() && wait.is_none() {
                break;
            }
            world.advance(wait.unwrap_or(0));
            rounds += 1;
            prop_assert!(rounds < 300, "does not converge");
        }
        world.step();
        prop_assert!(world.plan().actions.is_empty() && world.plan().histories.is_empty());
        for order in world.orders.values() {
            prop_assert!(world.is_at_rest(order), "{:?} is {:?}", order.instance, world.said[&order.instance]);
        }
        prop_assert_eq!(unordered(&world), before);
        world.check_cores();
    }

    #[test]
    fn what_is_under_way_is_not_doubled(world in any_world()) {
        let mut world = world;
        let plan = world.plan();
        for action in &plan.actions {
            world.in_flight.insert(action.instance(), action.doing());
        }
        let again = world.plan();
        world.judge(&again);
        prop_assert!(again.actions.is_empty());
    }

    #[test]
    fn a_silent_driver_is_never_acted_on(world in any_world()) {
        let mut world = world;
        world.silence(DriverKind::Docker);
        world.advance(1_000_000);
        prop_assert!(world.plan().actions.is_empty());
    }
}
