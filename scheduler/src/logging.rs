//! Log lines to standard error, never at the price of waiting: lines go through a bounded queue to a thread of their own, and what does not fit
//! is dropped and counted. A node whose log sink hangs goes on serving.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::LogFormat;

/// Lines that wait for the sink: seconds of a noisy node.
const MAX_QUEUED: usize = 8_192;
/// Longest wait for the sink when the process ends.
const LAST_WAIT: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Where log lines go. Cheap to clone.
#[derive(Clone)]
struct Sink {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// One line in the making; it is handed over when it is dropped.
struct Line {
    sink: Sink,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { sink: self.clone(), bytes: Vec::with_capacity(256) }
    }
}

impl std::io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if !line.is_empty() && self.sink.queue.try_send(Message::Line(line)).is_err() {
            self.sink.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes out what waits, when it is dropped at the end of the process.
pub struct Guard {
    queue: SyncSender<Message>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // A sink that hangs does not hold up the end either.
            let _ = written.recv_timeout(LAST_WAIT);
        }
    }
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error("the log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is no thread to write.
    #[error("no thread for log lines: {0}")]
    Thread(#[from] std::io::Error),
    /// Somebody has set up logging before.
    #[error(transparent)]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for this process. Keep the guard until its end.
///
/// # Errors
/// When the filter is not one, or logging was started before.
pub fn start(level: &str, format: LogFormat) -> Result<Guard, LoggingError> {
    let filter = EnvFilter::try_new(level)?;
    let (queue, lines) = sync_channel(MAX_QUEUED);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = dropped.clone();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write(&lines, &counter, &mut std::io::stderr()))?;
    let sink = Sink { queue: queue.clone(), dropped };
    let layer = tracing_subscriber::fmt::layer().with_writer(sink);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(Guard { queue })
}

/// Writes lines until nobody can hand over any.
fn write(lines: &Receiver<Message>, dropped: &AtomicU64, out: &mut impl std::io::Write) {
    loop {
        match lines.recv_timeout(LAST_WAIT) {
            // Nobody can be told that standard error does not work.
            Ok(Message::Line(line)) => _ = out.write_all(&line),
            Ok(Message::Flush(done)) => {
                let _ = (out.flush(), done.try_send(()));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                out,
                "supercloud-scheduler: {lost} log lines were dropped, standard error is too slow"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_sink_that_hangs_costs_lines_and_no_waiting() {
        let (queue, lines) = sync_channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = Sink { queue, dropped: dropped.clone() };
        for number in 0..5 {
            writeln!(sink.make_writer(), "line {number}").unwrap();
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
        drop(sink);
        let mut out = Vec::new();
        write(&lines, &dropped, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("line 0\n") && text.contains("line 1\n") && !text.contains("line 2"), "{text}");
        assert!(text.contains("3 log lines were dropped"), "{text}");
    }
}
