//! GraphQL with the stock client's own queries; the order of keys is compared as text.

use backendai_manager::app::statistics;
use backendai_rpc::statistics::{Metric, Metrics, NodeMetrics, Packed, Statistics, Unit};
use backendai_types::KernelId;
use serde_json::{Value, json};

use super::world::World;

const LIST: &str = "query($limit:Int!, $offset:Int!, $status: String, $access_key: String, $filter: String, $order: String) {\n  compute_session_list(\n      limit:$limit, offset:$offset, status:$status, access_key:$access_key, filter:$filter, order:$order) {\n    items { name access_key id group_name main_kernel_id image type status status_info status_changed result }\n    total_count\n  }\n}";
const INFO: &str = "query($id: UUID!) {  compute_session(id: $id) {    name id main_kernel_id image tag created_at terminated_at status status_info status_data occupying_slots idle_checks containers { id cluster_role cluster_idx cluster_hostname session_id image registry status status_info status_data status_changed agent container_id resource_opts occupied_slots preopen_ports live_stat last_stat id } dependencies { name id }  }}";
const AGENTS: &str = "query($limit:Int!, $offset:Int!, $status: String, $scaling_group: String, $filter: String, $order: String) {\n  agent_list(\n      limit:$limit, offset:$offset, status:$status, scaling_group:$scaling_group, filter:$filter, order:$order) {\n    items { id status architecture scaling_group region first_contact cpu_cur_pct mem_cur_bytes available_slots occupied_slots }\n    total_count\n  }\n}";
const LIVE: &str = "PENDING,SCHEDULED,PULLING,PREPARING,RUNNING,RUNNING_DEGRADED,TERMINATING,ERROR";

/// The sessions of the captures: `capB` runs on agent `i-1`, `capC` waits for it, `capA` is over.
pub async fn insert_sessions(world: &World) {
    let admin = world.key("admin").await.access;
    let sql = r#"
        INSERT INTO agents (id, region, scaling_group, available_slots, addr, version, architecture, first_contact)
        VALUES ('i-1', 'local', 'default', '{"cpu": "20", "mem": "49479278592"}', 'tcp://127.0.0.1:1', '1', 'x86_64', '2026-11-21T03:46:21.616156Z');
        INSERT INTO sessions (id, name, domain_name, group_id, user_uuid, access_key, scaling_group, image,
            architecture, requested_slots, created_at, status, status_changed, terminated_at)
        SELECT v.id::uuid, v.name, 'default', 'f3ee69b6-3224-40ae-aa56-837ce2c3e0db', u.uuid, u.main_access_key,
            'default', '127.0.0.1:5000/stable/python:3.11-debian12', 'x86_64', '{"cpu": "1", "mem": "536870912"}',
            v.created_at::timestamptz, v.status, v.changed::timestamptz, v.ended::timestamptz
        FROM users u, (VALUES
            ('62533091-d4f1-47bf-ba89-2bddd2e3b5f6', 'capA', '2026-11-21T04:03:05Z', 'TERMINATED', '2026-11-21T04:03:10Z', '2026-11-21T04:03:10Z'),
            ('6f4f0499-5c42-484a-be48-1f36123e2c71', 'capB', '2026-11-21T04:03:15.117314Z', 'RUNNING', '2026-11-21T04:03:19.542157Z', NULL),
            ('fbe46514-73ce-4297-869b-2dbf00167223', 'capC', '2026-11-21T04:03:20Z', 'PENDING', '2026-11-21T04:03:20Z', NULL)
        ) AS v (id, name, created_at, status, changed, ended)
        WHERE u.main_access_key = 'ADMINKEY';
        INSERT INTO kernels (id, session_id, cluster_hostname, image, architecture, registry, agent, container_id,
            requested_slots, resource_opts, created_at, status, status_changed)
        SELECT v.id::uuid, v.session::uuid, 'main1', '127.0.0.1:5000/stable/python:3.11-debian12', 'x86_64',
            '127.0.0.1:5000', v.agent, v.container, '{"cpu": "1", "mem": "536870912"}', '{"shmem": 67108864}',
            '2026-11-21T04:03:15Z', v.status, '2026-11-21T04:03:15.800637Z'
        FROM (VALUES
            ('baa6cc0f-a899-4510-9935-9b045c167cfd', '62533091-d4f1-47bf-ba89-2bddd2e3b5f6', 'i-1', 'aa', 'TERMINATED'),
            ('e664959e-6296-4e5e-8fe7-cb700a396cca', '6f4f0499-5c42-484a-be48-1f36123e2c71', 'i-1', '51d3ed15', 'RUNNING'),
            ('43d475bd-3fa3-4de2-9734-07c1fdee14b4', 'fbe46514-73ce-4297-869b-2dbf00167223', NULL, NULL, 'PENDING')
        ) AS v (id, session, agent, container, status);
        INSERT INTO allocations (kernel_id, slot, amount, agent, access_key, user_uuid, group_id, domain_name)
        SELECT k.id, slot.key, slot.value::numeric, k.agent, s.access_key, s.user_uuid, s.group_id, s.domain_name
        FROM kernels k JOIN sessions s ON s.id = k.session_id, jsonb_each_text(k.requested_slots) AS slot
        WHERE k.status = 'RUNNING';
        INSERT INTO session_dependencies VALUES ('fbe46514-73ce-4297-869b-2dbf00167223', '6f4f0499-5c42-484a-be48-1f36123e2c71');
        INSERT INTO transitions (at, session_id, event, from_status, to_status, actor) VALUES
            ('2026-11-21T04:03:15Z', '6f4f0499-5c42-484a-be48-1f36123e2c71', 'session_enqueued', NULL, 'PENDING', 'x'),
            ('2026-11-21T04:03:16Z', '6f4f0499-5c42-484a-be48-1f36123e2c71', 'session_scheduled', 'PENDING', 'SCHEDULED', 'x');
        "#;
    world.sql.batch_execute(&sql.replace("ADMINKEY", admin)).await.unwrap();
}

