//! Suggestions over random small estates: what is passed over for want of promise would not have worked (the code asserts it of each), and fewer trials tell
//! nothing else than more do.

use proptest::prelude::*;

use super::random::{estate_of, random_boroughs, random_host, random_sites, random_workload};
use crate::placement::explain;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fewer_trials_tell_a_part_of_what_more_do(
        hosts in prop::collection::vec(random_host(), 1..7),
        workloads in prop::collection::vec(random_workload(), 1..9),
        boroughs in random_boroughs(),
        sites in random_sites(),
        trials in 0usize..4,
    ) {
        let mut estate = estate_of(&hosts, &workloads, &boroughs, &sites);
        while estate.pass(40).more {}
        for instance in estate.state.pending() {
            let tell = |trials| explain::changes(&estate.state, instance, estate.now, trials);
            let (all, few) = (tell(usize::MAX), tell(trials));
            prop_assert!(few.len() <= trials);
            prop_assert!(few.iter().all(|told| all.contains(told)), "{few:?} of {all:?}");
            // What a host takes as everything stands is tried first, and of one alone it works.
            let of_spec = all.iter().filter(|told| told.host.is_none() && told.kind == "relax").count();
            prop_assert!(few.len() >= of_spec.min(trials) || instance.spec().place.all_or_none);
        }
    }
}
