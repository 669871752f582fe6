//! The example site: people, policies, images and shared settings, set up through our own
//! command line as an operator would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::images::Image;
use crate::layout::Layout;
use crate::process::run;
use crate::progress::Progress;
use crate::servers::Servers;

/// Components of etcd keys are quoted like this.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~');

/// One user of the example site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `superadmin`, `admin`, `user` or `monitor`.
    pub role: String,
    /// E-mail address, also the login name.
    pub email: String,
    /// Password.
    pub password: String,
    /// Access key of the main key pair.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

/// The users of the example site, read from its fixture.
#[derive(Clone, Debug)]
pub struct Identities {
    /// May do everything.
    pub superadmin: Identity,
    /// Administrator of the domain `default`.
    pub domain_admin: Identity,
    /// A user.
    pub user1: Identity,
    /// Another user of the same group.
    pub user2: Identity,
    /// May look at everything.
    pub monitor: Identity,
}

impl Identities {
    /// Reads them.
    ///
    /// # Errors
    /// The fixture cannot be read or lacks one.
    pub fn load(layout: &Layout) -> Result<Self> {
        let path = layout.sample("example-keypairs.json");
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let fixture: Value = serde_json::from_slice(&text)?;
        let find = |name: &str| -> Result<Identity> {
            let rows = |table: &str| fixture[table].as_array().cloned().unwrap_or_default();
            let missing = || format!("no user {name} in {}", path.display());
            let user = rows("users").into_iter().find(|row| row["username"] == name);
            let user = user.with_context(missing)?;
            let keypair = rows("keypairs").into_iter().find(|row| row["user"] == user["uuid"]);
            let keypair = keypair.with_context(missing)?;
            let text = |row: &Value, column: &str| -> Result<String> {
                Ok(row[column].as_str().with_context(missing)?.to_owned())
            };
            Ok(Identity {
                role: text(&user, "role")?,
                email: text(&user, "email")?,
                password: text(&user, "password")?,
                access_key: text(&keypair, "access_key")?,
                secret_key: text(&keypair, "secret_key")?,
            })
        };
        Ok(Self {
            superadmin: find("admin")?,
            domain_admin: find("domain-admin")?,
            user1: find("user1")?,
            user2: find("user2")?,
            monitor: find("monitor")?,
        })
    }

    /// Those that `halfstack env` exports, with the names it gives them.
    pub fn named(&self) -> [(&'static str, &Identity); 4] {
        [
            ("SUPERADMIN", &self.superadmin),
            ("DOMAINADMIN", &self.domain_admin),
            ("USER1", &self.user1),
            ("USER2", &self.user2),
        ]
    }
}

/// A database and an etcd namespace that hold the example site.
#[derive(Debug)]
pub struct Site<'a> {
    /// Where programs and fixtures are.
    pub layout: &'a Layout,
    /// The servers it lives on.
    pub servers: &'a Servers,
    /// Configuration of the manager that names database and namespace.
    pub config: PathBuf,
    /// The database.
    pub database: String,
    /// Folder for what is generated.
    pub dir: PathBuf,
}

impl Site<'_> {
    /// Sets the site up. What is there is left alone, so that this may be run again.
    ///
    /// # Errors
    /// A server is down, or one of our commands fails; the message holds what it printed.
    pub async fn set_up(&self, progress: &Progress) -> Result<()> {
        let stamp = self.dir.join("site.stamp");
        let ingredients = self.ingredients()?;
        if std::fs::read_to_string(&stamp).is_ok_and(|done| done == ingredients) {
            return Ok(());
        }
        let mut step = progress.step("site");
        std::fs::create_dir_all(&self.dir)?;
        create_database(self.servers, &self.database, None).await?;

        step.note("schema");
        self.manager(&["schema", "oneshot"]).await?;
        step.note("fixtures");
        let registry = self.servers.registry.addr();
        // The shipped fixture cannot know the port that our registry was given.
        let allow = json!({"__mode": "update", "domains": [{
            "name": "default", "allowed_docker_registries": ["index.docker.io", registry],
        }]});
        let allow_path = self.dir.join("allow-registry.json");
        std::fs::write(&allow_path, serde_json::to_vec_pretty(&allow)?)?;
        for fixture in [
            self.layout.sample("example-keypairs.json"),
            self.layout.sample("example-resource-presets.json"),
            allow_path,
        ] {
            let path = fixture.to_str().context("a path that is not UTF-8")?;
            self.manager(&["fixture", "populate", path]).await?;
        }

        step.note("shared configuration");
        for (key, value) in self.shared_configuration() {
            self.manager(&["etcd", "put", &key, &value]).await?;
        }
        step.note("images");
        self.manager(&["image", "rescan", &registry]).await?;
        let database = self.servers.connect(&self.database).await?;
        for image in Image::ALL {
            // An alias that exists is an error, rightly; here it is what we want.
            let query = "SELECT 1 FROM image_aliases WHERE alias = $1";
            if database.query_opt(query, &[&image.name()]).await?.is_none() {
                let reference = image.reference(&registry);
                let arch = std::env::consts::ARCH;
                self.manager(&["image", "alias", image.name(), &reference, arch]).await?;
            }
        }
        std::fs::write(&stamp, ingredients)?;
        step.done(&self.database);
        Ok(())
    }

    fn shared_configuration(&self) -> BTreeMap<String, String> {
        let registry = self.servers.registry.addr();
        let quoted = utf8_percent_encode(&registry, QUOTED).to_string();
        let mount = self.dir.join("vfolders");
        [
            ("config/redis/addr".to_owned(), self.servers.redis.addr()),
            (format!("config/docker/registry/{quoted}"), format!("http://{registry}")),
            (format!("config/docker/registry/{quoted}/type"), "docker".to_owned()),
            ("volumes/_mount".to_owned(), mount.display().to_string()),
            ("volumes/_default_host".to_owned(), "local".to_owned()),
            ("volumes/_types/user".to_owned(), String::new()),
            ("volumes/_types/group".to_owned(), String::new()),
        ]
        .into()
    }

    /// Runs our management command line.
    async fn manager(&self, args: &[&str]) -> Result<String> {
        manager_cli(self.layout, &self.config, args).await
    }

    /// Changes whenever setting up again could make a difference.
    fn ingredients(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for file in [
            self.layout.sample("example-keypairs.json"),
            self.layout.sample("example-resource-presets.json"),
            self.config.clone(),
        ] {
            let content = std::fs::read(&file);
            hash.update(content.with_context(|| format!("read {}", file.display()))?);
        }
        hash.update(format!("{:?}", self.shared_configuration()));
        hash.update(program_version(&self.layout.program("backendai-manager")?)?);
        Ok(hex::encode(hash.finalize()))
    }
}

