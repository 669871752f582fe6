//! What the host has, and which kernel holds how much of it.
//!
//! [`allocation`] has the arithmetic: one map per slot, told how to spread an amount over
//! devices. [`slots`] joins the maps of all device kinds into one pool in which a kernel
//! gets all it asked for or nothing. [`cpu`] and [`mem`] read the host.

pub mod allocation;
pub mod cpu;
pub mod host;
pub mod mem;
pub mod slots;

pub use allocation::{AllocationError, AllocationMap, Strategy};
pub use host::{HostSettings, NothingLeft, device_kinds};
pub use slots::{Allocation, Device, DeviceKind, PoolSettings, ResourcePool};
