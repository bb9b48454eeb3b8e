//! Where the settings come from: flag over environment (both by clap) over the settings file with its contexts.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use supercloud_proto::pki::Credentials;

use crate::{args::Global, failure::Failure};

/// The settings file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Context that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The contexts, by name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One way to a cluster.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Scheduler addresses.
    #[serde(default)]
    pub servers: Vec<String>,
    /// Credentials file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// Borough that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub borough: Option<String>,
    /// Whether to talk without TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dev: bool,
}

/// `~/.config/supercloud`, or what `XDG_CONFIG_HOME` says.
pub fn folder() -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    base.map(|base| base.join("supercloud")).ok_or_else(|| {
        Failure::Usage(
            "neither HOME nor XDG_CONFIG_HOME is set: name the settings file with --config".to_owned(),
        )
    })
}

/// Reads the settings file; one that is not there is empty, unless it was named.
pub fn load(named: Option<&Path>) -> Result<File, Failure> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match folder() {
            Ok(folder) => folder.join("config.toml"),
            Err(_) => return Ok(File::default()),
        },
    };
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{} is no settings file: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(File::default()),
        Err(error) => Err(Failure::Usage(format!("{} cannot be read: {error}", path.display()))),
    }
}

/// What is in force: the context of the file, with flags and environment over it.
pub fn resolve(global: &Global) -> Result<Context, Failure> {
    let file = load(global.config.as_deref())?;
    let wanted = global.context.clone().or_else(|| file.current.clone());
    let mut context = match &wanted {
        None => Context::default(),
        Some(name) => file.contexts.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = file.contexts.keys().map(String::as_str).collect();
            Failure::Usage(format!("the settings file has no context {name:?}; it has {known:?}"))
        })?,
    };
    if !global.server.is_empty() {
        context.servers = global.server.clone();
    }
    if global.credentials.is_some() {
        context.credentials = global.credentials.clone();
    }
    if global.borough.is_some() {
        context.borough = global.borough.clone();
    }
    context.dev |= global.dev;
    if context.servers.is_empty() && context.dev {
        context.servers.push("127.0.0.1".to_owned());
    }
    Ok(context)
}

/// The credentials of a context; `None` in development mode.
pub fn credentials(context: &Context) -> Result<Option<Credentials>, Failure> {
    if context.dev {
        return Ok(None);
    }
    let path = context.credentials.as_ref().ok_or_else(|| {
        Failure::Usage(
            "no credentials: name a file with --credentials, or trade a join token for one with `supercloud login`"
                .to_owned(),
        )
    })?;
    Credentials::load(path).map(Some).map_err(|error| Failure::Usage(error.to_string()))
}
