//! The main job: a container and a VM run, the page is served and the console greets.

use supercloud_tests::{
    Outcome, World,
    agent::ADDRESS,
    cli::{number, text},
    hold, page,
    specs::{GREETING, PAGE, RECORDS, WEB},
    wait::{LATER, SOON, until},
    world::{SMALL, Shape},
    wrong,
};

use crate::estate::{Both, must_be_known};

#[test]
fn a_container_and_a_vm_run_and_the_page_and_the_greeting_are_there() -> Outcome {
    World::with(SMALL, |world| {
        let both = Both::start(world)?;
        must_be_known(world, &both)?;
        assert!(both.container.running);
        assert_eq!(both.domain.state, "running");
        for (label, value) in [("borough", "camden"), ("workload", "planning-portal"), ("host", "h1")] {
            assert_eq!(both.container.label(label), value);
        }

        let instance = world.cluster.cli.running(WEB)?;
        let port = instance.pointer("/ports/0").cloned().unwrap_or_default();
        assert_eq!(
            (text(&port, "name"), text(&port, "address"), number(&port, "port")),
            ("http", ADDRESS, 8080)
        );
        until("the page is served", SOON, || {
            let page = page::fetch(ADDRESS, number(&port, "host_port"))?;
            hold(page.contains(PAGE), || page)
        })?;
        until("the console greets", LATER, || {
            let console = world.cluster.cli.ok(&["logs", RECORDS])?;
            if console.contains(GREETING) { Ok(()) } else { wrong(console) }
        })
    })
}

#[test]
fn the_published_examples_run_on_three_nodes_and_two_hosts_and_any_node_tells_of_them() -> Outcome {
    World::with(Shape { nodes: 3, hosts: 2 }, |world| {
        let cli = &world.cluster.cli;
        let web = supercloud_tests::specs::example_path("web.yaml");
        let applied = cli.run(&["apply", &web, "--wait", "--timeout", "90s"])?.with_code(0)?;
        assert!(applied.stdout.contains("camden/planning-portal created (revision 1)"), "{applied}");
        for node in &world.cluster.nodes {
            let one = cli.speaking_to(std::slice::from_ref(&node.place.api));
            assert_eq!(one.instances(WEB)?.len(), 3);
            // Any node reaches the host, wherever its agent's session is.
            let instance = one.running_any(WEB)?;
            assert_eq!(one.ok(&["exec", text(&instance, "id"), "echo", "here"])?, "here\n");
        }
        Ok(())
    })
}
