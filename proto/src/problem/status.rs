//! Problems on their way through gRPC: as `ErrorDetails`, encoded, in the details of a status.

use prost::Message as _;
use tonic::{Code, Status};

use super::Problem;
use crate::v1;

/// Most problems that one status carries. Details travel in a header, and peers commonly allow 16 KiB of headers; what is cut off
/// comes to light when the first ones are mended.
const MAX_CARRIED: usize = 32;

/// Most encoded bytes of problems that one status carries; base64 adds a third, and the message stands in another header.
const MAX_BYTES: usize = 6 * 1024;

/// A status that carries problems. Its message should stand alone: not every client reads details.
pub fn status(code: Code, message: impl Into<String>, problems: Vec<Problem>) -> Status {
    let mut details = v1::ErrorDetails::default();
    let mut left = MAX_BYTES;
    for problem in problems.into_iter().map(v1::Problem::from) {
        let bytes = problem.encoded_len();
        if bytes <= left && details.problems.len() < MAX_CARRIED {
            left -= bytes;
            details.problems.push(problem);
        }
    }
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// The details of a status; `None` when it has none, or none that are ours.
pub fn of_status(status: &Status) -> Option<v1::ErrorDetails> {
    let details = status.details();
    if details.is_empty() { None } else { v1::ErrorDetails::decode(details).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_travel_in_a_status() {
        let problem = Problem::new("count", "at most 5", "6").suggesting("5");
        let refused = status(Code::InvalidArgument, "the spec has 1 problem", vec![problem.clone()]);
        let details = of_status(&refused).unwrap();
        assert_eq!(details.problems.into_iter().map(Problem::from).collect::<Vec<_>>(), [problem]);
        assert_eq!(of_status(&Status::not_found("no")), None);
    }

    #[test]
    fn what_a_status_carries_is_bounded() {
        let many = vec![Problem::new("p", "e".repeat(100), "f".repeat(100)); 5_000];
        let refused = status(Code::InvalidArgument, "m", many);
        assert!(refused.details().len() <= MAX_BYTES + 1024);
        assert!(of_status(&refused).unwrap().problems.len() > 20);
    }
}
