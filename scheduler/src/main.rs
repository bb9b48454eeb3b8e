//! `supercloud-scheduler`: makes a node's directory (`init`, `join`, `rebuild`, `restore`) and runs it (`run`). Everything else stands in the library.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, builder::FalseyValueParser};
use supercloud_proto::{
    name::{ClusterName, PersonName},
    pki::Token,
    problem::Problems,
};
use supercloud_scheduler::{
    commands::{self, Addresses},
    config::{Config, DEFAULT_DATA_DIR, DEFAULT_FILE, Texts},
    logging,
    restore::{self, Authority, Wish},
    server,
};
use tokio::signal::unix::{SignalKind, signal};

/// The state is millions of small records that come and go with every version of it, which glibc's allocator answers with holes and long searches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A node of the Supercloud scheduler.
#[derive(Parser)]
#[command(name = "supercloud-scheduler", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a new cluster: its authority, the directory of its first node, and an operator's credentials if one is named.
    Init(Init),
    /// Makes the directory of a further node, with a token of a running cluster.
    Join(Join),
    /// Builds a node that has lost or damaged its data from the other nodes. It must have been removed from the cluster before.
    Rebuild(Rebuild),
    /// Makes the first node of a cluster that goes on from a saved state, when the cluster itself cannot be brought back.
    Restore(Restore),
    /// Runs a node.
    Run(Run),
}

/// Where a node is, and how it is reached.
#[derive(Args)]
struct Place {
    /// Directory of the node.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_DATA_DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Address at which clients and agents reach it, host:port.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_API_ADDRESS")]
    api_address: String,
    /// Address at which the other nodes reach it, host:port.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_PEER_ADDRESS")]
    peer_address: String,
    /// A further host name or IP address for its certificate; may be repeated.
    #[arg(long = "server-name", value_name = "NAME")]
    server_names: Vec<String>,
}

#[derive(Args)]
struct Init {
    #[command(flatten)]
    place: Place,
    /// Name of the cluster; it stands in every certificate.
    #[arg(long, default_value = commands::DEFAULT_CLUSTER)]
    name: String,
    /// Makes credentials for an operator of this name.
    #[arg(long, value_name = "NAME", requires = "credentials_out")]
    operator: Option<String>,
    /// File for the operator's credentials. Whoever has it is that operator.
    #[arg(long, value_name = "FILE", requires = "operator")]
    credentials_out: Option<PathBuf>,
}

#[derive(Args)]
struct Join {
    #[command(flatten)]
    place: Place,
    /// Token for a scheduler node; see `supercloud token create --role scheduler`.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_TOKEN", hide_env_values = true)]
    token: String,
    /// API address of any node of the cluster.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_SERVER", value_name = "HOST:PORT")]
    server: String,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("authority_of").required(true).args(["authority", "new_authority", "dev"]))]
struct Restore {
    #[command(flatten)]
    place: Place,
    /// The saved state; see `supercloud scheduler snapshot save`.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The cluster's authority with its key: `ca.pem` of any of its nodes. Certificates of hosts and people stay good.
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
    /// Makes a new authority of this name, where the old one is lost too. Every host and person must join anew.
    #[arg(long, value_name = "NAME")]
    new_authority: Option<String>,
    /// Without certificates, for a node that runs with --dev.
    #[arg(long)]
    dev: bool,
    /// Makes credentials for an operator of this name.
    #[arg(long, value_name = "NAME", requires = "credentials_out", conflicts_with = "dev")]
    operator: Option<String>,
    /// File for the operator's credentials. Whoever has it is that operator.
    #[arg(long, value_name = "FILE", requires = "operator")]
    credentials_out: Option<PathBuf>,
}

#[derive(Args)]
struct Run {
    /// File with settings; it must be there when it is named.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the node.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_DATA_DIR")]
    data_dir: Option<String>,
    /// Address to listen on for clients and agents.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_API_LISTEN", value_name = "IP:PORT")]
    api_listen: Option<String>,
    /// Address to listen on for the other nodes.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_PEER_LISTEN", value_name = "IP:PORT")]
    peer_listen: Option<String>,
    /// Address to listen on for health and metrics (plain HTTP), or "off".
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_HTTP_LISTEN", value_name = "IP:PORT")]
    http_listen: Option<String>,
    /// Without certificates, on loopback addresses only.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_DEV", value_parser = FalseyValueParser::new())]
    dev: bool,
    /// With --dev: API address of a node whose cluster to join.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_JOIN", value_name = "HOST:PORT")]
    join: Option<String>,
    /// Which log lines are written.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_LOG_LEVEL", value_name = "FILTER")]
    log_level: Option<String>,
    /// How log lines look: text or json.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// Time between two heartbeats of a host.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_HEARTBEAT_EVERY", value_name = "TIME")]
    heartbeat_every: Option<String>,
    /// Time without an answered heartbeat after which agents stop exclusive instances.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_LEASE", value_name = "TIME")]
    lease: Option<String>,
    /// Time beyond the lease before a host counts as lost.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_LEASE_MARGIN", value_name = "TIME")]
    lease_margin: Option<String>,
}

