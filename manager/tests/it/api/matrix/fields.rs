//! Queries: who sees what.

use std::collections::BTreeSet;

use backendai_manager::api::graphql::field_rules::{FieldRule, QUERIES, Rule};
use backendai_manager::context::Role;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{NO_ID, NO_OTHER_ID, Person, Site, Tally};

/// Whether a person may see a thing.
type Sees = Box<dyn Fn(&Person) -> bool>;

/// One way to ask for one thing.
struct Ask {
    /// Arguments and selection.
    text: String,
    /// Who may see it, beside superadmins; `None` if it does not exist.
    seen_by: Option<Sees>,
}

fn ask(text: String, seen_by: impl Fn(&Person) -> bool + 'static) -> Ask {
    Ask { text, seen_by: Some(Box::new(seen_by)) }
}

fn absent(text: String) -> Ask {
    Ask { text, seen_by: None }
}

fn is_admin_of(person: &Person, domain: &str) -> bool {
    person.role == Role::Admin && person.domain == domain
}

/// How a thing is asked for by its global id.
fn node(kind: &str, id: &str) -> String {
    format!("(id: {:?}) {{ id }}", STANDARD.encode(format!("{kind}:{id}")))
}

fn no_node() -> [Ask; 2] {
    [NO_ID, NO_OTHER_ID].map(|id| absent(node("UserNode", id)))
}

/// All ways to ask for single things through a field; `None` for lists.
fn single(site: &Site, field: &str) -> Option<Vec<Ask>> {
    let people = || site.people.iter().cloned();
    let owner =
        |owner: Person| move |who: &Person| who.id == owner.id || is_admin_of(who, &owner.domain);
    let nobody = |_: &Person| false;
    let anybody = |_: &Person| true;
    Some(match field {
        "user" => people()
            .map(|p| ask(format!("(email: {:?}) {{ uuid }}", p.email), owner(p)))
            .chain(["x@x", "y@y"].map(|email| absent(format!("(email: {email:?}) {{ uuid }}"))))
            .collect(),
        "user_from_uuid" => people()
            .map(|p| ask(format!("(user_id: {:?}) {{ uuid }}", p.id), owner(p)))
            .chain([NO_ID, NO_OTHER_ID].map(|id| absent(format!("(user_id: {id:?}) {{ uuid }}"))))
            .collect(),
        "keypair" => people()
            .map(|p| ask(format!("(access_key: {:?}) {{ access_key }}", p.access_key), owner(p)))
            .chain(["AKX", "AKY"].map(|k| absent(format!("(access_key: {k:?}) {{ access_key }}"))))
            .collect(),
        "compute_session" => people()
            .map(|p| ask(format!("(id: {:?}) {{ id }}", p.session), owner(p)))
            .chain([NO_ID, NO_OTHER_ID].map(|id| absent(format!("(id: {id:?}) {{ id }}"))))
            .collect(),
        "domain" => site
            .domains
            .iter()
            .cloned()
            .map(|d| ask(format!("(name: {d:?}) {{ name }}"), move |who| who.domain == d))
            .chain(["x", "y"].map(|name| absent(format!("(name: {name:?}) {{ name }}"))))
            .collect(),
        "user_node" => {
            people().map(|p| ask(node("UserNode", &p.id), owner(p))).chain(no_node()).collect()
        }
        "group_node" => site
            .groups
            .iter()
            .cloned()
            .map(|g| ask(node("GroupNode", &g.id), move |who| is_admin_of(who, &g.domain)))
            .chain([absent(node("GroupNode", NO_ID)), absent(node("GroupNode", NO_OTHER_ID))])
            .collect(),
        "node" => people()
            .map(|p| ask(node("UserNode", &p.id), owner(p)))
            .chain(
                site.groups
                    .iter()
                    .cloned()
                    .map(|g| ask(node("GroupNode", &g.id), move |who| is_admin_of(who, &g.domain))),
            )
            .chain(no_node())
            .collect(),
        "group" => site
            .groups
            .iter()
            .cloned()
            .map(|g| {
                ask(format!("(id: {:?}) {{ id }}", g.id), move |who| {
                    is_admin_of(who, &g.domain) || who.groups.contains(&g.id)
                })
            })
            .chain([NO_ID, NO_OTHER_ID].map(|id| absent(format!("(id: {id:?}) {{ id }}"))))
            .collect(),
        "image" => vec![
            ask("(reference: \"index.docker.io/stable/python:3\") { name }".into(), |who| {
                who.domain == "default"
            }),
            absent("(reference: \"index.docker.io/stable/pyth0n:3\") { name }".into()),
        ],
        "agent" => vec![
            ask("(agent_id: \"i-1\") { id }".into(), nobody),
            absent("(agent_id: \"i-2\") { id }".into()),
        ],
        "agent_summary" => vec![
            ask("(agent_id: \"i-1\") { id }".into(), |who| who.domain == "default"),
            absent("(agent_id: \"i-2\") { id }".into()),
        ],
        "compute_container" => people()
            .map(|p| ask(format!("(id: {:?}) {{ id }}", p.kernel), owner(p)))
            .chain([NO_ID, NO_OTHER_ID].map(|id| absent(format!("(id: {id:?}) {{ id }}"))))
            .collect(),
        "scaling_group" => vec![
            ask("(name: \"default\") { name }".into(), nobody),
            absent("(name: \"x\") { name }".into()),
        ],
        "vfolder" => vec![absent(format!("(id: {NO_ID:?}) {{ id }}"))],
        "quota_scope" => [NO_ID, NO_OTHER_ID]
            .map(|id| {
                let scope = format!("user:{id}");
                absent(format!("(storage_host_name: \"x\", quota_scope_id: {scope:?}) {{ id }}"))
            })
            .into(),
        "storage_volume" => vec![absent("(id: \"x:x\") { id }".into())],
        "container_registry" => vec![absent("(hostname: \"x\") { hostname }".into())],
        "keypair_resource_policy" | "user_resource_policy" | "project_resource_policy" => vec![
            ask("(name: \"default\") { name }".into(), anybody),
            absent("(name: \"x\") { name }".into()),
        ],
        "resource_preset" => vec![
            ask("(name: \"cpu01-small\") { name }".into(), anybody),
            absent("(name: \"x\") { name }".into()),
        ],
        _ => return None,
    })
}

