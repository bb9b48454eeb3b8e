//! Settings of a node: flag over environment over file, checked as a whole, with all problems at once. Knows texts, no process and no clock.
//!
//! To add a setting: a line in [`KEYS`], a field of [`Config`], its check in [`Config::check`], and a line in `packaging/scheduler.toml`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use supercloud_proto::{
    pki::address::ServerAddress,
    problem::{Faults, Problem, Problems, quoted},
    spec::parse_duration,
};
use tracing_subscriber::EnvFilter;

use crate::{
    leader::Timing,
    state::level::{KNOWN, Level},
};

/// Where the file is when none is named.
pub const DEFAULT_FILE: &str = "/etc/supercloud/scheduler.toml";
/// Where the data is when nothing is said.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/supercloud/scheduler";
/// What an environment variable of ours begins with; the rest is the key in capitals.
pub const ENVIRONMENT: &str = "SUPERCLOUD_SCHEDULER_";
/// Which log lines are written when nothing is said. The raft library tells of every message on the info level.
pub const DEFAULT_LOG_LEVEL: &str = "info,raft=warn";
/// Largest file that is read.
const MAX_FILE: u64 = 64 << 10;

/// The settings there are.
pub const KEYS: [&str; 11] = [
    "data_dir",
    "api_listen",
    "peer_listen",
    "http_listen",
    "dev",
    "join",
    "log_level",
    "log_format",
    "heartbeat_every",
    "lease",
    "lease_margin",
];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings of a node, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its directory.
    pub data_dir: PathBuf,
    /// Where it listens for clients and agents.
    pub api_listen: SocketAddr,
    /// Where it listens for the other nodes.
    pub peer_listen: SocketAddr,
    /// Where it answers who looks on: health and metrics, plain HTTP. `None`: nowhere.
    pub http_listen: Option<SocketAddr>,
    /// Without certificates, on loopback only.
    pub dev: bool,
    /// In development: the API address of a node to join, where the directory is blank.
    pub join: Option<String>,
    /// Which log lines are written.
    pub log_level: String,
    /// How.
    pub log_format: LogFormat,
    /// Heartbeats, lease and margin.
    pub timing: Timing,
    /// Feature level that the node says it knows: [`KNOWN`]. No setting; tests of mixed versions change it.
    pub knows: Level,
}

/// Settings as texts, each with where it comes from.
#[derive(Debug, Clone, Default)]
pub struct Texts(BTreeMap<&'static str, (String, String)>);

impl Texts {
    /// Takes a value, over what is there.
    pub fn set(&mut self, key: &'static str, value: impl Into<String>, from: impl Into<String>) {
        self.0.insert(key, (value.into(), from.into()));
    }

    /// Takes a flag's or a variable's value, where it was given.
    pub fn set_given(&mut self, key: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.set(key, value, "flag or environment");
        }
    }

    /// Reads a file. A file that is missing is an empty one unless it was named.
    ///
    /// # Errors
    /// All keys that are unknown and all values that are no text.
    pub fn read(&mut self, path: &Path, named: bool) -> Result<(), Problems> {
        let file = path.display().to_string();
        let whole = |expected: &str, found: String| Problems::from(Problem::new(&file, expected, found));
        let text = match std::fs::metadata(path).map(|meta| meta.len()) {
            Ok(size) if size > MAX_FILE => {
                return Err(whole(&format!("at most {MAX_FILE} bytes"), size.to_string()));
            }
            Ok(_) => std::fs::read_to_string(path).map_err(|error| whole("a file", error.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return Ok(()),
            Err(error) => return Err(whole("a file", error.to_string())),
        };
        self.parse(&text, &file)
    }

    fn parse(&mut self, text: &str, file: &str) -> Result<(), Problems> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| Problem::new(file, "TOML", error.message().to_owned()))?;
        let mut faults = Faults::default();
        for (key, value) in table {
            let Some(known) = KEYS.iter().find(|known| **known == key) else {
                let expected = format!("one of the settings {}", KEYS.join(", "));
                faults.push(Problem::new(file, expected, quoted(&key)));
                continue;
            };
            match value {
                toml::Value::String(text) => self.set(known, text, file),
                toml::Value::Boolean(word) => self.set(known, word.to_string(), file),
                other => faults.push(Problem::new(
                    *known,
                    "a text in quotes, or true or false",
                    format!("a {} in {file}", other.type_str()),
                )),
            }
        }
        faults.finish(Some(()))
    }

    /// A setting's value, parsed; the default where it was not given.
    fn take<T>(
        &self,
        faults: &mut Faults,
        key: &str,
        default: T,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some((text, from)) = self.0.get(key) else { return default };
        parse(text).unwrap_or_else(|| {
            faults.push(Problem::new(key, expected, format!("{} ({from})", quoted(text))));
            default
        })
    }
}

