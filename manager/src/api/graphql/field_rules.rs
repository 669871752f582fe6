//! The authorization table of GraphQL: who may use each root field, and how much of the
//! cluster a plain user reaches through it.
//!
//! [`guard`](super::guard) admits callers by this table, for queries and mutations alike. A
//! field that is missing here admits nobody, and fails a test.

use crate::context::Role;

/// Who may use a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Superadmins.
    Superadmin,
    /// Superadmins, and administrators within their domain.
    Administrator,
    /// Superadmins, administrators within their domain, users for what is their own.
    Scoped,
    /// Everybody who signs; what is shown depends on the role.
    Anyone,
}

/// How far a field reaches for the lowest role that may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What belongs to the caller.
    Own,
    /// What belongs to the caller's projects.
    Project,
    /// What belongs to the caller's domain.
    Domain,
    /// Everything.
    All,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct FieldRule {
    /// The field's name.
    pub name: &'static str,
    /// Who may use it.
    pub rule: Rule,
    /// How far it reaches.
    pub reach: Reach,
}

impl Rule {
    /// Whether a role may use the field at all.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Superadmin => role == Role::Superadmin,
            Self::Administrator => matches!(role, Role::Superadmin | Role::Admin),
            Self::Scoped => role != Role::Monitor,
            Self::Anyone => true,
        }
    }
}

macro_rules! fields {
    ($($name:ident $rule:ident $reach:ident;)+) => {
        &[$(FieldRule { name: stringify!($name), rule: Rule::$rule, reach: Reach::$reach }),+]
    };
}

/// The rules of queries.
pub static QUERIES: &[FieldRule] = fields! {
    agent Superadmin All;
    agent_list Superadmin All;
    agent_summary Scoped Own;
    agent_summary_list Scoped Own;
    agents Superadmin All;
    audit_log_list Administrator Domain;
    compute_container Scoped Own;
    compute_container_list Scoped Own;
    compute_session Scoped Own;
    compute_session_list Scoped Own;
    container_registries Superadmin All;
    container_registry Superadmin All;
    domain Anyone Domain;
    domains Superadmin All;
    group Anyone Project;
    groups Anyone Project;
    group_node Administrator Domain;
    group_nodes Administrator Domain;
    groups_by_name Anyone Project;
    image Anyone Domain;
    images Anyone Domain;
    keypair Scoped Own;
    keypair_list Scoped Own;
    keypair_resource_policies Anyone Own;
    keypair_resource_policy Anyone All;
    keypairs Scoped Own;
    node Administrator Domain;
    project_resource_policies Administrator All;
    project_resource_policy Anyone All;
    quota_scope Anyone Own;
    resource_preset Anyone All;
    resource_presets Anyone All;
    scaling_group Superadmin All;
    scaling_groups Superadmin All;
    scaling_groups_for_domain Superadmin All;
    scaling_groups_for_keypair Superadmin All;
    scaling_groups_for_user_group Superadmin All;
    storage_volume Superadmin All;
    storage_volume_list Superadmin All;
    user Scoped Own;
    user_from_uuid Scoped Own;
    user_list Administrator Domain;
    user_node Administrator Domain;
    user_nodes Administrator Domain;
    user_resource_policies Anyone Own;
    user_resource_policy Anyone All;
    users Administrator Domain;
    vfolder Superadmin All;
    vfolder_host_permissions Anyone All;
    vfolder_invited_list Scoped Own;
    vfolder_list Scoped Own;
    vfolder_own_list Scoped Own;
    vfolder_permission_list Superadmin All;
    vfolder_project_list Scoped Project;
};

/// The rules of mutations.
pub static MUTATIONS: &[FieldRule] = fields! {
    alias_image Superadmin All;
    associate_scaling_group_with_domain Superadmin All;
    associate_scaling_group_with_keypair Superadmin All;
    associate_scaling_group_with_user_group Superadmin All;
    clear_images Superadmin All;
    create_container_registry Superadmin All;
    create_domain Superadmin All;
    create_group Administrator Domain;
    create_keypair Superadmin All;
    create_keypair_resource_policy Superadmin All;
    create_project_resource_policy Superadmin All;
    create_resource_preset Superadmin All;
    create_scaling_group Superadmin All;
    create_user Superadmin All;
    create_user_resource_policy Superadmin All;
    dealias_image Superadmin All;
    delete_container_registry Superadmin All;
    delete_domain Superadmin All;
    delete_group Administrator Domain;
    delete_keypair Superadmin All;
    delete_keypair_resource_policy Superadmin All;
    delete_project_resource_policy Superadmin All;
    delete_resource_preset Superadmin All;
    delete_scaling_group Superadmin All;
    delete_user Superadmin All;
    delete_user_resource_policy Superadmin All;
    disassociate_all_scaling_groups_with_domain Superadmin All;
    disassociate_all_scaling_groups_with_group Superadmin All;
    disassociate_scaling_group_with_domain Superadmin All;
    disassociate_scaling_group_with_keypair Superadmin All;
    disassociate_scaling_group_with_user_group Superadmin All;
    forget_image Superadmin All;
    modify_agent Superadmin All;
    modify_container_registry Superadmin All;
    modify_domain Superadmin All;
    modify_group Administrator Domain;
    modify_image Superadmin All;
    modify_keypair Superadmin All;
    modify_keypair_resource_policy Superadmin All;
    modify_project_resource_policy Superadmin All;
    modify_resource_preset Superadmin All;
    modify_scaling_group Superadmin All;
    modify_user Superadmin All;
    modify_user_resource_policy Superadmin All;
    preload_image Superadmin All;
    purge_domain Superadmin All;
    purge_group Administrator Domain;
    purge_user Superadmin All;
    rescan_images Administrator All;
    unload_image Superadmin All;
};

/// The rule of a root field; `None` if the table has forgotten it.
pub fn find(table: &[FieldRule], name: &str) -> Option<FieldRule> {
    table.iter().find(|row| row.name == name).copied()
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_schema;
    use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};

    use super::*;

    /// Names of the fields of an object of the schema.
    fn fields(sdl: &str, object: &str) -> Vec<String> {
        let document = parse_schema(sdl).expect("the schema prints what it parses");
        let found = document.definitions.into_iter().find_map(|definition| match definition {
            TypeSystemDefinition::Type(kind) if kind.node.name.node == object => {
                Some(kind.node.kind)
            }
            _ => None,
        });
        let Some(TypeKind::Object(found)) = found else { panic!("no object {object}") };
        found.fields.into_iter().map(|field| field.node.name.node.to_string()).collect()
    }

    #[test]
    fn every_root_field_has_one_rule_and_every_rule_a_field() {
        let sdl = super::super::schema().sdl();
        for (root, table) in [("Queries", QUERIES), ("Mutations", MUTATIONS)] {
            let mut found = fields(&sdl, root);
            found.sort_unstable();
            let mut named: Vec<_> = table.iter().map(|row| row.name.to_owned()).collect();
            named.sort_unstable();
            assert_eq!(
                found, named,
                "{root}: name a rule in graphql/field_rules.rs for each field"
            );
        }
    }
}
