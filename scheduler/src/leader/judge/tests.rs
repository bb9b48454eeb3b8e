//! Cases of the verdicts: who is silent for how long, and who is given up. Time is in tenths of a second since boot.

use HostState::{Degraded, Lost, Ready, Suspect};

use super::*;
use crate::state::tests::world::{World, inventory};
use crate::state::{Command, Done};

/// The leader began to listen here.
const SINCE: u64 = 1_000;
/// It has listened for long enough.
const LISTENED: u64 = SINCE + 251;

fn at(tenths: u64) -> Duration {
    Duration::from_millis(tenths * 100)
}

struct Estate {
    world: World,
    table: Table,
    hosts: Vec<HostId>,
}

impl Estate {
    /// So many hosts in each site, all ready, none heard since the leader began.
    fn new(sites: &[usize]) -> Self {
        let mut estate = Self { world: World::with_hosts(&[]), table: Table::default(), hosts: Vec::new() };
        for (site, hosts) in sites.iter().enumerate() {
            for host in 0..*hosts {
                estate.register(&format!("h{site}-{host}"), &format!("site-{site}"));
            }
        }
        estate.table.lead(1, at(SINCE));
        estate.table.observe(&estate.world.state, at(SINCE));
        estate
    }

    fn register(&mut self, name: &str, site: &str) -> HostId {
        let done = self.world.must(Command::RegisterHost {
            name: name.parse().unwrap(),
            inventory: Box::new(inventory(site)),
            incarnation: "1".to_owned(),
        });
        let Done::Registered(id) = done else { panic!("{done:?}") };
        if !self.hosts.contains(&id) {
            self.hosts.push(id);
        }
        id
    }

    fn beat(&mut self, host: usize, tenths: u64) {
        self.beat_with(host, tenths, true);
    }

    fn beat_with(&mut self, host: usize, tenths: u64, healthy: bool) {
        let driver = DriverInfo { healthy, reason: "hangs".to_owned(), ..DriverInfo::default() };
        let drivers = BTreeMap::from([(DriverKind::Docker, driver)]);
        let beat = Beat { host: self.hosts[host], sequence: tenths, drivers };
        self.table.heard(&beat, at(tenths));
    }

    /// Judges as the loop does, applies the verdicts, and returns them with the places of the hosts.
    fn judge(&mut self, tenths: u64) -> Vec<(usize, HostState)> {
        self.table.observe(&self.world.state, at(tenths));
        let verdicts = judge(&self.table, &self.world.state, at(tenths), &Timing::default());
        self.table.judged(&self.world.state, &verdicts, at(tenths));
        self.world.must(Command::JudgeHosts(verdicts.clone()));
        let place = |id| self.hosts.iter().position(|host| *host == id).unwrap();
        verdicts.into_iter().map(|verdict| (place(verdict.host), verdict.state)).collect()
    }

    /// So many of the first hosts go on beating, and all are judged, from one time to another.
    fn run(
        &mut self,
        beating: std::ops::Range<usize>,
        times: std::ops::Range<u64>,
    ) -> Vec<(usize, HostState)> {
        let mut verdicts = Vec::new();
        for tenths in times.step_by(5) {
            for host in beating.clone() {
                self.beat(host, tenths);
            }
            verdicts.extend(self.judge(tenths));
        }
        verdicts
    }

    fn lost(&self) -> usize {
        self.world.state.hosts().values().filter(|host| host.state == Lost).count()
    }
}

#[test]
fn one_silent_host_is_suspected_then_lost_then_back() {
    let mut estate = Estate::new(&[3]);
    assert_eq!(estate.run(0..3, SINCE..LISTENED + 100), []);
    let silent_from = LISTENED + 100;
    let verdicts = estate.run(0..2, silent_from..silent_from + 190);
    assert_eq!(verdicts, [(2, Suspect)]);
    assert_eq!(estate.run(0..2, silent_from + 190..silent_from + 300), [(2, Lost)]);
    estate.beat(2, silent_from + 300);
    assert_eq!(estate.judge(silent_from + 301), [(2, Ready)]);
}

#[test]
fn nobody_is_judged_before_a_lease_and_a_margin_after_an_election() {
    let mut estate = Estate::new(&[4]);
    assert_eq!(estate.run(0..3, SINCE..SINCE + 250), [], "not even suspected");
    assert_eq!(estate.run(0..3, SINCE + 250..SINCE + 270), [(3, Lost)]);
    // The next term begins anew, with what the state says.
    estate.table.lead(2, at(SINCE + 280));
    assert_eq!(estate.run(0..0, SINCE + 280..SINCE + 530), []);
}

