//! Attach streams, and what a session does when its node does not do its part.

use supercloud_proto::{
    instance::InstanceState,
    v1::{
        self, attach_up::Message as Up, exec_request::Message as Input, exec_response::Message as Output,
        open_stream::Purpose, scheduler_message::Message as Down,
    },
};
use tokio::time::timeout;
use tonic::Code;

use crate::{
    reconcile::world::{instance, service},
    rig::{NodeAttach, NodeSession, PATIENCE, Rig},
};

/// An agent with one running instance.
async fn running() -> (Rig, NodeSession) {
    let mut rig = Rig::started().await;
    let mut node = rig.synced(&[service(1)]).await;
    let is_running = |report: &supercloud_proto::instance::InstanceReport| {
        report.instance == instance(1) && report.state == InstanceState::Running
    };
    node.until(true, is_running).await;
    (rig, node)
}

async fn attached(rig: &mut Rig, node: &NodeSession, id: &str, purpose: Option<Purpose>) -> NodeAttach {
    node.send(Down::OpenStream(v1::OpenStream { stream_id: id.to_owned(), purpose })).await;
    let attach = timeout(PATIENCE, rig.attaches.recv()).await.expect("in time").expect("serves");
    let mut attach = attach;
    assert_eq!(next(&mut attach).await, Some(Up::StreamId(id.to_owned())));
    attach
}

async fn next(attach: &mut NodeAttach) -> Option<Up> {
    let message = timeout(PATIENCE, attach.up.message()).await.expect("in time");
    message.ok().flatten().and_then(|message| message.message)
}

fn logs(instance: &str, task: &str, follow: bool) -> Option<Purpose> {
    let request =
        v1::LogsRequest { instance: instance.to_owned(), task: task.to_owned(), follow, tail: None };
    Some(Purpose::Logs(request))
}

#[tokio::test]
async fn logs_are_piped_to_their_end() {
    let (mut rig, node) = running().await;
    let mut attach = attached(&mut rig, &node, "s1", logs("i-1-0", "", false)).await;
    let Some(Up::Logs(piece)) = next(&mut attach).await else { panic!("no logs") };
    assert_eq!(piece.data, b"output of i-1-0/main\n");
    assert_eq!(next(&mut attach).await, None, "the stream ends");
}

#[tokio::test]
async fn a_reader_that_goes_ends_following() {
    let (mut rig, node) = running().await;
    let mut attach = attached(&mut rig, &node, "s1", logs("i-1-0", "main", true)).await;
    assert!(matches!(next(&mut attach).await, Some(Up::Logs(_))));
    let NodeAttach { mut up, down } = attach;
    drop(down);
    let end = timeout(PATIENCE, up.message()).await.expect("the agent ends its side in time");
    assert!(!matches!(end, Ok(Some(_))));
}

#[tokio::test]
async fn what_cannot_be_attached_is_told_with_a_code() {
    let (mut rig, node) = running().await;
    let cases = [
        (logs("i-7-0", "", false), Code::NotFound),
        (logs("i-1-0", "other", false), Code::NotFound),
        (logs("nonsense", "", false), Code::InvalidArgument),
        (None, Code::Unimplemented),
    ];
    for (purpose, code) in cases {
        let mut attach = attached(&mut rig, &node, "s", purpose).await;
        let Some(Up::Error(error)) = next(&mut attach).await else { panic!("no error") };
        assert_eq!(Code::from(error.code.cast_signed()), code, "{}", error.message);
        assert!(!error.message.is_empty());
        drop(attach);
    }
}

#[tokio::test]
async fn an_exec_carries_input_output_and_the_exit_code() {
    let (mut rig, node) = running().await;
    let start = v1::ExecStart {
        instance: "i-1-0".to_owned(),
        command: vec!["cat".to_owned()],
        ..v1::ExecStart::default()
    };
    let mut attach = attached(&mut rig, &node, "s1", Some(Purpose::Exec(start))).await;
    for message in [Input::Stdin(b"hello".to_vec()), Input::StdinEnd(true)] {
        let exec = Some(v1::ExecRequest { message: Some(message) });
        attach.down.send(Ok(v1::AttachDown { exec })).await.expect("the stream stands");
    }
    let mut output = Vec::new();
    while let Some(Up::Exec(response)) = next(&mut attach).await {
        output.extend(response.message);
    }
    assert_eq!(output, [Output::Stdout(b"hello".to_vec()), Output::ExitCode(5)]);
}

#[tokio::test]
async fn attach_streams_end_with_their_session() {
    let (mut rig, node) = running().await;
    let mut attach = attached(&mut rig, &node, "s1", logs("i-1-0", "", true)).await;
    assert!(matches!(next(&mut attach).await, Some(Up::Logs(_))));
    drop(node);
    assert_eq!(next(&mut attach).await, None);
}

#[tokio::test]
async fn a_session_that_breaks_is_opened_again() {
    let mut rig = Rig::started().await;
    for _ in 0..3 {
        let node = rig.session().await;
        drop(node);
    }
    let node = rig.welcomed().await;
    let refused = v1::Refused { reason: "this node ends".to_owned(), permanent: false };
    node.send(Down::Refused(refused)).await;
    drop(node);
    rig.synced(&[]).await;
}
