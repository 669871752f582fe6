//! The API from outside: a real listener, PostgreSQL, etcd and Redis; agents are played.

mod account;
mod auth;
mod background_task;
mod commit;
mod dotfiles;
mod error_logs;
mod events;
mod execute;
mod graphql;
mod graphql_fuzz;
mod http;
mod limits;
mod matrix;
mod presets;
mod ratelimit;
mod session_create;
mod session_files;
mod session_routes;
mod site;
mod ssh_keypair;
mod templates;
mod world;
