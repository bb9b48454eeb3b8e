//! What a guest said on its console, from the file that virtlogd writes: the last lines, and what follows. It knows files and how
//! virtlogd rolls them over (`console.log` becomes `console.log.0` and so on), and no libvirt: whether the domain is gone it is told.
//!
//! New text is looked for, not waited for: a look costs one `read`, and only while somebody follows.

use std::{
    collections::BTreeSet,
    io::{self, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{future::BoxFuture, stream::BoxStream};
use supercloud_proto::v1;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::driver::{DriverError, LogOptions};

/// Most bytes of what was said before that are read: what virtlogd keeps by default, one file and three older ones of 2 MiB.
const MAX_BACKLOG: u64 = 8 << 20;
/// Older files that are looked for.
const MAX_OLDER: usize = 3;
/// Most bytes of one message.
const CHUNK: usize = 64 << 10;
/// Messages that may wait for a slow reader.
const MAX_WAITING: usize = 16;
/// Time between looks for new text.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks without new text after which it is asked whether the domain is gone.
const LOOKS_BEFORE_ASKING: u32 = 5;

/// Whether the domain is gone; asked now and then.
pub(super) type IsGone = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

type Message = Result<v1::LogsResponse, DriverError>;

/// Reads the log at this path.
pub(super) fn read(path: PathBuf, options: LogOptions, is_gone: IsGone) -> BoxStream<'static, Message> {
    let (out, messages) = mpsc::channel(MAX_WAITING);
    tokio::spawn(async move {
        let mut reader = Reader { path, open: None, out };
        let done = reader.run(options, is_gone).await;
        if let Err(Stop::Broken(error)) = done {
            let refused = DriverError::Refused(format!("the console's log: {error}"));
            // The reader may have gone meanwhile.
            let _ = reader.out.send(Err(refused)).await;
        }
    });
    Box::pin(ReceiverStream::new(messages))
}

/// Why reading ends early.
enum Stop {
    /// Nobody reads any more.
    Unread,
    /// The file cannot be read.
    Broken(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

struct Reader {
    path: PathBuf,
    /// The file that is being written.
    open: Option<File>,
    out: mpsc::Sender<Message>,
}

impl Reader {
    async fn run(&mut self, options: LogOptions, is_gone: IsGone) -> Result<(), Stop> {
        let before = self.backlog().await?;
        let start = options.tail.map_or(0, |lines| start_of_last(&before, lines));
        for chunk in before[start..].chunks(CHUNK) {
            self.say(chunk.to_vec()).await?;
        }
        if options.follow { self.follow(is_gone).await } else { Ok(()) }
    }

    /// What was said before, oldest first; leaves the current file open at its end.
    async fn backlog(&mut self) -> io::Result<Vec<u8>> {
        self.open = open(&self.path).await?;
        let mut seen = BTreeSet::new();
        let mut newest_first = Vec::new();
        let mut room = MAX_BACKLOG;
        if let Some(file) = &mut self.open {
            seen.insert(file.metadata().await?.ino());
            newest_first.push(read_end(file, room).await?);
        }
        for number in 0..MAX_OLDER {
            room = MAX_BACKLOG.saturating_sub(newest_first.iter().map(|part| part.len() as u64).sum());
            let mut older = self.path.clone().into_os_string();
            older.push(format!(".{number}"));
            let Some(mut file) = open(Path::new(&older)).await? else { break };
            // Rolled over since the file was opened: it has been read.
            if room > 0 && seen.insert(file.metadata().await?.ino()) {
                newest_first.push(read_end(&mut file, room).await?);
            }
        }
        newest_first.reverse();
        Ok(newest_first.concat())
    }

    async fn follow(&mut self, is_gone: IsGone) -> Result<(), Stop> {
        let mut idle = 0;
        loop {
            if self.pass_on_new().await? {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle % LOOKS_BEFORE_ASKING == 0 && is_gone().await {
                // What it said between the last look and its end.
                while self.pass_on_new().await? {}
                return Ok(());
            }
            tokio::select! {
                () = self.out.closed() => return Err(Stop::Unread),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Passes on a piece of new text, or goes on to the file that took the place of this one. Whether there was any.
    async fn pass_on_new(&mut self) -> Result<bool, Stop> {
        let Some(file) = &mut self.open else {
            self.open = open(&self.path).await?;
            return Ok(self.open.is_some());
        };
        // First looked whether it was replaced, then read: once it has been, no more is written to it, so its end is final.
        let position = file.stream_position().await?;
        let ours = file.metadata().await?.ino();
        let replaced = match tokio::fs::metadata(&self.path).await {
            Ok(now) => now.ino() != ours || now.len() < position,
            // Between two files, or removed with the instance.
            Err(_) => false,
        };
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        if read > 0 {
            chunk.truncate(read);
            self.say(chunk).await?;
            return Ok(true);
        }
        if replaced {
            self.open = open(&self.path).await?;
        }
        Ok(replaced)
    }

    async fn say(&self, data: Vec<u8>) -> Result<(), Stop> {
        let message = v1::LogsResponse { data, stderr: false };
        self.out.send(Ok(message)).await.map_err(|_| Stop::Unread)
    }
}

async fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last bytes of a file, up to `room`.
async fn read_end(file: &mut File, room: u64) -> io::Result<Vec<u8>> {
    let skip = file.metadata().await?.len().saturating_sub(room);
    file.seek(SeekFrom::Start(skip)).await?;
    let mut text = Vec::new();
    // As much as it had when it was looked at: one that grows meanwhile does not keep us here.
    file.take(room).read_to_end(&mut text).await?;
    Ok(text)
}

/// Where the last lines begin. A last line without an end counts.
fn start_of_last(text: &[u8], lines: u32) -> usize {
    if lines == 0 {
        return text.len();
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(place, _)| place + 1).nth(lines as usize - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use futures::StreamExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn gone_when(flag: &Arc<AtomicBool>) -> IsGone {
        let flag = Arc::clone(flag);
        Box::new(move || {
            let gone = flag.load(Ordering::Acquire);
            Box::pin(async move { gone })
        })
    }

    async fn all(path: &Path, tail: Option<u32>) -> String {
        let stream = read(path.to_owned(), LogOptions { follow: false, tail }, gone_when(&Arc::default()));
        let parts: Vec<_> = stream.map(|message| message.unwrap().data).collect().await;
        String::from_utf8(parts.concat()).unwrap()
    }

    #[test]
    fn last_lines() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\n", 5, "a\n"),
            ("a\n\n", 1, "\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(&text[start_of_last(text.as_bytes(), lines)..], expected, "{text:?} {lines}");
        }
    }

    #[tokio::test]
    async fn older_files_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        assert_eq!(all(&path, None).await, "");
        for (name, text) in [("console.log", "3\n4\n"), ("console.log.0", "2\n"), ("console.log.1", "1\n")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(all(&path, None).await, "1\n2\n3\n4\n");
        assert_eq!(all(&path, Some(3)).await, "2\n3\n4\n");
    }

    #[tokio::test]
    async fn following_survives_a_roll_over_and_ends_with_the_domain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let gone = Arc::new(AtomicBool::new(false));
        let options = LogOptions { follow: true, tail: Some(1) };
        fs::write(&path, "old\nlast\n").unwrap();
        let mut stream = read(path.clone(), options, gone_when(&gone));
        let mut heard = String::new();
        let mut until = async |text: &str| {
            while !heard.ends_with(text) {
                let message = tokio::time::timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap();
                heard.push_str(std::str::from_utf8(&message.data).unwrap());
            }
        };
        until("last\n").await;
        let append = |path: &Path, text: &str| {
            io::Write::write_all(
                &mut fs::OpenOptions::new().append(true).open(path).unwrap(),
                text.as_bytes(),
            )
            .unwrap();
        };
        append(&path, "one\n");
        until("one\n").await;
        append(&path, "two\n");
        fs::rename(&path, dir.path().join("console.log.0")).unwrap();
        fs::write(&path, "three\n").unwrap();
        until("three\n").await;
        assert_eq!(heard, "last\none\ntwo\nthree\n");

        gone.store(true, Ordering::Release);
        assert!(tokio::time::timeout(LONG, stream.next()).await.unwrap().is_none());
    }
}