fn list(status: &str, filter: Option<&str>, order: Option<&str>) -> Value {
    json!({"status": status, "access_key": null, "filter": filter, "order": order,
           "limit": 20, "offset": 0})
}

async fn names(world: &World, variables: Value) -> (Vec<String>, i64) {
    let key = world.key("admin").await;
    let reply: Value = serde_json::from_str(&world.gql(key, LIST, variables).await).unwrap();
    let list = &reply["data"]["compute_session_list"];
    assert!(list.is_object(), "{reply}");
    let items = list["items"].as_array().unwrap();
    let names = items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
    (names, list["total_count"].as_i64().unwrap())
}

#[tokio::test]
async fn the_stock_clients_session_list_is_answered_in_the_order_asked() {
    let world = World::start().await;
    insert_sessions(&world).await;
    let key = world.key("admin").await;
    let own = "query {  keypair {    user_id access_key secret_key is_active is_admin  }}";
    assert_eq!(
        world.gql(key, own, json!({})).await,
        format!(
            r#"{{"data":{{"keypair":{{"user_id":"admin@example.org","access_key":"{}","secret_key":"{}","is_active":true,"is_admin":true}}}}}}"#,
            key.access, key.secret
        )
    );
    let item = |name: &str, id: &str, kernel: &str, status: &str, changed: &str| {
        format!(
            r#"{{"name":"{name}","access_key":"{}","id":"{id}","group_name":"default","main_kernel_id":"{kernel}","image":"127.0.0.1:5000/stable/python:3.11-debian12","type":"INTERACTIVE","status":"{status}","status_info":"","status_changed":"{changed}","result":"UNDEFINED"}}"#,
            key.access
        )
    };
    assert_eq!(
        world.gql(key, LIST, list(LIVE, None, None)).await,
        format!(
            r#"{{"data":{{"compute_session_list":{{"items":[{},{}],"total_count":2}}}}}}"#,
            item(
                "capC",
                "fbe46514-73ce-4297-869b-2dbf00167223",
                "43d475bd-3fa3-4de2-9734-07c1fdee14b4",
                "PENDING",
                "2026-11-21T04:03:20+00:00"
            ),
            item(
                "capB",
                "6f4f0499-5c42-484a-be48-1f36123e2c71",
                "e664959e-6296-4e5e-8fe7-cb700a396cca",
                "RUNNING",
                "2026-11-21T04:03:19.542157+00:00"
            ),
        )
    );
}

