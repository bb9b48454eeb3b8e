//! The order of groups of hosts, by area: how crowded an area is changes for all its groups at once. It outlives turns, and is put right only where somebody looks.
//!
//! Each group is *listed* once, at least as good as it is; likewise each area. Whoever looks for the first asks how good it really is, and lists it anew if it is less good than
//! that, until the first is as good as it is listed. In a turn things only get worse as instances are given hosts, so that nothing has to be looked for; what gets better
//! is told ([`Order::raise`]). What was listed worse for whose turn it was is raised when the turn ends. So a turn costs what it looks at, however many groups there are.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, binary_heap::PeekMut},
};

use super::{Best, Group};
use crate::placement::spread::{Neighbourhood, Siblings};

/// How a group stands in its area: the less crowded the better, and then by its best host.
pub(super) type Standing = (Reverse<u32>, Best, Group);
/// How an area stands: the less crowded the better, and then by its best group.
pub(super) type AreaStanding = (Reverse<u64>, Standing);
/// Number of an area.
pub(super) type AreaNumber = usize;

/// A list is made anew when there are so many times as many entries as can be right.
const MAX_STALE: usize = 2;
/// Entries of a list that are put up with however few can be right.
const MIN_ENTRIES: usize = 64;

/// Groups by area, areas in line.
#[derive(Debug, Default)]
pub(super) struct Order {
    numbers: HashMap<Neighbourhood, AreaNumber>,
    areas: Vec<Area>,
    /// The best at the top. What is not as its area is listed is out of date.
    line: BinaryHeap<(AreaStanding, AreaNumber)>,
    members: Vec<Member>,
    /// Groups and areas that may be listed worse than they are to whom nothing belongs yet.
    touched: Vec<Group>,
    touched_areas: Vec<AreaNumber>,
}

/// The groups that are the same but for what is narrowest.
#[derive(Debug)]
struct Area {
    place: Neighbourhood,
    members: Vec<Group>,
    /// The best at the top. What is not as its group is listed is out of date.
    groups: BinaryHeap<Standing>,
    listed: Option<AreaStanding>,
    is_touched: bool,
}

/// A group.
#[derive(Debug)]
struct Member {
    area: AreaNumber,
    listed: Option<Standing>,
    is_touched: bool,
}

impl Area {
    fn of(place: Neighbourhood) -> Self {
        Self { place, members: Vec::new(), groups: BinaryHeap::new(), listed: None, is_touched: false }
    }
}

impl Order {
    /// The same groups, of which none is listed yet.
    pub(super) fn begin_anew(&self) -> Self {
        let area = |area: &Area| Area { members: area.members.clone(), ..Area::of(area.place) };
        let member = |member: &Member| Member { area: member.area, listed: None, is_touched: false };
        Self {
            numbers: self.numbers.clone(),
            areas: self.areas.iter().map(area).collect(),
            members: self.members.iter().map(member).collect(),
            ..Self::default()
        }
    }

    /// Adds the next group.
    pub(super) fn add(&mut self, place: Neighbourhood) {
        let Self { numbers, areas, members, .. } = self;
        let place = place.wider();
        // Mostly it is in the area of the one before.
        let area = match areas.last() {
            Some(last) if last.place == place => areas.len() - 1,
            _ => *numbers.entry(place).or_insert_with(|| {
                areas.push(Area::of(place));
                areas.len() - 1
            }),
        };
        areas[area].members.push(members.len() as Group);
        members.push(Member { area, listed: None, is_touched: false });
    }

    /// Lists a group at least as good as this, as a workload with these instances sees its area.
    pub(super) fn raise(&mut self, standing: Standing, siblings: &Siblings) {
        let member = &mut self.members[standing.2 as usize];
        let number = member.area;
        if member.listed < Some(standing) {
            member.listed = Some(standing);
            self.areas[number].groups.push(standing);
            self.tidy_area(number);
        }
        let around = Reverse(siblings.crowd_around(&self.areas[number].place));
        self.raise_area(number, (around, standing));
    }

