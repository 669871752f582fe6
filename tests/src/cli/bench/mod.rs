//! `bench`: figures and ratios, measured side by side in one run. Nothing is asserted: a slow
//! machine makes slow figures, not failing tests.

mod admin;
mod api;
mod floor;
mod session;
mod stats;
mod storage;
mod streams;
mod target;
mod wrk;

use anyhow::Result;
use clap::{Args, Subcommand};

use backendai_tests::cluster::Shared;
use backendai_tests::progress::{Progress, say};
use backendai_tests::{Layout, TestCluster};

use target::Target;

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Requests per second and latencies of the API.
    Api(Options),
    /// From the create call to RUNNING, beside plain Docker, and the round trip of an execution.
    Session(Options),
    /// A terminal's echo, connections through the proxy, and a flood of output.
    Streams,
    /// One big file and very many small ones in and out of a folder.
    Storage(storage::Options),
    /// Lists of 100,000 sessions, 10,000 users and 1,000 agents, with filters and orders.
    Admin(Options),
    /// The bare warp handlers that `api` compares with.
    #[command(hide = true)]
    Floor {
        /// Database of the measured cluster.
        #[arg(long)]
        postgres: String,
        /// Port to listen on.
        #[arg(long)]
        port: u16,
    },
}

#[derive(Debug, Args)]
pub struct Options {
    /// Measure the original too: $UPSTREAM_DIR, or ../shared/upstream.
    #[arg(long)]
    upstream: bool,
    /// Seconds of each measurement of the API.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Measurements of each case; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Sessions started one after the other.
    #[arg(long, default_value_t = 20)]
    sessions: usize,
    /// Sessions started at once.
    #[arg(long, default_value_t = 20)]
    at_once: usize,
}

pub async fn run(layout: &Layout, bench: Bench) -> Result<()> {
    if cfg!(debug_assertions) {
        say("! this is a debug build: ./halfstack bench builds and measures a release build");
    }
    match bench {
        Bench::Floor { postgres, port } => floor::serve(&postgres, port).await,
        Bench::Api(options) => measure(layout, &options, Kind::Api).await,
        Bench::Admin(options) => measure(layout, &options, Kind::Admin).await,
        Bench::Session(options) => measure(layout, &options, Kind::Session).await,
        Bench::Streams => streams(layout).await,
        Bench::Storage(options) => files(layout, &options).await,
    }
}

async fn files(layout: &Layout, options: &storage::Options) -> Result<()> {
    Shared::prepare(layout, &Progress::shown()).await?;
    let mut cluster = TestCluster::builder().agents(0).start().await?;
    let measured = Box::pin(storage::run(&mut cluster, options)).await;
    cluster.stop().await?;
    Shared::end(layout).await?;
    measured
}

#[derive(Clone, Copy)]
enum Kind {
    Api,
    Session,
    Admin,
}

async fn streams(layout: &Layout) -> Result<()> {
    Shared::prepare(layout, &Progress::shown()).await?;
    let mut cluster = TestCluster::builder().start().await?;
    let ours = Target::ours(&cluster);
    let measured = Box::pin(streams::run(&mut cluster, &ours)).await;
    cluster.stop().await?;
    Shared::end(layout).await?;
    measured
}

async fn measure(layout: &Layout, options: &Options, kind: Kind) -> Result<()> {
    // Shows the progress that the cluster's own preparation keeps silent about.
    Shared::prepare(layout, &Progress::shown()).await?;
    let upstream = if options.upstream { Some(target::upstream(layout).await?) } else { None };
    let mut cluster = TestCluster::builder().start().await?;
    let ours = Target::ours(&cluster);
    let original = upstream.as_ref().map(|upstream| &upstream.target);
    let measured = match kind {
        Kind::Api => Box::pin(api::run(layout, &cluster, &ours, original, options)).await,
        Kind::Admin => Box::pin(admin::run(&mut cluster, &ours)).await,
        Kind::Session => Box::pin(session::run(&cluster, &ours, original, options)).await,
    };
    cluster.stop().await?;
    if let Some(upstream) = upstream {
        upstream.stop().await?;
    }
    Shared::end(layout).await?;
    measured
}
