//! How much of an estate's GPUs is given away, as the paper of FGD measures (Weng et al., USENIX ATC 2023, section 6): requests come one by one in random
//! order, with duplicates drawn at random until more is asked for than there is; what does not fit is passed over, and nothing leaves. The figure is the
//! share of all GPUs that is given away once 130 % of them have been asked for, in per cent, the mean of the seeds. Beside that of ours stand the least and the
//! most of a seed, and with how many seeds it is above that of FGD, which sees the same requests in the same order.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use supercloud_proto::device::{Device, DeviceRequest, Share};
use supercloud_scheduler::{
    placement::{Engine, Limits},
    state::{Command, State},
};
use supercloud_tests::Outcome;

use super::{
    begin,
    lists::{Host, Request, Source},
    rivals::{POLICIES, Policy, Rival},
    seeds,
};
use crate::{
    Options,
    records::{self, NOW, apply, inventory, spec},
    report::Report,
};

const HOSTS: &str = "openb_node_list_gpu_node.csv";
/// The lists of requests by the names of their figures.
const LISTS: [&str; 4] = ["default", "cpu250", "gpuspec33", "multigpu50"];
/// Parts of what there is that are asked for, in per cent.
const ASKED: u64 = 130;
/// The name of figures of files that were named.
const GIVEN: &str = "given";
const KIND: &str = "gpu";

/// Measures ours and the others on all lists of the traces, or on the files that were named, whose figures are of the list `given`.
pub(super) fn run(options: &Options, source: &Source, report: &mut Report) -> Outcome {
    let hosts: Vec<Host> = source.hosts(HOSTS)?.into_iter().filter(|host| host.gpus > 0).collect();
    if hosts.is_empty() {
        report.leave_out("packing of GPUs", "the hosts have none".to_owned());
        return Ok(());
    }
    let names: &[&str] = if matches!(source, Source::Files { .. }) { &[GIVEN] } else { &LISTS };
    for name in names {
        let requests = source.requests(&format!("openb_pod_list_{name}.csv"))?;
        measure(options, report, name, &hosts, &requests)?;
    }
    Ok(())
}

fn measure(
    options: &Options,
    report: &mut Report,
    name: &str,
    hosts: &[Host],
    requests: &[Request],
) -> Outcome {
    let arrivals: Vec<Arrivals> =
        seeds(options).into_iter().map(|seed| Arrivals::new(seed, hosts, requests)).collect();
    if arrivals.iter().any(|arrivals| arrivals.requests.is_empty()) {
        report.leave_out("packing of GPUs", format!("the list {name} asks for none"));
        return Ok(());
    }
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    let ours = arrivals.iter().map(|arrivals| ours(hosts, arrivals)).collect::<Outcome<Vec<_>>>()?;
    report.note(format!("packing_{name}"), mean(&ours));
    report.note(format!("packing_{name}_least"), ours.iter().copied().fold(f64::INFINITY, f64::min));
    report.note(format!("packing_{name}_most"), ours.iter().copied().fold(0.0, f64::max));
    for policy in POLICIES {
        let theirs: Vec<f64> =
            arrivals.iter().map(|arrivals| theirs(policy, hosts, requests, arrivals)).collect();
        report.note(format!("packing_{name}_{}", policy.name()), mean(&theirs));
        if policy == Policy::Fgd {
            let above = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours > theirs).count();
            report.note(format!("packing_{name}_seeds_above_fgd"), above as f64);
        }
    }
    Ok(())
}

/// Requests in the order in which they come.
struct Arrivals {
    seed: u64,
    requests: Vec<Request>,
    /// All GPUs of the estate, in thousandths of one.
    whole: u64,
}

impl Arrivals {
    fn new(seed: u64, hosts: &[Host], requests: &[Request]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let whole: u64 = hosts.iter().map(|host| u64::from(host.gpus) * 1_000).sum();
        let asked = whole * ASKED / 100;
        let mut all = requests.to_vec();
        let mut sum: u64 = all.iter().map(Request::gpu_millis).sum();
        if sum == 0 {
            return Self { seed, requests: Vec::new(), whole };
        }
        while sum < asked {
            let again = requests[random.random_range(0..requests.len())].clone();
            sum += again.gpu_millis();
            all.push(again);
        }
        all.shuffle(&mut random);
        let mut sum = 0;
        let until = all.iter().position(|request| {
            sum += request.gpu_millis();
            sum >= asked
        });
        all.truncate(until.map_or(all.len(), |last| last + 1));
        Self { seed, requests: all, whole }
    }

