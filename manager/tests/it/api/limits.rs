//! GraphQL that nobody writes in good faith is refused in words, and costs little.

use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn absurd_queries_are_refused_in_words() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let deep = |depth: usize, open: &str| format!("{}{}", open.repeat(depth), "}".repeat(depth));
    let many = |count: usize, field: &str| {
        let fields: Vec<String> = (0..count).map(|n| format!("a{n}: {field}")).collect();
        format!("{{ {} }}", fields.join(" "))
    };
    let cases = [
        ("depth", format!("{{ keypair {} }}", deep(10_000, "{ user_info "))),
        ("nested lists", format!("{{ keypair {} }}", deep(300, "{ compute_sessions "))),
        ("aliases", many(10_000, "keypair { access_key }")),
        ("breadth", format!("{{ keypair {{ {} }} }}", "access_key ".repeat(10_000))),
        (
            "fragment cycle",
            "{ keypair { ...a } } fragment a on KeyPair { ...b } fragment b on KeyPair { ...a }"
                .into(),
        ),
        ("self-reference", "{ keypair { ...a } } fragment a on KeyPair { ...a }".into()),
        ("unknown fragment", "{ keypair { ...nothing } }".into()),
        (
            "wrong type",
            "{ compute_session_list(limit: \"many\", offset: 0) { total_count } }".into(),
        ),
        ("wrong object", "mutation { create_domain(name: {}, props: []) { ok } }".into()),
        (
            "number too large",
            "{ compute_session_list(limit: 99999999999999999999, offset: 0) { total_count } }"
                .into(),
        ),
        ("unknown field", "{ secrets }".into()),
        ("unknown argument", "{ keypair(password: \"x\") { access_key } }".into()),
        (
            "two operations",
            "query a { keypair { access_key } } query b { keypair { access_key } }".into(),
        ),
        ("no operation", "fragment a on KeyPair { access_key }".into()),
        ("no query", "}{".into()),
        (
            "long filter",
            format!(
                "{{ keypair_list(limit: 1, offset: 0, filter: {:?}) {{ total_count }} }}",
                "(".repeat(50_000)
            ),
        ),
        (
            "long order",
            format!(
                "{{ keypair_list(limit: 1, offset: 0, order: {:?}) {{ total_count }} }}",
                "x,".repeat(50_000)
            ),
        ),
    ];
    for (what, query) in cases {
        let body = json!({"query": query, "variables": {"unused": [[[[]]]]}});
        let reply = world.request("POST", "/admin/gql").signed(key).json(&body).send().await;
        assert_eq!(reply.status, 200, "{what}: {}", reply.text);
        let answer: Value = reply.json();
        let message = answer["errors"][0]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{what}: {answer}");
        assert!(reply.text.len() < 200_000, "{what}: an answer of {} bytes", reply.text.len());
    }
    let fine = world.gql(key, "{ keypair { access_key access_key } }", json!({})).await;
    assert!(fine.contains(key.access), "{fine}");
}
