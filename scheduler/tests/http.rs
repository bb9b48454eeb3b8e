//! The HTTP port as a scraper and a load balancer see it: over real sockets, on a healthy node and on one without a leader.

mod support;

use std::net::SocketAddr;

use supercloud_proto::{pki::Trust, v1, v1::borough_service_client::BoroughServiceClient};
use supercloud_scheduler::{server::Node, state::level::KNOWN};
use support::{Outcome, connect, dev_join, dev_node, tls_node, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The status and the whole text of an answer.
async fn ask(address: SocketAddr, method: &str, path: &str) -> Outcome<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let code = text.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((code, text))
}

fn address(node: &Node) -> Outcome<SocketAddr> {
    Ok(node.http_address().ok_or("no HTTP port")?)
}

/// The value of a metric without labels.
fn value(text: &str, name: &str) -> Outcome<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("supercloud_scheduler_{name} ")));
    Ok(line.ok_or(format!("there is no {name} in\n{text}"))?.parse()?)
}

async fn create_borough(node: &Node, trust: Trust<'_>) -> Outcome {
    let request = v1::CreateBoroughRequest { name: "camden".to_owned(), ..Default::default() };
    BoroughServiceClient::new(connect(node, trust).await?).create(request).await?;
    Ok(())
}

#[tokio::test]
async fn a_healthy_node_is_ready_and_tells_its_numbers() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, anna) = tls_node(directory.path()).await?;
    let at = address(&node)?;
    assert_eq!(ask(at, "GET", "/livez").await?.0, 200);
    assert_eq!(ask(at, "GET", "/readyz").await?.0, 200);
    assert_eq!(ask(at, "GET", "/else").await?.0, 404);
    assert_eq!(ask(at, "POST", "/metrics").await?.0, 405);

    // Proposed by the node itself, and counted too.
    until("its feature level is raised", || async {
        Ok((node.core().view().level() == KNOWN).then_some(()))
    })
    .await?;
    let before = ask(at, "GET", "/metrics").await?.1;
    assert!(before.contains("content-type: application/openmetrics-text; version=1.0.0"), "{before}");
    create_borough(&node, Trust::Mutual(&anna)).await?;
    let applied = value(&before, "log_applied_index")?;
    // A status may be a moment older than the answer.
    let (code, text) = until("the status is of after the answer", || async {
        let (code, text) = ask(at, "GET", "/metrics").await?;
        let is_of_after =
            value(&text, "log_applied_index")? > applied && value(&text, "log_apply_lag")? == 0.0;
        Ok(is_of_after.then_some((code, text)))
    })
    .await?;
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert_eq!(value(&text, "is_leader")?, 1.0);
    assert_eq!(value(&text, "voters")?, 1.0);
    for of in ["placements", "preemptions"] {
        assert_eq!(value(&text, &format!("refused_decisions_total{{of=\"{of}\"}}"))?, 0.0);
    }
    assert_eq!(value(&text, "leader_changes_total")?, 1.0);
    let year = 365.0 * 24.0 * 3_600.0;
    let left = value(&text, "certificate_remaining_seconds")?;
    assert!(left > year - 3_600.0 && left <= year + 3_600.0, "{left}");
    let done = value(&text, "proposals_total{outcome=\"done\"}")?;
    assert_eq!(done, value(&text, "proposal_seconds_count")?);
    assert!(value(&text, "log_sync_seconds_count")? >= done && value(&text, "log_sync_entries_sum")? >= done);
    assert!(value(&text, "log_batch_proposals_sum")? >= done);
    for idle in ["log_apply_lag", "log_queued_proposals", "log_queued_messages"] {
        assert_eq!(value(&text, idle)?, 0.0, "{idle}");
    }
    // The same borough again: told apart from what was done.
    assert!(create_borough(&node, Trust::Mutual(&anna)).await.is_err());
    let text = ask(at, "GET", "/metrics").await?.1;
    assert_eq!(value(&text, "proposals_total{outcome=\"rejected\"}")?, 1.0);
    assert_eq!(value(&text, "proposals_total{outcome=\"done\"}")?, done);
    node.shutdown().await;
    assert!(TcpStream::connect(at).await.is_err(), "the port is still open");
    Ok(())
}

#[tokio::test]
async fn a_node_without_a_leader_lives_and_is_measured_but_is_not_ready() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, _) = dev_node(&directory.path().join("n1")).await?;
    let other = dev_join(&directory.path().join("n2"), &node.api_address().to_string()).await?;
    until("both vote", || async { Ok((node.core().status().members.voters().count() == 2).then_some(())) })
        .await?;
    other.shutdown().await;
    let at = address(&node)?;
    until("it steps down", || async { Ok(node.core().status().leader.is_none().then_some(())) }).await?;
    let (code, text) = ask(at, "GET", "/readyz").await?;
    assert_eq!(code, 503);
    assert!(text.contains("not ready: "), "{text}");
    assert_eq!(ask(at, "GET", "/livez").await?.0, 200);
    let (code, text) = ask(at, "GET", "/metrics").await?;
    assert_eq!((code, value(&text, "has_leader")?, value(&text, "voters")?), (200, 0.0, 2.0));
    node.shutdown().await;
    Ok(())
}
