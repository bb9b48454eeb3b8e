//! A task as it was last reported, kept small: there is one for every task of every instance, and most of them run and have never ended.

use supercloud_proto::{
    id::UnixMillis,
    instance::{InstanceState, TaskStatus},
    name::{InvalidName, TaskName},
    spec::WorkloadSpec,
};

/// Bytes of a container's id; Docker writes it as twice as many hex digits.
const CONTAINER_ID: usize = 32;
/// Lengths of the groups of a UUID's text, in hex digits.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
/// Bytes of a UUID.
const UUID: usize = 16;
/// Bytes of the longest text of a packed id.
const LONGEST: usize = 2 * CONTAINER_ID;

/// One task as last reported. Made from, and read as, a [`TaskStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSeen {
    name: TaskName,
    state: InstanceState,
    runtime: RuntimeId,
    /// 0: never.
    started: UnixMillis,
    rest: Option<Box<Rest>>,
}

/// What a runtime calls a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RuntimeId {
    /// Nothing yet.
    None,
    Container([u8; CONTAINER_ID]),
    Domain([u8; UUID]),
    /// Something else, which stands in [`Rest`].
    Other,
}

/// What a task has that has ended before, or that an unusual runtime runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rest {
    /// 0: never.
    finished: UnixMillis,
    exit_code: Option<i32>,
    restarts: u32,
    reason: Box<str>,
    runtime: Box<str>,
}

/// A task in plain texts and numbers, which need not be kept.
#[derive(Debug, Clone, Copy)]
pub struct TaskText<'a> {
    /// Which.
    pub name: &'a str,
    /// Its state.
    pub state: InstanceState,
    /// What the runtime calls it; empty: not made yet.
    pub runtime_id: &'a str,
    /// Start of the present run; 0: never.
    pub started: UnixMillis,
    /// End of the last run; 0: never.
    pub finished: UnixMillis,
    /// Exit code of the last run.
    pub exit_code: Option<i32>,
    /// Times it was started anew on its host.
    pub restarts: u32,
    /// Why it is in that state, or why it last ended.
    pub reason: &'a str,
}

impl TaskText<'_> {
    /// Of a task of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            name: "",
            state: InstanceState::Unknown,
            runtime_id: "",
            started: 0,
            finished: 0,
            exit_code: None,
            restarts: 0,
            reason: "",
        }
    }
}

impl TaskSeen {
    /// Keeps what was reported.
    pub fn of(status: &TaskStatus, spec: &WorkloadSpec) -> Self {
        let text = TaskText {
            name: status.name.as_str(),
            state: status.state,
            runtime_id: &status.runtime_id,
            started: status.started.unwrap_or_default(),
            finished: status.finished.unwrap_or_default(),
            exit_code: status.exit_code,
            restarts: status.restarts,
            reason: &status.reason,
        };
        Self::keep(&text, name_in(spec, text.name).unwrap_or_else(|| status.name.clone()))
    }

    /// Keeps what stands in a snapshot.
    ///
    /// # Errors
    /// When the name is none.
    pub fn new(text: &TaskText<'_>, spec: &WorkloadSpec) -> Result<Self, InvalidName> {
        let name = name_in(spec, text.name).map_or_else(|| text.name.parse(), Ok)?;
        Ok(Self::keep(text, name))
    }

    fn keep(text: &TaskText<'_>, name: TaskName) -> Self {
        let runtime = RuntimeId::read(text.runtime_id);
        let odd = if runtime == RuntimeId::Other { text.runtime_id } else { "" };
        let quiet = text.finished == 0
            && text.exit_code.is_none()
            && text.restarts == 0
            && text.reason.is_empty()
            && odd.is_empty();
        let rest = || Rest {
            finished: text.finished,
            exit_code: text.exit_code,
            restarts: text.restarts,
            reason: text.reason.into(),
            runtime: odd.into(),
        };
        Self {
            name,
            state: text.state,
            runtime,
            started: text.started,
            rest: (!quiet).then(|| Box::new(rest())),
        }
    }

    /// Which.
    pub fn name(&self) -> &TaskName {
        &self.name
    }

    /// Start of the present run.
    pub fn started(&self) -> Option<UnixMillis> {
        Some(self.started).filter(|at| *at != 0)
    }

    /// End of the last run.
    pub fn finished(&self) -> Option<UnixMillis> {
        self.rest.as_ref().map(|rest| rest.finished).filter(|at| *at != 0)
    }

    /// Times it was started anew on its host.
    pub fn restarts(&self) -> u32 {
        self.rest.as_ref().map_or(0, |rest| rest.restarts)
    }

