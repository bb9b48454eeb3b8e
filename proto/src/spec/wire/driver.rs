//! Conversions of containers and VMs between the spec and the API's messages.

use crate::{
    amount::Bytes,
    problem::{Faults, Problem, Problems},
    spec::{
        CloudInit, Container, ImageFormat, ImageSource, Mount, Port, Protocol, Vm, VmBoot, VmDisk, VmImage,
    },
    v1,
    wire::{port, wire_enum},
};

wire_enum!(Protocol as PortProtocol, "tcp or udp", { Tcp, Udp }, 0 => Tcp);
wire_enum!(ImageFormat as VmImageFormat, "qcow2 or raw", { Qcow2, Raw }, 0 => Qcow2);

/// `None` for the empty text, by which the API says that nothing was given.
fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<Container> for v1::ContainerSpec {
    fn from(container: Container) -> Self {
        let mount = |mount: Mount| v1::MountSpec {
            volume: mount.volume.into(),
            path: mount.path,
            read_only: mount.read_only,
        };
        Self {
            image: container.image,
            command: container.command,
            env: container.env,
            ports: container.ports.into_iter().map(Into::into).collect(),
            mounts: container.mounts.into_iter().map(mount).collect(),
            user: container.user.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::ContainerSpec> for Container {
    type Error = Problems;

    fn try_from(message: v1::ContainerSpec) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let mut ports = faults.each("ports", message.ports, Port::try_from);
        // Ports are told by their names, so their order means nothing: one order keeps equal specs equal.
        ports.iter_mut().for_each(|ports| ports.sort_by(|a, b| a.name.cmp(&b.name)));
        let mounts = faults.each("mounts", message.mounts, |mount| {
            let volume = mount.volume.parse().map_err(|invalid| Problem::from(invalid).within("volume"))?;
            Ok::<_, Problem>(Mount { volume, path: mount.path, read_only: mount.read_only })
        });
        faults.finish(ports.zip(mounts).map(|(ports, mounts)| Self {
            image: message.image,
            command: message.command,
            env: message.env,
            ports,
            mounts,
            user: given(message.user),
        }))
    }
}

impl From<Port> for v1::PortSpec {
    fn from(port: Port) -> Self {
        Self {
            name: port.name.into(),
            port: port.port.into(),
            host: port.host.map(Into::into),
            protocol: port.protocol.into(),
        }
    }
}

impl TryFrom<v1::PortSpec> for Port {
    type Error = Problems;

    fn try_from(message: v1::PortSpec) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let name = faults.take("name", message.name.parse());
        let inside = faults.take("port", port(message.port));
        let host = faults.take("host", message.host.map(port).transpose());
        let protocol = faults.take("protocol", message.protocol.try_into());
        let whole = || Some(Self { name: name?, port: inside?, host: host?, protocol: protocol? });
        let whole = whole();
        faults.finish(whole)
    }
}

impl From<Vm> for v1::VmSpec {
    fn from(vm: Vm) -> Self {
        let boot = |boot: VmBoot| v1::VmBoot {
            kernel: boot.kernel,
            initrd: boot.initrd.unwrap_or_default(),
            cmdline: boot.cmdline,
        };
        let cloud_init = |settings: CloudInit| v1::CloudInit {
            user_data: settings.user_data,
            meta_data: settings.meta_data.unwrap_or_default(),
            network_config: settings.network_config.unwrap_or_default(),
        };
        let disk = |disk: VmDisk| v1::VmDisk { name: disk.name.into(), size_bytes: disk.size.0 };
        Self {
            image: vm.image.map(Into::into),
            boot: vm.boot.map(boot),
            cloud_init: vm.cloud_init.map(cloud_init),
            disks: vm.disks.into_iter().map(disk).collect(),
        }
    }
}

impl TryFrom<v1::VmSpec> for Vm {
    type Error = Problems;

    fn try_from(message: v1::VmSpec) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let image = faults.optional("image", message.image);
        let disks = faults.each("disks", message.disks, |disk| {
            let name = disk.name.parse().map_err(|invalid| Problem::from(invalid).within("name"))?;
            Ok::<_, Problem>(VmDisk { name, size: Bytes(disk.size_bytes) })
        });
        let boot = message.boot.map(|boot| VmBoot {
            kernel: boot.kernel,
            initrd: given(boot.initrd),
            cmdline: boot.cmdline,
        });
        let cloud_init = message.cloud_init.map(|settings| CloudInit {
            user_data: settings.user_data,
            meta_data: given(settings.meta_data),
            network_config: given(settings.network_config),
        });
        faults.finish(image.zip(disks).map(|(image, disks)| Self { image, boot, cloud_init, disks }))
    }
}

impl From<VmImage> for v1::VmImage {
    fn from(image: VmImage) -> Self {
        let source = match image.source {
            ImageSource::Path(path) => v1::vm_image::Source::Path(path),
            ImageSource::Url(url) => v1::vm_image::Source::Url(url),
        };
        Self { source: Some(source), sha256: image.sha256.unwrap_or_default(), format: image.format.into() }
    }
}

impl TryFrom<v1::VmImage> for VmImage {
    type Error = Problems;

    fn try_from(message: v1::VmImage) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let source = match message.source {
            Some(v1::vm_image::Source::Path(path)) => Some(ImageSource::Path(path)),
            Some(v1::vm_image::Source::Url(url)) => Some(ImageSource::Url(url)),
            None => {
                faults.push(Problem::new("", "a path or a url", "neither"));
                None
            }
        };
        let format = faults.take("format", message.format.try_into());
        let sha256 = given(message.sha256.to_ascii_lowercase());
        faults.finish(source.zip(format).map(|(source, format)| Self { source, sha256, format }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_what_the_api_says() {
        assert_eq!(Protocol::try_from(0), Ok(Protocol::Tcp));
        assert_eq!(ImageFormat::try_from(0), Ok(ImageFormat::Qcow2));
        assert!(Protocol::try_from(3).is_err() && ImageFormat::try_from(3).is_err());
    }

    #[test]
    fn ports_are_ordered_by_name() {
        let port = |name: &str| v1::PortSpec { name: name.to_owned(), port: 80, ..Default::default() };
        let message = v1::ContainerSpec { ports: vec![port("b"), port("a")], ..Default::default() };
        let container = Container::try_from(message).unwrap();
        let names: Vec<&str> = container.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn ports_beyond_their_range_are_refused() {
        let message = v1::PortSpec { name: "http".to_owned(), port: 65_536, host: Some(70_000), protocol: 7 };
        let problems = Port::try_from(message).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["port", "host", "protocol"]);
    }
}
