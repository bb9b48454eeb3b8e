//! A fault that we plant ourselves, to see the simulation's checks catch it. Only with the feature `planted`, and even then nothing is at fault
//! but on a thread that asked for it, which only the simulation does.

use std::cell::Cell;

thread_local! {
    static TAKES_OLD_ORDERS: Cell<bool> = const { Cell::new(false) };
}

/// From now on, on this thread, an order is taken however old it is; or not any more.
pub fn take_old_orders(take: bool) {
    TAKES_OLD_ORDERS.set(take);
}

/// Whether old orders are taken here.
pub(crate) fn takes_old_orders() -> bool {
    TAKES_OLD_ORDERS.get()
}