    /// A part of all GPUs in per cent.
    fn share(&self, given: u64) -> f64 {
        given as f64 * 100.0 / self.whole as f64
    }
}

/// Every request is a workload that is applied, and then a pass is run: no request is known before its time.
fn ours(hosts: &[Host], arrivals: &Arrivals) -> Outcome<f64> {
    let mut state = begin()?;
    for (number, host) in (1..).zip(hosts) {
        register(&mut state, number, host)?;
    }
    let mut engine = Engine::new(&state);
    for (number, request) in (1..).zip(&arrivals.requests) {
        let mut spec = spec(number, 1)?;
        let resources = &mut spec.resources;
        (resources.cpu, resources.memory) = (request.amounts.cpu, request.amounts.memory);
        resources.disk = request.amounts.disk;
        resources.devices = device_requests(request)?;
        apply(&mut state, Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None })?;
        let plan = engine.pass(&state, NOW, Limits::default());
        if !plan.placements.is_empty() {
            apply(&mut state, Command::Place(plan.placements))?;
        }
    }
    let given = |share: &Share| u64::from(share.0);
    let of_host = |id| state.used(id).devices.iter().map(|(_, share)| given(share)).sum::<u64>();
    Ok(arrivals.share(state.hosts().keys().map(|id| of_host(*id)).sum()))
}

/// Registers a host of the list under its number.
pub(crate) fn register(state: &mut State, number: u32, host: &Host) -> Outcome {
    let mut inventory = inventory(number)?;
    (inventory.capacity.cpu, inventory.capacity.memory) = (host.amounts.cpu, host.amounts.memory);
    for gpu in 0..host.gpus {
        let device = Device {
            kind: KIND.parse()?,
            model: host.model.clone(),
            labels: Default::default(),
            shared: true,
            fault: String::new(),
            pci: None,
        };
        inventory.devices.insert(format!("gpu{gpu}").parse()?, device);
    }
    records::register(state, number, inventory)
}

/// What a request of the list asks for of GPUs.
pub(crate) fn device_requests(request: &Request) -> Outcome<Vec<DeviceRequest>> {
    if request.gpus == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![DeviceRequest {
        kind: KIND.parse()?,
        count: request.gpus,
        share: Share(request.share),
        models: request.models.clone(),
        require: Vec::new(),
        to_vm: false,
    }])
}

fn theirs(policy: super::rivals::Policy, hosts: &[Host], requests: &[Request], arrivals: &Arrivals) -> f64 {
    let mut rival = Rival::new(policy, hosts, requests, arrivals.seed);
    let given = arrivals.requests.iter().filter(|request| rival.place(request)).map(Request::gpu_millis);
    arrivals.share(given.sum())
}

#[cfg(test)]
mod tests {
    use supercloud_proto::amount::{Amounts, Bytes, MilliCpu};

    use super::*;

    fn amounts(cpu: u64) -> Amounts {
        Amounts { cpu: MilliCpu(cpu), memory: Bytes(1 << 30), disk: Bytes(0) }
    }

    #[test]
    fn all_is_given_away_where_every_policy_can() -> Outcome {
        let host = Host {
            amounts: Amounts { memory: Bytes(1 << 40), ..amounts(64_000) },
            gpus: 4,
            model: "T4".to_owned(),
        };
        let request = Request { amounts: amounts(1_000), gpus: 1, share: 500, models: vec!["T4".to_owned()] };
        let arrivals = Arrivals::new(42, &vec![host.clone(); 3], std::slice::from_ref(&request));
        assert_eq!(
            (arrivals.whole, arrivals.requests.len()),
            (12_000, 32),
            "130 % are asked for, rounded up"
        );
        assert_eq!(ours(&vec![host.clone(); 3], &arrivals)?, 100.0);
        for policy in POLICIES {
            assert_eq!(
                theirs(policy, &vec![host.clone(); 3], std::slice::from_ref(&request), &arrivals),
                100.0
            );
        }
        let other = Request { models: vec!["P4".to_owned()], ..request };
        let arrivals = Arrivals::new(42, std::slice::from_ref(&host), std::slice::from_ref(&other));
        assert_eq!(ours(std::slice::from_ref(&host), &arrivals)?, 0.0);
        assert_eq!(theirs(POLICIES[0], std::slice::from_ref(&host), &[other], &arrivals), 0.0);
        Ok(())
    }
}
