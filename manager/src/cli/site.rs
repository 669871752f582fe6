//! `site`: what a site must have, from a file, compared with what it has and brought into line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use backendai_datastore::site::{Action, DeclaredRow, SiteChange, reference};

use super::Site;
use super::output::{OutputFormat, print_json, say};

#[derive(Debug, Subcommand)]
pub(super) enum SiteCommand {
    /// Check a file by itself: unknown keys, and names that nothing in it declares.
    Check {
        /// The file, JSON.
        file: PathBuf,
    },
    /// Say what `apply` would do. Exit code 0 also when there is something to do.
    Plan {
        /// The file, JSON.
        file: PathBuf,
    },
    /// Make and change what the file declares. What it does not name is left alone.
    Apply {
        /// The file, JSON.
        file: PathBuf,
    },
}

/// The file. Values beside the named ones are columns of the table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Declared {
    /// Key and value.
    etcd: BTreeMap<String, String>,
    domains: BTreeMap<String, Map<String, Value>>,
    user_resource_policies: BTreeMap<String, Map<String, Value>>,
    project_resource_policies: BTreeMap<String, Map<String, Value>>,
    keypair_resource_policies: BTreeMap<String, Map<String, Value>>,
    scaling_groups: BTreeMap<String, ScalingGroup>,
    projects: BTreeMap<String, Project>,
    users: BTreeMap<String, User>,
    images: BTreeMap<String, Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ScalingGroup {
    /// Domains whose people may use it.
    #[serde(default)]
    domains: Vec<String>,
    #[serde(flatten)]
    columns: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Project {
    #[serde(default = "default_name")]
    domain: String,
    #[serde(default = "default_name")]
    resource_policy: String,
    /// Scaling groups its people may use, besides their domain's.
    #[serde(default)]
    scaling_groups: Vec<String>,
    #[serde(flatten)]
    columns: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default = "default_name")]
    domain: String,
    #[serde(default = "default_name")]
    resource_policy: String,
    #[serde(default)]
    projects: Vec<String>,
    /// File with the first password. Later ones are the user's own.
    password_file: Option<PathBuf>,
    /// The API key, and the file with its secret.
    access_key: Option<String>,
    secret_key_file: Option<PathBuf>,
    #[serde(default = "default_name")]
    keypair_resource_policy: String,
    #[serde(flatten)]
    columns: Map<String, Value>,
}

fn default_name() -> String {
    "default".to_owned()
}

pub(super) async fn run(site: &Site, command: SiteCommand) -> Result<()> {
    let (file, plan) = match command {
        SiteCommand::Check { file } => {
            read(&file)?;
            say(format_args!("{}: ok", file.display()));
            return Ok(());
        }
        SiteCommand::Plan { file } => (file, true),
        SiteCommand::Apply { file } => (file, false),
    };
    let declared = read(&file)?;
    let rows = rows(&declared, plan)?;
    let etcd = site.etcd().await?;
    let datastore = site.current_datastore().await?;
    let mut changes = datastore
        .site_reconcile(rows, plan)
        .await
        .with_context(|| format!("site {}", file.display()))?;
    for (key, value) in &declared.etcd {
        let key = key.trim_matches('/');
        let action = match etcd.get(key).await? {
            Some(found) if found == *value => Action::Keep,
            Some(_) => Action::Change(vec!["value".to_owned()]),
            None => Action::Create,
        };
        if !plan && action != Action::Keep {
            etcd.put(key, value).await?;
        }
        changes.push(SiteChange { what: format!("etcd key {key}"), action });
    }
    print(site, &changes, plan)
}

fn print(site: &Site, changes: &[SiteChange], plan: bool) -> Result<()> {
    if site.output == OutputFormat::Json {
        return print_json(&json!({"applied": !plan, "changes": changes}));
    }
    let mut counts = (0, 0, 0);
    for change in changes {
        match &change.action {
            Action::Create => {
                counts.0 += 1;
                say(format_args!("+ {}", change.what));
            }
            Action::Change(columns) => {
                counts.1 += 1;
                say(format_args!("~ {}: {}", change.what, columns.join(", ")));
            }
            Action::Keep => counts.2 += 1,
        }
    }
    let (made, changed, kept) = counts;
    let verb = if plan { "to make" } else { "made" };
    let changing = if plan { "to change" } else { "changed" };
    say(format_args!("{made} {verb}, {changed} {changing}, {kept} as declared."));
    Ok(())
}

fn read(file: &Path) -> Result<Declared> {
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let declared: Declared =
        serde_json::from_slice(&text).with_context(|| format!("{}", file.display()))?;
    check(&declared).with_context(|| format!("{}", file.display()))?;
    Ok(declared)
}

