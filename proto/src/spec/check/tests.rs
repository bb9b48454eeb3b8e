//! Cases of the rules: what a spec may not be, and what it is told.

use crate::spec::{Driver, WorkloadSpec, parse};

const CONTAINER: &str = "
workload: w
borough: b
kind: service
container: { image: a:1, CONTAINER }
resources: { cpu: 1, memory: 64MiB, RESOURCES }
TOP
";
const VM: &str = "
workload: w
borough: b
kind: service
vm: { VM }
resources: { cpu: 1, memory: 64MiB, disk: 1GiB }
";

/// Checks that a text with this in the place of a word has one problem, at this path.
fn refused(template: &str, cases: &[(&str, &str, &str)]) {
    for (word, text, path) in cases {
        let mut filled = template.replace(word, text);
        for rest in ["CONTAINER", "RESOURCES", "TOP"] {
            filled = filled.replace(&format!(", {rest}"), "").replace(rest, "");
        }
        let problems = parse(&filled).expect_err(text).0;
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, [*path], "{text}: {problems:?}");
    }
}

#[test]
fn containers_are_judged() {
    let long = format!("command: [ {} ]", vec!["x"; 300].join(", "));
    refused(
        CONTAINER,
        &[
            ("CONTAINER", &long, "container.command"),
            ("CONTAINER", "command: [ \"a\\0b\" ]", "container.command[0]"),
            ("CONTAINER", "env: { 1A: x }", "container.env.1A"),
            ("CONTAINER", "env: { 'A=B': x }", "container.env.A=B"),
            ("CONTAINER", "ports: { a: 80, b: 80 }", "container.ports.b"),
            (
                "CONTAINER",
                "ports: { a: { port: 1, host: 9 }, b: { port: 2, host: 9 } }",
                "container.ports.b.host",
            ),
            ("CONTAINER", "mounts: [ { volume: v, path: /a/../b } ]", "container.mounts[0].path"),
            ("CONTAINER", "mounts: [ { volume: v, path: / } ]", "container.mounts[0].path"),
            (
                "CONTAINER",
                "mounts: [ { volume: v, path: /a }, { volume: w, path: /a } ]",
                "container.mounts[1].path",
            ),
            ("CONTAINER", "user: 'a b'", "container.user"),
            ("a:1", "'a b'", "container.image"),
        ],
    );
    // The same number for another protocol is another port.
    let text = CONTAINER.replace("CONTAINER", "ports: { a: 80, b: { port: 80, protocol: udp } }");
    assert!(parse(&text.replace(", RESOURCES", "").replace("TOP", "")).is_ok());
}

#[test]
fn amounts_are_judged() {
    refused(
        CONTAINER,
        &[
            ("cpu: 1", "cpu: 0", "resources.cpu"),
            ("cpu: 1", "cpu: 5000", "resources.cpu"),
            ("64MiB", "5MiB", "resources.memory"),
            ("64MiB", "65TiB", "resources.memory"),
            ("RESOURCES", "disk: 1025TiB", "resources.disk"),
            ("RESOURCES", "network: 100", "resources.network"),
            ("RESOURCES", "network: 100MB", "resources.network"),
            ("RESOURCES", "network: 10001Gbps", "resources.network"),
            ("RESOURCES", "numa: one", "resources.numa"),
            ("RESOURCES", "numa: two", "resources.numa"),
            ("RESOURCES", "pids: 4194305", "resources.pids"),
        ],
    );
}

#[test]
fn cores_of_ones_own_are_judged() {
    let ask = |words: &str| {
        let plain = CONTAINER.replace("TOP", "").replace(", CONTAINER", "");
        parse(&plain.replace("cpu: 1, ", "").replace("RESOURCES", words)).map(drop)
    };
    for sound in ["dedicated: true", "dedicated: true, numa: one", "dedicated: false, numa: any"] {
        assert_eq!(ask(&format!("cpu: 2, {sound}")), Ok(()));
    }
    let refused = |words: &str| ask(words).unwrap_err().to_string();
    let part = refused("cpu: 1500m, dedicated: true");
    assert!(
        part.contains("resources.cpu: expected whole cores, since dedicated is set, found 1500m"),
        "{part}"
    );
    let gang = ask("cpu: 1000, dedicated: true }\nplace: { all_or_none: true }\ncount: 101\n# {")
        .unwrap_err()
        .to_string();
    assert!(gang.contains("count: expected 0 to 100, 100000 cores of their own in all"), "{gang}");
    let unowned = refused("cpu: 1, numa: one");
    let expected = "resources.numa: expected any, or dedicated set beside it";
    assert!(unowned.contains(expected), "{unowned}");
}

