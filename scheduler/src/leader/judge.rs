//! Which hosts live: the leader's table of heartbeats, and the verdicts that follow from it. Pure; time since boot is a parameter.
//!
//! Decisions
//! * **Nobody is judged before the leader has listened for a lease and a margin.** Until then the silence may be the leader's.
//! * **A registration is a sign of life**: it came through a session. So a host that the state calls alive again counts as heard.
//! * **The brake.** When more than 55 % of a site's hosts (three at least) are silent, the network is the suspect: hosts are given up
//!   one at a time. When the whole estate is silent (two hosts at least), none is. Hosts that are lost already count as silent, so that
//!   giving up one does not make the others look like a minority.
//! * **Drivers are judged once a heartbeat**, so that an older heartbeat does not overrule a newer registration.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use supercloud_proto::{
    host::{DriverInfo, HostState, Inventory},
    id::HostId,
    name::SiteName,
    spec::DriverKind,
};

use crate::{
    heartbeats::{Beat, BeatError},
    state::{Host, HostVerdict, State, apply::hosts::verdict_of},
};

/// Heartbeats, lease and margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time between two heartbeats of a host.
    pub heartbeat_every: Duration,
    /// After this long without an answered heartbeat an agent stops its exclusive instances.
    pub lease: Duration,
    /// Time beyond the lease before a host counts as lost: for stopping, and for clocks that do not run alike.
    pub margin: Duration,
    /// Time between two hosts that are given up while the brake is on.
    pub slow_eviction: Duration,
}

impl Default for Timing {
    /// Lost after 25 s of silence: seven heartbeats may be missed within the lease. The margin covers an agent's stop at the end of its lease (5 s
    /// for the task, then the kill) twice over.
    fn default() -> Self {
        Self {
            heartbeat_every: Duration::from_secs(2),
            lease: Duration::from_secs(15),
            margin: Duration::from_secs(10),
            slow_eviction: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// Silence that makes a host suspect: two missed heartbeats and a half.
    #[must_use]
    pub fn suspect_after(&self) -> Duration {
        self.heartbeat_every * 5 / 2
    }

    /// Silence after which a host is lost.
    #[must_use]
    pub fn lost_after(&self) -> Duration {
        self.lease + self.margin
    }

    /// How often hosts are judged: a host that is back, or whose runtime hangs, is known that soon.
    #[must_use]
    pub fn judge_every(&self) -> Duration {
        JUDGE_EVERY.min(self.heartbeat_every / 2)
    }
}

/// See [`Timing::judge_every`].
const JUDGE_EVERY: Duration = Duration::from_millis(500);
/// Of a hundred hosts of a site, more silent ones than this put the brake on.
const BRAKE_PERCENT: usize = 55;
/// Fewer silent hosts than this are just so many failures.
const BRAKE_AT_LEAST: usize = 3;

/// What the leader remembers of the hosts. Not replicated: the next leader listens for itself.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// The term in which this node leads, and since when it has been listening.
    leads: Option<(u64, Duration)>,
    hosts: BTreeMap<HostId, Heard>,
    /// When a host of each site was last given up.
    given_up: BTreeMap<SiteName, Duration>,
    /// Hosts whose loss was proposed and is not applied yet.
    giving_up: BTreeSet<HostId>,
}

#[derive(Debug, Clone)]
struct Heard {
    at: Duration,
    /// Drivers of a heartbeat that has not been judged yet.
    drivers: Option<BTreeMap<DriverKind, DriverInfo>>,
    /// What the state said of it when it was last looked at.
    state: Option<HostState>,
}

impl Table {
    /// This node leads in `term`. In a new term everything is forgotten and the listening begins.
    pub fn lead(&mut self, term: u64, now: Duration) {
        if self.leads.is_none_or(|(known, _)| known != term) {
            *self = Self { leads: Some((term, now)), ..Self::default() };
        }
    }

    /// Takes in heartbeats that came at `came`, of which a majority has confirmed since that this node leads in `term`.
    ///
    /// # Errors
    /// [`BeatError::Unanswered`] when one of the hosts is being given up: its lease would be renewed while the log hands its work to others.
    pub fn take_in(&mut self, term: u64, beats: &[Beat], came: Duration) -> Result<(), BeatError> {
        self.lead(term, came);
        if beats.iter().any(|beat| self.gives_up(beat.host)) {
            return Err(BeatError::Unanswered);
        }
        for beat in beats {
            self.heard(beat, came);
        }
        Ok(())
    }

    /// One look at the hosts, `pause` after the one before: the verdicts to be proposed. Once they are applied or refused, that is to be
    /// told by [`Table::concluded`].
    pub fn look(
        &mut self,
        state: &State,
        now: Duration,
        pause: Duration,
        timing: &Timing,
    ) -> Vec<HostVerdict> {
        // Held up for so long, the leader may have missed heartbeats by its own fault.
        if pause > timing.judge_every() + timing.suspect_after() {
            tracing::warn!("this node was away for a while; no host is judged before it has listened again");
            self.was_away(now);
        }
        self.observe(state, now);
        let verdicts = judge(self, state, now, timing);
        self.judged(state, &verdicts, now);
        verdicts
    }

    /// The leader itself was away (its machine slept, its process was stopped): it begins to listen anew.
    pub fn was_away(&mut self, now: Duration) {
        self.leads = self.leads.map(|(term, _)| (term, now));
        for heard in self.hosts.values_mut() {
            heard.at = heard.at.max(now);
        }
    }

