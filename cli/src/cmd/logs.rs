//! `logs`: what an instance has written, standard output to standard output and standard error to standard error.

use std::io::{self, Write};

use supercloud_proto::v1::{LogsRequest, instance_service_client::InstanceServiceClient};

use super::target;
use crate::{args::LogsArgs, failure::Failure, session::Session};

pub(super) async fn run(session: &Session, args: &LogsArgs) -> Result<(), Failure> {
    let request = LogsRequest {
        instance: target::instance(session, &args.target).await?,
        task: args.task.clone(),
        follow: args.follow,
        tail: args.tail,
    };
    let mut stream = session
        .call(request, async |channel, request| InstanceServiceClient::new(channel).logs(request).await)
        .await?;
    while let Some(piece) = stream.message().await? {
        if piece.stderr {
            write(&mut io::stderr().lock(), &piece.data)?;
        } else {
            write(&mut io::stdout().lock(), &piece.data)?;
        }
    }
    Ok(())
}

/// Writes a piece at once, so that what follows the log sees it.
pub(super) fn write(out: &mut impl Write, data: &[u8]) -> Result<(), Failure> {
    out.write_all(data)?;
    Ok(out.flush()?)
}
