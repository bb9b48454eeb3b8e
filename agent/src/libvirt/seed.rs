//! The seed: cloud-init's NoCloud data as a small ISO with the label `cidata`. It holds whatever secrets a borough put into it, so it
//! is made in a folder that nobody else may enter.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::Command,
    time::Duration,
};

use supercloud_proto::spec::CloudInit;

use super::{folder::finish, images::failed};
use crate::{
    command,
    driver::{DriverError, Mark},
};

/// Time that making an ISO of a few kilobytes may take.
const MAKE_DEADLINE: Duration = Duration::from_secs(30);
/// Longest host name.
const MAX_HOST_NAME_LEN: usize = 63;

/// Makes the seed at this path.
pub(super) fn make(path: &Path, mark: &Mark, cloud_init: &CloudInit) -> Result<(), DriverError> {
    let staging = path.with_extension("tmp");
    let broken = |error: io::Error| DriverError::Refused(format!("cannot make {}: {error}", path.display()));
    // What a start that was cut short has left.
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(broken)?;
    }
    DirBuilder::new().mode(0o700).create(&staging).map_err(broken)?;

    let meta_data = cloud_init.meta_data.clone().unwrap_or_else(|| default_meta_data(mark));
    let mut files = vec![("user-data", cloud_init.user_data.as_str()), ("meta-data", &meta_data)];
    files.extend(cloud_init.network_config.as_deref().map(|text| ("network-config", text)));
    for (name, text) in &files {
        fs::write(staging.join(name), text).map_err(broken)?;
    }
    let iso = staging.join("seed.iso");
    let mut make = Command::new("xorriso");
    make.args(["-as", "genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output"]).arg(&iso);
    make.args(files.iter().map(|(name, _)| staging.join(name)));
    command::run(&mut make, MAKE_DEADLINE).map_err(|error| failed("vm.cloud_init", &error))?;
    finish(&iso, path).map_err(broken)?;
    fs::remove_dir_all(&staging).map_err(broken)
}

/// What a guest is told of itself where the spec is silent: the instance, and a host name of workload and instance.
fn default_meta_data(mark: &Mark) -> String {
    let instance = mark.instance.to_string();
    let workload = mark.workload.workload.as_str();
    let kept = workload.len().min(MAX_HOST_NAME_LEN - 1 - instance.len());
    format!(
        "instance-id: {instance}\nlocal-hostname: {}-{instance}\n",
        workload[..kept].trim_end_matches('-')
    )
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{id::InstanceId, name::WorkloadName};

    use super::*;
    use crate::libvirt::mark::tests::mark;

    #[test]
    fn what_goes_in_comes_out() {
        let dir = tempfile::tempdir().unwrap();
        let seed = dir.path().join("seed.iso");
        fs::create_dir(dir.path().join("seed.tmp")).unwrap();
        let user_data = "#cloud-config\npassword: \"'$(reboot)`<&>\"\n\u{fffd}\0\n";
        let cloud_init = CloudInit {
            user_data: user_data.to_owned(),
            meta_data: None,
            network_config: Some("version: 2\n".to_owned()),
        };
        make(&seed, &mark("c", 0x2f), &cloud_init).unwrap();

        let out = dir.path().join("out");
        let mut extract = Command::new("xorriso");
        extract.args(["-osirrox", "on", "-indev"]).arg(&seed).args(["-extract", "/"]).arg(&out);
        command::run(&mut extract, MAKE_DEADLINE).unwrap();
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(read("user-data"), user_data);
        assert_eq!(read("meta-data"), "instance-id: i-2f-a\nlocal-hostname: records-i-2f-a\n");
        assert_eq!(read("network-config"), "version: 2\n");
        // Volume identifier of the primary descriptor: 32 bytes from 40 in sector 16.
        assert!(fs::read(&seed).unwrap()[16 * 2048 + 40..].starts_with(b"cidata "));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_host_name_is_never_too_long() {
        let mut mark = mark("c", u64::MAX);
        mark.instance = InstanceId { index: u64::MAX, ordinal: u32::MAX };
        mark.workload.workload = WorkloadName::new("w".repeat(63)).unwrap();
        let text = default_meta_data(&mark);
        let name = text.lines().nth(1).unwrap().strip_prefix("local-hostname: ").unwrap();
        assert_eq!(name.len(), MAX_HOST_NAME_LEN);
    }
}