/// Arguments, the selection of rows, and what identifies them, of a list.
fn list(site: &Site, field: &str) -> Option<(String, &'static str)> {
    let page = "(limit: 100, offset: 0)";
    let plain = |selection: &str| selection.to_owned();
    let paged = |id: &str| format!("{page} {{ items {{ {id} }} total_count }}");
    Some(match field {
        "users" => (plain("{ uuid }"), "uuid"),
        "user_list" => (paged("uuid"), "uuid"),
        "user_nodes" => ("(first: 100) { edges { node { email } } }".into(), "email"),
        "group_nodes" => ("(first: 100) { edges { node { domain_name } } }".into(), "domain_name"),
        "keypairs" => (plain("{ access_key }"), "access_key"),
        "keypair_list" => (paged("access_key"), "access_key"),
        "compute_session_list" => (paged("id"), "id"),
        "groups" => (plain("{ id }"), "id"),
        "groups_by_name" => ("(name: \"default-lab\") { id }".into(), "id"),
        "domains" => (plain("{ name }"), "name"),
        "agents" => (plain("{ id }"), "id"),
        "agent_list" => (paged("id"), "id"),
        "audit_log_list" => (paged("email"), "email"),
        "agent_summary_list" => (paged("id"), "id"),
        "compute_container_list" => {
            let session = &site.people[0].session;
            (format!("(limit: 100, offset: 0, session_id: {session:?}) {{ items {{ id }} }}"), "id")
        }
        "vfolder_list"
        | "vfolder_own_list"
        | "vfolder_invited_list"
        | "vfolder_project_list"
        | "vfolder_permission_list"
        | "storage_volume_list" => (paged("id"), "id"),
        "images" => (plain("{ name }"), "name"),
        "container_registries" => (plain("{ hostname }"), "hostname"),
        "scaling_groups" => (plain("{ name }"), "name"),
        "scaling_groups_for_domain" => ("(domain: \"default\") { name }".into(), "name"),
        "scaling_groups_for_keypair" => ("(access_key: \"x\") { name }".into(), "name"),
        "scaling_groups_for_user_group" => (format!("(user_group: {NO_ID:?}) {{ name }}"), "name"),
        "keypair_resource_policies" => (plain("{ name }"), "name"),
        "user_resource_policies" => (plain("{ name }"), "name"),
        "project_resource_policies" => (plain("{ name }"), "name"),
        "resource_presets" => (plain("{ name }"), "name"),
        "vfolder_host_permissions" => (plain("{ vfolder_host_permission_list }"), ""),
        _ => return None,
    })
}

