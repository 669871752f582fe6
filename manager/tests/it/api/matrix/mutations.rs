//! Mutations: who may, and that a refusal changes nothing and tells nothing.

use backendai_manager::api::graphql::field_rules::{FieldRule, MUTATIONS, Rule};
use backendai_manager::context::Role;

use super::{NO_ID, NO_OTHER_ID, Person, Site, Tally};

const TABLES: [&str; 12] = [
    "domains",
    "groups",
    "users",
    "association_groups_users",
    "keypairs",
    "keypair_resource_policies",
    "user_resource_policies",
    "scaling_groups",
    "sgroups_for_domains",
    "resource_presets",
    "images",
    "agents",
];

/// What a mutation is tried on: its arguments without and with the thing's name, the rest of
/// its text, and things that exist.
struct Try {
    /// Things that exist, as literals.
    real: Vec<String>,
    /// Things that do not exist; a superadmin may try these without changing anything.
    absent: [String; 2],
    /// Text with `@` for the thing.
    text: &'static str,
}

fn quoted(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    texts.into_iter().map(|text| format!("{:?}", text.as_ref())).collect()
}

/// How a mutation is asked for, and on what.
fn attempt(site: &Site, field: &str) -> Option<Try> {
    let no_names = || ["\"no such\"", "\"nothing\""].map(str::to_owned);
    let no_ids = || [NO_ID, NO_OTHER_ID].map(|id| format!("{id:?}"));
    let emails = || quoted(site.people.iter().map(|person| &person.email));
    let keys = || quoted(site.people.iter().map(|person| &person.access_key));
    let groups = || quoted(site.groups.iter().map(|group| &group.id));
    let domains = || quoted(&site.domains);
    let named = |real: &str, text| Try { real: quoted([real]), absent: no_names(), text };
    Some(match field {
        "create_domain" => Try {
            absent: ["\"\"", "\" \""].map(str::to_owned),
            ..named("fresh", "(name: @, props: {}) { ok msg }")
        },
        "modify_domain" => Try {
            real: domains(),
            absent: no_names(),
            text: "(name: @, props: {description: \"x\"}) { ok msg }",
        },
        "delete_domain" | "purge_domain" => {
            Try { real: domains(), absent: no_names(), text: "(name: @) { ok msg }" }
        }
        "create_group" => Try {
            real: domains(),
            absent: no_names(),
            text: "(name: \"fresh\", props: {domain_name: @}) { ok msg }",
        },
        "modify_group" => Try {
            real: groups(),
            absent: no_ids(),
            text: "(gid: @, props: {description: \"x\"}) { ok msg }",
        },
        "delete_group" | "purge_group" => {
            Try { real: groups(), absent: no_ids(), text: "(gid: @) { ok msg }" }
        }
        "create_user" => Try {
            real: domains(),
            absent: no_names(),
            text: "(email: \"f.x\", props: {username: \"f\", password: \"p\", \
                   need_password_change: false, domain_name: @}) { ok msg }",
        },
        "modify_user" => Try {
            real: emails(),
            absent: no_names(),
            text: "(email: @, props: {full_name: \"x\"}) { ok msg }",
        },
        "delete_user" => Try { real: emails(), absent: no_names(), text: "(email: @) { ok msg }" },
        "purge_user" => {
            Try { real: emails(), absent: no_names(), text: "(email: @, props: {}) { ok msg }" }
        }
        "create_keypair" => Try {
            real: emails(),
            absent: no_names(),
            text: "(user_id: @, props: {resource_policy: \"default\", rate_limit: 1}) { ok msg }",
        },
        "modify_keypair" => Try {
            real: keys(),
            absent: no_names(),
            text: "(access_key: @, props: {is_active: false}) { ok msg }",
        },
        "delete_keypair" => {
            Try { real: keys(), absent: no_names(), text: "(access_key: @) { ok msg }" }
        }
        "modify_agent" => named("i-1", "(id: @, props: {schedulable: false}) { ok msg }"),
        "create_keypair_resource_policy" => Try {
            absent: ["\"\"", "\" \""].map(str::to_owned),
            ..named(
                "fresh",
                "(name: @, props: {default_for_unspecified: \"LIMITED\", \
                 max_concurrent_sessions: 1, max_containers_per_session: 1, idle_timeout: 1}) \
                 { ok msg }",
            )
        },
        "create_user_resource_policy" | "create_project_resource_policy" => Try {
            absent: ["\"\"", "\" \""].map(str::to_owned),
            ..named("fresh", "(name: @, props: {}) { ok msg }")
        },
        "create_resource_preset" => Try {
            absent: ["\"\"", "\" \""].map(str::to_owned),
            ..named("fresh", "(name: @, props: {resource_slots: \"{}\"}) { ok msg }")
        },
        "create_scaling_group" => Try {
            absent: ["\"\"", "\" \""].map(str::to_owned),
            ..named(
                "fresh",
                "(name: @, props: {driver: \"static\", scheduler: \"fifo\"}) { ok msg }",
            )
        },
        "modify_keypair_resource_policy"
        | "modify_user_resource_policy"
        | "modify_project_resource_policy"
        | "modify_resource_preset"
        | "modify_scaling_group" => named("default", "(name: @, props: {}) { ok msg }"),
        "delete_keypair_resource_policy"
        | "delete_user_resource_policy"
        | "delete_project_resource_policy"
        | "delete_resource_preset"
        | "delete_scaling_group" => named("default", "(name: @) { ok msg }"),
        "associate_scaling_group_with_domain" | "disassociate_scaling_group_with_domain" => Try {
            real: domains(),
            absent: no_names(),
            text: "(scaling_group: \"default\", domain: @) { ok msg }",
        },
        "associate_scaling_group_with_user_group"
        | "disassociate_scaling_group_with_user_group" => Try {
            real: groups(),
            absent: no_ids(),
            text: "(scaling_group: \"default\", user_group: @) { ok msg }",
        },
        "associate_scaling_group_with_keypair" | "disassociate_scaling_group_with_keypair" => Try {
            real: keys(),
            absent: no_names(),
            text: "(scaling_group: \"default\", access_key: @) { ok msg }",
        },
        "disassociate_all_scaling_groups_with_domain" => {
            Try { real: domains(), absent: no_names(), text: "(domain: @) { ok msg }" }
        }
        "disassociate_all_scaling_groups_with_group" => {
            Try { real: groups(), absent: no_ids(), text: "(user_group: @) { ok msg }" }
        }
        "create_container_registry" => Try {
            absent: ["\"\"", "\" \""].map(str::to_owned),
            ..named(
                "fresh",
                "(hostname: @, props: {url: \"http://x\", type: \"docker\"}) \
                 { container_registry { hostname } }",
            )
        },
        "modify_container_registry" => {
            named("x", "(hostname: @, props: {}) { container_registry { hostname } }")
        }
        "delete_container_registry" => {
            named("x", "(hostname: @) { container_registry { hostname } }")
        }
        "rescan_images" => named("index.docker.io", "(registry: @) { ok msg }"),
        "alias_image" => {
            named("index.docker.io/stable/python:3", "(alias: \"a\", target: @) { ok msg }")
        }
        "dealias_image" => named("a", "(alias: @) { ok msg }"),
        "forget_image" => named(
            "index.docker.io/stable/python:3",
            "(reference: @, architecture: \"x86_64\") { ok msg }",
        ),
        "modify_image" => named(
            "index.docker.io/stable/python:3",
            "(target: @, architecture: \"x86_64\", props: {}) { ok msg }",
        ),
        "clear_images" => named("index.docker.io", "(registry: @) { ok msg }"),
        "preload_image" | "unload_image" => {
            named("x", "(references: [@], target_agents: []) { ok msg }")
        }
        _ => return None,
    })
}

