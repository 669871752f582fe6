//! Lists of a large site are read through indexes: what `EXPLAIN` says of them.

use backendai_datastore::identity_view::UserScope;
use backendai_datastore::keypair_view::KeypairScope;
use backendai_datastore::list_view::Slice;
use backendai_datastore::session_list_view::SessionScope;
use backendai_datastore::testing;
use backendai_types::SessionStatus;

/// Enough rows that reading them all costs more than an index does.
const POPULATE: &str = "
INSERT INTO users (uuid, username, email, domain_name, resource_policy, created_at)
SELECT gen_random_uuid(), 'u' || n, 'u' || n || '@plan.example', 'default', 'default',
       now() - n * interval '1 minute'
FROM generate_series(1, 3000) n;
INSERT INTO keypairs (access_key, secret_key, \"user\", user_id, resource_policy, created_at)
SELECT 'AKIAPLAN' || lpad(substr(username, 2), 12, '0'), 's', uuid, email, 'default', created_at
FROM users WHERE email LIKE '%@plan.example';
INSERT INTO sessions (id, name, domain_name, group_id, user_uuid, access_key, scaling_group, image,
    architecture, requested_slots, created_at, status, terminated_at)
SELECT gen_random_uuid(), 'plan-' || n, 'default', g.id, u.uuid, k.access_key, 'default',
       'index.docker.io/stable/python:3', 'x86_64', '{\"cpu\": \"1\"}',
       now() - n * interval '1 second',
       CASE WHEN n % 50 = 0 THEN 'RUNNING' ELSE 'TERMINATED' END,
       CASE WHEN n % 50 = 0 THEN NULL ELSE now() - n * interval '1 second' END
FROM generate_series(1, 30000) n
JOIN users u ON u.username = 'u' || (n % 3000 + 1)
JOIN keypairs k ON k.\"user\" = u.uuid
JOIN groups g ON g.name = 'default' AND g.domain_name = 'default';
INSERT INTO agents (id, region, scaling_group, available_slots, addr, version, architecture)
VALUES ('i-plan', 'local', 'default', '{}', 'tcp://127.0.0.1:1', '1', 'x86_64');
INSERT INTO kernels (id, session_id, cluster_hostname, image, architecture, registry, agent,
    requested_slots, status, created_at)
SELECT gen_random_uuid(), s.id, 'main1', s.image, s.architecture, 'index.docker.io', 'i-plan',
       s.requested_slots, s.status, s.created_at FROM sessions s;
ANALYZE;";

/// Fails if a statement called `name` reads all of a table that grows with the site.
fn must_not_read_all(plans: &[String], name: &str) {
    let plan = plans.iter().find(|plan| plan.starts_with(&format!("-- {name}\n"))).unwrap();
    for table in ["sessions", "kernels", "users", "keypairs"] {
        let all = format!("Seq Scan on {table} ");
        assert!(!plan.contains(&all), "{plan}");
    }
}

#[tokio::test]
async fn lists_of_a_large_site_are_read_through_indexes() {
    let database = testing::example_site().await;
    database.connect().await.batch_execute(POPULATE).await.unwrap();
    let db = database.datastore.autocommit().await.unwrap();
    let key = "AKIAPLAN000000000077";
    let live = SessionStatus::ALL.iter().copied().filter(|status| !status.is_terminal());
    for scope in [
        SessionScope::default(),
        SessionScope { statuses: live.collect(), ..SessionScope::default() },
        SessionScope { access_key: Some(key.into()), ..SessionScope::default() },
        SessionScope { domain_name: Some("default".into()), ..SessionScope::default() },
    ] {
        let slice = Slice::first(20);
        let (page, plans) = testing::plans(db.session_page(&scope, &slice)).await;
        assert_eq!(page.unwrap().items.len().min(10), 10);
        must_not_read_all(&plans, "session_page");
    }
    for domain_name in [None, Some("default".to_owned())] {
        let scope = UserScope { domain_name: domain_name.clone(), ..UserScope::default() };
        let (_, plans) = testing::plans(db.user_page(&scope, &Slice::first(20))).await;
        must_not_read_all(&plans, "user_page");
    }
    let scope = UserScope { email: Some("u77@plan.example".into()), ..UserScope::default() };
    let (_, plans) = testing::plans(db.user_page(&scope, &Slice::first(1))).await;
    must_not_read_all(&plans, "user_page");
    let scope = KeypairScope { email: Some("u77@plan.example".into()), ..KeypairScope::default() };
    for scope in [KeypairScope::default(), scope] {
        let (_, plans) = testing::plans(db.keypair_page(&scope, &Slice::first(20))).await;
        must_not_read_all(&plans, "keypair_page");
    }
}