#[tokio::test]
async fn the_stock_clients_session_info_is_answered_in_the_order_asked() {
    let world = World::start().await;
    insert_sessions(&world).await;
    let key = world.key("admin").await;
    let id = json!({"id": "6f4f0499-5c42-484a-be48-1f36123e2c71", "undeclared": 1});
    assert_eq!(
        world.gql(key, INFO, id).await,
        r#"{"data":{"compute_session":{"name":"capB","id":"6f4f0499-5c42-484a-be48-1f36123e2c71","main_kernel_id":"e664959e-6296-4e5e-8fe7-cb700a396cca","image":"127.0.0.1:5000/stable/python:3.11-debian12","tag":null,"created_at":"2026-11-21T04:03:15.117314+00:00","terminated_at":null,"status":"RUNNING","status_info":"","status_data":"{}","occupying_slots":"{\"cpu\": \"1\", \"mem\": \"536870912\"}","idle_checks":"{}","containers":[{"id":"e664959e-6296-4e5e-8fe7-cb700a396cca","cluster_role":"main","cluster_idx":1,"cluster_hostname":"main1","session_id":"6f4f0499-5c42-484a-be48-1f36123e2c71","image":"127.0.0.1:5000/stable/python:3.11-debian12","registry":"127.0.0.1:5000","status":"RUNNING","status_info":"","status_data":"{}","status_changed":"2026-11-21T04:03:15.800637+00:00","agent":"i-1","container_id":"51d3ed15","resource_opts":"{\"shmem\": 67108864}","occupied_slots":"{\"cpu\": \"1\", \"mem\": \"536870912\"}","preopen_ports":null,"live_stat":null,"last_stat":null}],"dependencies":[]}}}"#
    );
    let id = json!({"id": "fbe4651473ce4297869b2dbf00167223"});
    let query = "query($id: UUID!) { compute_session(id: $id) { dependencies { name id } agent_ids scheduled_at status_history num_queries } }";
    assert_eq!(
        world.gql(key, query, id).await,
        r#"{"data":{"compute_session":{"dependencies":[{"name":"capB","id":"6f4f0499-5c42-484a-be48-1f36123e2c71"}],"agent_ids":[],"scheduled_at":null,"status_history":"{}","num_queries":0}}}"#
    );
    let id = json!({"id": "6f4f0499-5c42-484a-be48-1f36123e2c71"});
    assert_eq!(
        world.gql(key, query, id).await,
        r#"{"data":{"compute_session":{"dependencies":[],"agent_ids":["i-1"],"scheduled_at":"2026-11-21T04:03:16+00:00","status_history":"{\"PENDING\": \"2026-11-21T04:03:15+00:00\", \"SCHEDULED\": \"2026-11-21T04:03:16+00:00\"}","num_queries":0}}}"#
    );
}

fn figures(agent: &str, kernel: KernelId) -> Statistics {
    let one = |name: &str, metric| Metrics::from([(name.to_owned(), metric)]);
    let cpu = Metric::new(Unit::Percent, 25.0).of(200.0);
    let node = NodeMetrics { node: one("cpu_util", cpu), ..NodeMetrics::default() };
    let mem = Metric::new(Unit::Bytes, 512.0).of(1024.0);
    Statistics {
        agent_id: agent.into(),
        valid_s: 60,
        node: Packed::pack(&node),
        kernels: vec![(kernel, Packed::pack(&one("mem", mem)))],
    }
}