/// References to groups of things of which the file declares some: a name that is not among
/// them is a slip. Where it declares none they are made elsewhere, and the database knows.
fn check(declared: &Declared) -> Result<()> {
    let among = |kind: &str, known: BTreeSet<&String>, who: String, name: &String| {
        ensure!(
            known.is_empty() || known.contains(name),
            "{who}: there is no {kind} {name:?}; declared are {}",
            known.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ")
        );
        Ok(())
    };
    let domains = || declared.domains.keys().collect();
    let groups = || declared.scaling_groups.keys().collect();
    for (name, group) in &declared.scaling_groups {
        for domain in &group.domains {
            among("domain", domains(), format!("scaling-groups.{name}.domains"), domain)?;
        }
    }
    for (name, project) in &declared.projects {
        let who = format!("projects.{name}");
        among("domain", domains(), who.clone(), &project.domain)?;
        for group in &project.scaling_groups {
            among("scaling group", groups(), format!("{who}.scaling-groups"), group)?;
        }
        let policies = declared.project_resource_policies.keys().collect();
        among("project resource policy", policies, who, &project.resource_policy)?;
    }
    for (email, user) in &declared.users {
        let who = format!("users.{email}");
        among("domain", domains(), who.clone(), &user.domain)?;
        for project in &user.projects {
            let projects = declared.projects.keys().collect();
            among("project", projects, format!("{who}.projects"), project)?;
        }
        let policies = declared.user_resource_policies.keys().collect();
        among("user resource policy", policies, who.clone(), &user.resource_policy)?;
        let policies = declared.keypair_resource_policies.keys().collect();
        among("keypair resource policy", policies, who.clone(), &user.keypair_resource_policy)?;
        ensure!(
            user.access_key.is_some() == user.secret_key_file.is_some(),
            "{who}: access-key and secret-key-file belong together: give both or none"
        );
        for secret in ["password", "secret-key"] {
            ensure!(
                !user.columns.contains_key(secret),
                "{who}.{secret}: a secret does not belong in this file: use {secret}-file"
            );
        }
    }
    Ok(())
}

/// Rows of the declaration, each after those it refers to. A plan reads no secrets.
fn rows(declared: &Declared, plan: bool) -> Result<Vec<DeclaredRow>> {
    let mut rows = Vec::new();
    let mut add = |table, key, columns: &Map<String, Value>, own: Value, initial: Value| {
        let mut row: Map<String, Value> =
            columns.iter().map(|(name, v)| (name.replace('-', "_"), v.clone())).collect();
        row.extend(own.as_object().cloned().unwrap_or_default());
        let initial = initial.as_object().cloned().unwrap_or_default();
        rows.push(DeclaredRow { table, key, row, initial });
    };
    let (none, nothing) = (Map::new(), Value::Null);
    let named: &[&str] = &["name"];
    for (table, things) in [
        ("domains", &declared.domains),
        ("user_resource_policies", &declared.user_resource_policies),
        ("project_resource_policies", &declared.project_resource_policies),
        ("keypair_resource_policies", &declared.keypair_resource_policies),
    ] {
        for (name, columns) in things {
            add(table, named, columns, json!({"name": name}), nothing.clone());
        }
    }
    for (name, group) in &declared.scaling_groups {
        add("scaling_groups", named, &group.columns, json!({"name": name}), nothing.clone());
        for domain in &group.domains {
            let row = json!({"scaling_group": name, "domain": domain});
            add("sgroups_for_domains", &["scaling_group", "domain"], &none, row, nothing.clone());
        }
    }
    let project_id = |name: &str| {
        let domain = declared.projects.get(name).map_or("default", |p| p.domain.as_str());
        reference("groups", "id", &[("name", name), ("domain_name", domain)])
    };
    for (name, project) in &declared.projects {
        let row = json!({
            "name": name, "domain_name": project.domain, "resource_policy": project.resource_policy,
        });
        add("groups", &["name", "domain_name"], &project.columns, row, nothing.clone());
        for group in &project.scaling_groups {
            let row = json!({"scaling_group": group, "group": project_id(name)});
            add("sgroups_for_groups", &["scaling_group", "group"], &none, row, nothing.clone());
        }
    }
    for (email, user) in &declared.users {
        let mut row = json!({
            "email": email, "domain_name": user.domain, "resource_policy": user.resource_policy,
        });
        let mut initial =
            json!({"username": user.columns.get("username").unwrap_or(&json!(email))});
        if let Some(file) = &user.password_file {
            initial["password"] = json!(secret(file, plan)?);
        }
        if let Some(access_key) = &user.access_key {
            row["main_access_key"] = json!(access_key);
        }
        add("users", &["email"], &user.columns, row, initial);
        let user_id = || reference("users", "uuid", &[("email", email)]);
        if let (Some(access_key), Some(file)) = (&user.access_key, &user.secret_key_file) {
            let role = user.columns.get("role").and_then(Value::as_str).unwrap_or("user");
            let row = json!({
                "access_key": access_key, "user_id": email, "user": user_id(),
                "is_admin": role == "superadmin" || role == "admin",
                "resource_policy": user.keypair_resource_policy,
            });
            let initial = json!({"secret_key": secret(file, plan)?});
            add("keypairs", &["access_key"], &none, row, initial);
        }
        for project in &user.projects {
            let row = json!({"user_id": user_id(), "group_id": project_id(project)});
            let key = &["user_id", "group_id"];
            add("association_groups_users", key, &none, row, nothing.clone());
        }
    }
    for (name, columns) in &declared.images {
        add("images", named, columns, json!({"name": name}), nothing.clone());
    }
    Ok(rows)
}

fn secret(file: &Path, plan: bool) -> Result<String> {
    if plan {
        // Only what it is stored as matters to a plan, and that is not shown.
        return Ok("0".repeat(40));
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