/// Whether an administrator may do this to a thing.
fn is_within(site: &Site, person: &Person, thing: &str) -> bool {
    let thing = thing.trim_matches('"');
    let domain = site.groups.iter().find(|group| group.id == thing).map(|group| &group.domain);
    person.domain == thing || domain.is_some_and(|domain| *domain == person.domain)
}

pub async fn run(site: &Site, tally: &mut Tally) {
    let mut before = contents(site).await;
    for rule in MUTATIONS {
        let attempt = attempt(site, rule.name);
        let attempt = attempt
            .unwrap_or_else(|| panic!("{}: say in matrix/mutations.rs how it is asked", rule.name));
        run_one(site, tally, rule, &attempt).await;
        let after = contents(site).await;
        tally.check(after == before, || format!("{} changed something", rule.name));
        before = after;
    }
}

async fn run_one(site: &Site, tally: &mut Tally, rule: &FieldRule, attempt: &Try) {
    for actor in &site.actors {
        let admits = actor.person.as_ref().is_some_and(|who| rule.rule.admits(who.role));
        let is_admin = actor.person.as_ref().is_some_and(|who| who.role == Role::Admin);
        let within = |thing: &String| {
            let scoped = is_admin && rule.rule == Rule::Administrator;
            scoped && actor.person.as_ref().is_some_and(|who| is_within(site, who, thing))
        };
        // What would really be done is left to the tests of that very mutation.
        let superadmin = admits && !is_admin;
        let things = attempt.real.iter().filter(|thing| !superadmin && !within(thing));
        let is_rescan = rule.name == "rescan_images";
        let things = things.filter(|_| !(is_rescan && admits)).chain(&attempt.absent);
        for thing in things {
            let text = attempt.text.replace('@', thing);
            let query = format!("mutation {{ a: {}{text} }}", rule.name);
            let (status, body) = site.ask(actor.key, &query).await;
            let what = || format!("{} {}{text}: {body}", actor.what, rule.name);
            if actor.person.is_none() {
                tally.check(status == 401, what);
                continue;
            }
            let msg = body["data"]["a"]["msg"].as_str().unwrap_or_default();
            let error = body["errors"][0]["message"].as_str().unwrap_or_default();
            let refused = format!("no permission to execute {}", rule.name);
            let is_refused = msg == refused || error == "Forbidden operation.";
            let expects_refusal = !(superadmin || admits && is_rescan);
            tally.check(is_refused == expects_refusal && body["data"]["a"]["ok"] != true, what);
        }
    }
}

/// Everything mutations could change, as one text for each table.
async fn contents(site: &Site) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let sql = format!(
            "SELECT md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM {table} t"
        );
        all.push(site.world.sql.query_one(&sql, &[]).await.unwrap().get(0));
    }
    all
}
