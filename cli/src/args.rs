//! The command line: nouns, verbs and the everyday shortcuts. Words only; what they do stands in `cmd`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use supercloud_proto::amount::{Bytes, InvalidAmount, MilliCpu};

/// Runs the boroughs' services on the shared estate.
#[derive(Debug, Parser)]
#[command(name = "supercloud", version, max_term_width = 120, disable_help_subcommand = true)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Scheduler addresses, HOST or HOST:PORT, separated by commas; any node will do
    #[arg(
        long,
        short = 's',
        global = true,
        env = "SUPERCLOUD_SERVER",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub server: Vec<String>,
    /// Credentials file (CA, certificate and key in one PEM file)
    #[arg(long, global = true, env = "SUPERCLOUD_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// Talk without TLS to a scheduler in development mode on this machine
    #[arg(long, global = true, env = "SUPERCLOUD_DEV")]
    pub dev: bool,
    /// Borough that is meant where none is named
    #[arg(long, short = 'b', global = true, env = "SUPERCLOUD_BOROUGH", value_name = "NAME")]
    pub borough: Option<String>,
    /// Settings file [default: ~/.config/supercloud/config.toml]
    #[arg(long, global = true, env = "SUPERCLOUD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Context of the settings file to use
    #[arg(long, global = true, env = "SUPERCLOUD_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Form of the output
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Read from the node that answers, without asking the leader; may lag behind
    #[arg(long, global = true)]
    pub stale: bool,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Names only, one a line
    Name,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create workloads, or change them to what a file says
    Apply(ApplyArgs),
    /// Say what an apply would do; exit code 0: nothing, 10: changes, 11: changes that cannot all be placed
    Plan(PlanArgs),
    /// Show how the estate, a borough or a workload stands
    Status(StatusArgs),
    /// Stop a workload
    Stop(StopArgs),
    /// Show what an instance has written (of a VM: its console)
    Logs(LogsArgs),
    /// Run a command inside a container
    Exec(ExecArgs),
    /// Say why an instance is where it is, or why it waits
    Explain(TargetArgs),
    /// Boroughs
    #[command(subcommand)]
    Borough(BoroughCommand),
    /// Workloads
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// Instances
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Hosts
    #[command(subcommand)]
    Host(HostCommand),
    /// Sites
    #[command(subcommand)]
    Site(SiteCommand),
    /// Volumes, and the hosts where they live
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Scheduler nodes
    #[command(subcommand)]
    Scheduler(SchedulerCommand),
    /// Join tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Events
    #[command(subcommand)]
    Event(EventCommand),
    /// Trade a join token for credentials
    Login(LoginArgs),
    /// Print the completion script of a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Where specs come from.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// Files of specs (YAML or JSON, one or many documents); "-" is standard input
    #[arg(long = "file", short = 'f', value_name = "FILE", num_args = 1)]
    pub named: Vec<PathBuf>,
    /// The same without the flag
    #[arg(value_name = "FILE")]
    pub plain: Vec<PathBuf>,
}

/// How long to wait for what was asked.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Wait until it is done
    #[arg(long, short = 'w')]
    pub wait: bool,
    /// Give up waiting after this time
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = parse_time)]
    pub timeout: u64,
}

/// A length of time in milliseconds.
fn parse_time(text: &str) -> Result<u64, String> {
    supercloud_proto::spec::parse_duration(text).map_err(|error| error.to_string())
}

/// For `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The specs.
    #[command(flatten)]
    pub files: FileArgs,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Refuse unless this is the present revision; 0: it must not exist yet
    #[arg(long, value_name = "NUMBER")]
    pub expect_revision: Option<u64>,
}

/// For `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The specs.
    #[command(flatten)]
    pub files: FileArgs,
}

/// For `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// WORKLOAD or BOROUGH/WORKLOAD; without it the whole estate, or the borough of --borough
    pub workload: Option<String>,
}

/// For `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// WORKLOAD or BOROUGH/WORKLOAD
    pub workload: String,
    /// Forget the workload and its history as well
    #[arg(long)]
    pub purge: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// For `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Instance id, WORKLOAD or BOROUGH/WORKLOAD (its newest running instance)
    pub target: String,
    /// Go on with what is written from now on
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only this many last lines
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<u32>,
    /// Task, where there are several
    #[arg(long, value_name = "NAME", default_value = "")]
    pub task: String,
}

