//! Configurations, good and bad.

use super::*;

fn check(text: &str, over: &Overrides) -> Result<Config, Vec<String>> {
    let table = text.parse().expect("toml");
    Config::check(table, over).map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

#[test]
fn a_full_file_is_read() {
    let text = r#"
        name = "h1"
        servers = ["10.0.0.1:7400", "10.0.0.2:7400"]
        data_dir = "/data"
        site = "slough"
        rack = "r1"
        address = "10.0.0.9"
        ports = "30000-30099"
        shared_cpus = "0-1,4"
        [labels]
        tier = "test"
        [taints]
        gpu = ""
        team = "parks"
        [offer]
        cpu = "1500m"
        memory = "2GiB"
        disk = "10GiB"
        network = "2.5Gbps"
        [reserved]
        memory = "256MiB"
        network = "100Mbps"
        [[devices]]
        name = "gpu0"
        kind = "gpu"
        model = "T4"
        labels = { memory = "16" }
        shared = true
        nodes = ["/dev/nvidia0"]
        env = { VISIBLE = "0" }
        [[devices]]
        name = "gpu1"
        kind = "gpu"
        model = "T4"
        env = { VISIBLE = "1" }
        [docker]
        enabled = false
        socket = "/run/docker.sock"
        networks = "10.99.0.0/20"
        firewall = false
        [libvirt]
        enabled = true
        uri = "test:///default"
        acceleration = "tcg"
        image_dirs = ["/images"]
        network = "default"
        [log]
        format = "json"
        level = "debug"
    "#;
    let config = check(text, &Overrides::default()).expect("good");
    assert_eq!(config.name, HostName::new("h1").ok());
    assert_eq!(config.servers.len(), 2);
    assert_eq!(config.offer.cpu, Some(MilliCpu(1500)));
    assert_eq!((config.offer.network, config.network_reserved), (Some(Mbits(2_500)), Mbits(100)));
    assert_eq!(config.reserved.map(|reserved| reserved.memory), Some(Bytes(256 << 20)));
    assert_eq!(config.ports, PortRange { first: 30_000, last: 30_099 });
    assert_eq!(config.docker.enabled, Some(false));
    assert_eq!(config.docker.networks.to_string(), "10.99.0.0/20");
    assert!(!config.docker.firewall);
    assert_eq!(config.libvirt.acceleration, Acceleration::Tcg);
    assert_eq!(config.libvirt.network.as_deref(), Some("default"));
    assert_eq!(config.labels["tier"], "test");
    assert_eq!((config.taints["gpu"].as_str(), config.taints["team"].as_str()), ("", "parks"));
    assert!(config.log.json);
    let devices: Vec<_> = config.devices.iter().map(|(name, of)| (name.as_str(), of.shared)).collect();
    assert_eq!(devices, [("gpu0", true), ("gpu1", false)]);
    let first = &config.devices["gpu0"];
    assert_eq!((first.labels["memory"].as_str(), first.env["VISIBLE"].as_str()), ("16", "0"));
    assert_eq!(first.nodes, [PathBuf::from("/dev/nvidia0")]);
}

#[test]
fn all_problems_of_devices_come_at_once() {
    let text = r#"
        servers = ["10.0.0.1:7400"]
        site = "slough"
        [[devices]]
        name = "gpu0"
        kind = "gpu"
        model = " T4"
        nodes = ["/dev/../etc/shadow", "/etc/shadow", "/dev/ok", "/dev/a:/dev/b"]
        env = { "1-A" = "x" }
        [[devices]]
        name = "gpu0"
        kind = "gpu"
        model = "T4"
        nodes = ["/dev/ok"]
        [[devices]]
        knid = "gpu"
    "#;
    let problems = check(text, &Overrides::default()).expect_err("bad");
    let paths: Vec<_> = problems.iter().filter_map(|line| line.split(':').next()).collect();
    let expected = [
        "devices[0].env",
        "devices[0].model",
        "devices[0].nodes[0]",
        "devices[0].nodes[1]",
        "devices[0].nodes[3]",
        "devices[1].name",
        "devices[2].kind",
        "devices[2].knid",
        "devices[2].model",
        "devices[2].name",
        "devices[2].nodes",
    ];
    assert_eq!(paths, expected, "{problems:#?}");
    let problems =
        check("servers = [\"a:1\"]\nsite = \"a\"\ndevices = 1", &Overrides::default()).expect_err("bad");
    assert_eq!(problems, ["devices: expected a list of tables, found the number 1"]);
}

#[test]
fn flags_go_over_the_file() {
    let over = Overrides {
        servers: vec!["127.0.0.1:1".to_owned()],
        site: Some("hounslow".to_owned()),
        data_dir: Some("/other".to_owned()),
        ..Overrides::default()
    };
    let config = check("servers = [\"10.0.0.1:7400\"]\nsite = \"slough\"", &over).expect("good");
    assert_eq!(config.servers, ["127.0.0.1:1"]);
    assert_eq!((config.site.as_str(), config.data_dir.as_path()), ("hounslow", Path::new("/other")));
}

#[test]
fn all_problems_come_at_once_with_their_paths() {
    let text = r#"
        name = "Host_1"
        sever = ["10.0.0.1:7400"]
        data_dir = "here"
        ports = "9-1"
        [offer]
        cpu = "lots"
        memory = 5
        network = "fast"
        [docker]
        networks = "10.99.0.0"
        [libvirt]
        acceleration = "magic"
        [log]
        format = "xml"
        level = "a=b=c"
        [labels]
        Tier = "test"
        [taints]
        Gpu = ""
        team = "a b"
    "#;
    let problems = check(text, &Overrides::default()).expect_err("bad");
    let paths: Vec<_> = problems.iter().filter_map(|line| line.split(':').next()).collect();
    let expected = [
        "data_dir",
        "docker.networks",
        "labels",
        "libvirt.acceleration",
        "log.format",
        "log.level",
        "name",
        "offer.cpu",
        "offer.memory",
        "offer.network",
        "ports",
        "servers",
        "sever",
        "site",
        "taints",
        "taints.team",
    ];
    assert_eq!(paths, expected, "{problems:#?}");
    assert!(problems.iter().any(|line| line.ends_with("(did you mean servers?)")), "{problems:#?}");
}

#[test]
fn development_mode_needs_little_and_stays_on_this_machine() {
    let dev = Overrides { dev: true, servers: vec!["127.0.0.1:7400".to_owned()], ..Overrides::default() };
    let config = check("", &dev).expect("good");
    assert_eq!((config.site.as_str(), config.address.as_deref()), ("dev", Some("127.0.0.1")));
    let away = Overrides { servers: vec!["10.0.0.1:7400".to_owned()], ..dev };
    let problems = check("", &away).expect_err("bad");
    assert!(problems[0].starts_with("servers[0]: expected an address of this machine"), "{problems:?}");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let path = Path::new("/nonexistent/agent.toml");
    assert!(matches!(Config::load(Some(path), &Overrides::default()), Err(ConfigError::Unreadable { .. })));
}

/// The published file as it is, and with every setting that it shows as a comment.
#[test]
fn the_published_file_is_good() {
    let published = include_str!("../../../packaging/agent.toml");
    let plain = check(published, &Overrides::default()).expect("good");
    let is_setting = |line: &&str| {
        line.strip_prefix("# ").is_some_and(|rest| rest.contains(" = ") || rest.starts_with('['))
    };
    let uncommented: Vec<&str> = published
        .lines()
        .map(|line| if is_setting(&line) { line.trim_start_matches("# ") } else { line })
        .collect();
    let full = check(&uncommented.join("\n"), &Overrides::default()).expect("good");
    // Left out, a runtime is offered where its socket is there; so no value that the file could show is its default.
    let docker = Docker { enabled: None, ..full.docker };
    assert_eq!((plain.data_dir, plain.ports, plain.docker), (full.data_dir, full.ports, docker));
    assert_eq!(plain.libvirt.image_dirs, full.libvirt.image_dirs);
    assert!(full.reserved.is_some() && full.offer.cpu.is_some() && full.labels.contains_key("tier"));
}

#[test]
fn processors_that_stay_shared_are_a_list() {
    let over = Overrides { dev: true, servers: vec!["127.0.0.1:7400".to_owned()], ..Overrides::default() };
    assert_eq!(check("shared_cpus = \"4,0-1\"", &over).map(|config| config.shared_cpus), Ok(vec![0, 1, 4]));
    assert_eq!(check("", &over).map(|config| config.shared_cpus), Ok(Vec::new()));
    let problems = check("shared_cpus = \"0-\"", &over).unwrap_err();
    assert_eq!(problems, ["shared_cpus: expected processors as \"0-3,8\", found \"0-\""]);
}
