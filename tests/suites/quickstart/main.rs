//! The two commands of the README, as a new user types them: `scripts/quickstart` ends well and shows the page and the greeting, and
//! `scripts/quickstart down` leaves nothing behind. It takes the quickstart's own ports, so no other quickstart may run meanwhile.

use std::{fs, path::Path, process::Command, time::Duration};

use supercloud_tests::{Outcome, Wrong, docker, hold, libvirt, process::complete, programs};

/// Long enough for a build that another profile has not made yet.
const PATIENCE: Duration = Duration::from_secs(280);

/// Runs the script on a folder, and gives what it printed.
fn quickstart(verb: &str, folder: &Path) -> Outcome<String> {
    let mut command = Command::new(programs::repository().join("scripts/quickstart"));
    command.arg(verb).arg("--dir").arg(folder).env_remove("SUPERCLOUD_CONFIG");
    Ok(complete(&mut command, b"", PATIENCE)?.with_code(0)?.stdout)
}

/// Takes the estate away, also when the test fails.
struct Estate<'a>(&'a Path);

impl Drop for Estate<'_> {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = quickstart("down", self.0)
        {
            eprintln!("the quickstart could not be taken away: {error}");
        }
    }
}

/// The cluster's id, out of the status that the quickstart shows.
fn cluster_of(said: &str) -> Outcome<String> {
    let is_id = |text: &&str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = said.split("cluster ").filter_map(|rest| rest.get(..32)).find(is_id);
    Ok(id.map(str::to_owned).ok_or_else(|| Wrong(format!("no cluster is named: {said}")))?)
}

#[test]
fn one_command_brings_the_estate_up_and_another_takes_it_away() -> Outcome {
    let place = tempfile::Builder::new().prefix("supercloud-quickstart.").tempdir_in("/var/tmp")?;
    // QEMU, as a user of its own, passes through.
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let folder = place.path().join("estate");
    let estate = Estate(&folder);

    let said = quickstart("up", &folder)?;
    for shown in
        ["Hello from Supercloud", "Supercloud guest ready: hello from records", "camden/planning-portal"]
    {
        hold(said.contains(shown), || format!("{shown:?} was not shown: {said}"))?;
    }
    let cluster = cluster_of(&said)?;
    hold(!docker::containers(&cluster)?.is_empty(), || "no container runs".to_owned())?;
    hold(libvirt::domains(&cluster)?.len() == 1, || "not one domain runs".to_owned())?;
    quickstart("up", &folder)?;

    quickstart("down", &folder)?;
    hold(!folder.exists(), || format!("{} is still there", folder.display()))?;
    hold(docker::containers(&cluster)?.is_empty(), || "containers are left".to_owned())?;
    hold(docker::volumes_and_networks(&cluster)?.is_empty(), || "volumes or networks are left".to_owned())?;
    hold(libvirt::domains(&cluster)?.is_empty(), || "domains are left".to_owned())?;
    drop(estate);
    Ok(())
}