    /// As it was reported.
    pub fn status(&self) -> TaskStatus {
        self.as_text(|text| TaskStatus {
            name: self.name.clone(),
            state: text.state,
            runtime_id: text.runtime_id.to_owned(),
            started: self.started(),
            finished: self.finished(),
            exit_code: text.exit_code,
            restarts: text.restarts,
            reason: text.reason.to_owned(),
        })
    }

    /// Shows it in plain texts and numbers, without taking memory for them.
    pub fn as_text<T>(&self, show: impl FnOnce(&TaskText<'_>) -> T) -> T {
        let mut digits = [0; LONGEST];
        let rest = self.rest.as_deref();
        let runtime_id = match &self.runtime {
            RuntimeId::None => "",
            RuntimeId::Container(id) => hex(id, &mut digits),
            RuntimeId::Domain(id) => uuid_text(id, &mut digits),
            RuntimeId::Other => rest.map_or("", |rest| &rest.runtime),
        };
        show(&TaskText {
            name: self.name.as_str(),
            state: self.state,
            runtime_id,
            started: self.started,
            finished: rest.map_or(0, |rest| rest.finished),
            exit_code: rest.and_then(|rest| rest.exit_code),
            restarts: self.restarts(),
            reason: rest.map_or("", |rest| &rest.reason),
        })
    }
}

/// A task's name as the spec has it.
fn name_in(spec: &WorkloadSpec, name: &str) -> Option<TaskName> {
    spec.tasks.iter().map(|task| &task.name).find(|known| known.as_str() == name).cloned()
}

impl RuntimeId {
    /// Only the one text that is given back is packed; `AB…` in capitals is not.
    fn read(text: &str) -> Self {
        if text.is_empty() {
            return Self::None;
        }
        if let Some(id) = unhex(text) {
            return Self::Container(id);
        }
        match read_uuid(text) {
            Some(id) => Self::Domain(id),
            None => Self::Other,
        }
    }
}

fn hex<'d>(bytes: &[u8], digits: &'d mut [u8; LONGEST]) -> &'d str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    as_str(&digits[..2 * bytes.len()])
}

/// Bytes from exactly as many hex digits in small letters.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

fn uuid_text<'d>(id: &[u8; UUID], text: &'d mut [u8; LONGEST]) -> &'d str {
    let mut digits = [0; LONGEST];
    let mut rest = hex(id, &mut digits).as_bytes();
    let mut at = 0;
    for (place, length) in UUID_GROUPS.into_iter().enumerate() {
        if place > 0 {
            text[at] = b'-';
            at += 1;
        }
        let (group, after) = rest.split_at(length);
        text[at..at + length].copy_from_slice(group);
        (rest, at) = (after, at + length);
    }
    as_str(&text[..at])
}

/// Digits and dashes are always a text.
fn as_str(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).unwrap_or_default()
}

fn read_uuid(text: &str) -> Option<[u8; UUID]> {
    let mut digits = [0; 2 * UUID];
    let mut count = 0;
    for letter in text.bytes().filter(|letter| *letter != b'-') {
        *digits.get_mut(count)? = letter;
        count += 1;
    }
    let id = unhex(as_str(&digits[..count]))?;
    // Only the one text that is given back.
    (uuid_text(&id, &mut [0; LONGEST]) == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::world::service;

    fn status() -> TaskStatus {
        TaskStatus {
            name: "main".parse().unwrap(),
            state: InstanceState::Running,
            runtime_id: String::new(),
            started: Some(5),
            finished: None,
            exit_code: None,
            restarts: 0,
            reason: String::new(),
        }
    }

    fn check(status: &TaskStatus) {
        assert_eq!(TaskSeen::of(status, &service("web", 1)).status(), *status);
    }

    #[test]
    fn what_is_kept_reads_back_as_it_was_reported() {
        check(&status());
        check(&TaskStatus { name: "unknown".parse().unwrap(), started: None, ..status() });
        check(&TaskStatus { finished: Some(7), exit_code: Some(0), restarts: 2, ..status() });
        check(&TaskStatus { exit_code: Some(-1), reason: "killed".to_owned(), ..status() });
        let container = "0123456789abcdef".repeat(4);
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        let odd = ["fake-i-1-0-main", &container[1..], "0", "6ba7b8109dad-11d1-80b4-00c04fd430c8-", "é"];
        for id in
            [container.as_str(), uuid, &container.to_uppercase(), &uuid.to_uppercase()].into_iter().chain(odd)
        {
            check(&TaskStatus { runtime_id: id.to_owned(), ..status() });
        }
    }

    #[test]
    fn what_runs_quietly_is_small() {
        let container = TaskStatus { runtime_id: "ab".repeat(CONTAINER_ID), ..status() };
        let seen = TaskSeen::of(&container, &service("web", 1));
        assert!(seen.rest.is_none() && size_of::<TaskSeen>() <= 72);
    }
}