#[test]
fn devices_are_judged() {
    let many = format!(
        "devices: [ {} ]",
        (0..9).map(|i| format!("{{ kind: k{i} }}")).collect::<Vec<_>>().join(", ")
    );
    refused(
        CONTAINER,
        &[
            ("RESOURCES", "devices: [ { kind: gpu }, { kind: gpu } ]", "resources.devices[1].kind"),
            ("RESOURCES", "devices: [ { kind: GPU } ]", "resources.devices[0].kind"),
            ("RESOURCES", "devices: [ { kind: gpu, count: 0 } ]", "resources.devices[0].count"),
            ("RESOURCES", "devices: [ { kind: gpu, count: 65 } ]", "resources.devices[0].count"),
            ("RESOURCES", "devices: [ { kind: gpu, share: 0 } ]", "resources.devices[0].share"),
            ("RESOURCES", "devices: [ { kind: gpu, share: 1.5 } ]", "resources.devices[0].share"),
            ("RESOURCES", "devices: [ { kind: gpu, models: [ ' T4' ] } ]", "resources.devices[0].models[0]"),
            (
                "RESOURCES",
                "devices: [ { kind: gpu, require: [ arch == amd64 ] } ]",
                "resources.devices[0].require[0]",
            ),
            ("RESOURCES", &many, "resources.devices"),
        ],
    );
    let of_vm = |devices: &str| {
        let text = VM.replace("VM", "boot: { kernel: /k }");
        parse(&text.replace("disk: 1GiB", &format!("devices: [ {devices} ]")))
    };
    assert!(of_vm("{ kind: gpu, count: 2 }").unwrap()[0].resources.devices[0].to_vm);
    let problems = of_vm("{ kind: gpu, share: 0.5 }").unwrap_err().0;
    assert_eq!(problems[0].path, "resources.devices[0].share");
    assert_eq!(problems[0].expected, "1: a VM has its devices whole");
}

#[test]
fn the_whole_is_judged() {
    let many_shares = format!(
        "place: {{ spread: [ {{ over: rack, shares: {{ {} }} }} ] }}",
        (0..17).map(|i| format!("r{i}: 1")).collect::<Vec<_>>().join(", ")
    );
    refused(
        CONTAINER,
        &[
            ("TOP", "place: { sites: [ a, b, a ] }", "place.sites[2]"),
            ("TOP", "place: { tolerate: [ gpu, 'a b' ] }", "place.tolerate[1]"),
            ("TOP", "place: { spread: [ rack, site ] }", "place.spread[1]"),
            ("TOP", "place: { spread: [ room ] }", "place.spread[0]"),
            ("TOP", "place: { spread: [ \"label.a b\" ] }", "place.spread[0]"),
            ("TOP", "place: { spread: [ host, label.a ] }", "place.spread[1]"),
            ("TOP", "place: { spread: [ label.a, site, label.a ] }", "place.spread[2]"),
            ("TOP", "place: { spread: [ site, rack, label.a, label.b ] }", "place.spread"),
            ("TOP", "place: { spread: [ { over: site, shares: { a: 0 } } ] }", "place.spread[0].shares.a"),
            ("TOP", "place: { spread: [ { over: site, shares: { a: 101 } } ] }", "place.spread[0].shares.a"),
            (
                "TOP",
                "place: { spread: [ { over: site, shares: { \"a b\": 1 } } ] }",
                "place.spread[0].shares.a b",
            ),
            ("TOP", "place: { spread: [ { over: host, shares: { a: 1 } } ] }", "place.spread[0].shares"),
            ("TOP", "place: { spread: [ { over: room } ] }", "place.spread[0].over"),
            ("TOP", "place: { spread: [ { shares: { a: 1 } } ] }", "place.spread[0].over"),
            ("TOP", &many_shares, "place.spread[0].shares"),
            ("TOP", "place: { apart: [ a, B ] }", "place.apart[1]"),
            ("TOP", "place: { apart: [ a, a ] }", "place.apart[1]"),
            ("TOP", "place: { apart: [ a ], together: [ b, a ] }", "place.together[1]"),
            ("TOP", "place: { together: [ w ] }", "place.together[0]"),
            ("TOP", "restart: { delay: 2m }", "restart.delay"),
            ("TOP", "restart: { attempts: 1001 }", "restart.attempts"),
            ("TOP", "restart: { within: 0s }", "restart.within"),
            ("TOP", "stop_grace: 11m", "stop_grace"),
            ("TOP", "stop_grace: 0s", "stop_grace"),
            ("TOP", "kind: service", "line 7, column 1"),
            ("kind: service", "kind: daemon", "kind"),
        ],
    );
    let many = format!("command: [ {} ]", vec![format!("\"{}\"", "x".repeat(32 << 10)); 9].join(", "));
    refused(CONTAINER, &[("CONTAINER", &many, "")]);
}

