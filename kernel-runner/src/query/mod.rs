//! Query runs: a piece of code in the image's language.

mod driver;
mod file;
mod frame;
mod python;

pub use driver::Driver;
pub use file::run_file;
pub use python::Python;