#[test]
fn a_heartbeat_counts_during_the_grace_too() {
    let mut estate = Estate::new(&[2]);
    estate.beat_with(0, SINCE + 10, false);
    assert_eq!(estate.judge(SINCE + 11), [(0, Degraded)]);
    estate.beat(0, SINCE + 20);
    assert_eq!(estate.judge(SINCE + 21), [(0, Ready)]);
}

#[test]
fn a_leader_that_was_away_listens_anew() {
    let mut estate = Estate::new(&[4]);
    estate.run(0..4, SINCE..LISTENED);
    estate.table.was_away(at(LISTENED + 6_000));
    assert_eq!(estate.run(0..3, LISTENED + 6_000..LISTENED + 6_250), []);
    assert_eq!(estate.run(0..3, LISTENED + 6_250..LISTENED + 6_270), [(3, Lost)]);
}

#[test]
fn a_registration_is_a_sign_of_life() {
    let mut estate = Estate::new(&[3]);
    estate.run(0..2, SINCE..LISTENED + 20);
    assert_eq!(estate.lost(), 1);
    let id = estate.register("h0-2", "site-0");
    assert_eq!(id, estate.hosts[2], "the same host");
    assert_eq!(estate.run(0..2, LISTENED + 20..LISTENED + 60), [], "it has time for its first heartbeat");
    assert_eq!(estate.run(0..2, LISTENED + 60..LISTENED + 100), [(2, Suspect)]);
}

#[test]
fn an_older_heartbeat_does_not_overrule_a_newer_registration() {
    let mut estate = Estate::new(&[1]);
    estate.beat(0, SINCE);
    assert_eq!(estate.judge(SINCE + 1), []);
    let mut sick = inventory("site-0");
    sick.drivers.get_mut(&DriverKind::Docker).unwrap().healthy = false;
    estate.world.must(Command::RegisterHost {
        name: "h0-0".parse().unwrap(),
        inventory: Box::new(sick),
        incarnation: "1".to_owned(),
    });
    assert_eq!(estate.judge(SINCE + 2), []);
    estate.beat(0, SINCE + 3);
    assert_eq!(estate.judge(SINCE + 4), [(0, Ready)]);
}

#[test]
fn half_a_site_goes_at_once() {
    let mut estate = Estate::new(&[10, 2]);
    let verdicts = estate.run(5..12, SINCE..LISTENED + 10);
    assert_eq!(verdicts.iter().filter(|(_, state)| *state == Lost).count(), 5, "{verdicts:?}");
}

#[test]
fn most_of_a_site_goes_one_by_one() {
    let mut estate = Estate::new(&[10, 2]);
    estate.run(6..12, SINCE..LISTENED + 10);
    assert_eq!(estate.lost(), 1);
    estate.run(6..12, LISTENED + 10..LISTENED + 90);
    assert_eq!(estate.lost(), 1, "the next one waits its turn");
    estate.run(6..12, LISTENED + 90..LISTENED + 310);
    assert!((3..=4).contains(&estate.lost()), "one every ten seconds: {}", estate.lost());
    // The brake does not come off because those that are lost no longer count.
    estate.run(6..12, LISTENED + 310..LISTENED + 410);
    assert!(estate.lost() <= 5, "{}", estate.lost());
}

#[test]
fn two_silent_hosts_of_a_small_site_are_just_two() {
    let mut estate = Estate::new(&[3, 3]);
    let verdicts = estate.run(2..6, SINCE..LISTENED + 10);
    assert_eq!(verdicts, [(0, Lost), (1, Lost)]);
}

#[test]
fn a_silent_estate_loses_nobody() {
    let mut estate = Estate::new(&[3, 4]);
    let verdicts = estate.run(0..0, SINCE..SINCE + 6_000);
    assert_eq!(estate.lost(), 0);
    assert_eq!(verdicts.len(), 7, "all are suspected, once: {verdicts:?}");
}

#[test]
fn the_only_host_is_given_up_like_any() {
    let mut estate = Estate::new(&[1]);
    assert_eq!(estate.run(0..0, SINCE..LISTENED + 10), [(0, Lost)]);
}

#[test]
fn a_host_that_is_being_given_up_gets_no_answer_until_that_is_decided() {
    let mut estate = Estate::new(&[1, 1]);
    let verdicts = estate.run(1..2, SINCE..LISTENED + 5);
    assert!(verdicts.contains(&(0, Lost)), "{verdicts:?}");
    let [lost, well] = [estate.hosts[0], estate.hosts[1]];
    assert!(estate.table.gives_up(lost) && !estate.table.gives_up(well));
    estate.table.concluded();
    assert!(!estate.table.gives_up(lost));
}
