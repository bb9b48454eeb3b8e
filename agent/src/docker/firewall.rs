//! The rule that keeps boroughs' networks apart, set by `nft` beside Docker's own rules.
//!
//! Decisions
//! - **Docker's rules are not relied on alone** (invariant I7). Whenever somebody makes a network, Docker takes the jump to its rules of isolation
//!   out and puts it in again (`EnsureJumpRule` in libnetwork); a connection that is opened between the two passes, and small pages are read in it.
//! - **The rule knows no network, only their addresses.** What comes from one of the agents' ranges and goes to one must leave by the bridge
//!   it came in by: the kernel's routes are asked (`fib daddr . iif`). So it stands before the first network is made, and need not change with them.
//! - **One table for all agents of a machine.** Ranges are only ever added: agents may share a Docker and see each other's networks.
//! - **All in one transaction**: to set it again is harmless, and there is no moment without it. What it stopped is counted outside the chain.

use std::{process::Command, time::Duration};

use tracing::debug;

use super::{DockerDriver, subnet::Pool};
use crate::{command, driver::DriverError};

/// Time that `nft` may take; it waits while others change rules.
const DEADLINE: Duration = Duration::from_secs(10);

impl DockerDriver {
    /// Sets the rule, or sets it again.
    pub(super) async fn keep_apart(&self) -> Result<(), DriverError> {
        if !self.settings.firewall {
            return Ok(());
        }
        let pool = self.settings.networks;
        let set = tokio::task::spawn_blocking(move || {
            command::run(Command::new("nft").arg(script(pool)), DEADLINE).map_err(|error| error.to_string())
        });
        match set.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(_) => {
                debug!(%pool, "boroughs are kept apart");
                Ok(())
            }
            Err(error) => Err(DriverError::Refused(format!(
                "boroughs cannot be kept apart: {error}; `docker.firewall = false` leaves it to Docker's rules alone"
            ))),
        }
    }
}

/// What `nft` is told. The chain is emptied and filled in one transaction.
fn script(pool: Pool) -> String {
    format!(
        "add table ip supercloud
         add set ip supercloud networks {{ type ipv4_addr; flags interval; auto-merge; }}
         add element ip supercloud networks {{ {pool} }}
         add counter ip supercloud stopped
         add chain ip supercloud neighbours {{ type filter hook forward priority -10; policy accept; }}
         flush chain ip supercloud neighbours
         add rule ip supercloud neighbours ip saddr @networks ip daddr @networks fib daddr . iif oif missing counter name stopped drop"
    )
}
