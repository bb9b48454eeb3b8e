//! The scheduler cluster as processes: writes that survive kills, and who may come in. No workload runs here.

mod admission;
mod development;
mod restart;
mod writes;
