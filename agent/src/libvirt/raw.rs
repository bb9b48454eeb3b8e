//! The few calls that the `virt` crate lacks or gets wrong, on `virt::sys`: events of domains, libvirt's event loop, a domain's state.
//! The only place in this crate with unsafe code; what leaves it is safe. It knows nothing of marks or instances.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::OnceLock,
    thread,
    time::Duration,
};

use virt::{connect::Connect, domain::Domain, error::Error, event, sys};

use super::phase::RawState;

/// Pause after an event loop's error, so that a lasting one does not take a core.
const LOOP_PAUSE: Duration = Duration::from_secs(1);

/// Starts libvirt's event loop on a thread of its own, once in this process. Must be called before the first connection is opened:
/// a connection made earlier has neither events nor keepalive.
pub(super) fn ensure_event_loop() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        // Otherwise libvirt prints every error to standard error beside returning it.
        virt::error::clear_error_callback();
        let started =
            event::event_register_default_impl().map_err(|error| error.to_string()).and_then(|()| {
                let run = || loop {
                    if let Err(error) = event::event_run_default_impl() {
                        tracing::warn!(%error, "libvirt's event loop failed; it goes on");
                        thread::sleep(LOOP_PAUSE);
                    }
                };
                let spawned = thread::Builder::new().name("libvirt-loop".to_owned()).spawn(run);
                spawned.map(|_| ()).map_err(|error| error.to_string())
            });
        if let Err(error) = started {
            tracing::error!(error, "libvirt's event loop did not start: changes are seen by asking only");
        }
    });
}

/// The state of a domain. `Domain::state` of the crate answers `Ok(Unknown)` when the call fails.
pub(super) fn state(domain: &Domain) -> Result<RawState, Error> {
    let (mut state, mut reason): (c_int, c_int) = (0, 0);
    // SAFETY: the pointer is valid while `domain` lives, and both results point to integers that outlive the call.
    let answer = unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) };
    if answer < 0 {
        return Err(Error::last_error());
    }
    Ok(RawState { state: state.unsigned_abs(), reason: reason.unsigned_abs() })
}

/// Called with the name of a domain whose life cycle changed, on the event loop's thread: it must be quick.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// Life cycle events of all domains, until dropped.
pub(super) struct Subscription {
    connection: Connect,
    callback: c_int,
}

/// Subscribes to the life cycle events of all domains of a connection.
pub(super) fn subscribe(connection: &Connect, listener: Listener) -> Result<Subscription, Error> {
    // A box in a box, because a pointer to a trait object does not fit into a C pointer.
    let opaque = Box::into_raw(Box::new(listener)).cast::<c_void>();
    // SAFETY: libvirt calls every callback with the signature that belongs to its event id; for VIR_DOMAIN_EVENT_ID_LIFECYCLE
    // that is virConnectDomainEventCallback, which `changed` has. The cast is what libvirt's own macro does in C.
    let callback = unsafe {
        std::mem::transmute::<sys::virConnectDomainEventCallback, sys::virConnectDomainEventGenericCallback>(
            Some(changed),
        )
    };
    // SAFETY: the connection is valid while `connection` lives; a null domain means all; `opaque` stays valid until libvirt
    // calls `release` on it, which it does once, after the last callback.
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connection.as_ptr(),
            ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            callback,
            opaque,
            Some(release),
        )
    };
    if id < 0 {
        let error = Error::last_error();
        // SAFETY: libvirt did not take the pointer, so nobody else frees it.
        unsafe { release(opaque) };
        return Err(error);
    }
    Ok(Subscription { connection: connection.clone(), callback: id })
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: the connection is valid, for we hold a reference; the id is the one it gave. On a broken connection the call
        // fails, and libvirt releases the listener when the connection is freed.
        let _ = unsafe { sys::virConnectDomainEventDeregisterAny(self.connection.as_ptr(), self.callback) };
    }
}

/// Tells the listener of a change.
unsafe extern "C" fn changed(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes a valid domain; its name is part of it, read without a call to the daemon and not null.
    let name = unsafe {
        let name = sys::virDomainGetName(domain);
        if name.is_null() {
            return 0;
        }
        CStr::from_ptr(name)
    };
    // SAFETY: `opaque` is the box that `subscribe` gave, not yet released.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    if let Ok(name) = name.to_str() {
        listener(name);
    }
    0
}

/// Frees the listener.
unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Box::into_raw` in `subscribe`, and this is called once.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}