impl Config {
    /// Checks all settings.
    ///
    /// # Errors
    /// All that is wrong with them, also with each other.
    pub fn check(texts: &Texts) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let flag = |text: &str| text.parse::<bool>().ok();
        let dev = texts.take(&mut faults, "dev", false, "true or false", flag);
        let any = if dev { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
        let address = "an address and a port such as 0.0.0.0:7400";
        let listen = |text: &str| text.parse::<SocketAddr>().ok();
        let config = Self {
            dev,
            data_dir: texts.take(&mut faults, "data_dir", DEFAULT_DATA_DIR.into(), "a path", |text| {
                (!text.is_empty()).then(|| text.into())
            }),
            api_listen: texts.take(&mut faults, "api_listen", (any, 7400).into(), address, listen),
            peer_listen: texts.take(&mut faults, "peer_listen", (any, 7401).into(), address, listen),
            // In development several nodes share a machine, and none is to be in another's way.
            http_listen: texts.take(
                &mut faults,
                "http_listen",
                (!dev).then(|| ([127, 0, 0, 1], 7402).into()),
                "an address and a port such as 127.0.0.1:7402, or off",
                |text| if text == "off" { Some(None) } else { listen(text).map(Some) },
            ),
            join: texts.take(
                &mut faults,
                "join",
                None,
                "a loopback address such as 127.0.0.1:7400",
                |text| {
                    text.parse::<ServerAddress>()
                        .ok()
                        .filter(ServerAddress::is_loopback)
                        .map(|at| Some(at.to_string()))
                },
            ),
            log_level: texts.take(
                &mut faults,
                "log_level",
                DEFAULT_LOG_LEVEL.to_owned(),
                "a filter such as info",
                |text| EnvFilter::try_new(text).ok().map(|_| text.to_owned()),
            ),
            log_format: texts.take(&mut faults, "log_format", LogFormat::Text, "text or json", |text| {
                match text {
                    "text" => Some(LogFormat::Text),
                    "json" => Some(LogFormat::Json),
                    _ => None,
                }
            }),
            timing: timing(texts, &mut faults),
            knows: KNOWN,
        };
        config.check_whole(&mut faults);
        faults.finish(Some(config))
    }

    /// What no setting can tell alone.
    fn check_whole(&self, faults: &mut Faults) {
        let Self { api_listen, peer_listen, http_listen, dev, .. } = self;
        let taken = |at: &SocketAddr| at.port() != 0 && (at == api_listen || at == peer_listen);
        if let Some(http) = http_listen {
            if taken(http) {
                let expected = "another address than api_listen and peer_listen";
                faults.push(Problem::new("http_listen", expected, http.to_string()));
            }
            if *dev && !http.ip().is_loopback() {
                let expected = "a loopback address: with --dev there are no certificates";
                faults.push(Problem::new("http_listen", expected, http.to_string()));
            }
        }
        if api_listen == peer_listen && api_listen.port() != 0 {
            let found = format!("both {api_listen}");
            faults.push(Problem::new("peer_listen", "another address than api_listen", found));
        }
        for (key, at) in [("api_listen", api_listen), ("peer_listen", peer_listen)] {
            if *dev && !at.ip().is_loopback() {
                let expected = "a loopback address: with --dev there are no certificates";
                faults.push(Problem::new(key, expected, at.to_string()));
            }
            if !dev && at.port() == 0 {
                faults.push(Problem::new(key, "a port from 1 to 65535", at.to_string()));
            }
        }
        if self.join.is_some() && !dev {
            let expected = "nothing without --dev: a node of a cluster with certificates joins by `supercloud-scheduler join`";
            faults.push(Problem::new("join", expected, "an address"));
        }
    }
}

