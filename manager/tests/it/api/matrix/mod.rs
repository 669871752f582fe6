//! The authorization matrix: every actor against every route and GraphQL field, for things of
//! their own, of others, and for things that do not exist.
//!
//! What is expected comes from the tables of rules and from a model of who may see what that
//! is written here a second time, on purpose. Whoever may not see a thing gets the very
//! answer for a thing that is not there. A new field without a row in `graphql::asks` fails.

mod fields;
mod mutations;
mod routes;

use serde_json::{Value, json};

use super::world::{Key, World};
use backendai_manager::context::Role;

/// Somebody who asks.
pub struct Actor {
    pub what: &'static str,
    /// `None` for nobody.
    pub key: Option<Key>,
    /// `None` for those who are refused whatever they ask.
    pub person: Option<Person>,
}

/// A user of the matrix' site.
#[derive(Clone, Debug)]
pub struct Person {
    pub email: String,
    pub id: String,
    pub access_key: String,
    pub role: Role,
    pub domain: String,
    pub groups: Vec<String>,
    /// Of its session.
    pub session: String,
    /// Of its session's kernel.
    pub kernel: String,
}

/// A group of the matrix' site.
#[derive(Clone, Debug)]
pub struct Group {
    pub id: String,
    pub domain: String,
}

/// Everybody and everything.
pub struct Site {
    pub world: World,
    pub actors: Vec<Actor>,
    pub people: Vec<Person>,
    pub groups: Vec<Group>,
    pub domains: Vec<String>,
}

/// What was found; mismatches are gathered, so that one run shows them all.
#[derive(Default)]
pub struct Tally {
    pub checks: usize,
    pub mismatches: Vec<String>,
}

impl Tally {
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.mismatches.push(what());
        }
    }
}

/// An id that nothing has.
pub const NO_ID: &str = "00000000-0000-4000-8000-000000000000";
/// Another one, so that two absent things can be compared.
pub const NO_OTHER_ID: &str = "00000000-0000-4000-8000-00000000000f";

const DOMAINS: [&str; 3] = ["default", "other", "third"];
/// Users beside those of the example site: name, role, domain, groups.
const PEOPLE: [(&str, &str, &str, &[&str]); 13] = [
    ("member", "user", "default", &["default-lab"]),
    ("lonely", "user", "default", &[]),
    ("peer1", "user", "default", &["default-lab", "default-team"]),
    ("peer2", "user", "default", &["default-team"]),
    ("watcher", "monitor", "default", &["default-team"]),
    ("chief2", "admin", "default", &["default-team"]),
    ("foreign-admin", "admin", "other", &["other-lab"]),
    ("foreign-user", "user", "other", &["other-lab"]),
    ("foreign-peer", "user", "other", &["other-team"]),
    ("foreign-root", "superadmin", "other", &[]),
    ("third-admin", "admin", "third", &["third-lab"]),
    ("third-user", "user", "third", &["third-lab", "third-team"]),
    ("gone", "user", "default", &["default-lab"]),
];
const GROUP_KINDS: [&str; 2] = ["lab", "team"];

impl Site {
    pub async fn start() -> Self {
        let world = World::start().await;
        populate(&world).await;
        let people = people(&world).await;
        let rows = world.sql.query("SELECT id::text, domain_name FROM groups ORDER BY name", &[]);
        let groups = rows.await.unwrap();
        let groups =
            groups.iter().map(|row| Group { id: row.get(0), domain: row.get(1) }).collect();
        let mut actors = vec![Actor { what: "anonymous", key: None, person: None }];
        let gone = Some(world.key("gone").await);
        actors.push(Actor { what: "expired", key: gone, person: None });
        for (what, name) in [
            ("user", "user1"),
            ("other user", "peer2"),
            ("project member", "member"),
            ("user without projects", "lonely"),
            ("domain admin of another domain", "foreign-admin"),
            ("domain admin", "domain-admin"),
            ("monitor", "watcher"),
            ("superadmin", "admin"),
        ] {
            let key = world.key(name).await;
            let person = people.iter().find(|person| person.access_key == key.access);
            let person = Some(person.unwrap_or_else(|| panic!("no {name}")).clone());
            actors.push(Actor { what, key: Some(key), person });
        }
        Self { world, actors, people, groups, domains: DOMAINS.map(str::to_owned).to_vec() }
    }

    /// A GraphQL answer.
    pub async fn ask(&self, key: Option<Key>, query: &str) -> (u16, Value) {
        let mut request = self.world.request("POST", "/admin/gql").json(&json!({"query": query}));
        if let Some(key) = key {
            request = request.signed(key);
        }
        let reply = request.send().await;
        (reply.status.as_u16(), reply.json())
    }
}