#[derive(Args)]
struct Rebuild {
    /// Directory of the node.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_DATA_DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Further names and IP addresses for the certificate.
    #[arg(long = "server-name", value_name = "NAME")]
    server_names: Vec<String>,
    /// Token for a scheduler node; see `supercloud token create --role scheduler`.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_TOKEN", hide_env_values = true)]
    token: String,
    /// API address of any other node of the cluster.
    #[arg(long, env = "SUPERCLOUD_SCHEDULER_SERVER", value_name = "HOST:PORT")]
    server: String,
}

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Init(arguments) => init(arguments),
        Command::Join(arguments) => join(arguments),
        Command::Rebuild(arguments) => rebuild(arguments),
        Command::Restore(arguments) => restore(arguments),
        Command::Run(arguments) => run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, or all problems, a line each.
fn tell(error: &(dyn Error + 'static)) {
    if let Some(Problems(problems)) = error.downcast_ref::<Problems>() {
        for problem in problems {
            eprintln!("supercloud-scheduler: {problem}");
        }
        return;
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    eprintln!("supercloud-scheduler: {text}");
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn init(arguments: Init) -> Outcome {
    let Init { place, name, operator, credentials_out } = arguments;
    let name: ClusterName = name.parse()?;
    let operator: Option<PersonName> = operator.map(|name| name.parse()).transpose()?;
    let addresses = Addresses::check(&place.api_address, &place.peer_address, place.server_names)?;
    let operator = operator.as_ref().zip(credentials_out.as_deref());
    let founded = commands::init(&place.data_dir, &name, addresses, operator)?;
    println!("cluster {name} ({}): node 1 in {}", founded.cluster, place.data_dir.display());
    if let Some(path) = founded.operator {
        println!("operator's credentials in {}", path.display());
    }
    Ok(())
}

fn join(arguments: Join) -> Outcome {
    let Join { place, token, server } = arguments;
    let token: Token = token.parse()?;
    let addresses = Addresses::check(&place.api_address, &place.peer_address, place.server_names)?;
    let node = runtime()?.block_on(commands::join(&place.data_dir, &token, &server, addresses))?;
    println!("node {node} in {}", place.data_dir.display());
    Ok(())
}

fn restore(arguments: Restore) -> Outcome {
    let Restore { place, from, authority, new_authority, dev, operator, credentials_out } = arguments;
    let new_authority: Option<ClusterName> = new_authority.map(|name| name.parse()).transpose()?;
    let operator: Option<PersonName> = operator.map(|name| name.parse()).transpose()?;
    let authority = match (&authority, &new_authority) {
        (Some(file), _) => Authority::Kept(file),
        (None, Some(name)) => Authority::New(name),
        (None, None) => {
            debug_assert!(dev, "clap takes one of the three");
            Authority::Development
        }
    };
    let addresses = Addresses::check(&place.api_address, &place.peer_address, place.server_names)?;
    let operator = operator.as_ref().zip(credentials_out.as_deref());
    let restored =
        restore::restore(Wish { from: &from, data_dir: &place.data_dir, addresses, authority, operator })?;
    let head = &restored.summary.head;
    println!(
        "cluster {} as of log index {}: node {} in {}, the log goes on at {}",
        head.cluster_id,
        head.index,
        restored.node,
        place.data_dir.display(),
        restored.index
    );
    if let Some(path) = restored.operator {
        println!("operator's credentials in {}", path.display());
    }
    println!(
        "start it only when every node of the old cluster is stopped for good, and for longer than a lease and its margin"
    );
    Ok(())
}

fn rebuild(arguments: Rebuild) -> Outcome {
    let Rebuild { data_dir, server_names, token, server } = arguments;
    let token: Token = token.parse()?;
    let rebuilt = runtime()?.block_on(commands::rebuild(&data_dir, &token, &server, server_names))?;
    println!(
        "node {}, once {}, in {}; what it had is in {}",
        rebuilt.node,
        rebuilt.was,
        data_dir.display(),
        rebuilt.aside.display()
    );
    Ok(())
}

fn settings(run: Run) -> Result<Config, Problems> {
    let mut texts = Texts::default();
    let named = run.config.is_some();
    texts.read(&run.config.unwrap_or_else(|| DEFAULT_FILE.into()), named)?;
    texts.set_given("data_dir", run.data_dir);
    texts.set_given("api_listen", run.api_listen);
    texts.set_given("peer_listen", run.peer_listen);
    texts.set_given("http_listen", run.http_listen);
    texts.set_given("join", run.join);
    texts.set_given("log_level", run.log_level);
    texts.set_given("log_format", run.log_format);
    texts.set_given("heartbeat_every", run.heartbeat_every);
    texts.set_given("lease", run.lease);
    texts.set_given("lease_margin", run.lease_margin);
    texts.set_given("dev", run.dev.then(|| "true".to_owned()));
    Config::check(&texts)
}

fn run(arguments: Run) -> Outcome {
    let config = settings(arguments)?;
    let _written = logging::start(&config.log_level, config.log_format)?;
    let runtime = runtime()?;
    runtime.block_on(serve(&config))
}

async fn serve(config: &Config) -> Outcome {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // A limit on the size of files must show as a write that fails and is told, not as a death without a word.
    let _too_large = signal(SignalKind::from_raw(nix::libc::SIGXFSZ))?;
    let mut node = server::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: the node ends"),
        _ = interrupt.recv() => tracing::info!("SIGINT: the node ends"),
        why = node.failed() => {
            node.shutdown().await;
            return Err(why.into());
        }
    }
    tokio::select! {
        () = node.shutdown() => Ok(()),
        _ = terminate.recv() => Err("ended at once by a second signal".into()),
        _ = interrupt.recv() => Err("ended at once by a second signal".into()),
    }
}
