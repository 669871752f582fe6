//! The life of sessions: the real business rules, loops, database and etcd, with agents
//! that are played by the test over connections in memory.

mod agent;
mod callbacks;
mod ends;
mod failures;
mod leaders;
mod listen;
mod queue;
mod restart;
mod use_it;
mod world;
