//! What can go wrong, by what the user does about it, and the exit code that says so: 1 refused or failed, 2 usage, 3 unreachable.

use std::{fmt, io, process::ExitCode};

use supercloud_proto::{
    pki::client::NoServer,
    problem::{Problem, Problems, of_status},
};
use tonic::{Code, Status};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The cluster refused it, with everything that is wrong.
    Refused {
        /// In a line.
        message: String,
        /// In detail.
        problems: Vec<Problem>,
    },
    /// It was accepted and did not come to a good end.
    Failed(String),
    /// The command line, the settings or a file are not right.
    Usage(String),
    /// No node could be reached, or none could answer.
    Unreachable(String),
    /// Output could not be written; a closed pipe is no failure to speak of.
    Output(io::Error),
    /// Not a failure: ends with a code that says something.
    Code(u8),
}

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused { .. } | Self::Failed(_) | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Code(code) => *code,
        })
    }

    /// Whether there is anything to say.
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Code(_) => true,
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, problems } => {
                f.write_str(message)?;
                // A message that must stand alone tells a single problem itself.
                let untold = problems.iter().map(ToString::to_string).filter(|problem| problem != message);
                untold.into_iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
            Self::Failed(text) | Self::Usage(text) | Self::Unreachable(text) => f.write_str(text),
            Self::Output(error) => write!(f, "output cannot be written: {error}"),
            Self::Code(code) => write!(f, "code {code}"),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = of_status(&status).unwrap_or_default();
        let problems: Vec<Problem> = details.problems.into_iter().map(Into::into).collect();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                let unknown = if details.outcome_unknown { " (it may have taken effect)" } else { "" };
                Self::Unreachable(format!("{}{unknown}", status.message()))
            }
            _ => Self::Refused { message: status.message().to_owned(), problems },
        }
    }
}

impl From<NoServer> for Failure {
    fn from(error: NoServer) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        let count = problems.0.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        Self::Refused { message: format!("{count} {noun} in the spec"), problems: problems.0 }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
