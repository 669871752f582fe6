//! Clients of the public API: the stock one in its own virtual environment, and one that
//! signs requests by itself for what the stock one cannot be made to send. And a browser.

mod browser;
mod pty;
mod signed;
mod socket;
mod stock;
mod venv;

pub use browser::Browser;
pub use pty::PtyClient;
pub use signed::{API_VERSION, Reply, SignedClient};
pub use socket::Socket;
pub(crate) use stock::environment;
pub use stock::{ClientOutput, StockClient};
pub use venv::Venv;
