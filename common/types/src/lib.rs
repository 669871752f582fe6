//! The vocabulary of Backend.AI as data: ids, resource slots, states, image references.
//!
//! Every other crate speaks in these types. This crate does no I/O, holds no clock and no
//! randomness, and knows neither SQL nor HTTP; it depends on serde, uuid and
//! rust_decimal, and should stay that small.

pub mod ids;
pub mod image;
pub mod resource_slot;
pub mod session;
pub mod size;
pub mod vfolder;

pub use ids::{
    AccessKey, AgentId, BackgroundTaskId, GroupId, ImageId, KernelId, SessionId, UserId, VfolderId,
};
pub use image::ImageRef;
pub use resource_slot::{ResourceLimits, ResourceSlots, SlotName, SlotType};
pub use session::{
    ClusterMode, KernelStatus, SessionResult, SessionStatus, SessionType, TransitionError,
};
pub use size::ByteCount;
pub use vfolder::{HostPermission, UsageMode, VfolderPermission, VfolderStatus};
