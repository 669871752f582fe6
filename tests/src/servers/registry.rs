//! The Docker registry. Docker takes registries on 127.0.0.1 without TLS.

use anyhow::{Context, Result};

use super::Server;
use crate::process::{Launch, find_program};

pub(super) fn prepare(server: &mut Server) -> Result<()> {
    // Images take minutes to make and hundreds of megabytes: all stacks of the machine serve
    // the same store, which is keyed by what the images are made of.
    server.record.data = crate::images::store(&server.cache);
    std::fs::create_dir_all(&server.record.data)?;
    let config = format!(
        "version: 0.1\n\
         log: {{level: warn, accesslog: {{disabled: true}}}}\n\
         storage:\n\
         \x20 filesystem: {{rootdirectory: {data:?}}}\n\
         \x20 delete: {{enabled: true}}\n\
         \x20 maintenance: {{uploadpurging: {{enabled: false}}}}\n\
         http: {{addr: {addr:?}, secret: {secret:?}}}\n",
        data = server.record.data.display().to_string(),
        addr = server.addr(),
        secret = format!("{:032x}", rand::random::<u128>()),
    );
    let path = server.dir.join("config.yml");
    std::fs::write(&path, config).with_context(|| format!("write {}", path.display()))
}

pub(super) fn launch(server: &Server) -> Result<Launch> {
    // Debian calls it docker-registry, others registry.
    let program = find_program(&["docker-registry", "registry"], &[])
        .context("docker-registry is not installed: run ./halfstack up")?;
    let config = server.dir.join("config.yml").display().to_string();
    Ok(Launch::new("registry", program, &server.log)
        .args(["serve", &config])
        .env("OTEL_TRACES_EXPORTER", "none"))
}

pub(super) async fn check(server: &Server) -> Result<()> {
    let url = format!("http://{}/v2/", server.addr());
    crate::http().get(url).send().await?.error_for_status()?;
    Ok(())
}
