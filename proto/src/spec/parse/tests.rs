//! Cases and properties of reading: what people write, what they get wrong, and that printing and reading are inverse.

use proptest::prelude::*;

use super::*;
use crate::{
    samples,
    spec::{Driver, ImageSource, Protocol, Restart, WorkloadKind},
    v1,
};

const WEB: &str = "
workload: web
borough: camden
kind: service
container: { image: a:1 }
resources: { cpu: 250m, memory: 64MiB }
";

/// What is wrong with a text, a line for each problem.
fn wrong(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(specs) => panic!("nothing is wrong with {specs:?}"),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

fn paths(text: &str) -> Vec<String> {
    parse(text).unwrap_err().0.into_iter().map(|problem| problem.path).collect()
}

#[test]
fn a_short_spec_takes_its_defaults() {
    let spec = parse(WEB).unwrap().remove(0);
    assert_eq!((spec.count, spec.priority, spec.stop_grace), (1, 50, 10_000));
    assert_eq!((spec.kind, spec.restart), (WorkloadKind::Service, Restart::default()));
    assert_eq!((spec.tasks[0].name.as_str(), spec.exclusive), ("main", None));
    assert_eq!(spec.resources.memory.0, 64 << 20);
}

#[test]
fn every_supported_field_is_read() {
    let text = r#"
workload: web
borough: camden
kind: batch
count: 7
priority: 80
tasks:
  - name: server
    container:
      image: registry.example/web:2
      command: [ /bin/serve, "-v" ]
      env: { MODE: live, B: "2" }
      ports: { http: 8080, dns: { port: 53, host: 1053, protocol: udp } }
      mounts: [ { volume: data, path: /data, read_only: true } ]
      user: "1000:1000"
resources:
  cpu: 0.5
  memory: 1.5GiB
  disk: 20GiB
  pids: 100
  devices:
    - { kind: gpu, share: 0.25, models: [ T4, "V100 32G" ], require: [ "label.memory >= 16" ] }
    - { kind: nic, count: 2 }
place: { sites: [ slough ], require: [ "arch == amd64" ], distinct_hosts: true, tolerate: [ gpu, team = parks ], apart: [ db, queue ], together: [ cache ], private: true }
restart: { attempts: 5, within: 5m, delay: 250ms, max_delay: 10s }
update: { max_unavailable: 2 }
stop_grace: 30s
exclusive: false
"#;
    let spec = parse(text).unwrap().remove(0);
    let Driver::Container(container) = &spec.tasks[0].driver else { panic!("a container") };
    assert_eq!(container.command, ["/bin/serve", "-v"]);
    assert_eq!(container.env["B"], "2");
    let [dns, http] = container.ports.as_slice() else { panic!("two ports, by name") };
    assert_eq!((dns.name.as_str(), dns.port, dns.host, dns.protocol), ("dns", 53, Some(1053), Protocol::Udp));
    assert_eq!((http.port, http.host, http.protocol), (8080, None, Protocol::Tcp));
    assert!(container.mounts[0].read_only);
    assert_eq!((spec.resources.cpu.0, spec.resources.memory.0), (500, 3 << 29));
    assert_eq!((spec.restart.attempts, spec.restart.within, spec.restart.delay), (5, 300_000, 250));
    assert_eq!((spec.update.max_unavailable, spec.exclusive), (2, Some(false)));
    let [gpu, nic] = spec.resources.devices.as_slice() else { panic!("two kinds of devices") };
    assert_eq!((gpu.kind.as_str(), gpu.count, gpu.share.0), ("gpu", 1, 250));
    assert_eq!((gpu.models.join(","), gpu.require.len()), ("T4,V100 32G".to_owned(), 1));
    assert_eq!((nic.kind.as_str(), nic.count, nic.share.0), ("nic", 2, 1_000));
    assert!(spec.place.distinct_hosts && spec.place.private && spec.place.require.len() == 1);
    let tolerated: Vec<String> = spec.place.tolerate.iter().map(ToString::to_string).collect();
    assert_eq!(tolerated, ["gpu", "team=parks"]);
    let names =
        |of: &[crate::name::WorkloadName]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!((names(&spec.place.apart), names(&spec.place.together)), ("db queue".into(), "cache".into()));
}

#[test]
fn json_is_read_as_well() {
    let json = r##"{"workload": "vm", "borough": "b", "kind": "service",
	"vm": {"image": {"path": "/a/b.img", "sha256": "ABCDEF0000000000000000000000000000000000000000000000000000000000",
	"format": "raw"}, "cloud_init": {"user_data": "#cloud-config\n"}}, "resources": {"cpu": 2, "memory": "1GiB"}}"##;
    let spec = parse(json).unwrap().remove(0);
    let Driver::Vm(vm) = &spec.tasks[0].driver else { panic!("a VM") };
    let image = vm.image.as_ref().unwrap();
    assert_eq!(image.source, ImageSource::Path("/a/b.img".to_owned()));
    assert!(image.sha256.as_ref().unwrap().starts_with("abcdef"));
    assert_eq!(vm.cloud_init.as_ref().unwrap().user_data, "#cloud-config\n");
}

