//! Reads what a task runs: a container or a VM.

use super::{document::stand_in, node::Node};
use crate::{
    amount::Bytes,
    spec::{
        CloudInit, Container, ImageFormat, ImageSource, Mount, Port, Protocol, Vm, VmBoot, VmDisk, VmImage,
        shape::{self, Form},
    },
};

pub(super) fn container(node: &Node<'_>) -> Option<Container> {
    let object = node.object(&shape::CONTAINER)?;
    Some(Container {
        image: object.or("image", String::new(), Node::text),
        command: object.or("command", Vec::new(), |list| list.each(String::new, Node::text)),
        env: object
            .maybe("env", |env| env.entries(&Form::TextMap))
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.text()?)))
            .collect(),
        ports: object
            .maybe("ports", |ports| ports.entries(&Form::Ports(&shape::PORT)))
            .unwrap_or_default()
            .iter()
            .zip(0..)
            .filter_map(|((name, node), at)| port(name, node, at))
            .collect(),
        mounts: object.or("mounts", Vec::new(), |list| list.each(unread_mount, mount)),
        user: object.maybe("user", Node::text),
    })
}

/// A port. The stand-in for a number that could not be read differs from port to port, so that no two seem to clash.
fn port(name: &str, node: &Node<'_>, at: u16) -> Option<Port> {
    let number = |node: &Node<'_>| node.whole(1, 65_535);
    let stand_in = u16::MAX.saturating_sub(at);
    let name = node.parse(name)?;
    if !node.is_mapping() {
        let port = number(node).unwrap_or(stand_in);
        return Some(Port { name, port, host: None, protocol: Protocol::Tcp });
    }
    let object = node.object(&shape::PORT)?;
    Some(Port {
        name,
        port: object.or("port", stand_in, number),
        host: object.maybe("host", number),
        protocol: object.or("protocol", Protocol::Tcp, |node| {
            node.word(shape::PROTOCOLS, &[Protocol::Tcp, Protocol::Udp])
        }),
    })
}

fn mount(node: &Node<'_>) -> Option<Mount> {
    let object = node.object(&shape::MOUNT)?;
    Some(Mount {
        volume: object.or("volume", stand_in(), Node::parsed),
        path: object.or("path", String::new(), Node::text),
        read_only: object.or("read_only", false, Node::flag),
    })
}

fn unread_mount() -> Mount {
    Mount { volume: stand_in(), path: String::new(), read_only: false }
}

pub(super) fn vm(node: &Node<'_>) -> Option<Vm> {
    let object = node.object(&shape::VM)?;
    // An image or a kernel that was written and could not be read is still not missing.
    Some(Vm {
        image: object.has("image").then(|| object.or("image", unread_image(), image)),
        boot: object.has("boot").then(|| object.or("boot", unread_boot(), boot)),
        cloud_init: object.maybe("cloud_init", cloud_init),
        disks: object.or("disks", Vec::new(), |list| list.each(unread_disk, disk)),
    })
}

fn unread_image() -> VmImage {
    VmImage { source: ImageSource::Path(String::new()), sha256: None, format: ImageFormat::Qcow2 }
}

fn unread_boot() -> VmBoot {
    VmBoot { kernel: String::new(), initrd: None, cmdline: String::new() }
}

fn image(node: &Node<'_>) -> Option<VmImage> {
    let object = node.object(&shape::IMAGE)?;
    let path = object.or("path", String::new(), Node::text);
    let source = if object.has("url") && !object.has("path") {
        ImageSource::Url(object.or("url", String::new(), Node::text))
    } else {
        ImageSource::Path(path)
    };
    Some(VmImage {
        source,
        sha256: object.maybe("sha256", Node::text).map(|digits| digits.to_ascii_lowercase()),
        format: object.or("format", ImageFormat::Qcow2, |node| {
            node.word(shape::FORMATS, &[ImageFormat::Qcow2, ImageFormat::Raw])
        }),
    })
}

fn boot(node: &Node<'_>) -> Option<VmBoot> {
    let object = node.object(&shape::BOOT)?;
    Some(VmBoot {
        kernel: object.or("kernel", String::new(), Node::text),
        initrd: object.maybe("initrd", Node::text),
        cmdline: object.or("cmdline", String::new(), Node::text),
    })
}

fn cloud_init(node: &Node<'_>) -> Option<CloudInit> {
    let object = node.object(&shape::CLOUD_INIT)?;
    Some(CloudInit {
        user_data: object.or("user_data", String::new(), Node::text),
        meta_data: object.maybe("meta_data", Node::text),
        network_config: object.maybe("network_config", Node::text),
    })
}

fn unread_disk() -> VmDisk {
    VmDisk { name: stand_in(), size: Bytes(0) }
}

fn disk(node: &Node<'_>) -> Option<VmDisk> {
    let object = node.object(&shape::DISK)?;
    Some(VmDisk {
        name: object.or("name", stand_in(), Node::parsed),
        size: object.or("size", Bytes(0), Node::size),
    })
}
