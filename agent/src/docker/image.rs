//! Images: here already, or pulled. A tag is taken to name one image for ever, so what is here is never asked for again; who needs
//! another image gives it another tag.

use bollard::{Docker, errors::Error, query_parameters::CreateImageOptions};
use futures::StreamExt;
use tracing::{debug, info};

use super::{
    DockerDriver,
    failure::{Failure, within},
    request,
};
use crate::driver::{ASK_DEADLINE, DriverError, PREPARE_DEADLINE, TaskRun};

impl DockerDriver {
    /// Pulls the task's image unless it is here.
    pub(super) async fn have_image(&self, run: &TaskRun) -> Result<(), DriverError> {
        let image = request::container(run)?.image.as_str();
        let docker = self.client.docker().await?;
        match within("inspect image", ASK_DEADLINE, docker.inspect_image(image)).await {
            Ok(_) => return Ok(()),
            Err(Failure::Answer { status: 404, .. }) => {}
            Err(failure) => return Err(failure.of_question("inspect image")),
        }
        info!(image, instance = %run.mark.instance, "pulling");
        match within("pull", PREPARE_DEADLINE, pull(docker, image)).await {
            Ok(()) => {
                info!(image, "pulled");
                Ok(())
            }
            Err(Failure::Answer { message, .. }) => {
                Err(DriverError::Refused(format!("image {image} cannot be pulled: {message}")))
            }
            Err(failure) => Err(failure.of_act()),
        }
    }
}

async fn pull(docker: &Docker, image: &str) -> Result<(), Error> {
    let options = CreateImageOptions { from_image: Some(with_tag(image)), ..CreateImageOptions::default() };
    let mut progress = docker.create_image(Some(options), None, None);
    while let Some(step) = progress.next().await {
        let step = step?;
        // One line for each turn of a layer, none for each of its bytes.
        if step.progress_detail.and_then(|detail| detail.current).is_none() {
            debug!(image, layer = step.id, status = step.status, "pulling");
        }
    }
    Ok(())
}

/// The reference with the tag that people mean when they give none. Docker would pull all tags.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_added_where_there_is_none() {
        for (image, expected) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost:5000/a/b:2", "localhost:5000/a/b:2"),
            ("a/b@sha256:00", "a/b@sha256:00"),
        ] {
            assert_eq!(with_tag(image), expected);
        }
    }
}
