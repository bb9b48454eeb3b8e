//! What a container has written, and goes on to write.
//!
//! Docker's own stream ends with the run, but a follower wants the next run too: a task that is started anew is the same container. So
//! when the stream ends we wait until the container runs again or is gone. To go on without a gap or a line twice, followed lines come
//! with Docker's time stamps, which are taken off here; the next run is read from after the last one. For the same reason a line that
//! comes in pieces keeps each piece's own stamp.

use std::{sync::Arc, time::Duration};

use bollard::{container::LogOutput, errors::Error, query_parameters::LogsOptions};
use futures::{StreamExt, stream, stream::BoxStream};
use supercloud_proto::v1::LogsResponse;
use tokio::time::{sleep, timeout};

use super::{
    client::Client,
    failure::{Failure, silent},
    phase::{phase, unix_nanos},
};
use crate::driver::{ASK_DEADLINE, DriverError, LogOptions, Phase};

/// Time between two looks at a container whose next run a follower waits for.
const NEXT_RUN_POLL: Duration = Duration::from_millis(500);
/// "All lines", in Docker's words.
const ALL: &str = "all";

type Pieces = BoxStream<'static, Result<LogsResponse, DriverError>>;

/// Opens the stream; `Missing` when there is no such container.
pub(super) async fn open(client: &Arc<Client>, id: &str, options: LogOptions) -> Result<Pieces, DriverError> {
    client.inspect(id).await?.ok_or(DriverError::Missing)?;
    let mut reader = Reader {
        client: Arc::clone(client),
        id: id.to_owned(),
        follow: options.follow,
        run: stream::empty().boxed(),
        read_until: None,
        done: false,
    };
    reader.open(options.tail).await?;
    Ok(stream::unfold(reader, async |mut reader| Some((reader.next().await?, reader))).boxed())
}

struct Reader {
    client: Arc<Client>,
    id: String,
    follow: bool,
    run: BoxStream<'static, Result<LogOutput, Error>>,
    /// Stamp of the last line read, nanoseconds since 1970.
    read_until: Option<u64>,
    done: bool,
}

impl Reader {
    async fn open(&mut self, tail: Option<u32>) -> Result<(), DriverError> {
        // Docker takes whole seconds here; what is older within that second is left out line by line.
        let since = self.read_until.and_then(|nanos| i32::try_from(nanos / 1_000_000_000).ok());
        let options = LogsOptions {
            follow: self.follow,
            stdout: true,
            stderr: true,
            timestamps: self.follow,
            since: since.unwrap_or_default(),
            tail: tail.map_or_else(|| ALL.to_owned(), |lines| lines.to_string()),
            ..LogsOptions::default()
        };
        self.run = self.client.docker().await?.logs(&self.id, Some(options)).boxed();
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<LogsResponse, DriverError>> {
        while !self.done {
            let step = self.step().await;
            self.done |= matches!(step, Step::Piece(Err(_)) | Step::End);
            match step {
                Step::Piece(piece) => return Some(piece),
                Step::Nothing => {}
                Step::End => return None,
            }
        }
        None
    }

    async fn step(&mut self) -> Step {
        let item = if self.follow {
            self.run.next().await
        } else {
            // What is written already comes at once, or Docker hangs.
            match timeout(ASK_DEADLINE, self.run.next()).await {
                Ok(item) => item,
                Err(_) => return Step::Piece(Err(silent("the log does not go on".to_owned()))),
            }
        };
        match item {
            Some(Ok(output)) => self.piece(output).map_or(Step::Nothing, |piece| Step::Piece(Ok(piece))),
            Some(Err(error)) => match Failure::read("logs", error).of_question("logs") {
                DriverError::Missing if self.follow => Step::End,
                error => Step::Piece(Err(error)),
            },
            None if self.follow => match self.await_next_run().await {
                Ok(true) => Step::Nothing,
                Ok(false) => Step::End,
                Err(error) => Step::Piece(Err(error)),
            },
            None => Step::End,
        }
    }

    /// A piece without its stamp; `None` when it was read before.
    fn piece(&mut self, output: LogOutput) -> Option<LogsResponse> {
        let stderr = matches!(output, LogOutput::StdErr { .. });
        let bytes = output.into_bytes();
        let piece = |data: &[u8]| Some(LogsResponse { data: data.to_vec(), stderr });
        if !self.follow {
            return piece(&bytes);
        }
        let Some((stamp, text)) = split_stamp(&bytes) else { return piece(&bytes) };
        if self.read_until.is_some_and(|until| stamp <= until) {
            return None;
        }
        self.read_until = Some(stamp);
        piece(text)
    }

    /// Waits until the container runs again and opens its log from there; false when it is gone.
    async fn await_next_run(&mut self) -> Result<bool, DriverError> {
        loop {
            sleep(NEXT_RUN_POLL).await;
            let Some(found) = self.client.inspect(&self.id).await? else { return Ok(false) };
            let state = found.state.unwrap_or_default();
            if matches!(phase(&state), Phase::Running { .. }) {
                // Where nothing was read yet, the lines before this run were not asked for.
                let started = state.started_at.as_deref().and_then(unix_nanos);
                self.read_until = self.read_until.or(started.map(|nanos| nanos.saturating_sub(1)));
                self.open(None).await?;
                return Ok(true);
            }
        }
    }
}

enum Step {
    Piece(Result<LogsResponse, DriverError>),
    Nothing,
    End,
}

/// The stamp that Docker puts before a piece, and the piece.
fn split_stamp(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let stamp = std::str::from_utf8(bytes.get(..space)?).ok()?;
    Some((unix_nanos(stamp)?, bytes.get(space + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_taken_off() {
        let line = b"1970-01-01T00:00:01.000000002Z hello  world\n";
        assert_eq!(split_stamp(line), Some((1_000_000_002, b"hello  world\n".as_slice())));
        assert_eq!(split_stamp(b"1970-01-01T00:00:01.000000002Z "), Some((1_000_000_002, b"".as_slice())));
        assert_eq!(split_stamp(b"hello world\n"), None);
    }
}