/// For `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Instance id, WORKLOAD or BOROUGH/WORKLOAD (its newest running instance)
    pub target: String,
    /// Pass on standard input
    #[arg(long, short = 'i')]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Task, where there are several
    #[arg(long, value_name = "NAME", default_value = "")]
    pub task: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// One instance or workload.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Instance id, WORKLOAD or BOROUGH/WORKLOAD
    pub target: String,
}

/// Boroughs.
#[derive(Debug, Subcommand)]
pub enum BoroughCommand {
    /// Create a borough
    Create {
        /// Name: a-z, 0-9 and "-"
        name: String,
        /// Name as people write it
        #[arg(long, default_value = "")]
        title: String,
    },
    /// Change what a borough may have, or its title; what is not named stays as it is
    Set(SetBoroughArgs),
    /// List boroughs
    List,
    /// Show one borough
    Show {
        /// Its name
        name: String,
    },
}

/// For `borough set`.
#[derive(Debug, Args)]
pub struct SetBoroughArgs {
    /// Its name
    pub name: String,
    /// What changes.
    #[command(flatten)]
    pub change: BoroughChangeArgs,
}

/// What changes of a borough: at least one thing.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct BoroughChangeArgs {
    /// Name as people write it
    #[arg(long)]
    pub title: Option<String>,
    /// Most processor time that its instances may take, as 64 or 500m; none: as much as there is
    #[arg(long, value_name = "CORES|none")]
    pub quota_cpu: Option<Most<MilliCpu>>,
    /// Most memory, as 256GiB; none: as much as there is
    #[arg(long, value_name = "SIZE|none")]
    pub quota_memory: Option<Most<Bytes>>,
    /// Most disk space, as 2TiB; none: as much as there is
    #[arg(long, value_name = "SIZE|none")]
    pub quota_disk: Option<Most<Bytes>>,
    /// Processor time up to which its instances are placed before those of others, and displace what others have beyond theirs; 0: none
    #[arg(long, value_name = "CORES")]
    pub guarantee_cpu: Option<MilliCpu>,
    /// Memory, likewise
    #[arg(long, value_name = "SIZE")]
    pub guarantee_memory: Option<Bytes>,
    /// Disk space, likewise
    #[arg(long, value_name = "SIZE")]
    pub guarantee_disk: Option<Bytes>,
    /// How much it may have before it waits for others, 1 to 1000; 100 is usual
    #[arg(long)]
    pub weight: Option<u32>,
    /// Highest priority with which its workloads may be applied, 0 to 100; 100 is usual
    #[arg(long, value_name = "PRIORITY")]
    pub max_priority: Option<u32>,
    /// Most hosts that it may keep to itself with private work; 0, which is usual: none
    #[arg(long, value_name = "HOSTS")]
    pub private_hosts: Option<u32>,
}

/// The most that is allowed of something; `None`, written `none`: there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most<T>(pub Option<T>);

impl<T: FromStr<Err = InvalidAmount>> FromStr for Most<T> {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|most| Self(Some(most))) }
    }
}

/// Workloads.
#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// List workloads
    List,
    /// Show one workload with its instances
    Show {
        /// WORKLOAD or BOROUGH/WORKLOAD
        workload: String,
    },
    /// Change the number of instances
    Scale {
        /// WORKLOAD or BOROUGH/WORKLOAD
        workload: String,
        /// Instances wanted
        count: u32,
        /// Waiting.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Stop a workload
    Stop(StopArgs),
    /// Show its revisions
    History {
        /// WORKLOAD or BOROUGH/WORKLOAD
        workload: String,
    },
}

/// Instances.
#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// List instances
    List {
        /// Only of this WORKLOAD or BOROUGH/WORKLOAD
        #[arg(long)]
        workload: Option<String>,
        /// Only on this host
        #[arg(long, default_value = "")]
        host: String,
    },
    /// Show one instance
    Show {
        /// Its id
        id: String,
    },
}

/// Hosts.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List hosts
    List {
        /// Only in this site
        #[arg(long, default_value = "")]
        site: String,
    },
    /// Show one host with its instances
    Show {
        /// Its name
        name: String,
    },
    /// Close a host to new work
    Close {
        /// Its name
        name: String,
    },
    /// Open a host to new work
    Open {
        /// Its name
        name: String,
    },
    /// Forget a host that is lost for good; what ran there counts as gone
    Remove {
        /// Its name
        name: String,
    },
}

/// Volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// List the hosts where workloads' volumes live
    List,
    /// Give up the volumes of a workload on a host: its next instance may start elsewhere, with empty ones. Nothing is removed from the host's disk
    Forget {
        /// WORKLOAD or BOROUGH/WORKLOAD
        workload: String,
        /// The host where they live
        host: String,
    },
}