/// Tells builds of a program apart without reading its hundred megabytes.
pub(crate) fn program_version(program: &Path) -> Result<String> {
    let meta = program.metadata().with_context(|| format!("stat {}", program.display()))?;
    Ok(format!("{:?} {}", meta.modified()?, meta.len()))
}

/// Runs `backendai-manager` with a configuration file and returns what it printed.
///
/// # Errors
/// It fails; the message holds what it printed.
pub async fn manager_cli(layout: &Layout, config: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(layout.program("backendai-manager")?);
    run(command.args(args).env("BACKEND_CONFIG_FILE", config)).await
}

/// Makes a database unless it exists, from a template if one is given.
///
/// # Errors
/// PostgreSQL is down, or the template is in use.
pub(crate) async fn create_database(
    servers: &Servers,
    name: &str,
    template: Option<&str>,
) -> Result<()> {
    let postgres = servers.connect("postgres").await?;
    let exists = "SELECT 1 FROM pg_database WHERE datname = $1";
    if postgres.query_opt(exists, &[&name]).await?.is_some() {
        return Ok(());
    }
    let template = template.map(|t| format!(" TEMPLATE \"{t}\"")).unwrap_or_default();
    postgres.batch_execute(&format!("CREATE DATABASE \"{name}\"{template}")).await?;
    Ok(())
}

/// Removes a database and whoever is connected to it.
///
/// # Errors
/// PostgreSQL is down.
pub(crate) async fn drop_database(servers: &Servers, name: &str) -> Result<()> {
    let postgres = servers.connect("postgres").await?;
    postgres.batch_execute(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_fixtures_hold_what_the_site_promises() {
        let layout = Layout::discover().unwrap();
        let identities = Identities::load(&layout).unwrap();
        let roles = identities.named().map(|(_, identity)| identity.role.clone());
        assert_eq!(roles, ["superadmin", "admin", "user", "user"]);
        let text = std::fs::read(layout.sample("example-keypairs.json")).unwrap();
        let fixture: Value = serde_json::from_slice(&text).unwrap();
        let rows = |table: &str| fixture[table].as_array().unwrap().clone();
        for user in rows("users") {
            let main = rows("keypairs")
                .into_iter()
                .find(|keypair| keypair["access_key"] == user["main_access_key"])
                .unwrap();
            assert_eq!(main["user"], user["uuid"]);
            assert_eq!(main["user_id"], user["email"]);
            assert!(main["rate_limit"].as_u64().unwrap() >= 100_000);
            let members = rows("association_groups_users");
            assert!(members.iter().any(|member| member["user_id"] == user["uuid"]));
        }
        for policy in rows("keypair_resource_policies") {
            assert!(policy["max_concurrent_sessions"].as_u64().unwrap() >= 10);
            assert!(policy["max_vfolder_count"].as_u64().unwrap() >= 20);
        }
    }

    #[test]
    fn registry_names_are_quoted_for_etcd() {
        assert_eq!(
            utf8_percent_encode("127.0.0.1:5000/a_b-c~d", QUOTED).to_string(),
            "127.0.0.1%3A5000%2Fa_b-c~d"
        );
    }
}