    fn raise_area(&mut self, number: AreaNumber, standing: AreaStanding) {
        let area = &mut self.areas[number];
        if area.listed >= Some(standing) {
            return;
        }
        area.listed = Some(standing);
        self.line.push((standing, number));
        if self.line.len() > MIN_ENTRIES + MAX_STALE * self.areas.len() {
            let listed = self.areas.iter().enumerate();
            self.line = listed.filter_map(|(number, area)| Some((area.listed?, number))).collect();
        }
    }

    fn tidy_area(&mut self, number: AreaNumber) {
        let Self { areas, members, .. } = self;
        let area = &mut areas[number];
        if area.groups.len() > MIN_ENTRIES + MAX_STALE * area.members.len() {
            let listed = area.members.iter().filter_map(|group| members[*group as usize].listed);
            area.groups = listed.collect();
        }
    }

    /// The area that is listed as the first.
    pub(super) fn first(&mut self) -> Option<(AreaStanding, AreaNumber)> {
        while let Some((standing, number)) = self.line.peek().copied() {
            if self.areas[number].listed == Some(standing) {
                return Some((standing, number));
            }
            self.line.pop();
        }
        None
    }

    /// Lists the first area as it stands; `None`: no group in it has a host.
    pub(super) fn set_first(&mut self, standing: Option<AreaStanding>) {
        let Some(first) = self.line.peek_mut() else { return };
        let number = first.1;
        put_or_pop(first, standing.map(|standing| (standing, number)));
        self.areas[number].listed = standing;
        self.touch_area(number);
    }

    /// The group of an area that is listed as the first.
    pub(super) fn first_of(&mut self, number: AreaNumber) -> Option<Standing> {
        let Self { areas, members, .. } = self;
        let groups = &mut areas[number].groups;
        while let Some(standing) = groups.peek().copied() {
            if members[standing.2 as usize].listed == Some(standing) {
                return Some(standing);
            }
            groups.pop();
        }
        None
    }

    /// Lists the first group of an area as it stands; `None`: it has no host.
    pub(super) fn set_first_of(&mut self, number: AreaNumber, standing: Option<Standing>) {
        let Some(first) = self.areas[number].groups.peek_mut() else { return };
        let group = first.2;
        put_or_pop(first, standing);
        self.members[group as usize].listed = standing;
        self.touch(group);
    }

    /// How crowded it is around an area's groups for a workload with these instances.
    pub(super) fn crowd_around(&self, number: AreaNumber, siblings: &Siblings) -> Reverse<u64> {
        Reverse(siblings.crowd_around(&self.areas[number].place))
    }

    /// Notes that a group may be better than it is listed once nobody's instances count.
    pub(super) fn touch(&mut self, group: Group) {
        let member = &mut self.members[group as usize];
        if !std::mem::replace(&mut member.is_touched, true) {
            self.touched.push(group);
        }
        self.touch_area(self.members[group as usize].area);
    }

    fn touch_area(&mut self, number: AreaNumber) {
        if !std::mem::replace(&mut self.areas[number].is_touched, true) {
            self.touched_areas.push(number);
        }
    }

    /// The groups that were touched.
    pub(super) fn take_touched(&mut self) -> Vec<Group> {
        let touched = std::mem::take(&mut self.touched);
        touched.iter().for_each(|group| self.members[*group as usize].is_touched = false);
        touched
    }

    /// Lists the areas that were touched as good as they may be.
    pub(super) fn raise_areas(&mut self) {
        let nobody = Siblings::default();
        for number in std::mem::take(&mut self.touched_areas) {
            self.areas[number].is_touched = false;
            if let Some(best) = self.first_of(number) {
                self.raise_area(number, (self.crowd_around(number, &nobody), best));
            }
        }
    }
}

/// Puts something else in the place of the first of a list, or nothing.
fn put_or_pop<T: Ord>(mut first: PeekMut<'_, T>, other: Option<T>) {
    match other {
        Some(other) => *first = other,
        None => drop(PeekMut::pop(first)),
    }
}