#[test]
fn all_mistakes_are_told_at_once_and_each_once() {
    let text = "
workload: Web
borough: camden
kind: service
count: many
container:
  image: A:1
  comand: [ x ]
  env: { A: 1, B: yes }
  ports: { http: 0, ftp: { prot: 21 }, ssh: { port: 22, host: 70000, protocol: sctp } }
resources: { cpu: lots, memmory: 64MiB, disk: 20 }
restart: { delay: 2m }
place: { sites: [ slough, Slough, slough ], require: [ cpu ] }
";
    assert_eq!(
        wrong(text),
        [
            r#"workload: expected 1 to 63 characters of a-z, 0-9 and "-", not first or last "-", found "Web""#,
            r#"count: expected a whole number from 0 to 100000, found "many""#,
            "container.comand: expected one of image, command, env, ports, mounts, user, found an unknown field \
             (did you mean command?)",
            r#"container.env.A: expected text, found 1 without quotes (did you mean "1"?)"#,
            "container.ports.ftp.prot: expected one of port, host, protocol, found an unknown field (did you mean port?)",
            "container.ports.http: expected a whole number from 1 to 65535, found 0",
            "container.ports.ssh.host: expected a whole number from 1 to 65535, found 70000",
            r#"container.ports.ssh.protocol: expected tcp or udp, found "sctp""#,
            "resources.memmory: expected one of cpu, memory, disk, pids, devices, network, dedicated, numa, found an unknown field (did you mean memory?)",
            r#"resources.cpu: expected cores as "2", "0.5" or "250m", found "lots""#,
            r#"resources.disk: expected a size with a unit as "512MiB" or "20GiB", found 20"#,
            r#"place.sites[1]: expected 1 to 63 characters of a-z, 0-9 and "-", not first or last "-", found "Slough""#,
            r#"place.require[0]: expected a condition as "arch == amd64", "kernel >= 6.1", "rack in [r1, r2]" or "label.ssd exists", found "cpu""#,
            "container.image: expected an image reference as \"registry.example/name:tag\" or \"name@sha256:…\", \
             found \"A:1\"",
            r#"place.sites[2]: expected each site once, found "slough" again"#,
            "restart.delay: expected at most max_delay, 1m, found 2m",
        ]
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(paths("{}"), ["workload", "borough", "kind", "resources", "container"]);
    let both = format!("{WEB}vm: {{ boot: {{ kernel: /k }} }}\n");
    assert_eq!(wrong(&both), ["vm: expected one of container, vm or tasks, found this beside container"]);
    let empty = "workload: w\nborough: b\nkind: batch\ntasks: []\nresources: { cpu: 1, memory: 1GiB }\n";
    assert_eq!(wrong(empty), ["tasks: expected 1 to 16 tasks, found 0"]);
    assert_eq!(
        wrong("- 1"),
        [format!("expected {}, found a list of 1", super::super::shape::WORKLOAD.expected())]
    );
    assert_eq!(wrong(""), ["expected a workload, found an empty text"]);
    assert_eq!(paths(&WEB.replace("{ image: a:1 }", "")), ["container"]);
    assert_eq!(paths(&WEB.replace("container:", "vm:").replace("image: a:1", "image: /a")), ["vm.image"]);
}

#[test]
fn documents_are_told_apart() {
    let other = WEB.replace("workload: web", "workload: api");
    assert_eq!(parse(&format!("{WEB}---{other}")).unwrap().len(), 2);
    let bad = other.replace("250m", "0");
    assert_eq!(paths(&format!("{WEB}---{bad}---\n- 1\n")), ["document 2: resources.cpu", "document 3"]);
    let twice = wrong(&format!("{WEB}---{WEB}"));
    let said =
        "document 2: workload: expected each workload once, found camden/web, which document 1 describes";
    assert_eq!(twice, [said]);
}

#[test]
fn what_is_no_yaml_is_told_by_line_and_column() {
    for (text, place) in [
        ("workload: web\nborough: [ a\n", "line 2, column 10"),
        ("workload: web\nworkload: api\n", "line 2, column 1"),
        ("a: b: c\n", "line 1, column 5"),
    ] {
        let problems = parse(text).unwrap_err().0;
        assert_eq!(
            problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
            [place],
            "{problems:?}"
        );
    }
}

#[test]
fn words_that_only_look_like_other_things_stay_texts() {
    let text = WEB.replace("image: a:1", "image: a:1, env: { A: no, B: 007, C: 1_0, D: 12:30:00 }");
    let spec = parse(&text).unwrap().remove(0);
    let Driver::Container(container) = &spec.tasks[0].driver else { panic!("a container") };
    let values: Vec<&str> = container.env.values().map(String::as_str).collect();
    assert_eq!(values, ["no", "007", "1_0", "12:30:00"]);
    assert_eq!(paths(&format!("{WEB}exclusive: yes\n")), ["exclusive"]);
    assert_eq!(paths(&WEB.replace("250m", ".nan")).len(), 1);
}

#[test]
fn no_text_makes_the_reader_hold_too_much() {
    assert_eq!(wrong(&" ".repeat(MAX_INPUT + 1)), ["expected at most 1048576 bytes, found 1048577 bytes"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{items}]\n");
    }
    let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(MAX_ANCHORED + 1), "*a, ".repeat(1_000));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let many = "---\na: 1\n".repeat(MAX_DOCUMENTS + 1);
    for text in [bomb, wide, deep, many] {
        assert_eq!(parse(&text).unwrap_err().0.len(), 1);
    }
    let unknown: String = (0..10_000).map(|i| format!("field{i}: 1\n")).collect();
    assert_eq!(parse(&unknown).unwrap_err().0.len(), 201);
}

