//! What a virtual machine may not be.

use std::collections::BTreeSet;

use super::{Checker, MAX_DISK, MAX_TEXT, image::is_hex};
use crate::{
    amount::Bytes,
    problem::quoted,
    spec::{CloudInit, ImageSource, Vm, VmBoot, VmImage},
};

/// Longest document of first-boot settings, in bytes; clouds commonly allow 16 to 64 KiB.
const MAX_CLOUD_INIT: usize = 64 << 10;
/// Longest kernel command line: x86 reads no more.
const MAX_CMDLINE: usize = 2_047;
/// Most further disks: letters of a PCI machine's free slots.
const MAX_DISKS: usize = 16;
/// Least size of a disk.
const MIN_DISK: Bytes = Bytes(1 << 20);
/// Disks are made of whole sectors.
const SECTOR: u64 = 512;

impl Checker {
    pub(super) fn vm(&mut self, vm: &Vm) {
        let bootable = vm.image.is_some() || vm.boot.is_some();
        self.expect(bootable, "", "an image or a kernel to boot, or both", "neither");
        if let Some(image) = &vm.image {
            self.within("image", |checker| checker.vm_image(image));
        }
        if let Some(boot) = &vm.boot {
            self.within("boot", |checker| checker.vm_boot(boot));
        }
        if let Some(settings) = &vm.cloud_init {
            self.within("cloud_init", |checker| checker.cloud_init(settings));
        }
        self.at_most("disks", "disks", vm.disks.len(), MAX_DISKS);
        let mut names = BTreeSet::new();
        for (i, disk) in vm.disks.iter().enumerate() {
            let again = format!("{} again", quoted(disk.name.as_str()));
            let fresh = names.insert(&disk.name);
            self.expect(fresh, &format!("disks[{i}].name"), "a name that no other disk has", again);
            let field = format!("disks[{i}].size");
            self.size(&field, disk.size, MIN_DISK, MAX_DISK);
            let whole = disk.size.0.is_multiple_of(SECTOR);
            self.expect(whole, &field, "a whole number of sectors of 512 bytes", disk.size.exact());
        }
    }

    fn vm_image(&mut self, image: &VmImage) {
        match &image.source {
            ImageSource::Path(path) => self.absolute_path("path", path),
            ImageSource::Url(url) => {
                let rest = url.strip_prefix("https://");
                let sound = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
                    && url.len() <= MAX_TEXT
                    && url.bytes().all(|b| b.is_ascii_graphic());
                self.expect(sound, "url", "an address that starts with https://", quoted(url));
                let named = image.sha256.is_some();
                self.expect(named, "sha256", "the SHA-256 of what is to be fetched", "nothing");
            }
        }
        if let Some(digits) = &image.sha256 {
            let sound = digits.len() == 64 && is_hex(digits);
            self.expect(sound, "sha256", "64 hex digits", quoted(digits));
        }
    }

    fn vm_boot(&mut self, boot: &VmBoot) {
        self.absolute_path("kernel", &boot.kernel);
        if let Some(initrd) = &boot.initrd {
            self.absolute_path("initrd", initrd);
        }
        self.at_most("cmdline", "bytes", boot.cmdline.len(), MAX_CMDLINE);
        let plain = !boot.cmdline.chars().any(char::is_control);
        self.expect(plain, "cmdline", "a text without control characters", quoted(&boot.cmdline));
    }

    fn cloud_init(&mut self, settings: &CloudInit) {
        let documents = [
            ("user_data", Some(&settings.user_data)),
            ("meta_data", settings.meta_data.as_ref()),
            ("network_config", settings.network_config.as_ref()),
        ];
        for (field, text) in documents {
            self.at_most(field, "bytes", text.map_or(0, String::len), MAX_CLOUD_INIT);
        }
    }
}
