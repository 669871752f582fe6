//! The configuration reference in `docs/`.

use backendai_agent::config::AgentConfig;
use backendai_service::config::reference::reference;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config/agent.toml");
const SOURCES: [&str; 4] = [
    include_str!("../../src/config/mod.rs"),
    include_str!("../../src/config/sections.rs"),
    include_str!("../../../common/service/src/metrics.rs"),
    include_str!("../../../common/service/src/config/agent_file.rs"),
];

const HEAD: &str = "\
# Every key of agent.toml with its default. Made from the source:
#     UPDATE_REFERENCE=1 cargo test -p backendai-agent the_reference
#
# Looked for as ./agent.toml, ~/.config/backend.ai/agent.toml, /etc/backend.ai/agent.toml,
# or where --config or $BACKEND_CONFIG_FILE says; agent.d/*.toml beside it add to it.
# BACKENDAI_AGENT__RESOURCE__RESERVED_MEM=2g sets resource.reserved-mem, and so for every key.

";

#[test]
fn the_reference_shows_every_key_with_its_default() {
    let defaults = toml::Table::try_from(AgentConfig::default()).unwrap();
    let sections = reference(&SOURCES.concat(), "AgentConfig", &defaults).unwrap();
    let expected = format!("{HEAD}{sections}");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(REFERENCE, &expected).unwrap();
    }
    let actual = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(
        actual == expected,
        "{REFERENCE} is not up to date: \
         UPDATE_REFERENCE=1 cargo test -p backendai-agent the_reference"
    );
    let read: AgentConfig = toml::from_str(&actual).unwrap();
    let value = |config: &AgentConfig| serde_json::to_value(config).unwrap();
    assert_eq!(value(&read), value(&AgentConfig::default()));
}