#[test]
fn small_use_of_anchors_is_fine() {
    let text = "
workload: web
borough: camden
kind: service
container: { image: a:1, env: &env { A: x } }
resources: { cpu: 250m, memory: 64MiB }
---
workload: api
borough: camden
kind: service
container: { image: a:1, env: { <<: { B: y }, A: x } }
resources: &r { cpu: 250m, memory: 64MiB }
";
    assert_eq!(parse(text).unwrap().len(), 2);
}

#[test]
fn what_is_not_supported_yet_is_refused() {
    let text = r#"
workload: web
borough: camden
kind: cron
schedule: "0 3 * * *"
tasks:
  - { name: a, container: { image: a:1, ports: { http: 80 } } }
  - { name: b, container: { image: b:1 } }
resources: { cpu: 1, memory: 64MiB }
health: { http: { port: http, path: /healthz }, every: 10s, timeout: 2s, unhealthy_after: 3 }
update: { max_unavailable: 1, canary: 1, healthy_for: 10s, deadline: 10m, auto_revert: true }
"#;
    let expected = [
        "health",
        "schedule",
        "update.canary",
        "update.healthy_for",
        "update.deadline",
        "update.auto_revert",
        "tasks[1]",
        "kind",
    ];
    assert_eq!(paths(text), expected);
}

