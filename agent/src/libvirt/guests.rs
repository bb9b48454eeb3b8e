//! What is asked of libvirt about this agent's domains, one blocking function each; they run on a lane's threads. The mark in the
//! metadata decides whose a domain is: one without it, with another owner's or with a damaged one is neither listed nor touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use supercloud_proto::id::InstanceId;
use uuid::Uuid;
use virt::{
    connect::Connect,
    domain::Domain,
    error::{Error, ErrorNumber},
    sys,
};

use super::{
    connection::{explain, silent},
    domain::{self, vcpu_cpus},
    folder::Folder,
    mark, phase, pins, raw,
};
use crate::driver::{DriverError, Mark, Owner, Phase, Pin, Seen};

/// Damaged marks that are remembered as reported. Beyond that they are reported again.
const MAX_REPORTED: usize = 256;

/// This agent's domains.
pub(super) struct Guests {
    owner: Owner,
    vms: PathBuf,
    /// Domains whose damaged mark has been logged.
    reported: Mutex<BTreeSet<Uuid>>,
    /// Guests that stand still though they count as running, as of the last list.
    troubled: Mutex<BTreeMap<InstanceId, &'static str>>,
}

/// What a domain's metadata says of its owner.
enum Says {
    Mark(Mark),
    Damaged(mark::DamagedMark),
    Nothing,
}

