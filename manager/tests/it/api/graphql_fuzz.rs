//! GraphQL requests that mean harm: they are refused, quickly and without a failure of ours.

use std::fmt::Write as _;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn hostile_queries_are_refused_and_the_manager_goes_on() {
    let world = World::start().await;
    let key = world.key("admin").await;
    let deep = |field: &str, depth: usize| {
        format!("{{ {} x {} }}", format!("{field} {{ ").repeat(depth), "} ".repeat(depth))
    };
    let lists = format!(
        "query q($x: [Int]) {{ users(domain_name: {}1{}) {{ email }} }}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let objects = format!(
        "{{ users(domain_name: {}1{}) {{ email }} }}",
        "{a: ".repeat(10_000),
        "}".repeat(10_000)
    );
    let mut aliases = String::from("{ ");
    for n in 0..10_000 {
        write!(aliases, "a{n}: domains {{ name }} ").unwrap();
    }
    aliases.push('}');
    let fields = format!("{{ domains {{ {} }} }}", "name ".repeat(50_000));
    let directives = format!("{{ domains {} {{ name }} }}", "@include(if: true) ".repeat(10_000));
    let spreads = {
        let mut text = String::from("{ domains { ...f0 } } ");
        for n in 0..30 {
            write!(text, "fragment f{n} on Domain {{ ...f{} ...f{} }} ", n + 1, n + 1).unwrap();
        }
        text + "fragment f30 on Domain { name }"
    };
    let refused = [
        deep("domains", 10_000),
        deep("... on Queries", 10_000),
        deep("domains", 100),
        lists,
        objects,
        aliases,
        fields,
        spreads,
        "{ domains { ...a } } fragment a on Domain { ...b } fragment b on Domain { ...a }".into(),
        "{ domains { ...a } } fragment a on Domain { name ...a }".into(),
        "query($limit: Int!) { user_list(limit: $limit, offset: 0) { total_count } }".into(),
        "{ user_list(limit: \"x\", offset: 0) { total_count } }".into(),
        "{ user_list(limit: 99999999999999999999, offset: 0) { total_count } }".into(),
        "{ domain(name: {a: 1}) { name } }".into(),
        "{ compute_session(id: \"\\u0000\") { name } }".into(),
        "{ nowhere }".into(),
        "{".into(),
        "".into(),
        "\u{feff}{ \u{1f4a9} }".into(),
        "subscription { x }".into(),
        "mutation { nothing { ok } }".into(),
    ];
    for query in refused.iter().chain([&directives]) {
        let body = json!({"query": query, "variables": {}});
        let reply = world.request("POST", "/admin/gql").signed(key).json(&body).send().await;
        let start: String = query.chars().take(60).collect();
        assert!(
            matches!(reply.status, StatusCode::OK | StatusCode::BAD_REQUEST),
            "{start}: {} {}",
            reply.status,
            reply.text
        );
        let answer: Value = serde_json::from_str(&reply.text).unwrap();
        let failed = reply.status == StatusCode::BAD_REQUEST || answer["errors"].is_array();
        assert!(failed || query == &directives, "{start}: {}", reply.text);
    }
    for variables in [json!([]), json!(1), json!({"limit": {"a": []}}), json!({"limit": 1e300})] {
        let query = "query($limit: Int!) { user_list(limit: $limit, offset: 0) { total_count } }";
        let body = json!({"query": query, "variables": variables});
        let reply = world.request("POST", "/admin/gql").signed(key).json(&body).send().await;
        assert!(matches!(reply.status, StatusCode::OK | StatusCode::BAD_REQUEST), "{variables}");
        assert!(!reply.text.contains("total_count\":"), "{}", reply.text);
    }
    let good = world.gql(key, "{ domains { name } }", json!({})).await;
    assert!(good.contains("default"), "{good}");
}
