//! What a failed call to Docker means: silence, of which nothing follows, or an answer. Every call goes through [`within`], so that
//! none is without a deadline.
//!
//! bollard opens a connection for each request and closes it with the request's future, so a call that is dropped or runs out of time
//! leaves nothing half-read behind.

use std::{error::Error as _, time::Duration};

use bollard::errors::Error;
use tokio::time::timeout;

use crate::driver::DriverError;

/// Docker's name in errors.
pub(super) const RUNTIME: &str = "docker";

/// Words by which Docker passes on that what stands below it (containerd, its own shutdown) does not answer. They come with
/// status 500 like a plain refusal, but say nothing about the task.
const SILENCE_BELOW: [&str; 4] =
    ["context deadline exceeded", "transport is closing", "code = Unavailable", "is shutting down"];

/// A call that brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer, or none that can be read. What was asked may have been done.
    Silent(String),
    /// An answer: no.
    Answer {
        /// HTTP status.
        status: u16,
        /// Docker's words.
        message: String,
    },
}

impl Failure {
    /// Reads an error of bollard's.
    pub(super) fn read(what: &str, error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message }
                if status_code >= 500 && SILENCE_BELOW.iter().any(|words| message.contains(words)) =>
            {
                Self::Silent(format!("{what}: {message}"))
            }
            Error::DockerResponseServerError { status_code, message } => {
                Self::Answer { status: status_code, message: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => Self::Answer { status: 500, message: error },
            error => Self::Silent(format!("{what}: {}", chain(&error))),
        }
    }

    /// The meaning for a call that only asks: whoever answers a question with "internal error" has not answered it.
    pub(super) fn of_question(self, what: &str) -> DriverError {
        match self {
            Self::Silent(reason) => silent(reason),
            Self::Answer { status: 404, .. } => DriverError::Missing,
            Self::Answer { status, message } if status >= 500 => silent(format!("{what}: {message}")),
            Self::Answer { message, .. } => DriverError::Refused(message),
        }
    }

    /// The meaning for a call that acts, after a look has shown that it did not act: Docker says 500 to a taken port too.
    pub(super) fn of_act(self) -> DriverError {
        match self {
            Self::Silent(reason) => silent(reason),
            Self::Answer { message, .. } => DriverError::Refused(message),
        }
    }
}

/// Docker does not answer.
pub(super) fn silent(reason: String) -> DriverError {
    DriverError::Silent { runtime: RUNTIME, reason }
}

/// The error with what lies below it: bollard's own text hides "connection refused" in the sources.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        below = source.source();
    }
    text
}

/// The call's answer, or [`Failure::Silent`] when it takes longer than `deadline`.
pub(super) async fn within<T>(
    what: &str,
    deadline: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match timeout(deadline, call).await {
        Ok(answer) => answer.map_err(|error| Failure::read(what, error)),
        Err(_) => Err(Failure::Silent(format!("{what} took longer than {} s", deadline.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn answers_and_silence_are_told_apart() {
        let question = |error| Failure::read("list", error).of_question("list");
        let act = |error| Failure::read("start", error).of_act();
        assert!(matches!(question(answer(404, "no")), DriverError::Missing));
        assert!(matches!(question(answer(500, "oops")), DriverError::Silent { .. }));
        assert!(matches!(question(answer(409, "no")), DriverError::Refused(_)));
        assert!(matches!(question(Error::RequestTimeoutError), DriverError::Silent { .. }));
        assert!(matches!(act(answer(500, "port is already allocated")), DriverError::Refused(_)));
        assert!(matches!(act(answer(500, "context deadline exceeded")), DriverError::Silent { .. }));
        assert!(matches!(act(answer(404, "no such image")), DriverError::Refused(_)));
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_silence() {
        let hung = within("list", Duration::ZERO, std::future::pending::<Result<(), Error>>()).await;
        assert!(matches!(hung, Err(Failure::Silent(reason)) if reason == "list took longer than 0 s"));
    }
}