#[test]
fn machines_are_judged() {
    let large = format!("boot: {{ kernel: /k }}, cloud_init: {{ user_data: \"{}\" }}", "x".repeat(65_537));
    let sha = "0".repeat(63);
    refused(
        VM,
        &[
            ("VM", "disks: []", "vm"),
            ("VM", "boot: { kernel: k }", "vm.boot.kernel"),
            ("VM", "boot: { kernel: /k, initrd: /i/ }", "vm.boot.initrd"),
            ("VM", "boot: { kernel: /k, cmdline: \"a\\nb\" }", "vm.boot.cmdline"),
            ("VM", "image: { path: /a/./b }", "vm.image.path"),
            ("VM", &format!("image: {{ path: /a, sha256: \"{sha}\" }}"), "vm.image.sha256"),
            ("VM", &large, "vm.cloud_init.user_data"),
            ("VM", "boot: { kernel: /k }, disks: [ { name: a, size: 512KiB } ]", "vm.disks[0].size"),
            ("VM", "boot: { kernel: /k }, disks: [ { name: a, size: 2000001B } ]", "vm.disks[0].size"),
            (
                "VM",
                "boot: { kernel: /k }, disks: [ { name: a, size: 1MiB }, { name: a, size: 1MiB } ]",
                "vm.disks[1].name",
            ),
            (
                "VM",
                "boot: { kernel: /k }, disks: [ { name: a, size: 600MiB }, { name: b, size: 600MiB } ]",
                "resources.disk",
            ),
        ],
    );
    refused(
        &VM.replace("VM", "boot: { kernel: /k }"),
        &[("64MiB", "31MiB", "resources.memory"), ("64MiB", "64MiB, pids: 5", "resources.pids")],
    );
}

#[test]
fn addresses_of_images_are_judged_and_not_supported_yet() {
    let paths = |vm: &str| -> Vec<String> {
        let problems = parse(&VM.replace("VM", vm)).unwrap_err().0;
        problems.into_iter().map(|problem| problem.path).collect()
    };
    assert_eq!(paths("image: { url: 'https://a.example/b' }"), ["vm.image.sha256", "vm.image.url"]);
    let sha = "0".repeat(64);
    assert_eq!(paths(&format!("image: {{ url: 'http://a', sha256: '{sha}' }}")), ["vm.image.url"]);
}

#[test]
fn a_machine_stands_alone() {
    let web = CONTAINER.replace(", CONTAINER", "").replace(", RESOURCES", "").replace("TOP", "");
    let mut spec: WorkloadSpec = parse(&web).unwrap().remove(0);
    let machine = parse(&VM.replace("VM", "boot: { kernel: /k }")).unwrap().remove(0).tasks.remove(0);
    assert!(matches!(machine.driver, Driver::Vm(_)));
    spec.tasks.insert(0, machine);
    let paths: Vec<String> = spec.check().into_iter().map(|problem| problem.path).collect();
    // The second task is refused as a whole, and with it what its name would be blamed for.
    assert_eq!(paths, ["tasks[0].vm", "tasks[1]"]);
}

#[test]
fn paths_follow_the_form_that_was_written() {
    let text = "
workload: w
borough: b
kind: service
tasks: [ { name: main, container: { image: '' } } ]
resources: { cpu: 1, memory: 64MiB }
";
    assert_eq!(parse(text).unwrap_err().0[0].path, "tasks[0].container.image");
    let mut spec = parse(&text.replace("''", "a")).unwrap().remove(0);
    let Driver::Container(container) = &mut spec.tasks[0].driver else { panic!("a container") };
    container.image.clear();
    assert_eq!(spec.check()[0].path, "container.image");
}
