//! The whole system from outside: real servers, real daemons, real containers, the stock client.
//!
//! Each test has its own cluster (`TestCluster`) on servers that all tests share; one that
//! breaks a server brings its own. Tests wait for conditions, never for time.

mod admin_looks;
mod admin_people;
mod admin_policies;
mod admin_site;
mod apps;
mod canary;
mod client;
mod clusters;
mod dotfiles;
mod errors;
mod events;
mod files;
mod harness;
mod hostile;
mod inspect;
mod kill;
mod metadata;
mod metrics;
mod nix;
mod outages;
mod pull;
mod restart;
mod runtimes;
mod sdk;
mod session_routes;
mod spec;
mod ssh;
mod statistics;
mod streams;
mod support;
mod systemd;
mod templates;
mod vfolder_chaos;
mod vfolder_kills;
mod vfolder_limits;
mod vfolders;
mod vfolders_admin;
mod webui;