/// Sites.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// List sites
    List,
    /// Show one site
    Show {
        /// Its name
        name: String,
    },
    /// Change what holds for the hosts of a site, which may have none yet; what is not named stays as it is
    Set(SetSiteArgs),
}

/// For `site set`.
#[derive(Debug, Args)]
pub struct SetSiteArgs {
    /// Its name
    pub name: String,
    /// What changes.
    #[command(flatten)]
    pub change: SiteChangeArgs,
}

/// What changes of a site: at least one thing.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct SiteChangeArgs {
    /// How much of its processors is given away to the class standard, 100 to 1000; 100 is usual
    #[arg(long, value_name = "PERCENT")]
    pub standard_cpu_percent: Option<u32>,
    /// How much of its processors is given away to the class spare, likewise
    #[arg(long, value_name = "PERCENT")]
    pub spare_cpu_percent: Option<u32>,
    /// Which of its hosts are filled first: the fullest (pack, which is usual) or the emptiest (spread)
    #[arg(long)]
    pub packing: Option<PackingWord>,
    /// How dear it is, 0 to 1000: 1000 counts as much against its hosts as a wish of weight 100 for them
    #[arg(long)]
    pub cost: Option<u32>,
}

/// Which hosts of a site are filled first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PackingWord {
    /// The fullest.
    Pack,
    /// The emptiest.
    Spread,
}

/// Scheduler nodes.
#[derive(Debug, Subcommand)]
pub enum SchedulerCommand {
    /// List the nodes as the answering one sees them
    List,
    /// Show how the cluster is: each node, and what an operator should look at
    Status,
    /// Make a token for a further node, and print what to run on its machine
    Add {
        /// Address at which clients and agents will reach it, HOST:PORT
        #[arg(long, value_name = "HOST:PORT")]
        api_address: String,
        /// Address at which the other nodes will reach it, HOST:PORT
        #[arg(long, value_name = "HOST:PORT")]
        peer_address: String,
        /// Time until the token lapses
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_time)]
        ttl: u64,
    },
    /// Make a learner a voter now; the leader does so by itself once it has caught up
    Promote {
        /// Its number, as `scheduler list` shows it
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
    },
    /// Remove a node for good; a leader hands the leadership over first
    Remove {
        /// Its number, as `scheduler list` shows it
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
    },
    /// Hand the leadership to another node
    TransferLeader {
        /// Its number; without one, the voter that has most of the log
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: Option<u64>,
    },
    /// Saved states of the whole cluster, for the day when it cannot be brought back
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// Saved states.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save the state into a file; with --stale what the answering node has, where there is no leader any more
    Save {
        /// The file; one that is there is replaced once the new one is whole
        file: PathBuf,
    },
    /// Check a file and say what is in it; asks no node
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Check a file and say what to run on the machine that shall be the first node; asks no node
    Restore {
        /// The file
        file: PathBuf,
    },
}

/// Join tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a single-use join token; its text is shown once
    Create {
        /// What the bearer becomes
        #[arg(value_enum)]
        role: Role,
        /// Name of the host or the person (not for a scheduler)
        #[arg(default_value = "")]
        name: String,
        /// Time until it lapses
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_time)]
        ttl: u64,
    },
}

/// What the bearer of a token becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// A scheduler node
    Scheduler,
    /// The agent of the named host
    Agent,
    /// An operator
    Operator,
    /// A person of the borough of --borough
    Borough,
}

/// Events.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// List kept events, oldest first
    List {
        /// Only about this WORKLOAD or BOROUGH/WORKLOAD
        #[arg(long)]
        workload: Option<String>,
        /// Only about this instance
        #[arg(long, default_value = "")]
        instance: String,
        /// Only about this host
        #[arg(long, default_value = "")]
        host: String,
        /// At most so many, the latest ones
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: u32,
    },
    /// Show events as they happen
    Watch {
        /// Only about this WORKLOAD or BOROUGH/WORKLOAD
        #[arg(long)]
        workload: Option<String>,
        /// Begin after this log index
        #[arg(long)]
        after: Option<u64>,
    },
}

/// For `login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The token's text; better through the environment than in the shell's history
    #[arg(long, env = "SUPERCLOUD_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Where to put the credentials [default: ~/.config/supercloud/credentials.pem]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Name of the context to write
    #[arg(long, default_value = "default")]
    pub name: String,
}