/// Whether a row of a list, known by its id, is for the eyes of a person.
fn is_row_for(site: &Site, field: &str, who: &Person, id: &str) -> bool {
    let of = |owner: &Person| {
        let reaches_users = !matches!(field, "users" | "user_list" | "user_nodes");
        (reaches_users && who.id == owner.id) || is_admin_of(who, &owner.domain)
    };
    let is_superadmin = who.role == Role::Superadmin;
    match field {
        "users"
        | "user_list"
        | "user_nodes"
        | "keypairs"
        | "keypair_list"
        | "compute_session_list"
        | "audit_log_list"
        | "compute_container_list" => {
            let owner = site.people.iter().find(|p| {
                [&p.id, &p.access_key, &p.session, &p.email, &p.kernel]
                    .iter()
                    .any(|known| *known == id)
            });
            is_superadmin || owner.is_some_and(of)
        }
        "groups" | "groups_by_name" => {
            let group = site.groups.iter().find(|group| group.id == id);
            is_superadmin
                || who.groups.iter().any(|joined| joined == id)
                || group.is_some_and(|group| is_admin_of(who, &group.domain))
        }
        "group_nodes" => is_superadmin || who.domain == id,
        "images" => is_superadmin || who.domain == "default",
        "agent_summary_list" => who.domain == "default",
        _ => true,
    }
}

pub async fn run(site: &Site, tally: &mut Tally) {
    for rule in QUERIES {
        match (single(site, rule.name), list(site, rule.name)) {
            (Some(asks), _) => run_single(site, tally, rule, &asks).await,
            (None, Some((text, id))) => run_list(site, tally, rule, &text, id).await,
            (None, None) => panic!("{}: say in matrix/fields.rs how it is asked", rule.name),
        }
    }
}

async fn run_single(site: &Site, tally: &mut Tally, rule: &FieldRule, asks: &[Ask]) {
    // The same things asked for with a domain besides: one's own, another's, and none.
    let takes_domain = matches!(rule.name, "user" | "user_from_uuid" | "keypair" | "group");
    let mut domains = vec![None];
    if takes_domain {
        domains.extend(["default", "other", "third", "nowhere"].map(Some));
    }
    for actor in &site.actors {
        for domain in &domains {
            let texts = asks.iter().map(|ask| match domain {
                Some(domain) => ask.text.replacen('(', &format!("(domain_name: {domain:?}, "), 1),
                None => ask.text.clone(),
            });
            let aliased = texts.enumerate().map(|(at, text)| format!("a{at}: {}{text}", rule.name));
            let query = format!("{{ {} }}", aliased.collect::<Vec<_>>().join(" "));
            let (status, body) = site.ask(actor.key, &query).await;
            let Some(person) = &actor.person else {
                tally.check(status == 401, || format!("{} {}: {status}", actor.what, rule.name));
                continue;
            };
            let nothing = asks.iter().position(|ask| ask.seen_by.is_none()).unwrap();
            let nothing = answer(&body, nothing);
            for (at, ask) in asks.iter().enumerate() {
                let found = answer(&body, at);
                let is_superadmin = person.role == Role::Superadmin;
                let may = rule.rule.admits(person.role)
                    && ask.seen_by.as_ref().is_some_and(|sees| is_superadmin || sees(person));
                let what = || {
                    let domain = domain.unwrap_or("any");
                    format!("{} {} {} ({domain}): {found:?}", actor.what, rule.name, ask.text)
                };
                match domain {
                    // Whether the thing is in the domain named is not modelled; what
                    // counts is that nobody sees more by naming one.
                    Some(_) if may => tally.check(true, what),
                    None if may => tally.check(found.0 && found.1.is_none(), what),
                    _ => tally.check(!found.0 && found.1 == nothing.1, what),
                }
            }
        }
    }
}

