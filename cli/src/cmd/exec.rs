//! `exec`: a command inside a container, with this terminal's input, output and size. Its exit code becomes ours.

use std::{
    io::{self, IsTerminal, Read},
    os::fd::AsFd,
};

use nix::sys::termios::{self, SetArg, Termios};
use supercloud_proto::v1::{
    ExecRequest, ExecStart, TerminalSize, exec_request::Message as Input, exec_response::Message as Output,
    instance_service_client::InstanceServiceClient,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{logs::write, target};
use crate::{args::ExecArgs, failure::Failure, session::Session};

/// Pieces of input under way at a time; typing never fills it, a pipe is held back by it.
const INPUT_QUEUE: usize = 32;
/// Bytes of a piece of input.
const PIECE: usize = 16 << 10;

pub(super) async fn run(session: &Session, args: &ExecArgs) -> Result<(), Failure> {
    if args.tty && !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "--tty needs a terminal on standard input; leave it out in scripts".to_owned(),
        ));
    }
    let start = ExecStart {
        instance: target::instance(session, &args.target).await?,
        task: args.task.clone(),
        command: args.command.clone(),
        tty: args.tty,
        size: args.tty.then(size),
    };
    let (input, queue) = mpsc::channel(INPUT_QUEUE);
    send(&input, Input::Start(start)).await;
    let channel = session.channel().await?;
    let mut output = InstanceServiceClient::new(channel).exec(ReceiverStream::new(queue)).await?.into_inner();
    let _raw = if args.tty { Some(RawTerminal::enter()?) } else { None };
    if args.tty {
        tokio::spawn(follow_size(input.clone()));
    }
    if args.interactive {
        // A thread of its own: reading a terminal blocks, and the program does not wait for it at the end.
        std::thread::spawn(move || pass_on_input(&input));
    } else {
        send(&input, Input::StdinEnd(true)).await;
    }
    while let Some(piece) = output.message().await? {
        match piece.message {
            Some(Output::Stdout(data)) => write(&mut io::stdout().lock(), &data)?,
            Some(Output::Stderr(data)) => write(&mut io::stderr().lock(), &data)?,
            Some(Output::ExitCode(0)) => return Ok(()),
            Some(Output::ExitCode(code)) => return Err(Failure::Code(u8::try_from(code).unwrap_or(u8::MAX))),
            None => {}
        }
    }
    Err(Failure::Failed("the connection ended before the command did".to_owned()))
}

/// Sends a piece; when the other side is gone, its answer says why.
async fn send(input: &mpsc::Sender<ExecRequest>, message: Input) {
    let _ = input.send(ExecRequest { message: Some(message) }).await;
}

fn pass_on_input(input: &mpsc::Sender<ExecRequest>) {
    let mut piece = vec![0; PIECE];
    loop {
        let message = match io::stdin().read(&mut piece) {
            Ok(0) | Err(_) => Input::StdinEnd(true),
            Ok(length) => Input::Stdin(piece[..length].to_vec()),
        };
        let ended = matches!(message, Input::StdinEnd(_));
        if input.blocking_send(ExecRequest { message: Some(message) }).is_err() || ended {
            return;
        }
    }
}

async fn follow_size(input: mpsc::Sender<ExecRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        send(&input, Input::Resize(size())).await;
    }
}

/// The size of this terminal; 80 by 24 where it does not tell.
fn size() -> TerminalSize {
    let (columns, rows) = crate::terminal::size().unwrap_or((80, 24));
    TerminalSize { columns: columns.into(), rows: rows.into() }
}

/// The terminal passes every key on as it is, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self, Failure> {
        let before = termios::tcgetattr(io::stdin().as_fd()).map_err(io::Error::from)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &raw).map_err(io::Error::from)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The shell would rather have it back than hear why not.
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}