#[test]
fn the_examples_are_what_they_claim() {
    let web = parse(include_str!("../../../../docs/examples/web.yaml")).unwrap().remove(0);
    assert_eq!((web.key().to_string().as_str(), web.count), ("camden/planning-portal", 3));
    let records = parse(include_str!("../../../../docs/examples/records.yaml")).unwrap().remove(0);
    assert!(records.is_exclusive() && records.resources.memory.0 == 256 << 20);
    let big = parse(include_str!("../../../../docs/examples/too-big.yaml")).unwrap().remove(0);
    assert_eq!(big.resources.cpu.0, 512_000);
    assert_eq!(
        wrong(include_str!("../../../../docs/examples/five-mistakes.yaml")),
        [
            r#"kind: expected service, batch, daemon or cron, found "servce" (did you mean service?)"#,
            "container.ports.http: expected a whole number from 1 to 65535, found 80800",
            "resources.memmory: expected one of cpu, memory, disk, pids, devices, network, dedicated, numa, found an unknown field (did you mean memory?)",
            r#"resources.cpu: expected cores as "2", "0.5" or "250m", found "lots""#,
            "container.mounts[0].path: expected an absolute path without \".\", \"..\", \"//\" or \"/\" at its end, \
             found \"data\"",
        ]
    );
}

/// A spec within what its file form can say: numbers that a reader accepts. All else is as sampled.
fn sayable(mut spec: WorkloadSpec) -> WorkloadSpec {
    spec.count %= super::super::MAX_COUNT + 1;
    spec.priority %= super::super::MAX_PRIORITY + 1;
    spec.update.max_unavailable = spec.update.max_unavailable % super::super::MAX_COUNT + 1;
    spec.update.canary %= super::super::MAX_COUNT + 1;
    for wish in &mut spec.place.prefer {
        wish.weight %= 101;
    }
    if let Some(health) = &mut spec.health {
        health.unhealthy_after = health.unhealthy_after.max(1);
    }
    for task in &mut spec.tasks {
        if let Driver::Container(container) = &mut task.driver {
            for port in &mut container.ports {
                port.port = port.port.max(1);
                port.host = port.host.map(|host| host.max(1));
            }
        }
    }
    spec
}

proptest! {
    #[test]
    fn a_spec_survives_being_written(spec in samples::workload_spec().prop_map(sayable)) {
        prop_assert_eq!(read_unchecked(&spec.to_value()), Ok(spec));
    }

    #[test]
    fn a_spec_survives_the_text_of_yaml_and_json(spec in samples::workload_spec().prop_map(sayable)) {
        let value = spec.to_value();
        let yaml = serde_saphyr::to_string(&value).unwrap();
        prop_assert_eq!(values(&yaml), Ok(vec![value.clone()]), "{}", yaml);
        prop_assert_eq!(values(&value.to_string()), Ok(vec![value]));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a-z: {}\\[\\]&*\"'|>\n0-9]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_message_makes_the_check_panic(spec in samples::workload_spec()) {
        let message = v1::WorkloadSpec::from(&spec);
        let checked = WorkloadSpec::from_wire(message).unwrap().check();
        prop_assert_eq!(checked, spec.check());
    }
}

#[test]
fn long_names_are_cut_in_paths() {
    let long = "x".repeat(1_000);
    let text = WEB.replace("image: a:1", &format!("image: a:1, {long}: 1, env: {{ {long}: x }}"));
    let paths = paths(&text);
    assert!(paths.len() == 2 && paths.iter().all(|path| path.len() < 110), "{paths:?}");
}
