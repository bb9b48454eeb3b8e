//! What the commands do. Each takes its arguments and the session, asks the API, and hands what came back to `show` and `output`.

use crate::{
    args::{Cli, Command},
    failure::Failure,
    session::Session,
};

mod apply;
mod borough;
mod event;
mod exec;
mod explain;
mod files;
mod host;
mod instance;
mod login;
mod logs;
mod plan;
mod progress;
mod scheduler;
mod site;
mod snapshot;
mod status;
mod target;
mod token;
mod volume;
mod workload;

/// Does what the command line says.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let format = cli.global.output;
    let open = || Session::new(&cli.global);
    match &cli.command {
        Command::Apply(args) => {
            let specs = files::specs(&args.files)?;
            apply::run(&open()?, format, args, &specs).await
        }
        Command::Plan(args) => {
            let specs = files::specs(&args.files)?;
            plan::run(&open()?, format, &specs).await
        }
        Command::Status(args) => status::run(&open()?, format, args).await,
        Command::Stop(args) => workload::stop(&open()?, format, args).await,
        Command::Logs(args) => logs::run(&open()?, args).await,
        Command::Exec(args) => exec::run(&open()?, args).await,
        Command::Explain(args) => explain::run(&open()?, format, args).await,
        Command::Borough(command) => borough::run(&open()?, format, command).await,
        Command::Workload(command) => workload::run(&open()?, format, command).await,
        Command::Instance(command) => instance::run(&open()?, format, command).await,
        Command::Host(command) => host::run(&open()?, format, command).await,
        Command::Site(command) => site::run(&open()?, format, command).await,
        Command::Volume(command) => volume::run(&open()?, format, command).await,
        Command::Scheduler(command) => scheduler::run(&cli.global, format, command).await,
        Command::Token(command) => token::run(&open()?, format, command).await,
        Command::Event(command) => event::run(&open()?, format, command).await,
        Command::Login(args) => login::run(&cli.global, args).await,
        Command::Completion { shell } => crate::completion(*shell),
    }
}
