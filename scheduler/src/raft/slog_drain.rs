//! Carries what the raft crate logs (it speaks `slog`) into `tracing`. Knows nothing else.

use std::fmt::Write as _;

/// A logger for raft. Its own words go out under the target `raft`, debug and trace as `debug`.
pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(slog::Fuse(Tracing), slog::o!())
}

struct Tracing;

impl slog::Drain for Tracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        use slog::KV as _;
        let quiet = matches!(record.level(), slog::Level::Debug | slog::Level::Trace);
        if quiet && !tracing::enabled!(target: "raft", tracing::Level::DEBUG) {
            return Ok(());
        }
        let mut line = Line(record.msg().to_string());
        // A value that does not format is left out: the line matters more.
        let _ = record.kv().serialize(record, &mut line);
        let _ = values.serialize(record, &mut line);
        match record.level() {
            slog::Level::Critical | slog::Level::Error => tracing::error!(target: "raft", "{}", line.0),
            slog::Level::Warning => tracing::warn!(target: "raft", "{}", line.0),
            slog::Level::Info => tracing::info!(target: "raft", "{}", line.0),
            slog::Level::Debug | slog::Level::Trace => tracing::debug!(target: "raft", "{}", line.0),
        }
        Ok(())
    }
}

struct Line(String);

impl slog::Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}
