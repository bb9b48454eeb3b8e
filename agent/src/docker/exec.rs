//! A command run beside a task. Input is pumped by a task of its own that ends with the output; dropping the output closes the
//! command's input. Docker has no way to end a command whose reader went away: one that ignores its input runs on until it ends or its
//! container does.

use std::{pin::Pin, time::Duration};

use bollard::{
    Docker,
    container::LogOutput,
    errors::Error,
    exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults},
};
use futures::{StreamExt, stream, stream::BoxStream};
use supercloud_proto::v1::{ExecStart, TerminalSize, exec_request, exec_response::Message as Output};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    client::Client,
    failure::{Failure, silent, within},
};
use crate::driver::{ASK_DEADLINE, DriverError, ExecIo};

/// Messages of input on their way: keystrokes of an impatient hand, or 64 pieces of a file.
const INPUT_MESSAGES: usize = 64;
/// Time between two looks for the exit code of a command whose output has ended.
const EXIT_POLL: Duration = Duration::from_millis(20);

type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// Starts the command.
pub(super) async fn open(client: &Client, container: &str, start: ExecStart) -> Result<ExecIo, DriverError> {
    if start.command.is_empty() {
        return Err(DriverError::Refused("there is no command to run".to_owned()));
    }
    let docker = client.docker().await?;
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(start.tty),
        cmd: Some(start.command),
        ..CreateExecOptions::<String>::default()
    };
    let made = within("create exec", ASK_DEADLINE, docker.create_exec(container, options)).await;
    let id = made.map_err(|failure| failure.of_question("create exec"))?.id;
    let options = StartExecOptions { detach: false, tty: start.tty, output_capacity: None };
    let started = within("start exec", ASK_DEADLINE, docker.start_exec(&id, Some(options))).await;
    let StartExecResults::Attached { output, input } = started.map_err(Failure::of_act)? else {
        return Err(DriverError::Refused("Docker gave no connection to the command".to_owned()));
    };
    if let Some(size) = start.size.filter(|_| start.tty) {
        resize(docker, &id, size).await;
    }
    let (sender, messages) = mpsc::channel(INPUT_MESSAGES);
    let pump = tokio::spawn(pump(docker.clone(), id.clone(), input, messages)).abort_handle();
    let running = Running { docker: docker.clone(), id, output, _pump: AbortOnDrop(pump), done: false };
    let output = stream::unfold(running, async |mut running| Some((running.next().await?, running))).boxed();
    Ok(ExecIo { input: sender, output })
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Running {
    docker: Docker,
    id: String,
    output: BoxStream<'static, Result<LogOutput, Error>>,
    _pump: AbortOnDrop,
    done: bool,
}

impl Running {
    async fn next(&mut self) -> Option<Result<Output, DriverError>> {
        if self.done {
            return None;
        }
        let item = match self.output.next().await {
            Some(Ok(LogOutput::StdErr { message })) => Ok(Output::Stderr(message.to_vec())),
            Some(Ok(output)) => Ok(Output::Stdout(output.into_bytes().to_vec())),
            Some(Err(error)) => Err(Failure::read("exec", error).of_act()),
            None => exit_code(&self.docker, &self.id).await.map(Output::ExitCode),
        };
        self.done = matches!(item, Err(_) | Ok(Output::ExitCode(_)));
        Some(item)
    }
}

/// The exit code; the output may end a moment before Docker knows it.
async fn exit_code(docker: &Docker, id: &str) -> Result<i32, DriverError> {
    let known = async {
        loop {
            let state = docker.inspect_exec(id).await?;
            if let (Some(code), Some(false)) = (state.exit_code, state.running) {
                return Ok(code);
            }
            sleep(EXIT_POLL).await;
        }
    };
    let code = within("inspect exec", ASK_DEADLINE, known)
        .await
        .map_err(|failure| failure.of_question("inspect exec"))?;
    i32::try_from(code).map_err(|_| silent(format!("exec ended with {code}, which is no exit code")))
}

/// Carries input to the command until the sender is dropped, the command takes no more, or the output is dropped.
async fn pump(
    docker: Docker,
    id: String,
    mut input: Writer,
    mut messages: mpsc::Receiver<exec_request::Message>,
) {
    let mut open = true;
    while let Some(message) = messages.recv().await {
        let written = match message {
            exec_request::Message::Stdin(bytes) if open => write(&mut input, &bytes).await,
            exec_request::Message::StdinEnd(true) if open => {
                open = false;
                input.shutdown().await
            }
            exec_request::Message::Resize(size) => {
                resize(&docker, &id, size).await;
                Ok(())
            }
            exec_request::Message::Start(_)
            | exec_request::Message::Stdin(_)
            | exec_request::Message::StdinEnd(_) => {
                debug!(exec = id, "input out of turn, left out");
                Ok(())
            }
        };
        if let Err(error) = written {
            debug!(exec = id, %error, "the command takes no more input");
            open = false;
        }
    }
    if open && let Err(error) = input.shutdown().await {
        debug!(exec = id, %error, "the command's input was closed already");
    }
}

async fn write(input: &mut Writer, bytes: &[u8]) -> std::io::Result<()> {
    input.write_all(bytes).await?;
    input.flush().await
}

/// A size that cannot be set is no reason to end the command: it may just have ended by itself.
async fn resize(docker: &Docker, id: &str, size: TerminalSize) {
    let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let options = ResizeExecOptions { width: cells(size.columns), height: cells(size.rows) };
    match timeout(ASK_DEADLINE, docker.resize_exec(id, options)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(exec = id, %error, "the terminal keeps its size"),
        Err(_) => debug!(exec = id, "the terminal keeps its size: no answer"),
    }
}
