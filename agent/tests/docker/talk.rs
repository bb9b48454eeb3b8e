//! Logs, exec and HTTP.

use futures::{StreamExt, TryStreamExt};
use supercloud_agent::driver::{Driver, DriverError, LogOptions, Seen};
use supercloud_proto::v1::{
    ExecStart, LogsResponse, TerminalSize, exec_request::Message as Input, exec_response::Message as Output,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::rig::{Done, Rig, SOON, shell};

type Tried<T> = Result<T, Box<dyn std::error::Error>>;

const FOLLOW: LogOptions = LogOptions { follow: true, tail: None };

pub(crate) async fn http_get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

/// Waits for the first line that a task writes.
pub(crate) async fn first_line(rig: &Rig, seen: &Seen) -> Tried<LogsResponse> {
    Ok(lines(rig, seen, 1).await?.remove(0))
}

/// Waits for so many lines that a task writes, in all its runs.
pub(crate) async fn lines(rig: &Rig, seen: &Seen, count: usize) -> Tried<Vec<LogsResponse>> {
    let lines = rig.driver.logs(seen, FOLLOW).await?.take(count).try_collect::<Vec<_>>();
    let lines = timeout(SOON, lines).await??;
    if lines.len() == count { Ok(lines) } else { Err("the log ended".into()) }
}

/// Runs a command to its end: what it wrote, and its exit code.
pub(crate) async fn run(rig: &Rig, seen: &Seen, command: &[&str]) -> Tried<(Vec<Output>, i32)> {
    let io = rig.driver.exec(seen, exec_start(command)).await?;
    drop(io.input);
    to_the_end(io.output).await
}

async fn to_the_end(
    mut output: futures::stream::BoxStream<'static, Result<Output, DriverError>>,
) -> Tried<(Vec<Output>, i32)> {
    let mut all = Vec::new();
    while let Some(part) = timeout(SOON, output.next()).await? {
        match part? {
            Output::ExitCode(code) => {
                assert!(output.next().await.is_none(), "the exit code is the last");
                return Ok((all, code));
            }
            part => all.push(part),
        }
    }
    Err(format!("no exit code after {all:?}").into())
}

fn exec_start(command: &[&str]) -> ExecStart {
    ExecStart { command: command.iter().map(|part| (*part).to_owned()).collect(), ..ExecStart::default() }
}

/// What was written, one text for each of standard output and error.
fn texts(output: &[Output]) -> (String, String) {
    let mut texts = (Vec::new(), Vec::new());
    for part in output {
        match part {
            Output::Stdout(data) => texts.0.extend_from_slice(data),
            Output::Stderr(data) => texts.1.extend_from_slice(data),
            Output::ExitCode(_) => {}
        }
    }
    (String::from_utf8_lossy(&texts.0).into_owned(), String::from_utf8_lossy(&texts.1).into_owned())
}

#[tokio::test]
async fn logs_have_a_tail_both_streams_and_an_end() -> Done {
    let rig = Rig::new().await?;
    let run = rig.run(&["/bin/sh", "-c", "echo one; echo two; echo three; echo wrong >&2"]);
    let seen = rig.driver.start(&run).await?;
    rig.await_end(&run.mark.task).await?;
    let read = async |tail| -> Tried<Vec<LogsResponse>> {
        let lines = rig.driver.logs(&seen, LogOptions { follow: false, tail }).await?;
        Ok(lines.collect::<Vec<_>>().await.into_iter().collect::<Result<_, _>>()?)
    };
    let all = read(None).await?;
    let of = |stderr: bool| -> Vec<u8> {
        all.iter().filter(|line| line.stderr == stderr).flat_map(|line| line.data.clone()).collect()
    };
    assert_eq!(of(false), b"one\ntwo\nthree\n");
    assert_eq!(of(true), b"wrong\n");
    assert_eq!(read(Some(2)).await?.len(), 2);
    assert_eq!(read(Some(0)).await?, []);
    rig.driver.remove(&seen).await?;
    assert!(matches!(rig.driver.logs(&seen, FOLLOW).await, Err(DriverError::Missing)));
    Ok(())
}

#[tokio::test]
async fn a_follower_sees_each_run_once_and_ends_with_the_container() -> Done {
    let rig = Rig::new().await?;
    let command = shell("echo run on $(hostname)");
    let run = rig.run(&command.each_ref().map(String::as_str));
    let seen = rig.driver.start(&run).await?;
    let mut lines = rig.driver.logs(&seen, FOLLOW).await?;
    let expected = LogsResponse { data: b"run on i-2f-0\n".to_vec(), stderr: false };
    for _ in 0..2 {
        assert_eq!(timeout(SOON, lines.next()).await?.ok_or("the log ended")??, expected);
        rig.kill(&seen).await?;
        rig.await_end(&run.mark.task).await?;
        rig.driver.start(&run).await?;
    }
    assert_eq!(timeout(SOON, lines.next()).await?.ok_or("the log ended")??, expected);
    rig.driver.remove(&seen).await?;
    let rest: Vec<_> = timeout(SOON, lines.collect::<Vec<_>>()).await?;
    assert!(rest.is_empty(), "{rest:?}");
    Ok(())
}

#[tokio::test]
async fn exec_gives_both_streams_and_the_exit_code() -> Done {
    let rig = Rig::new().await?;
    let seen = rig.driver.start(&rig.run(&[])).await?;
    let (output, code) = run(&rig, &seen, &["/bin/sh", "-c", "echo $MODE; echo bad >&2; exit 7"]).await?;
    assert_eq!((texts(&output), code), (("test\n".to_owned(), "bad\n".to_owned()), 7));

    let io = rig.driver.exec(&seen, exec_start(&["/bin/wc", "-c"])).await?;
    for _ in 0..3 {
        io.input.send(Input::Stdin(vec![b'x'; 100_000])).await?;
    }
    io.input.send(Input::StdinEnd(true)).await?;
    let (output, code) = to_the_end(io.output).await?;
    assert_eq!((texts(&output).0.trim(), code), ("300000", 0));
    Ok(())
}

#[tokio::test]
async fn exec_has_a_terminal_with_a_size() -> Done {
    let rig = Rig::new().await?;
    let seen = rig.driver.start(&rig.run(&[])).await?;
    let size = |columns, rows| TerminalSize { columns, rows };
    let start = ExecStart {
        tty: true,
        size: Some(size(91, 17)),
        ..exec_start(&["/bin/sh", "-c", "read line; stty size; read line; stty size; exit 3"])
    };
    let mut io = rig.driver.exec(&seen, start).await?;
    io.input.send(Input::Stdin(b"\n".to_vec())).await?;
    let mut text = String::new();
    while !text.contains("17 91") {
        match timeout(SOON, io.output.next()).await?.ok_or("the output ended")?? {
            Output::Stdout(data) => text.push_str(&String::from_utf8_lossy(&data)),
            other => panic!("{other:?} after {text:?}"),
        }
    }
    io.input.send(Input::Resize(size(100, 30))).await?;
    io.input.send(Input::Stdin(b"\n".to_vec())).await?;
    let (output, code) = to_the_end(io.output).await?;
    assert!(texts(&output).0.contains("30 100"), "{output:?}");
    assert_eq!(code, 3);
    Ok(())
}

#[tokio::test]
async fn exec_is_refused_where_nothing_runs() -> Done {
    let rig = Rig::new().await?;
    let seen = rig.driver.start(&rig.run(&["/bin/true"])).await?;
    rig.await_end(&seen.mark.task).await?;
    let refused = rig.driver.exec(&seen, exec_start(&["/bin/true"])).await.map(|_| ());
    assert!(matches!(refused, Err(DriverError::Refused(_))), "{refused:?}");
    let empty = rig.driver.exec(&seen, exec_start(&[])).await.map(|_| ());
    assert!(matches!(empty, Err(DriverError::Refused(_))), "{empty:?}");
    rig.driver.remove(&seen).await?;
    let missing = rig.driver.exec(&seen, exec_start(&["/bin/true"])).await.map(|_| ());
    assert!(matches!(missing, Err(DriverError::Missing)), "{missing:?}");
    Ok(())
}
