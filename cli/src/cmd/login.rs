//! `login`: trades a join token for credentials, and writes the context that uses them. The key is made here and stays here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use supercloud_proto::{
    pki::{Credentials, Servers, Token, client::Trust, join::fetch_ca, request},
    v1::{JoinRequest, JoinResponse, scheduler_service_client::SchedulerServiceClient},
};

use crate::{
    args::{Global, LoginArgs},
    failure::Failure,
    output::say,
    settings::{self, Context, folder},
};

pub(super) async fn run(global: &Global, args: &LoginArgs) -> Result<(), Failure> {
    let token: Token = args.token.parse().map_err(|error| Failure::Usage(format!("--token: {error}")))?;
    let address = global
        .server
        .first()
        .ok_or_else(|| Failure::Usage("which cluster? Name a scheduler address with --server".to_owned()))?;
    let ca = fetch_ca(address, &token).await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    let own = request::generate().map_err(|error| Failure::Failed(error.to_string()))?;
    let servers = Servers::new(&global.server, Trust::Joining(&ca))
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let answer = join(&servers, &token, own.csr_pem).await?;
    let credentials = Credentials::new(ca, &answer.certificate_pem, &own.key_pem)
        .map_err(|error| Failure::Failed(format!("the cluster's answer is of no use: {error}")))?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => folder()?.join("credentials.pem"),
    };
    make_folder(&path)?;
    credentials.save(&path).map_err(|error| Failure::Failed(error.to_string()))?;
    say(&format!("credentials of {} written to {}", credentials.identity(), path.display()));
    let servers = if answer.servers.is_empty() { global.server.clone() } else { answer.servers };
    remember(global, args, servers, path)
}

async fn join(servers: &Servers, token: &Token, csr_pem: String) -> Result<JoinResponse, Failure> {
    let channel = servers.connect().await?.channel;
    let request = JoinRequest { token: token.reveal(), csr_pem, ..JoinRequest::default() };
    Ok(SchedulerServiceClient::new(channel).join(request).await?.into_inner())
}

fn make_folder(file: &Path) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), |folder| {
        fs::create_dir_all(folder).map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))
    })
}

/// Writes the context into the settings file, beside the others, and makes it the current one.
fn remember(
    global: &Global,
    args: &LoginArgs,
    servers: Vec<String>,
    credentials: PathBuf,
) -> Result<(), Failure> {
    let path = match &global.config {
        Some(path) => path.clone(),
        None => folder()?.join("config.toml"),
    };
    let mut file = if path.exists() { settings::load(Some(&path))? } else { settings::File::default() };
    let credentials = fs::canonicalize(&credentials).unwrap_or(credentials);
    let context =
        Context { servers, credentials: Some(credentials), borough: global.borough.clone(), dev: false };
    file.contexts.insert(args.name.clone(), context);
    file.current = Some(args.name.clone());
    let text = toml::to_string_pretty(&file).map_err(|error| Failure::Failed(error.to_string()))?;
    make_folder(&path)?;
    let beside = path.with_extension("toml.new");
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
    written.map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display())))?;
    say(&format!("context {:?} written to {}", args.name, path.display()));
    Ok(())
}
