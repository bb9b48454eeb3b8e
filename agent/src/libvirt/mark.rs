//! The mark in a domain's metadata: written when the domain is defined, read whenever it is listed. It knows the element's shape and
//! nothing of what is done with it.

use supercloud_proto::name::WorkloadKey;

use super::xml::Element;
use crate::driver::{Mark, Owner};

/// Namespace of our element in a domain's metadata. A change of shape gets a new one, so that an older agent does not misread it.
pub(super) const NAMESPACE: &str = "https://supercloud.dev/ns/1";

/// An element of ours that is not what we write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DamagedMark {
    /// It is no XML.
    #[error("it is no XML: {0}")]
    Xml(#[from] roxmltree::Error),
    /// It is another element.
    #[error("expected the element \"instance\" of {NAMESPACE}, found {found:?}")]
    Element {
        /// Its name.
        found: String,
    },
    /// An attribute is not there.
    #[error("the attribute {0:?} is missing")]
    Missing(&'static str),
    /// An attribute's text is no such value.
    #[error("{found:?} is no {attribute}")]
    Value {
        /// Which.
        attribute: &'static str,
        /// Its text.
        found: String,
    },
}

/// The element for a mark.
pub(super) fn write(mark: &Mark) -> Element {
    Element::new("sc:instance")
        .with("xmlns:sc", NAMESPACE)
        .with("cluster", &mark.owner.cluster)
        .with("host", &mark.owner.host)
        .with("borough", &mark.workload.borough)
        .with("workload", &mark.workload.workload)
        .with("instance", mark.instance)
        .with("revision", mark.revision)
        .with("task", &mark.task)
        .with("order-index", mark.order_index)
}

/// The mark that an element says, as written or as libvirt gives it back.
pub(super) fn read(text: &str) -> Result<Mark, DamagedMark> {
    let document = roxmltree::Document::parse(text)?;
    let element = document.root_element();
    // libvirt finds the element by its namespace and gives it back without.
    let (name, namespace) = (element.tag_name().name(), element.tag_name().namespace());
    if name != "instance" || namespace.is_some_and(|namespace| namespace != NAMESPACE) {
        return Err(DamagedMark::Element { found: name.to_owned() });
    }
    Ok(Mark {
        owner: Owner { cluster: value(element, "cluster")?, host: value(element, "host")? },
        instance: value(element, "instance")?,
        workload: WorkloadKey { borough: value(element, "borough")?, workload: value(element, "workload")? },
        revision: value(element, "revision")?,
        task: value(element, "task")?,
        order_index: value(element, "order-index")?,
    })
}

fn value<T: std::str::FromStr>(
    element: roxmltree::Node<'_, '_>,
    attribute: &'static str,
) -> Result<T, DamagedMark> {
    let text = element.attribute(attribute).ok_or(DamagedMark::Missing(attribute))?;
    text.parse().map_err(|_| DamagedMark::Value { attribute, found: text.to_owned() })
}

#[cfg(test)]
pub(super) mod tests {
    use supercloud_proto::{
        id::InstanceId,
        name::{BoroughName, HostName, TaskName, WorkloadName},
    };

    use super::*;

    pub(in super::super) fn mark(cluster: &str, index: u64) -> Mark {
        Mark {
            owner: Owner { cluster: cluster.to_owned(), host: HostName::new("host-1").unwrap() },
            instance: InstanceId { index, ordinal: 10 },
            workload: WorkloadKey {
                borough: BoroughName::new("camden").unwrap(),
                workload: WorkloadName::new("records").unwrap(),
            },
            revision: 3,
            task: TaskName::new("vm").unwrap(),
            order_index: u64::MAX,
        }
    }

    #[test]
    fn a_mark_comes_back() {
        let mark = mark("0123456789abcdef", 0x2f);
        let written = write(&mark).write().unwrap();
        assert_eq!(read(&written), Ok(mark.clone()));
        let as_libvirt_gives_it = written.replace("sc:instance", "instance");
        assert_eq!(read(&as_libvirt_gives_it), Ok(mark));
    }

    #[test]
    fn a_damaged_mark_says_what_is_wrong() {
        let good = write(&mark("0123456789abcdef", 0x2f)).write().unwrap();
        for (from, to, expected) in [
            ("i-2f-a", "i-2F-a", "\"i-2F-a\" is no instance"),
            ("revision=\"3\"", "", "the attribute \"revision\" is missing"),
            ("order-index=\"1", "order-index=\"99991", "is no order-index"),
            ("ns/1", "ns/2", "expected the element"),
            ("</sc:instance>", "", "it is no XML"),
        ] {
            let error = read(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
