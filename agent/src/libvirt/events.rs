//! Hints: a thread that holds a connection of its own, passes on which instance's domain changed, and connects again when the daemon
//! was away. It says that something changed, never what: whoever hears it looks.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use supercloud_proto::id::InstanceId;
use tokio::sync::broadcast;

use super::{connection, raw};
use crate::driver::Hint;

/// Hints that a slow listener may be behind. One further behind is told to look at everything.
pub(super) const MAX_HINTS: usize = 256;
/// How often a connection is looked at, and tried again when there is none.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The thread; ends when this is dropped.
pub(super) struct Watcher {
    _running: Sender<()>,
}

/// Starts to watch. `prefix` is the start of the names of this cluster's domains.
pub(super) fn watch(uri: String, prefix: String, hints: broadcast::Sender<Hint>) -> io::Result<Watcher> {
    raw::ensure_event_loop();
    let (running, ended) = channel();
    thread::Builder::new()
        .name("libvirt-hints".to_owned())
        .spawn(move || keep_watching(&uri, &prefix, &hints, &ended))?;
    Ok(Watcher { _running: running })
}

fn keep_watching(uri: &str, prefix: &str, hints: &broadcast::Sender<Hint>, ended: &Receiver<()>) {
    let mut last_reason = String::new();
    loop {
        let reason = match watch_one_connection(uri, prefix, hints, ended) {
            Ok(Gone::Watcher) => return,
            Ok(Gone::Connection) => "the connection was lost".to_owned(),
            Err(error) => error.message().to_owned(),
        };
        // Said once, not every second for as long as the daemon is away.
        if reason != last_reason {
            tracing::warn!(uri, reason, "no events from libvirt; trying again");
            last_reason = reason;
        }
        if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// What came to an end.
enum Gone {
    Watcher,
    Connection,
}

fn watch_one_connection(
    uri: &str,
    prefix: &str,
    hints: &broadcast::Sender<Hint>,
    ended: &Receiver<()>,
) -> Result<Gone, virt::error::Error> {
    let connection = connection::connect(uri)?;
    let (names, told) = (prefix.to_owned(), hints.clone());
    let _subscription = raw::subscribe(
        &connection,
        Box::new(move |name| {
            if let Some(instance) = instance_of(name, &names) {
                // Nobody listens: nobody needs to know.
                let _ = told.send(Hint::Instance(instance));
            }
        }),
    )?;
    let _ = hints.send(Hint::Anything);
    loop {
        if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
            return Ok(Gone::Watcher);
        }
        if !connection.is_alive().unwrap_or(false) {
            return Ok(Gone::Connection);
        }
    }
}

/// The instance whose domain has this name.
fn instance_of(name: &str, prefix: &str) -> Option<InstanceId> {
    name.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::domain;

    #[test]
    fn only_names_of_this_cluster_are_hints() {
        let prefix = domain::name_prefix("0123456789abcdef");
        let instance = InstanceId { index: 0x2f, ordinal: 1 };
        assert_eq!(instance_of(&domain::name("0123456789abcdef", instance), &prefix), Some(instance));
        for other in ["sc-99999999-i-2f-1", "sc-01234567-web", "i-2f-1", ""] {
            assert_eq!(instance_of(other, &prefix), None, "{other}");
        }
    }

    #[tokio::test]
    async fn changes_of_a_domain_arrive() {
        let (hints, mut heard) = broadcast::channel(MAX_HINTS);
        let uri = "test:///default";
        let _watcher = watch(uri.to_owned(), domain::name_prefix("fedcba9876543210"), hints).unwrap();
        let mut next =
            async || tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
        assert_eq!(next().await, Hint::Anything);

        let connection = connection::connect(uri).unwrap();
        let define = |name: &str| {
            let xml = format!(
                "<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
            );
            connection.define_domain_xml(&xml).unwrap()
        };
        let foreign = define("foreign");
        let ours = define("sc-fedcba98-i-2f-1");
        assert_eq!(next().await, Hint::Instance(InstanceId { index: 0x2f, ordinal: 1 }));
        foreign.undefine().unwrap();
        ours.undefine().unwrap();
    }
}
