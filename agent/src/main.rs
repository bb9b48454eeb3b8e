//! The agent's command: `run` and `join`. Reads flags, sets logs up, and hands over.

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use supercloud_agent::{
    agent,
    config::{Config, DEFAULT_FILE, Log, Overrides},
    join::join,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::EnvFilter;

/// Threads of the runtime: an agent waits more than it works.
const THREADS: usize = 2;
/// Threads for blocking work (files of images, the ledger's start and end).
const BLOCKING_THREADS: usize = 8;

/// The agent of one host: keeps running what the scheduler ordered
#[derive(Debug, Parser)]
#[command(name = "supercloud-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until it is told to end; workloads go on running
    Run {
        /// Configuration file
        #[arg(long, env = "SUPERCLOUD_AGENT_CONFIG", value_name = "FILE", help = format!("Configuration file [default: {DEFAULT_FILE}]"))]
        config: Option<PathBuf>,
        #[command(flatten)]
        over: Overrides,
    },
    /// Trade a join token for this host's certificate
    Join {
        /// Token from `supercloud token create`
        #[arg(long, env = "SUPERCLOUD_AGENT_TOKEN", hide_env_values = true)]
        token: String,
        /// Configuration file
        #[arg(long, env = "SUPERCLOUD_AGENT_CONFIG", value_name = "FILE", help = format!("Configuration file [default: {DEFAULT_FILE}]"))]
        config: Option<PathBuf>,
        #[command(flatten)]
        over: Overrides,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(obey(arguments.command)),
        Err(error) => Err(error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("supercloud-agent: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(command: Command) -> Result<(), String> {
    match command {
        Command::Run { config, over } => {
            let config = Config::load(config.as_deref(), &over).map_err(|error| error.to_string())?;
            set_up_logs(&config.log);
            let end = end_of_life().map_err(|error| format!("signals cannot be watched: {error}"))?;
            agent::run(config, end).await.map_err(|error| error.to_string())
        }
        Command::Join { token, config, mut over } => {
            // To join, only servers and the data directory matter.
            over.site.get_or_insert_with(|| "joining".to_owned());
            let config = Config::load(config.as_deref(), &over).map_err(|error| error.to_string())?;
            let host =
                join(&token, &config.servers, &config.data_dir).await.map_err(|error| error.to_string())?;
            eprintln!("this host has joined as {host}");
            Ok(())
        }
    }
}

/// Ready when the agent is told to end.
fn end_of_life() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn set_up_logs(log: &Log) {
    // The level was checked with the configuration.
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if log.json {
        logs.json().init();
    } else {
        logs.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
    }
}
