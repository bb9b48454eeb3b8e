//! The specs that the suites hand in: the published examples, and small variations of them.

use std::fs;

use crate::{Outcome, programs};

/// The container workload of most tests.
pub const WEB: &str = "camden/planning-portal";
/// The VM workload of most tests.
pub const RECORDS: &str = "hackney/records";
/// What the page of the container says.
pub const PAGE: &str = "Hello from Supercloud.";
/// What the VM says on its console.
pub const GREETING: &str = "Supercloud guest ready: hello from records";

/// One web server: the example with a count of its own.
pub fn web(count: u32) -> String {
    format!(
        "workload: planning-portal
borough: camden
kind: service
count: {count}
stop_grace: 2s
container:
  image: supercloud/hello:1
  command: [ /bin/busybox, httpd, -f, -p, \"8080\", -h, /www ]
  env: {{ MODE: live }}
  ports: {{ http: 8080 }}
resources: {{ cpu: 50m, memory: 16MiB }}
"
    )
}

/// A container of camden that runs a shell script.
pub fn script(workload: &str, kind: &str, script: &str) -> String {
    format!(
        "workload: {workload}
borough: camden
kind: {kind}
stop_grace: 1s
container:
  image: supercloud/hello:1
  command: [ /bin/sh, -c, {script:?} ]
resources: {{ cpu: 50m, memory: 16MiB }}
"
    )
}

/// The VM with a disk of its own, from the images of this machine.
pub fn records() -> String {
    let images = programs::images();
    let images = images.display();
    format!(
        "workload: records
borough: hackney
kind: service
vm:
  boot:
    kernel: {images}/vmlinuz
    initrd: {images}/initrd.gz
    cmdline: \"console=ttyS0 hostname=records\"
  disks: [ {{ name: data, size: 64MiB }} ]
resources: {{ cpu: 500m, memory: 256MiB, disk: 64MiB }}
"
    )
}

/// A published example.
pub fn example(name: &str) -> Outcome<String> {
    Ok(fs::read_to_string(example_path(name))?)
}

/// Where a published example is.
pub fn example_path(name: &str) -> String {
    programs::repository().join("docs/examples").join(name).to_string_lossy().into_owned()
}
