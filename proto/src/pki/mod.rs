//! Who is who, and how they prove it: identities in certificates, join tokens, credentials on disk, and the TLS of both ends.
//!
//! A cluster has one certificate authority of its own (it lives in the scheduler crate; this module only checks what it signed).
//! Every part of the cluster and every caller holds a certificate of that authority, whose SAN URI says who it is. A newcomer has a
//! single-use token; the token carries the fingerprint of the authority, so that the newcomer knows the scheduler before it is known
//! itself. The module knows nothing of gRPC services, of state, or of what an identity may do: that is the scheduler's business.
//!
//! From the ground: `ca_certificate`, `identity` · `token`, `request`, `secret_file` · `credentials` · `verify`, `address` ·
//! `client`, `join`.
//!
//! # Decisions
//! - **A fixed server name.** Every scheduler certificate carries [`SERVER_NAME`] and clients ask for that, whatever address they dial.
//!   So addresses may change, and hosts may sit behind NAT or a tunnel, without a new certificate. What it costs: a client cannot tell
//!   one scheduler node from another by name. It does not have to; where a node matters (peers), the identity is compared.
//! - **A client believes only schedulers.** Beside the chain and the name, the identity in the server's certificate must be a scheduler
//!   of the cluster the client belongs to, so that an agent's stolen key cannot answer as a scheduler.
//! - **One file holds a whole credential** (key, certificate, authority): it is replaced by a single rename, so that after a crash key and
//!   certificate still belong together.
//! - **Absent on purpose:** revocation lists. A certificate lives a year at most; a removed host, node or person is refused by the state,
//!   where their name is looked up at each session and call.

pub mod address;
pub mod ca_certificate;
pub mod client;
pub mod credentials;
pub mod identity;
pub mod join;
pub mod request;
pub mod secret_file;
pub mod token;
pub mod verify;

pub use ca_certificate::{CaCertificate, Fingerprint};
pub use client::{Connection, Servers, Trust};
pub use credentials::Credentials;
pub use identity::Identity;
pub use token::Token;

/// The DNS name that every scheduler certificate carries and every client asks for. `.internal` is reserved for private use.
pub const SERVER_NAME: &str = "scheduler.supercloud.internal";

/// The port a scheduler node serves its API on, when an address names none.
pub const DEFAULT_PORT: u16 = 7400;
