//! A node whose log is damaged: it says where and what to do, and what it says is done here. Afterwards it has everything again.

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use supercloud_proto::{
    pki::Trust,
    v1::{
        self, borough_service_client::BoroughServiceClient, scheduler_service_client::SchedulerServiceClient,
    },
};
use supercloud_scheduler::{
    commands::{self, Addresses},
    server::{Node, StartError},
};

use crate::support::{Outcome, connect, free_addresses, run, tls_node, token, until};

fn voters(node: &Node) -> usize {
    node.core().status().members.voters().count()
}

/// Damages an entry in the middle of a node's log.
fn damage(data: &Path) -> Outcome {
    let path = data.join("raft/log/0000000000000001.raftlog");
    let bytes = fs::read(&path)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).ok_or("an empty log")?;
    // Two bytes: of a record's head there is one of which not all bits count.
    let damaged = [bytes[end / 2] ^ 1, bytes[end / 2 + 1] ^ 1];
    fs::OpenOptions::new().write(true).open(&path)?.write_all_at(&damaged, (end / 2) as u64)?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_node_says_how_it_is_rebuilt_and_is() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (first, anna) = tls_node(folder.path()).await?;
    let operator = || connect(&first, Trust::Mutual(&anna));
    let server = first.api_address().to_string();
    let mut nodes = Vec::new();
    for number in [2, 3] {
        let (api, peer) = free_addresses().await?;
        let data = folder.path().join(format!("n{number}"));
        let secret = token(operator().await?, v1::TokenRole::Scheduler, "", "").await?.parse()?;
        commands::join(&data, &secret, &server, Addresses::check(&api, &peer, Vec::new())?).await?;
        let node = run(&data, &api, &peer).await?;
        until("it votes", || async {
            Ok((voters(&first) == number && voters(&node) == number).then_some(()))
        })
        .await?;
        nodes.push((node, data, api, peer));
    }
    let borough = |name: &str| v1::CreateBoroughRequest { name: name.to_owned(), ..Default::default() };
    BoroughServiceClient::new(operator().await?).create(borough("camden")).await?;
    let (third, data, api, peer) = nodes.pop().ok_or("no third node")?;
    until("it has it", || async { Ok(third.core().view().boroughs().contains_key("camden").then_some(())) })
        .await?;
    third.shutdown().await;

    damage(&data)?;
    let refused = run(&data, &api, &peer).await.err().ok_or("it started")?;
    let refused = refused.downcast::<StartError>()?;
    let text = refused.to_string();
    assert!(matches!(*refused, StartError::Lost { .. }), "{text}");
    for part in [
        "0000000000000001.raftlog from byte",
        "`supercloud scheduler remove 3`",
        "`supercloud-scheduler rebuild --data-dir",
    ] {
        assert!(text.contains(part), "{text}");
    }

    let secret = token(operator().await?, v1::TokenRole::Scheduler, "", "").await?.parse()?;
    let early = commands::rebuild(&data, &secret, &server, Vec::new()).await.err().ok_or("it was rebuilt")?;
    assert!(early.to_string().contains("node 3 is already a member"), "{early}");
    let removal = v1::RemoveNodeRequest { request_id: "r".to_owned(), node_id: 3 };
    SchedulerServiceClient::new(operator().await?).remove(removal).await?;
    let rebuilt = commands::rebuild(&data, &secret, &server, Vec::new()).await?;
    assert_eq!((rebuilt.was, rebuilt.node), (3, 4));
    assert!(rebuilt.aside.join("raft/log").is_dir(), "what it had is kept");
    let node = run(&data, &api, &peer).await?;
    until("it votes and has everything", || async {
        Ok((voters(&node) == 3 && node.core().view().boroughs().contains_key("camden")).then_some(()))
    })
    .await?;
    node.shutdown().await;
    for (node, ..) in nodes {
        node.shutdown().await;
    }
    first.shutdown().await;
    Ok(())
}
