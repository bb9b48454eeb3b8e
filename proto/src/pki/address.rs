//! The address of a scheduler node as people write it: `host`, `host:port`, `[::1]:7400`, `https://host:port`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use tonic::transport::Uri;

use super::DEFAULT_PORT;

/// Host and port of a scheduler node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerAddress {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    host: String,
    port: u16,
    scheme: Option<Scheme>,
}

/// The scheme, where one was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `http://`: without TLS.
    Http,
    /// `https://`: with TLS.
    Https,
}

/// Why a text is no address of a scheduler node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a scheduler's address such as 10.0.0.1:7400 or https://node-1:7400, found {found:?}")]
pub struct AddressError {
    /// The text.
    pub found: String,
}

impl ServerAddress {
    /// The scheme, where one was written.
    #[must_use]
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// Whether it is this very machine, as far as can be told without asking a name server.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError { found: text.to_owned() };
        let (scheme, rest) = match text.trim() {
            t if t.starts_with("https://") => (Some(Scheme::Https), &t["https://".len()..]),
            t if t.starts_with("http://") => (Some(Scheme::Http), &t["http://".len()..]),
            t => (None, t),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let uri: Uri = format!("http://{rest}/").parse().map_err(|_| bad())?;
        let host = uri.host().filter(|h| is_host(h)).ok_or_else(bad)?.to_owned();
        let port = if host == rest {
            DEFAULT_PORT
        } else {
            uri.port_u16().filter(|port| *port != 0).ok_or_else(bad)?
        };
        // Whatever is neither host nor port (a path, a user name, a query) has no meaning here.
        if host != rest && format!("{host}:{port}") != rest {
            return Err(bad());
        }
        Ok(Self { host, port, scheme })
    }
}

/// A name of letters, digits, dots, hyphens and underscores, or an IPv6 address in brackets. A URI allows more, such as a list by mistake.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
    }
}

/// `host:port`.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let cases = [
            ("node-1", "node-1:7400", None),
            ("10.0.0.1:7500", "10.0.0.1:7500", None),
            ("[::1]", "[::1]:7400", None),
            ("[fd00::2]:7500", "[fd00::2]:7500", None),
            ("https://node-1:7400/", "node-1:7400", Some(Scheme::Https)),
            (" http://localhost ", "localhost:7400", Some(Scheme::Http)),
        ];
        for (text, expected, scheme) in cases {
            let read: ServerAddress = text.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read.scheme()), (expected, scheme), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        let bad = [
            "", ":7400", "a:", "a:0", "a:70000", "a:x", "a/b", "u@a", "a b", "ftp://a", "a:1?x", "::1",
            "a,b:1",
        ];
        for text in bad {
            let read = text.parse::<ServerAddress>();
            assert!(read.is_err(), "{text:?} gave {read:?}");
        }
    }

    #[test]
    fn knows_this_machine() {
        let local = |text: &str| text.parse::<ServerAddress>().unwrap().is_loopback();
        assert!(local("localhost") && local("127.0.0.2:1") && local("[::1]:1"));
        assert!(!local("localhost.example.org") && !local("10.0.0.1") && !local("[fd00::1]"));
    }
}
