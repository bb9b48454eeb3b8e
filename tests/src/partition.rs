//! Shapes of a network that does not carry everything: which links between nodes lose all that is sent over them. Pure; `netns` makes
//! them true.
//!
//! Nodes are numbered from 0, as the cluster's places. A link is one direction: a shape that cuts two nodes off from each other names
//! both.

use std::collections::BTreeSet;

/// One direction between two nodes: who sends, who receives.
pub type Link = (usize, usize);

/// Links that lose everything.
pub type Lost = BTreeSet<Link>;

/// One node and all others do not hear each other.
pub fn isolate(node: usize, of: usize) -> Lost {
    &deaf(node, of) | &mute(node, of)
}

/// One node hears nobody, but is heard.
pub fn deaf(node: usize, of: usize) -> Lost {
    others(node, of).map(|other| (other, node)).collect()
}

/// One node hears everybody, but is not heard.
pub fn mute(node: usize, of: usize) -> Lost {
    others(node, of).map(|other| (node, other)).collect()
}

/// One node does not hear one other.
pub fn one_way(from: usize, to: usize) -> Lost {
    Lost::from([(from, to)])
}

/// Some nodes on one side, all others on the other.
pub fn split(side: &[usize], of: usize) -> Lost {
    only(of, |one, other| side.contains(&one) == side.contains(&other))
}

/// Two sides that hear each other through one node only, which hears all.
pub fn bridge(middle: usize, side: &[usize], of: usize) -> Lost {
    only(of, |one, other| one == middle || other == middle || side.contains(&one) == side.contains(&other))
}

/// A partial mesh: each node hears its two neighbours in the ring and nobody else. With five nodes each still sees a majority.
pub fn ring(of: usize) -> Lost {
    only(of, |one, other| (one + 1) % of == other || (other + 1) % of == one)
}

/// Whether a node and a majority hear each other, itself included.
pub fn hears_majority(node: usize, lost: &Lost, of: usize) -> bool {
    heard_by(node, lost, of) * 2 > of
}

/// How many nodes hear this one and are heard by it, itself included.
fn heard_by(node: usize, lost: &Lost, of: usize) -> usize {
    let both = |other: &usize| !lost.contains(&(node, *other)) && !lost.contains(&(*other, node));
    1 + others(node, of).filter(both).count()
}

/// Everything is lost but between those nodes that `hear` each other.
fn only(of: usize, hear: impl Fn(usize, usize) -> bool) -> Lost {
    let links = (0..of).flat_map(|from| others(from, of).map(move |to| (from, to)));
    links.filter(|(from, to)| !hear(*from, *to)).collect()
}

fn others(node: usize, of: usize) -> impl Iterator<Item = usize> {
    (0..of).filter(move |other| *other != node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_cut_what_they_say() {
        for (shape, of, expected) in [
            (isolate(1, 3), 3, vec![2, 1, 2]),
            (deaf(0, 3), 3, vec![1, 2, 2]),
            (mute(2, 3), 3, vec![2, 2, 1]),
            (split(&[0, 3], 5), 5, vec![2, 3, 3, 2, 3]),
            (bridge(2, &[0, 1], 5), 5, vec![3, 3, 5, 3, 3]),
            (bridge(1, &[0], 3), 3, vec![2, 3, 2]),
            (ring(5), 5, vec![3; 5]),
        ] {
            let heard: Vec<usize> = (0..of).map(|node| heard_by(node, &shape, of)).collect();
            assert_eq!(heard, expected, "{shape:?}");
        }
        assert!(hears_majority(0, &isolate(1, 3), 3) && !hears_majority(1, &isolate(1, 3), 3));
        assert_eq!(deaf(0, 3), Lost::from([(1, 0), (2, 0)]));
        assert_eq!(mute(0, 3), Lost::from([(0, 1), (0, 2)]));
        assert_eq!(one_way(0, 2).len(), 1);
    }
}