impl Guests {
    pub(super) fn new(owner: Owner, vms: PathBuf) -> Self {
        Self { owner, vms, reported: Mutex::default(), troubled: Mutex::default() }
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn folder(&self, instance: InstanceId) -> Folder {
        Folder::of(&self.vms, instance)
    }

    /// Guests that stand still, as of the last list, in words.
    pub(super) fn troubles(&self) -> Vec<String> {
        lock(&self.troubled).iter().map(|(instance, trouble)| format!("{instance} is {trouble}")).collect()
    }

    /// All that bear the owner's mark.
    pub(super) fn list(&self, connection: &Connect) -> Result<Vec<Seen>, DriverError> {
        let what = "listing domains";
        let mut found = Vec::new();
        let mut troubled = BTreeMap::new();
        for domain in connection.list_all_domains(0).map_err(|error| explain(what, &error))? {
            match self.look(&domain) {
                Ok(None) => {}
                Ok(Some((seen, trouble))) => {
                    troubled.extend(trouble.map(|trouble| (seen.mark.instance, trouble)));
                    found.push(seen);
                }
                // It went away while we looked.
                Err(error) if error.code().is(ErrorNumber::NoDomain) => {}
                Err(error) => return Err(explain(what, &error)),
            }
        }
        found.sort_by_key(|seen| seen.mark.instance);
        *lock(&self.troubled) = troubled;
        Ok(found)
    }

    /// A domain as it is seen, if it is ours, and what troubles it.
    fn look(&self, domain: &Domain) -> Result<Option<(Seen, Option<&'static str>)>, Error> {
        let uuid = domain.uuid()?;
        let mark = match says(domain)? {
            Says::Nothing => return Ok(None),
            Says::Mark(mark) if mark.owner != self.owner => return Ok(None),
            // A copy that somebody made of our domain, metadata and all: it is theirs.
            Says::Mark(mark) if uuid != domain::uuid(&self.owner.cluster, mark.instance) => return Ok(None),
            Says::Mark(mark) => mark,
            Says::Damaged(damage) => {
                let mut reported = lock(&self.reported);
                if reported.len() >= MAX_REPORTED {
                    reported.clear();
                }
                if reported.insert(uuid) {
                    tracing::warn!(%uuid, %damage, "a domain's mark is damaged; the domain is left alone");
                }
                return Ok(None);
            }
        };
        let state = raw::state(domain)?;
        let phase = phase::phase(state, self.folder(mark.instance).history());
        let cpus = if matches!(phase, Phase::Running { .. }) { pins::of(&domain.xml_desc(0)?) } else { None };
        Ok(Some((Seen { mark, runtime_id: uuid.to_string(), phase, cpus }, phase::trouble(state))))
    }

    /// The domain of an instance. One that has its place and is not ours is refused, not touched.
    fn find(&self, connection: &Connect, instance: InstanceId) -> Result<Option<Domain>, DriverError> {
        let what = "looking for the domain";
        let uuid = domain::uuid(&self.owner.cluster, instance);
        let domain = match connection.lookup_domain_by_uuid(uuid) {
            Ok(domain) => domain,
            Err(error) if error.code().is(ErrorNumber::NoDomain) => return Ok(None),
            Err(error) => return Err(explain(what, &error)),
        };
        match says(&domain) {
            Ok(Says::Mark(mark)) if mark.owner == self.owner && mark.instance == instance => Ok(Some(domain)),
            Ok(_) => Err(DriverError::Refused(format!(
                "the domain {uuid} is there and does not bear this agent's mark"
            ))),
            Err(error) if error.code().is(ErrorNumber::NoDomain) => Ok(None),
            Err(error) => Err(explain(what, &error)),
        }
    }

    /// Whether an instance's domain runs; `Missing` when there is none.
    pub(super) fn runs(&self, connection: &Connect, instance: InstanceId) -> Result<bool, DriverError> {
        let domain = self.find(connection, instance)?.ok_or(DriverError::Missing)?;
        domain.is_active().map_err(|error| explain("asking whether it runs", &error))
    }

    /// The domain of an instance as it is seen, if it runs.
    pub(super) fn running(
        &self,
        connection: &Connect,
        instance: InstanceId,
    ) -> Result<Option<Seen>, DriverError> {
        let what = "looking at the domain";
        let Some(domain) = self.find(connection, instance)? else { return Ok(None) };
        if !domain.is_active().map_err(|error| explain(what, &error))? {
            return Ok(None);
        }
        Ok(self.look(&domain).map_err(|error| explain(what, &error))?.map(|(seen, _)| seen))
    }

    /// Defines the domain of an instance, anew if it is there.
    pub(super) fn define(
        &self,
        connection: &Connect,
        instance: InstanceId,
        xml: &str,
    ) -> Result<(), DriverError> {
        self.find(connection, instance)?;
        connection.define_domain_xml(xml).map(drop).map_err(|error| explain("defining the domain", &error))
    }

    /// Starts the domain of an instance, unless it runs. It boots: what was saved of an earlier run is thrown away.
    pub(super) fn boot(&self, connection: &Connect, instance: InstanceId) -> Result<Seen, DriverError> {
        let what = "starting the domain";
        let domain = self.find(connection, instance)?.ok_or(DriverError::Missing)?;
        let folder = self.folder(instance);
        if !domain.is_active().map_err(|error| explain(what, &error))? {
            if let Err(error) = folder.forget_kill() {
                tracing::warn!(%instance, %error, "the last run's end is not forgotten; its reason may be told again");
            }
            let saved = domain.has_managed_save(0).map_err(|error| explain(what, &error))?;
            let flags = if saved { sys::VIR_DOMAIN_START_FORCE_BOOT } else { sys::VIR_DOMAIN_NONE };
            match domain.create_with_flags(flags) {
                // Invalid: it runs already, or the next look says that it does not.
                Err(error) if !error.code().is(ErrorNumber::OperationInvalid) => {
                    return Err(with_hint(explain(what, &error), &folder));
                }
                _ => {}
            }
        }
        let seen = self.look(&domain).map_err(|error| explain(what, &error))?;
        seen.map(|(seen, _)| seen).ok_or(DriverError::Missing)
    }

    /// Presses the guest's power button. Whether that reached it; a guest that does not run needs none.
    pub(super) fn press_power(&self, connection: &Connect, instance: InstanceId) -> Result<(), DriverError> {
        let domain = self.find(connection, instance)?.ok_or(DriverError::Missing)?;
        match domain.shutdown() {
            Err(error) if !error.code().is(ErrorNumber::OperationInvalid) => {
                Err(explain("asking the guest to shut down", &error))
            }
            _ => Ok(()),
        }
    }

    /// Lets a running guest run on these processors and no others: its virtual processors first, and QEMU's own threads last, since by these is seen where
    /// it runs.
    pub(super) fn pin(
        &self,
        connection: &Connect,
        instance: InstanceId,
        pin: &Pin,
    ) -> Result<(), DriverError> {
        let what = "moving the guest to its processors";
        let domain = self.find(connection, instance)?.ok_or(DriverError::Missing)?;
        let moved = || -> Result<(), Error> {
            let live = sys::VIR_DOMAIN_AFFECT_LIVE;
            let vcpus = domain.vcpus_flags(live)?;
            for vcpu in 0..vcpus {
                domain.pin_vcpu_flags(vcpu, &pins::map(vcpu_cpus(pin, vcpu.into())), live)?;
            }
            domain.pin_emulator(&pins::map(&pin.cpus), live).map(drop)
        };
        match moved() {
            // It ended meanwhile.
            Err(error) if error.code().is(ErrorNumber::OperationInvalid) && !runs(&domain) => Ok(()),
            Err(error) => Err(explain(what, &error)),
            Ok(()) => Ok(()),
        }
    }

    /// Ends the guest, if it runs, and notes that we did.
    pub(super) fn kill(&self, connection: &Connect, instance: InstanceId) -> Result<(), DriverError> {
        let Some(domain) = self.find(connection, instance)? else { return Ok(()) };
        if !domain.is_active().map_err(|error| explain("asking whether it runs", &error))? {
            return Ok(());
        }
        if let Err(error) = self.folder(instance).note_kill() {
            tracing::warn!(%instance, %error, "the kill is not noted; it will look like one from outside");
        }
        match domain.destroy() {
            Err(error)
                if !error.code().is(ErrorNumber::OperationInvalid)
                    && !error.code().is(ErrorNumber::NoDomain) =>
            {
                // A QEMU that cannot be killed says nothing of the task; it may well run on.
                Err(silent(format!("ending the guest: {}", error.message())))
            }
            _ => Ok(()),
        }
    }

    /// Undefines the domain with all that libvirt keeps for it.
    pub(super) fn undefine(&self, connection: &Connect, instance: InstanceId) -> Result<(), DriverError> {
        let Some(domain) = self.find(connection, instance)? else { return Ok(()) };
        let with_all = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        match domain.undefine_flags(with_all) {
            Err(error) if !error.code().is(ErrorNumber::NoDomain) => {
                Err(explain("undefining the domain", &error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a domain runs, as far as libvirt tells.
fn runs(domain: &Domain) -> bool {
    domain.is_active().unwrap_or(true)
}

fn says(domain: &Domain) -> Result<Says, Error> {
    match domain.metadata(sys::VIR_DOMAIN_METADATA_ELEMENT as i32, Some(mark::NAMESPACE), 0) {
        Ok(text) => Ok(mark::read(&text).map_or_else(Says::Damaged, Says::Mark)),
        Err(error) if error.code().is(ErrorNumber::NoDomainMetadata) => Ok(Says::Nothing),
        Err(error) => Err(error),
    }
}

/// A refused start often has a cause that libvirt does not name: QEMU's user cannot reach the folder.
fn with_hint(error: DriverError, folder: &Folder) -> DriverError {
    match (error, folder.closed_ancestor()) {
        (DriverError::Refused(words), Some(closed)) => {
            DriverError::Refused(format!("{words} (QEMU's user may not pass {})", closed.display()))
        }
        (error, _) => error,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{connection::connect, mark::tests::mark, xml::Element},
        *,
    };

    const CLUSTER: &str = "aaaaaaaa0123456789";

    /// A domain for libvirt's test driver, with this name, UUID and metadata.
    fn test_domain(name: &str, uuid: Uuid, metadata: Option<Element>) -> String {
        Element::new("domain")
            .with("type", "test")
            .child(Element::text("name", name))
            .child(Element::text("uuid", uuid))
            .child(Element::new("metadata").children(metadata))
            .child(Element::text("memory", 1024))
            .child(Element::new("os").child(Element::text("type", "hvm")))
            .write()
            .unwrap()
    }

    #[test]
    fn only_what_bears_the_owners_mark_is_listed_and_touched() {
        raw::ensure_event_loop();
        let connection = connect("test:///default").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ours = mark(CLUSTER, 1);
        let guests = Guests::new(ours.owner.clone(), dir.path().to_owned());
        let define = |name: &str, mark: &Mark, element: Option<Element>| {
            let uuid = domain::uuid(CLUSTER, mark.instance);
            connection.define_domain_xml(&test_domain(name, uuid, element)).unwrap()
        };
        let theirs =
            Mark { owner: Owner { cluster: "b".to_owned(), ..ours.owner.clone() }, ..mark(CLUSTER, 2) };
        let (broken, plain) = (mark(CLUSTER, 3), mark(CLUSTER, 4));
        let domains = [
            define("guests-ours", &ours, Some(mark::write(&ours))),
            define("guests-theirs", &theirs, Some(mark::write(&theirs))),
            define(
                "guests-broken",
                &broken,
                Some(mark::write(&broken).with("extra", "x").child(Element::new("y"))),
            ),
            define(
                "guests-damaged",
                &plain,
                Some(Element::new("sc:instance").with("xmlns:sc", mark::NAMESPACE)),
            ),
        ];
        let copy = Uuid::from_u128(0x1234);
        let copy = connection
            .define_domain_xml(&test_domain("guests-copy", copy, Some(mark::write(&ours))))
            .unwrap();
        // An attribute or a child more is no damage: a later agent may add one.
        let listed = guests.list(&connection).unwrap();
        assert_eq!(
            listed.iter().map(|seen| seen.mark.clone()).collect::<Vec<_>>(),
            [ours.clone(), broken.clone()]
        );
        assert_eq!(listed[0].phase, Phase::Created);
        assert_eq!(listed[0].runtime_id, domain::uuid(CLUSTER, ours.instance).to_string());

        for foreign in [&theirs, &plain] {
            let instance = foreign.instance;
            assert!(matches!(guests.undefine(&connection, instance), Err(DriverError::Refused(_))));
            assert!(matches!(guests.kill(&connection, instance), Err(DriverError::Refused(_))));
            assert!(matches!(guests.boot(&connection, instance), Err(DriverError::Refused(_))));
        }
        assert!(matches!(guests.runs(&connection, mark(CLUSTER, 9).instance), Err(DriverError::Missing)));

        assert_eq!(guests.boot(&connection, ours.instance).unwrap().phase, Phase::Running { since: None });
        assert!(guests.running(&connection, ours.instance).unwrap().is_some());
        guests.kill(&connection, ours.instance).unwrap();
        assert!(!guests.runs(&connection, ours.instance).unwrap());
        for domain in domains.into_iter().chain([copy]) {
            domain.undefine().unwrap();
        }
    }
}
