//! `scheduler snapshot save|inspect|restore`. Saving writes beside, reads back and checks what was written, and only then gives it its name. The
//! others ask no node: a file is all they need.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use supercloud_proto::{
    saved::{self, Summary},
    v1::{SaveSnapshotRequest, scheduler_service_client::SchedulerServiceClient},
};
use tokio::time::timeout;

use crate::{
    args::{Format, Global, SnapshotCommand},
    failure::Failure,
    output::{self, say},
    session::Session,
    show::saved as show,
};

/// Longest wait for the next piece. A node gives up a caller that takes nothing in the same time.
const STALL: Duration = Duration::from_secs(30);

pub(super) async fn run(global: &Global, format: Format, command: &SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Save { file } => save(&Session::new(global)?, format, file).await,
        SnapshotCommand::Inspect { file } => show(format, file, &inspect(file)?),
        SnapshotCommand::Restore { file } => {
            let summary = inspect(file)?;
            say(
                "A restore is made on the machine that shall be the first node, in an empty directory. Stop every node of the",
            );
            say(
                "old cluster for good first, and wait for 25 s (lease and margin) before the new one starts. It runs there:",
            );
            output::line(&show::restore_command(file, &summary))
        }
    }
}

fn show(format: Format, file: &Path, summary: &Summary) -> Result<(), Failure> {
    output::one(format, &show::shown(file, summary), || show::text(summary))
}

fn inspect(file: &Path) -> Result<Summary, Failure> {
    let of = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", file.display()));
    let open = File::open(file).map_err(|error| of(&error))?;
    saved::inspect(BufReader::new(open)).map_err(|error| of(&error))
}

async fn save(session: &Session, format: Format, file: &Path) -> Result<(), Failure> {
    let beside = Beside::new(file)?;
    let io = |error: std::io::Error| Failure::Failed(format!("{}: {error}", beside.path.display()));
    // What is in it is for operators only: specs hold what boroughs put into them.
    let mut out = OpenOptions::new();
    let out = out.write(true).create(true).truncate(true).mode(0o600).open(&beside.path);
    fetch(session, &mut out.map_err(io)?, io).await?;
    let summary = inspect(&beside.path)?;
    beside.put_in_place(file).map_err(io)?;
    show(format, file, &summary)
}

async fn fetch(
    session: &Session,
    out: &mut File,
    io: impl Fn(std::io::Error) -> Failure,
) -> Result<(), Failure> {
    let request = SaveSnapshotRequest { stale: session.stale };
    let mut pieces = session
        .call(request, async |channel, request| {
            SchedulerServiceClient::new(channel).save_snapshot(request).await
        })
        .await?;
    let silent = |_| Failure::Unreachable(format!("nothing came for {} s", STALL.as_secs()));
    while let Some(piece) = timeout(STALL, pieces.message()).await.map_err(silent)?? {
        out.write_all(&piece.data).map_err(&io)?;
    }
    out.sync_all().map_err(io)
}

/// The file under another name, while it is not whole. Deleted when it does not get its own.
struct Beside {
    path: PathBuf,
}

impl Beside {
    fn new(file: &Path) -> Result<Self, Failure> {
        let Some(name) = file.file_name() else {
            return Err(Failure::Usage(format!("{} names no file", file.display())));
        };
        let mut beside = name.to_os_string();
        beside.push(".part");
        Ok(Self { path: file.with_file_name(beside) })
    }

    fn put_in_place(&self, file: &Path) -> std::io::Result<()> {
        fs::rename(&self.path, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Gone already where it got its name.
        let _ = fs::remove_file(&self.path);
    }
}
