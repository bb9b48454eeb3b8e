//! The Docker driver against a real Docker: without one these tests fail. They need the image that `scripts/images` makes. Each test has
//! a cluster id of its own, so that they run side by side, and takes away what it made, also when it fails.

mod borough;
mod life;
mod limits;
mod network;
mod rig;
mod silence;
mod talk;