#[tokio::test]
async fn the_stock_clients_agent_queries_are_answered() {
    let world = World::start().await;
    insert_sessions(&world).await;
    let key = world.key("admin").await;
    let variables = json!({"status": "ALIVE", "scaling_group": null, "filter": null,
                           "order": null, "limit": 20, "offset": 0});
    assert_eq!(
        world.gql(key, AGENTS, variables).await,
        r#"{"data":{"agent_list":{"items":[{"id":"i-1","status":"ALIVE","architecture":"x86_64","scaling_group":"default","region":"local","first_contact":"2026-11-21T03:46:21.616156+00:00","cpu_cur_pct":0.0,"mem_cur_bytes":0.0,"available_slots":"{\"cpu\": \"20\", \"mem\": \"49479278592\"}","occupied_slots":"{\"cpu\": \"1\", \"mem\": \"536870912\"}"}],"total_count":1}}}"#
    );
    let kernel = "e664959e-6296-4e5e-8fe7-cb700a396cca".parse().unwrap();
    statistics::store(&world.app.redis, &figures("i-1", kernel)).await;
    let query = "query($agent_id: String!) {\n    agent(agent_id: $agent_id) {id status region architecture first_contact cpu_cur_pct available_slots occupied_slots hardware_metadata live_stat local_config}\n}\n";
    let reply = world.gql(key, query, json!({"agent_id": "i-1"})).await;
    assert!(reply.contains(r#""hardware_metadata":null"#), "{reply}");
    assert!(reply.contains(r#""cpu_cur_pct":12.5"#), "{reply}");
    let live_stat = r#"{\"node\": {\"cpu_util\": {\"current\": \"25\", \"capacity\": \"200\", \"pct\": \"12.50\", \"unit_hint\": \"pct\"}}, \"devices\": {}}"#;
    assert!(reply.contains(live_stat), "{reply}");
    assert!(!reply.contains("errors"), "{reply}");
    assert_eq!(
        world.gql(key, query, json!({"agent_id": "nope"})).await,
        r#"{"data":{"agent":null}}"#
    );
    let query =
        "{ agents(scaling_group: \"default\") { compute_containers { live_stat last_stat } } }";
    let mem = r#"{\"mem\": {\"current\": \"512\", \"capacity\": \"1024\", \"pct\": \"50.00\", \"unit_hint\": \"bytes\"}}"#;
    assert_eq!(
        world.gql(key, query, json!({})).await,
        format!(
            r#"{{"data":{{"agents":[{{"compute_containers":[{{"live_stat":"{mem}","last_stat":"{mem}"}}]}}]}}}}"#
        )
    );
    let query = "{ agents(scaling_group: \"default\") { container_count compute_containers { id } mem_slots } }";
    assert_eq!(
        world.gql(key, query, json!({})).await,
        r#"{"data":{"agents":[{"container_count":1,"compute_containers":[{"id":"e664959e-6296-4e5e-8fe7-cb700a396cca"}],"mem_slots":47187}]}}"#
    );
}

#[tokio::test]
async fn the_stock_clients_image_list_is_answered() {
    let world = World::start().await;
    world
        .sql
        .batch_execute(
            r#"INSERT INTO images (name, registry, image, tag, config_digest, size_bytes, labels, resources)
               VALUES ('127.0.0.1:5000/stable/python:3.11-debian12', '127.0.0.1:5000', 'stable/python', '3.11-debian12',
                       'sha256:61431c39', 149582945, '{"ai.backend.features": "batch"}', '{"cpu": {"min": "1", "max": null}}');
               INSERT INTO image_aliases SELECT 'python', id FROM images"#,
        )
        .await
        .unwrap();
    let key = world.key("admin").await;
    let query = "query($is_operation: Boolean) {  images(is_operation: $is_operation) {    name registry architecture tag digest size_bytes aliases  }}";
    let image = r#"{"name":"stable/python","registry":"127.0.0.1:5000","architecture":"x86_64","tag":"3.11-debian12","digest":"sha256:61431c39","size_bytes":149582945,"aliases":["python"]}"#;
    assert_eq!(
        world.gql(key, query, json!({"is_operation": false})).await,
        format!(r#"{{"data":{{"images":[{image}]}}}}"#)
    );
    assert_eq!(
        world.gql(key, query, json!({"is_operation": true})).await,
        r#"{"data":{"images":[]}}"#
    );
    let one = "{ image(reference: \"python\") { name resource_limits { key min max } installed } }";
    assert_eq!(
        world.gql(key, one, json!({})).await,
        r#"{"data":{"image":{"name":"stable/python","resource_limits":[{"key":"cpu","min":"1","max":null}],"installed":false}}}"#
    );
    // The example domain admits another registry only.
    let user = world.key("user1").await;
    assert_eq!(world.gql(user, query, json!({})).await, r#"{"data":{"images":[]}}"#);
    let refused = world.gql(user, one, json!({})).await;
    assert!(refused.contains("No such environment image."), "{refused}");
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_paged_as_asked() {
    let world = World::start().await;
    insert_sessions(&world).await;
    let all = "PENDING,RUNNING,TERMINATED";
    for (filter, order, expected) in [
        (None, None, &["capC", "capB", "capA"][..]),
        (None, Some("name"), &["capA", "capB", "capC"]),
        (None, Some("-status,name"), &["capA", "capB", "capC"]),
        (Some(r#"name == "capB""#), None, &["capB"]),
        (Some(r#"name in ["capA", "capC"]"#), Some("+name"), &["capA", "capC"]),
        (Some(r#"agent_ids == "i-1""#), Some("name"), &["capA", "capB"]),
        (Some(r#"image contains "python" & status == "pending""#), None, &["capC"]),
        (Some(r#"terminated_at isnot null"#), None, &["capA"]),
        (Some(r#"created_at >= "2026-11-21T04:03:15Z""#), None, &["capC", "capB"]),
        (Some(r#"id == "6f4f0499-5c42-484a-be48-1f36123e2c71""#), None, &["capB"]),
        (Some(r#"cluster_size > 1"#), None, &[]),
        (
            Some(r#"user_email ilike "ADMIN@%" & cluster_mode == "SINGLE_NODE""#),
            Some("name"),
            &["capA", "capB", "capC"],
        ),
        (Some(r#"scheduled_at > "2020-01-01""#), None, &["capB"]),
        (Some(r#"full_name == "x' OR 1=1 --""#), None, &[]),
    ] {
        let (found, total) = names(&world, list(all, filter, order)).await;
        assert_eq!(found, expected, "{filter:?} {order:?}");
        assert_eq!(total, expected.len() as i64, "{filter:?} {order:?}");
    }
    let mut page = list(all, None, Some("name"));
    page["limit"] = json!(2);
    assert_eq!(names(&world, page.clone()).await, (vec!["capA".into(), "capB".into()], 3));
    page["offset"] = json!(2);
    assert_eq!(names(&world, page.clone()).await, (vec!["capC".into()], 3));
    page["offset"] = json!(4);
    assert_eq!(names(&world, page).await, (vec![], 3));
}

/// The queries of `backend.ai admin …`, with the fields its tables show.
#[tokio::test]
async fn the_stock_clients_lists_of_people_and_places_are_answered() {
    let world = World::start().await;
    let key = world.key("admin").await;
    let ask = async |query: &str| -> Value {
        let reply = world.gql(key, query, json!({})).await;
        assert!(!reply.contains("errors"), "{reply}");
        serde_json::from_str::<Value>(&reply).unwrap()["data"].take()
    };
    let users = "{ user_list(limit: 20, offset: 0, order: \"email\", filter: \"role == \\\"USER\\\"\") { items { uuid role username email need_password_change status status_info is_active created_at domain_name groups { id name } allowed_client_ip totp_activated sudo_session_enabled main_access_key } total_count } }";
    let reply = ask(users).await;
    let first = &reply["user_list"]["items"][0];
    assert_eq!(first["username"], "user1");
    assert_eq!(
        first["groups"],
        json!([{"id": "f3ee69b6-3224-40ae-aa56-837ce2c3e0db", "name": "default"}])
    );
    assert_eq!(reply["user_list"]["total_count"], 2);

    let keypairs = "{ keypair_list(limit: 2, offset: 0, order: \"email\") { items { user_id projects user_info { full_name } access_key secret_key is_active is_admin created_at last_used resource_policy rate_limit concurrency_used } total_count } }";
    let reply = ask(keypairs).await;
    let first = &reply["keypair_list"]["items"][0];
    assert_eq!(
        (&first["user_id"], &first["projects"]),
        (&json!("admin@example.org"), &json!(["default"]))
    );
    assert_eq!(first["user_info"], json!({"full_name": "Demo superadmin"}));
    assert_eq!(reply["keypair_list"]["total_count"], 5);

    let domain = "{ domain { name description is_active created_at total_resource_slots allowed_vfolder_hosts allowed_docker_registries integration_id } }";
    assert_eq!(ask(domain).await["domain"]["total_resource_slots"], "{}");
    let groups = "{ groups { id name is_active created_at integration_id scaling_groups } }";
    assert_eq!(ask(groups).await["groups"][0]["name"], "default");
    let places = "query($is_active: Boolean) { scaling_groups(is_active: $is_active) { name description is_active is_public created_at driver scheduler use_host_network wsproxy_addr wsproxy_api_token } }";
    assert_eq!(ask(places).await["scaling_groups"][0]["scheduler"], "fifo");
    assert_eq!(
        ask("{ scaling_groups_for_domain(domain: \"default\") { name } }").await,
        json!({"scaling_groups_for_domain": [{"name": "default"}]})
    );
    let policies = "{ keypair_resource_policies { name created_at total_resource_slots max_concurrent_sessions max_vfolder_count max_vfolder_size idle_timeout max_containers_per_session allowed_vfolder_hosts } }";
    assert_eq!(ask(policies).await["keypair_resource_policies"][0]["max_concurrent_sessions"], 30);
    assert_eq!(
        ask("{ resource_preset(name: \"cpu01-small\") { resource_slots shared_memory } }").await,
        json!({"resource_preset": {"resource_slots": "{\"cpu\": \"1\", \"mem\": \"1073741824\"}",
                                   "shared_memory": null}})
    );
}

/// Every field that a list can be filtered or ordered by works in SQL.
#[tokio::test]
async fn every_field_of_the_tables_is_understood_by_the_database() {
    use backendai_datastore::agent_list_view::AGENT_FIELDS;
    use backendai_datastore::identity_view::USER_FIELDS;
    use backendai_datastore::keypair_view::KEYPAIR_FIELDS;
    use backendai_datastore::list_view::Kind;
    use backendai_datastore::session_list_view::SESSION_FIELDS;
    let world = World::start().await;
    insert_sessions(&world).await;
    let key = world.key("admin").await;
    let users = "query($limit:Int!, $offset:Int!, $filter: String, $order: String) { user_list(limit: $limit, offset: $offset, filter: $filter, order: $order) { items { uuid } total_count } }";
    let keypairs = users.replace("user_list", "keypair_list").replace("uuid", "access_key");
    for (query, fields) in [
        (LIST, SESSION_FIELDS),
        (AGENTS, AGENT_FIELDS),
        (users, USER_FIELDS),
        (&keypairs, KEYPAIR_FIELDS),
    ] {
        for field in fields {
            let value = match field.kind {
                Kind::Text | Kind::Opaque => r#""x""#.to_owned(),
                Kind::Int => "3".into(),
                Kind::Bool => "true".into(),
                Kind::Date => r#""2023-01-01""#.into(),
                Kind::Uuid => r#""6f4f0499-5c42-484a-be48-1f36123e2c71""#.into(),
                Kind::Enum(names) => format!("{:?}", names[0].0),
            };
            let mut filters = vec![];
            if field.filter {
                filters.push(format!("{} == {value}", field.name));
                filters.push(format!("{} isnot null", field.name));
                if field.kind != Kind::Bool {
                    filters.push(format!("{} in [{value}]", field.name));
                    filters.push(format!(r#"{} like "x%""#, field.name));
                }
            }
            for filter in filters.iter().map(Some).chain([None]) {
                let variables = json!({"limit": 5, "offset": 0, "filter": filter,
                                       "order": field.order.then_some(field.name)});
                let reply = world.gql(key, query, variables).await;
                assert!(!reply.contains("errors"), "{}: {filter:?}: {reply}", field.name);
            }
        }
    }
}

#[tokio::test]
async fn errors_come_beside_the_data_or_as_a_problem() {
    let world = World::start().await;
    let key = world.key("admin").await;
    let reply = world.gql(key, LIST, list("RUNNING", Some("nope == 1"), None)).await;
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(reply["data"], json!({"compute_session_list": null}));
    let error = &reply["errors"][0];
    assert_eq!(error["message"], "('Unknown/unsupported field name', 'nope')");
    assert_eq!(error["path"], json!(["compute_session_list"]));
    assert_eq!(error["locations"][0]["line"], 2);
    let keys: Vec<_> = error.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["message", "locations", "path"]);

    for (query, message) in [
        ("{ nope }", "nope"),
        ("{ keypair { nope } }", "nope"),
        ("{", "expected"),
        ("", "expected"),
        ("{ __schema { types { name } } }", "Cannot query '__schema': introspection is disabled."),
        ("{ keypair { __typename } }", "Cannot query '__typename': introspection is disabled."),
    ] {
        let reply: Value = serde_json::from_str(&world.gql(key, query, json!({})).await).unwrap();
        assert_eq!(reply["data"], Value::Null, "{query}");
        let text = reply["errors"][0]["message"].as_str().unwrap();
        assert!(text.contains(message), "{query}: {text}");
    }
    let deep = format!(
        "{{ keypair {} {{ id }} {} }}",
        "{ compute_sessions { dependencies ".repeat(20),
        "}".repeat(40)
    );
    let reply = world.gql(key, &deep, json!({})).await;
    assert!(reply.contains("errors"), "{reply}");

    world.app.etcd.put("config/api/allow-graphql-schema-introspection", "true").await.unwrap();
    world.app.shared.invalidate();
    let reply = world.gql(key, "{ __schema { queryType { name } } }", json!({})).await;
    assert_eq!(reply, r#"{"data":{"__schema":{"queryType":{"name":"Queries"}}}}"#);

    let legacy = |query: &str| {
        let body = json!({"query": query});
        world.request("POST", "/admin/graphql").json(&body).signed(key).send()
    };
    assert_eq!(legacy("{ keypair { is_admin } }").await.text, r#"{"keypair":{"is_admin":true}}"#);
    let reply = legacy("{ nope }").await;
    assert_eq!(reply.problem().1, "graphql-error");
    assert!(reply.json()["data"][0]["message"].is_string());
    let body = json!({"variables": {}});
    let reply = world.request("POST", "/admin/gql").json(&body).signed(key).send().await;
    assert_eq!(reply.json()["data"], json!({"query": "is required"}));
}

/// What each role is told; that every field has a rule, `matrix` checks.
#[tokio::test]
async fn roles_are_told_why_they_may_not() {
    const FORBIDDEN: &str = "Forbidden operation.";
    const SUPERADMINS: &str = "Forbidden operation. (superadmin privilege required)";
    const NO_ROLE: &str = "Missing or invalid API parameters. (Unknown client role)";
    let world = World::start().await;
    insert_sessions(&world).await;
    world
        .sql
        .batch_execute("UPDATE users SET role = 'monitor' WHERE username = 'user2'")
        .await
        .unwrap();
    world.app.etcd.put("config/api/allow-graphql-schema-introspection", "true").await.unwrap();
    let admins_key = world.key("admin").await.access;
    let others = format!("access_key: {admins_key:?}");
    let admins_email = "email: \"admin@example.org\"";
    const PRIVILEGE: &str = "Insufficient privilege.";
    let people: [&str; 3] = ["", PRIVILEGE, PRIVILEGE];
    // Query, and what a domain administrator, a user and a monitor are told.
    let own: [&str; 3] = ["", FORBIDDEN, NO_ROLE];
    let cases: Vec<(&str, String, [&str; 3])> = vec![
        ("agent", "agent(agent_id: \"i-1\") { id }".into(), [SUPERADMINS; 3]),
        ("agents", "agents { id }".into(), [SUPERADMINS; 3]),
        ("agent_list", "agent_list(limit: 1, offset: 0) { total_count }".into(), [SUPERADMINS; 3]),
        ("image", "image(reference: \"x\") { id }".into(), ["No such environment image."; 3]),
        ("images", "images { id }".into(), [""; 3]),
        ("domain", "domain(name: \"other\") { name }".into(), ["No such domain."; 3]),
        ("domains", "domains { name }".into(), [SUPERADMINS; 3]),
        (
            "group",
            "group(id: \"00000000-5c42-484a-be48-1f36123e2c71\") { name }".into(),
            people,
        ),
        ("groups_by_name", "groups_by_name(name: \"default\") { name }".into(), [""; 3]),
        ("groups", "groups { name }".into(), [""; 3]),
        ("user", format!("user({admins_email}) {{ uuid }}"), own),
        (
            "user_from_uuid",
            "user_from_uuid(user_id: \"97cf5801-5050-4414-85d3-07ce57e58778\") { uuid }".into(),
            own,
        ),
        ("users", "users { uuid }".into(), people),
        ("user_list", "user_list(limit: 1, offset: 0) { total_count }".into(), people),
        ("keypairs", format!("keypairs({admins_email}) {{ access_key }}"), own),
        (
            "keypair_list",
            format!("keypair_list(limit: 1, offset: 0, {admins_email}) {{ total_count }}"),
            own,
        ),
        ("scaling_group", "scaling_group(name: \"default\") { name }".into(), [SUPERADMINS; 3]),
        ("scaling_groups", "scaling_groups { name }".into(), [SUPERADMINS; 3]),
        (
            "scaling_groups_for_domain",
            "scaling_groups_for_domain(domain: \"default\") { name }".into(),
            [SUPERADMINS; 3],
        ),
        (
            "scaling_groups_for_user_group",
            "scaling_groups_for_user_group(user_group: \"f3ee69b6-3224-40ae-aa56-837ce2c3e0db\") { name }".into(),
            [SUPERADMINS; 3],
        ),
        (
            "scaling_groups_for_keypair",
            format!("scaling_groups_for_keypair({others}) {{ name }}"),
            [SUPERADMINS; 3],
        ),
        ("keypair_resource_policy", "keypair_resource_policy { name }".into(), [""; 3]),
        ("keypair_resource_policies", "keypair_resource_policies { name }".into(), [""; 3]),
        ("resource_preset", "resource_preset(name: \"x\") { name }".into(), [""; 3]),
        ("resource_presets", "resource_presets { name }".into(), [""; 3]),
        ("keypair", format!("keypair({others}) {{ access_key }}"), own),
        (
            "compute_session",
            format!(
                "compute_session(id: \"6f4f0499-5c42-484a-be48-1f36123e2c71\", {others}) {{ name }}"
            ),
            own,
        ),
        (
            "compute_session_list",
            format!("compute_session_list(limit: 1, offset: 0, {others}) {{ total_count }}"),
            own,
        ),
    ];
    for (name, query, expected) in &cases {
        for (username, expected) in ["domain-admin", "user1", "user2"].iter().zip(expected) {
            let key = world.key(username).await;
            let reply = world.gql(key, &format!("{{ {query} }}"), json!({})).await;
            let reply: Value = serde_json::from_str(&reply).unwrap();
            let message = reply["errors"][0]["message"].as_str().unwrap_or_default();
            let fits = if expected.is_empty() {
                message.is_empty()
            } else {
                message.starts_with(expected)
            };
            assert!(fits, "{name} by {username}: {reply}");
        }
    }
    // An administrator does not learn the secret of somebody above.
    let key = world.key("domain-admin").await;
    let query = format!("{{ keypair({others}) {{ access_key secret_key }} }}");
    assert_eq!(
        world.gql(key, &query, json!({})).await,
        format!(r#"{{"data":{{"keypair":{{"access_key":"{admins_key}","secret_key":null}}}}}}"#)
    );
    // Another's session is as absent as one that does not exist.
    let key = world.key("user1").await;
    for id in ["6f4f0499-5c42-484a-be48-1f36123e2c71", "00000000-5c42-484a-be48-1f36123e2c71"] {
        let query = format!("{{ compute_session(id: {id:?}) {{ name }} }}");
        assert_eq!(world.gql(key, &query, json!({})).await, r#"{"data":{"compute_session":null}}"#);
    }
}
