//! On which processors a guest runs: read from its domain, and as libvirt wants it told. Pure.

use supercloud_proto::cores::parse_cpu_list;

/// The processors on which a running domain's own threads may run, by its XML: what was said of these, or else of the domain as a whole; `None`: any. When a
/// guest is moved these come last, so that they tell of all of it.
pub(super) fn of(xml: &str) -> Option<Vec<u16>> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let child = |of: roxmltree::Node<'_, '_>, name: &str| {
        of.children().find(|child| child.has_tag_name(name)).map(|child| child.id())
    };
    let root = document.root_element();
    let emulator = child(root, "cputune").and_then(|id| child(document.get_node(id)?, "emulatorpin"));
    let told = emulator.or_else(|| child(root, "vcpu")).and_then(|id| document.get_node(id));
    parse_cpu_list(told?.attribute("cpuset")?)
}

/// Processors as a map of bits, the first in the lowest bit of the first byte.
pub(super) fn map(cpus: &[u16]) -> Vec<u8> {
    let last = cpus.iter().max().copied().unwrap_or(0);
    let mut map = vec![0; usize::from(last) / 8 + 1];
    for cpu in cpus {
        map[usize::from(*cpu) / 8] |= 1 << (cpu % 8);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_of_the_threads_goes_over_what_was_said_of_the_whole() {
        let domain = |inner: &str| format!("<domain type='qemu' id='1'><name>x</name>{inner}</domain>");
        let whole = "<vcpu placement='static' cpuset='0-1'>2</vcpu>";
        assert_eq!(of(&domain(whole)), Some(vec![0, 1]));
        let pins = "<cputune><vcpupin vcpu='0' cpuset='1'/><emulatorpin cpuset='2'/></cputune>";
        assert_eq!(of(&domain(&format!("{whole}{pins}"))), Some(vec![2]));
        assert_eq!(of(&domain("<vcpu placement='static'>2</vcpu>")), None);
        assert_eq!(of("no xml"), None);
    }

    #[test]
    fn a_map_has_a_bit_for_each() {
        assert_eq!(map(&[0, 3]), [0b1001]);
        assert_eq!(map(&[1, 8, 17]), [0b10, 1, 0b10]);
    }
}
