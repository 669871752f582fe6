//! `bench session`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use comfy_table::{Table, presets};
use futures::future::try_join_all;
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::cluster::docker;
use backendai_tests::deployment::sweep_owner;
use backendai_tests::images::Image;
use backendai_tests::progress::Progress;
use backendai_tests::wait::wait_until;

use super::Options;
use super::stats::{ms, quantile, ratio, spread};
use super::target::Target;

/// Executions of `print(1)` on a warm session.
const WARM: usize = 100;
/// Sessions one after the other on the original: each takes ten seconds.
const ORIGINAL_SESSIONS: usize = 5;
const LIMIT: Duration = Duration::from_secs(300);

/// One side's figures.
#[derive(Default)]
struct Figures {
    create: Vec<Duration>,
    first: Vec<Duration>,
    warm: Vec<Duration>,
    at_once: Duration,
    /// Plain Docker, between this side's own runs.
    docker: Vec<Duration>,
    docker_at_once: Duration,
}

pub async fn run(
    cluster: &TestCluster,
    ours: &Target,
    original: Option<&Target>,
    options: &Options,
) -> Result<()> {
    let docker = Plain {
        docker: docker()?,
        image: cluster.image(Image::Python),
        // Not the agent's own id: it would rightly remove containers it does not know.
        owner: format!("{}-plain", cluster.plan.agents[0].id),
    };
    let measured = both(ours, original, &docker, options).await;
    sweep_owner(&docker.owner).await?;
    let (mine, theirs) = measured?;

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["", "ours", "original", "times faster"]);
    let mut row = |name: &str, of: &dyn Fn(&Figures) -> (String, Duration)| {
        let (mine, median) = of(&mine);
        let theirs = theirs.as_ref().map(of);
        let times = theirs.as_ref().map_or("-".to_owned(), |(_, theirs)| ratio(*theirs, median));
        let theirs = theirs.map_or("-".to_owned(), |(text, _)| text);
        table.add_row([name.to_owned(), mine, theirs, times]);
    };
    let median = |values: &[Duration]| (spread(values), quantile(values, 0.5));
    row("plain Docker create+start, p50 / p99", &|f| median(&f.docker));
    row("create call → RUNNING, p50 / p99", &|f| median(&f.create));
    row("  above plain Docker, p50 / p99", &|f| {
        let above = |part| quantile(&f.create, part).saturating_sub(quantile(&f.docker, part));
        (format!("{} / {}", ms(above(0.5)), ms(above(0.99))), above(0.5))
    });
    row("first execution, p50 / p99", &|f| median(&f.first));
    row("warm print(1), p50 / p99", &|f| median(&f.warm));
    let at_once = options.at_once;
    row(&format!("plain Docker, {at_once} at once"), &|f| (ms(f.docker_at_once), f.docker_at_once));
    row(&format!("{at_once} sessions at once, all RUNNING"), &|f| (ms(f.at_once), f.at_once));
    row("  times plain Docker", &|f| (ratio(f.at_once, f.docker_at_once), f.at_once));
    println!("{table}");
    Ok(())
}

async fn both(
    ours: &Target,
    original: Option<&Target>,
    docker: &Plain,
    options: &Options,
) -> Result<(Figures, Option<Figures>)> {
    let mine = measure(ours, docker, options.sessions, options.at_once).await?;
    let theirs = match original {
        Some(target) => {
            let sessions = ORIGINAL_SESSIONS.min(options.sessions);
            Some(measure(target, docker, sessions, options.at_once).await?)
        }
        None => None,
    };
    Ok((mine, theirs))
}

async fn measure(
    target: &Target,
    docker: &Plain,
    sessions: usize,
    at_once: usize,
) -> Result<Figures> {
    let mut step = Progress::shown().step("sessions");
    let mut figures = Figures::default();
    // The first of each warms caches and does not count.
    for number in 0..=sessions {
        step.note(&format!("{number} of {sessions}, one after the other"));
        let plain = docker.create_and_start().await?;
        let name = format!("bench-{:08x}", rand::random::<u32>());
        let begun = Instant::now();
        let created = target.create(&name, json!({})).await?;
        let create = begun.elapsed();
        anyhow::ensure!(created["status"] == "RUNNING", "{name} is {}", created["status"]);
        let begun = Instant::now();
        target.print_one(&name).await?;
        let first = begun.elapsed();
        if number == sessions {
            for _ in 0..WARM {
                let begun = Instant::now();
                target.print_one(&name).await?;
                figures.warm.push(begun.elapsed());
            }
        }
        end(target, &[name]).await?;
        if number > 0 {
            figures.docker.push(plain);
            figures.create.push(create);
            figures.first.push(first);
        }
    }

    step.note(&format!("{at_once} at once"));
    figures.docker_at_once = docker.many(at_once).await?;
    let names: Vec<String> =
        (0..at_once).map(|_| format!("bench-{:08x}", rand::random::<u32>())).collect();
    let begun = Instant::now();
    let created = try_join_all(names.iter().map(|name| target.create(name, json!({})))).await?;
    figures.at_once = begun.elapsed();
    let failed = created.iter().filter(|body| body["status"] != "RUNNING").count();
    anyhow::ensure!(failed == 0, "{failed} of {at_once} sessions did not start: {created:?}");
    end(target, &names).await?;
    step.done(target.client.endpoint());
    Ok(figures)
}

/// Ends sessions and waits for it: what still ends would slow down what begins.
async fn end(target: &Target, names: &[String]) -> Result<()> {
    try_join_all(names.iter().map(|name| target.destroy(name))).await?;
    wait_until(LIMIT, "sessions to end", async || {
        for name in names {
            if target.client.get(&format!("/session/{name}")).await?.status != 404 {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// Docker without us.
struct Plain {
    docker: Docker,
    image: String,
    /// Owner label, by which what a broken run leaves is swept.
    owner: String,
}

impl Plain {
    async fn start(&self) -> Result<String> {
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: Some(vec!["sleep".into(), "600".into()]),
            labels: Some(HashMap::from([("ai.backend.owner".into(), self.owner.clone())])),
            host_config: Some(HostConfig { memory: Some(384 << 20), ..Default::default() }),
            ..Default::default()
        };
        let id = self.docker.create_container(None, body).await.context("docker create")?.id;
        self.docker.start_container(&id, None).await.context("docker start")?;
        Ok(id)
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        Ok(self.docker.remove_container(id, Some(options)).await?)
    }

    async fn create_and_start(&self) -> Result<Duration> {
        let begun = Instant::now();
        let id = self.start().await?;
        let took = begun.elapsed();
        self.remove(&id).await?;
        Ok(took)
    }

    async fn many(&self, count: usize) -> Result<Duration> {
        let begun = Instant::now();
        let ids = try_join_all((0..count).map(|_| self.start())).await?;
        let took = begun.elapsed();
        try_join_all(ids.iter().map(|id| self.remove(id))).await?;
        Ok(took)
    }
}
