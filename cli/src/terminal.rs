//! The one question to the terminal that no safe call answers: how large it is.
#![allow(unsafe_code)]

use std::{io, os::fd::AsRawFd};

use nix::libc::{TIOCGWINSZ, winsize};

nix::ioctl_read_bad!(window_size, TIOCGWINSZ, winsize);

/// Columns and rows of the terminal on standard input; `None` where there is none.
pub fn size() -> Option<(u16, u16)> {
    let mut size = winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes one `winsize` through a pointer to one, which lives until it returns.
    unsafe { window_size(io::stdin().as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