    /// A heartbeat came.
    pub fn heard(&mut self, beat: &Beat, now: Duration) {
        let state = self.hosts.get(&beat.host).and_then(|heard| heard.state);
        self.hosts.insert(beat.host, Heard { at: now, drivers: Some(beat.drivers.clone()), state });
    }

    /// Takes in what the state says of the hosts: new ones and those that have registered again count as heard.
    pub fn observe(&mut self, state: &State, now: Duration) {
        self.hosts.retain(|id, _| state.host(*id).is_some());
        for (id, host) in state.hosts() {
            let heard =
                self.hosts.entry(*id).or_insert(Heard { at: now, drivers: None, state: Some(host.state) });
            if is_down(heard.state) && !is_down(Some(host.state)) {
                heard.at = now;
            }
            heard.state = Some(host.state);
        }
    }

    /// These verdicts were proposed: what they rest on is not judged again.
    pub fn judged(&mut self, state: &State, verdicts: &[HostVerdict], now: Duration) {
        for heard in self.hosts.values_mut() {
            heard.drivers = None;
        }
        for verdict in verdicts.iter().filter(|verdict| verdict.state == HostState::Lost) {
            self.giving_up.insert(verdict.host);
            if let Some(host) = state.host(verdict.host) {
                self.given_up.insert(host.inventory.site.clone(), now);
            }
        }
    }

    /// What became of the verdicts is in the state.
    pub fn concluded(&mut self) {
        self.giving_up.clear();
    }

    /// Whether this host is being given up: its heartbeat came too late, and an answer would renew a lease that others no longer respect.
    pub fn gives_up(&self, host: HostId) -> bool {
        self.giving_up.contains(&host)
    }

    fn silence(&self, host: HostId, now: Duration) -> Duration {
        self.hosts.get(&host).map_or(Duration::ZERO, |heard| now.saturating_sub(heard.at))
    }
}

fn is_down(state: Option<HostState>) -> bool {
    matches!(state, Some(HostState::Suspect | HostState::Lost))
}

/// The verdicts that differ from what the state says. [`Table::observe`] with the same state goes before.
#[must_use]
pub fn judge(table: &Table, state: &State, now: Duration, timing: &Timing) -> Vec<HostVerdict> {
    let Some((_, since)) = table.leads else { return Vec::new() };
    let listened = now.saturating_sub(since) >= timing.lost_after();
    let mut brakes = Brakes::new(table, state, now, timing);
    let mut verdicts = Vec::new();
    for host in state.hosts().values() {
        let verdict = match living(table, host, now, timing) {
            Some(verdict) => Some(verdict),
            None if listened => silent(table, host, now, timing, &mut brakes),
            None => None,
        };
        verdicts.extend(verdict.filter(|verdict| verdict.state != host.state));
    }
    verdicts
}

/// The verdict about a host whose heartbeat has come since the last judging.
fn living(table: &Table, host: &Host, now: Duration, timing: &Timing) -> Option<HostVerdict> {
    let drivers = table.hosts.get(&host.id)?.drivers.clone()?;
    if table.silence(host.id, now) > timing.suspect_after() {
        return None;
    }
    let (state, reason) = verdict_of(&Inventory { drivers, ..Inventory::clone(&host.inventory) });
    Some(HostVerdict { host: host.id, state, reason })
}

fn silent(
    table: &Table,
    host: &Host,
    now: Duration,
    timing: &Timing,
    brakes: &mut Brakes,
) -> Option<HostVerdict> {
    let silence = table.silence(host.id, now);
    let verdict = |state| {
        let reason = format!("no heartbeat for {} s", silence.as_secs());
        Some(HostVerdict { host: host.id, state, reason })
    };
    if host.state == HostState::Lost || silence <= timing.suspect_after() {
        None
    } else if silence >= timing.lost_after() && brakes.release(&host.inventory.site) {
        verdict(HostState::Lost)
    } else if host.state == HostState::Suspect {
        None
    } else {
        verdict(HostState::Suspect)
    }
}

/// How many more hosts of each site may be given up now.
struct Brakes {
    all_silent: bool,
    /// `None`: as many as there are.
    left: BTreeMap<SiteName, Option<usize>>,
}

impl Brakes {
    fn new(table: &Table, state: &State, now: Duration, timing: &Timing) -> Self {
        let mut sites: BTreeMap<SiteName, (usize, usize)> = BTreeMap::new();
        for host in state.hosts().values() {
            let (silent, all) = sites.entry(host.inventory.site.clone()).or_default();
            *all += 1;
            let is_silent =
                host.state == HostState::Lost || table.silence(host.id, now) > timing.suspect_after();
            *silent += usize::from(is_silent);
        }
        let (silent, all) = sites.values().fold((0, 0), |sum, site| (sum.0 + site.0, sum.1 + site.1));
        let left = sites.into_iter().map(|(site, (silent, all))| {
            let slowly = silent >= BRAKE_AT_LEAST && silent * 100 > all * BRAKE_PERCENT;
            let lately =
                table.given_up.get(&site).is_some_and(|at| now.saturating_sub(*at) < timing.slow_eviction);
            let left = slowly.then_some(usize::from(!lately));
            (site, left)
        });
        Self { all_silent: all >= 2 && silent == all, left: left.collect() }
    }

    /// Takes the right to give up one host of a site, if there is one.
    fn release(&mut self, site: &SiteName) -> bool {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Fault::EvictWithoutBrake) {
            return true;
        }
        if self.all_silent {
            return false;
        }
        match self.left.get_mut(site) {
            Some(Some(left)) => {
                let may = *left > 0;
                *left = left.saturating_sub(1);
                may
            }
            Some(None) | None => true,
        }
    }
}

#[cfg(test)]
mod tests;