async fn run_list(site: &Site, tally: &mut Tally, rule: &FieldRule, text: &str, id: &str) {
    let takes_domain = matches!(
        rule.name,
        "users"
            | "user_list"
            | "keypairs"
            | "keypair_list"
            | "compute_session_list"
            | "groups"
            | "audit_log_list"
    );
    let mut texts = vec![text.to_owned()];
    if takes_domain {
        texts.extend(["default", "other", "third", "nowhere"].map(|domain| {
            match text.strip_prefix('(') {
                Some(rest) => format!("(domain_name: {domain:?}, {rest}"),
                None => format!("(domain_name: {domain:?}) {text}"),
            }
        }));
    }
    for actor in &site.actors {
        for (at, text) in texts.iter().enumerate() {
            let query = format!("{{ a0: {}{text} }}", rule.name);
            let (status, body) = site.ask(actor.key, &query).await;
            let Some(person) = &actor.person else {
                tally.check(status == 401, || format!("{} {}: {status}", actor.what, rule.name));
                continue;
            };
            let (shown, error) = answer(&body, 0);
            let admits = rule.rule.admits(person.role);
            if !admits || at == 0 {
                tally.check(shown == admits && error.is_none() == admits, || {
                    format!("{} {}{text}: {shown} {error:?}", actor.what, rule.name)
                });
            }
            let rows = match &body["data"]["a0"] {
                Value::Array(rows) => rows.clone(),
                other => {
                    let rows = other["items"].as_array().or_else(|| other["edges"].as_array());
                    rows.cloned().unwrap_or_default()
                }
            };
            let rows: Vec<Value> = rows
                .into_iter()
                .map(|mut row| match row.get_mut("node") {
                    Some(node) => node.take(),
                    None => row,
                })
                .collect();
            let rows: BTreeSet<&str> = rows.iter().filter_map(|row| row[id].as_str()).collect();
            for row in &rows {
                tally.check(is_row_for(site, rule.name, person, row), || {
                    format!("{} sees {row} in {}{text}", actor.what, rule.name)
                });
            }
            // Nothing that should be there is missing from the list of everything.
            let everything = site.people.iter().filter_map(|p| match rule.name {
                "user_list" => Some(&p.id),
                "user_nodes" => Some(&p.email),
                "keypair_list" => Some(&p.access_key),
                "compute_session_list" => Some(&p.session),
                _ => None,
            });
            for thing in everything.filter(|_| at == 0 && admits) {
                let may = is_row_for(site, rule.name, person, thing);
                tally.check(rows.contains(thing.as_str()) == may, || {
                    format!("{} and {thing} in {}: should be {may}", actor.what, rule.name)
                });
            }
            tally.check(rule.rule != Rule::Superadmin || admits || rows.is_empty(), || {
                format!("{} gets rows of {}", actor.what, rule.name)
            });
        }
    }
}

/// Whether an alias has data, and its error.
fn answer(body: &Value, at: usize) -> (bool, Option<String>) {
    let alias = format!("a{at}");
    let error = body["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|error| error["path"][0] == alias.as_str() || error.get("path").is_none());
    // The names of the two images, which the message repeats, differ on purpose.
    let message = error.and_then(|error| error["message"].as_str());
    let message = message.map(|text| text.replace("pyth0n", "python"));
    (!body["data"][&alias].is_null(), message)
}
