//! What the tests share.

pub mod docker_image;
pub mod dummy;
pub mod world;
