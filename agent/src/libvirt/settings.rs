//! What the operator may set of the libvirt driver, as it stands in the agent's settings file.

use std::path::PathBuf;

use serde::Deserialize;

use super::acceleration::Acceleration;
use crate::devices::Devices;

/// What the operator may set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LibvirtSettings {
    /// Where libvirt answers.
    pub uri: String,
    /// Whether guests use KVM.
    pub acceleration: Acceleration,
    /// The agent's folder; instances have theirs below `vms` in it. QEMU's user must be able to pass it (mode 0711).
    pub data_dir: PathBuf,
    /// Folders below which a VM's image, kernel and initrd must be.
    pub image_dirs: Vec<PathBuf>,
    /// The libvirt network that guests are on; none: they have no network.
    pub network: Option<String>,
    /// Devices of the host.
    #[serde(skip)]
    pub devices: Devices,
}

impl Default for LibvirtSettings {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".to_owned(),
            acceleration: Acceleration::Auto,
            data_dir: "/var/lib/supercloud/agent".into(),
            image_dirs: vec!["/var/lib/supercloud/images".into()],
            network: None,
            devices: Devices::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_defaults_and_unknown_ones_refused() {
        let settings: LibvirtSettings =
            toml::from_str("acceleration = \"tcg\"\nnetwork = \"default\"").unwrap();
        let expected = LibvirtSettings {
            acceleration: Acceleration::Tcg,
            network: Some("default".to_owned()),
            devices: Devices::new(),
            ..LibvirtSettings::default()
        };
        assert_eq!(settings, expected);
        assert!(toml::from_str::<LibvirtSettings>("acceleratoin = \"tcg\"").is_err());
    }
}
