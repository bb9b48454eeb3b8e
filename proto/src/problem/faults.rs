//! Collects problems while a value is being made of its parts: a part that cannot be made is noted and passed over, and the value
//! is made only when nothing was noted. Knows nothing of what is being made.

use super::{Problem, Problems};

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Problem>);

impl Faults {
    /// Notes one problem.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// The value of a part, or `None` and its problems noted under `path`.
    pub fn take<T, E: Into<Problems>>(&mut self, path: &str, part: Result<T, E>) -> Option<T> {
        part.map_err(|problems| self.0.extend(problems.into().within(path).0)).ok()
    }

    /// The values of all items, or `None` when one has problems; these are noted under `path[i]`.
    pub fn each<M, T, E: Into<Problems>>(
        &mut self,
        path: &str,
        items: impl IntoIterator<Item = M>,
        convert: impl Fn(M) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let items: Vec<Option<T>> = items
            .into_iter()
            .enumerate()
            .map(|(i, item)| self.take(&format!("{path}[{i}]"), convert(item)))
            .collect();
        items.into_iter().collect()
    }

    /// The value of a part that must be there.
    pub fn required<M, T: TryFrom<M>>(&mut self, path: &str, part: Option<M>) -> Option<T>
    where
        T::Error: Into<Problems>,
    {
        match part {
            Some(part) => self.take(path, T::try_from(part)),
            None => {
                self.push(Problem::new(path, "a value", "nothing"));
                None
            }
        }
    }

    /// The value of a part that may be left out: `None` only when it is there and has problems.
    pub fn optional<M, T: TryFrom<M>>(&mut self, path: &str, part: Option<M>) -> Option<Option<T>>
    where
        T::Error: Into<Problems>,
    {
        match part {
            Some(part) => self.take(path, T::try_from(part)).map(Some),
            None => Some(None),
        }
    }

    /// The whole, when all its parts could be made and nothing was noted.
    pub fn finish<T>(self, whole: Option<T>) -> Result<T, Problems> {
        match whole {
            Some(whole) if self.0.is_empty() => Ok(whole),
            // A part is `None` only after a problem was noted; should that ever be broken, a refusal is still not empty.
            None if self.0.is_empty() => Err(Problem::new("", "a whole value", "a part missing").into()),
            _ => Err(Problems(self.0)),
        }
    }
}