/// Heartbeats, lease and margin: a lease outlives some lost heartbeats, or a hiccup would stop exclusive work.
fn timing(texts: &Texts, faults: &mut Faults) -> Timing {
    let default = Timing::default();
    let length = |text: &str| parse_duration(text).ok().map(Duration::from_millis);
    let mut take = |key, default| texts.take(faults, key, default, "a time such as 2s or 500ms", length);
    let timing = Timing {
        heartbeat_every: take("heartbeat_every", default.heartbeat_every),
        lease: take("lease", default.lease),
        margin: take("lease_margin", default.margin),
        ..default
    };
    let shown = |time: Duration| format!("{} ms", time.as_millis());
    if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&timing.heartbeat_every) {
        faults.push(Problem::new("heartbeat_every", "100ms to 60s", shown(timing.heartbeat_every)));
    }
    if timing.lease < timing.heartbeat_every * 3 || timing.lease > Duration::from_secs(3_600) {
        let expected = "at least three times heartbeat_every, at most an hour";
        faults.push(Problem::new("lease", expected, shown(timing.lease)));
    }
    if timing.margin < Duration::from_millis(500) || timing.margin > Duration::from_secs(3_600) {
        faults.push(Problem::new("lease_margin", "500ms to an hour", shown(timing.margin)));
    }
    timing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &[(&'static str, &str)]) -> Result<Config, Vec<String>> {
        let mut texts = Texts::default();
        for (key, value) in settings {
            texts.set(key, *value, "test");
        }
        Config::check(&texts).map_err(|problems| problems.0.into_iter().map(|problem| problem.path).collect())
    }

    #[test]
    fn nothing_said_is_a_node_for_everybody_and_dev_one_for_this_machine() {
        let config = check(&[]).unwrap();
        assert_eq!(config.api_listen.to_string(), "0.0.0.0:7400");
        assert_eq!((config.dev, config.timing), (false, Timing::default()));
        assert_eq!(config.http_listen.map(|at| at.to_string()).as_deref(), Some("127.0.0.1:7402"));
        let dev = check(&[("dev", "true"), ("join", "127.0.0.1:7400")]).unwrap();
        assert_eq!(
            (dev.peer_listen.to_string().as_str(), dev.join.as_deref()),
            ("127.0.0.1:7401", Some("127.0.0.1:7400"))
        );
    }

    #[test]
    fn all_problems_come_at_once() {
        let bad = check(&[
            ("data_dir", ""),
            ("api_listen", "here"),
            ("dev", "yes"),
            ("log_level", "a=b=c"),
            ("log_format", "xml"),
            ("heartbeat_every", "soon"),
            ("lease", "1s"),
            ("lease_margin", "1ms"),
            ("join", "10.0.0.1:7400"),
        ]);
        let mut found = bad.unwrap_err();
        found.sort();
        let expected = [
            "api_listen",
            "data_dir",
            "dev",
            "heartbeat_every",
            "join",
            "lease",
            "lease_margin",
            "log_format",
            "log_level",
        ];
        assert_eq!(found, expected);
        assert_eq!(check(&[("dev", "true"), ("api_listen", "0.0.0.0:7400")]).unwrap_err(), ["api_listen"]);
        assert_eq!(check(&[("dev", "true"), ("http_listen", "0.0.0.0:7402")]).unwrap_err(), ["http_listen"]);
        assert_eq!(check(&[("http_listen", "0.0.0.0:7400")]).unwrap_err(), ["http_listen"]);
        assert_eq!(check(&[("http_listen", "on")]).unwrap_err(), ["http_listen"]);
        assert_eq!(check(&[("http_listen", "off")]).unwrap().http_listen, None);
        assert_eq!(check(&[("dev", "true")]).unwrap().http_listen, None);
        assert_eq!(check(&[("join", "127.0.0.1:7400")]).unwrap_err(), ["join"]);
        assert_eq!(check(&[("peer_listen", "0.0.0.0:7400")]).unwrap_err(), ["peer_listen"]);
    }

    #[test]
    fn a_flag_is_over_the_file_and_the_file_is_checked() {
        let mut texts = Texts::default();
        texts.parse("dev = true\ndata_dir = \"/a\"\nlog_format = \"json\"", "f.toml").unwrap();
        texts.set_given("data_dir", Some("/b".to_owned()));
        texts.set_given("log_format", None);
        let config = Config::check(&texts).unwrap();
        assert_eq!((config.data_dir, config.log_format, config.dev), ("/b".into(), LogFormat::Json, true));
        let problems = Texts::default().parse("listen = \"x\"\nlease = 15", "f.toml").unwrap_err();
        assert_eq!(problems.0.len(), 2, "{problems}");
        assert!(Texts::default().parse("= 1", "f.toml").is_err());
        assert!(Texts::default().read(Path::new("/nonexistent/s.toml"), true).is_err());
        assert!(Texts::default().read(Path::new("/nonexistent/s.toml"), false).is_ok());
    }

    #[test]
    fn the_example_file_names_each_setting_and_changes_none() {
        let text = include_str!("../../packaging/scheduler.toml");
        let mut texts = Texts::default();
        texts.parse(text, "scheduler.toml").unwrap();
        assert_eq!(Config::check(&texts).unwrap(), check(&[]).unwrap());
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("#").filter(|l| l.contains(" = ")).unwrap_or(line))
            .collect::<Vec<_>>()
            .join("\n");
        for key in KEYS {
            assert!(uncommented.lines().any(|line| line.starts_with(key)), "{key}");
        }
    }
}
