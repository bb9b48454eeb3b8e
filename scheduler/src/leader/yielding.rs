//! The loop by which a leader whose disk is nearly full hands the leadership to a voter with space; without one it stays, and takes no writes.

use std::time::Duration;

use crate::core::Core;

/// Wait between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(core: Core) {
    loop {
        let status = core.status();
        let next = status.successor().filter(|_| status.short.contains(&status.id));
        if let Some(next) = next {
            match core.transfer_leadership(next).await {
                Ok(()) => {
                    tracing::info!(%next, "too little space on the disk: the leadership is handed over")
                }
                Err(error) => tracing::warn!(%next, %error, "the leadership could not be handed over"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