async fn populate(world: &World) {
    let mut users = Vec::new();
    let mut keypairs = Vec::new();
    let mut members = Vec::new();
    let mut groups = Vec::new();
    let id = |kind: u32, number: usize| format!("{kind:08x}-0000-4000-8000-{number:012x}");
    for (number, name) in DOMAINS
        .iter()
        .flat_map(|domain| GROUP_KINDS.iter().map(move |kind| (domain, kind)))
        .enumerate()
    {
        groups.push(json!({
            "id": id(1, number), "name": format!("{}-{}", name.0, name.1),
            "domain_name": name.0, "resource_policy": "default",
        }));
    }
    for (number, (name, role, domain, joined)) in PEOPLE.iter().enumerate() {
        let key = format!("AKIAMATRIX{number:010}");
        users.push(json!({
            "uuid": id(2, number), "username": name, "email": format!("{name}@example.org"),
            "domain_name": domain, "role": role, "resource_policy": "default",
            "main_access_key": key,
        }));
        keypairs.push(json!({
            "access_key": key, "secret_key": format!("secret-of-{name}"), "user": id(2, number),
            "user_id": format!("{name}@example.org"), "is_active": *name != "gone",
            "is_admin": role.ends_with("admin"), "resource_policy": "default",
            "rate_limit": 1_000_000,
        }));
        for group in groups.iter().filter(|group| joined.iter().any(|name| group["name"] == *name))
        {
            members.push(json!({"user_id": id(2, number), "group_id": group["id"]}));
        }
    }
    let fixture = json!({
        "domains": [
            {"name": "other", "allowed_docker_registries": []},
            {"name": "third", "allowed_docker_registries": []},
        ],
        "groups": groups, "users": users, "keypairs": keypairs,
        "association_groups_users": members,
    });
    world.database.datastore.populate(fixture.to_string().as_bytes()).await.unwrap();
    let rest = "
        UPDATE keypairs SET rate_limit = 1000000;
        INSERT INTO agents (id, region, scaling_group, available_slots, addr, version, architecture)
        VALUES ('i-1', 'local', 'default', '{}', 'tcp://127.0.0.1:1', '1', 'x86_64');
        INSERT INTO images (name, registry, image, tag, config_digest, size_bytes)
        VALUES ('index.docker.io/stable/python:3', 'index.docker.io', 'stable/python', '3', 'd', 1);
        INSERT INTO sessions (id, name, domain_name, group_id, user_uuid, access_key,
            scaling_group, image, architecture, requested_slots, status)
        SELECT gen_random_uuid(), 'of-' || u.username, u.domain_name,
            (SELECT id FROM groups WHERE domain_name = u.domain_name ORDER BY name LIMIT 1),
            u.uuid, u.main_access_key, 'default', 'python', 'x86_64', '{}', 'RUNNING'
        FROM users u WHERE u.main_access_key IS NOT NULL;
        INSERT INTO kernels (id, session_id, cluster_hostname, image, architecture, registry,
            agent, requested_slots, status)
        SELECT gen_random_uuid(), id, 'main1', image, architecture, 'r', 'i-1', '{}', 'RUNNING'
        FROM sessions";
    world.sql.batch_execute(rest).await.unwrap();
}

async fn people(world: &World) -> Vec<Person> {
    let sql = "SELECT u.email, u.uuid::text, u.main_access_key, u.role, u.domain_name,
            ARRAY(SELECT m.group_id::text FROM association_groups_users m WHERE m.user_id = u.uuid),
            s.id::text, k.id::text
        FROM users u JOIN sessions s ON s.access_key = u.main_access_key
        JOIN kernels k ON k.session_id = s.id ORDER BY 1";
    let rows = world.sql.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| Person {
            email: row.get(0),
            id: row.get(1),
            access_key: row.get(2),
            role: row.get::<_, String>(3).parse().unwrap(),
            domain: row.get(4),
            groups: row.get(5),
            session: row.get(6),
            kernel: row.get(7),
        })
        .collect()
}

#[tokio::test]
async fn everybody_reaches_what_the_tables_say_and_nothing_else() {
    let site = Site::start().await;
    let mut tally = Tally::default();
    fields::run(&site, &mut tally).await;
    mutations::run(&site, &mut tally).await;
    routes::run(&site, &mut tally).await;
    let shown: Vec<_> = tally.mismatches.iter().take(40).collect();
    assert!(shown.is_empty(), "{} mismatches: {shown:#?}", tally.mismatches.len());
    assert!(tally.checks >= 20_000, "only {} checks", tally.checks);
}
