//! `ScalingGroup`, `KeyPairResourcePolicy`, `ResourcePreset`.

use async_graphql::Object;
use backendai_datastore::preset_view::PresetView;
use backendai_datastore::site_view::{KeypairPolicyView, ScalingGroupView};

use super::scalars::{BigInt, DateTime, JsonString};

/// A scaling group.
pub struct ScalingGroup(pub ScalingGroupView);

/// A resource policy of keypairs.
pub struct KeypairPolicy(pub KeypairPolicyView);

/// A named set of amounts.
pub struct ResourcePreset(pub PresetView);

/// A scaling group.
#[Object(rename_fields = "snake_case")]
impl ScalingGroup {
    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    async fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    async fn is_active(&self) -> Option<bool> {
        Some(self.0.is_active)
    }

    async fn is_public(&self) -> Option<bool> {
        Some(self.0.is_public)
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.0.created_at.into())
    }

    async fn wsproxy_addr(&self) -> Option<&str> {
        self.0.wsproxy_addr.as_deref()
    }

    async fn wsproxy_api_token(&self) -> Option<&str> {
        self.0.wsproxy_api_token.as_deref()
    }

    async fn driver(&self) -> Option<&str> {
        Some(&self.0.driver)
    }

    async fn driver_opts(&self) -> Option<JsonString> {
        Some(self.0.driver_opts.clone().into())
    }

    async fn scheduler(&self) -> Option<&str> {
        Some(&self.0.scheduler)
    }

    async fn scheduler_opts(&self) -> Option<JsonString> {
        Some(self.0.scheduler_opts.clone().into())
    }

    async fn use_host_network(&self) -> Option<bool> {
        Some(self.0.use_host_network)
    }
}

/// A resource policy of keypairs.
#[Object(name = "KeyPairResourcePolicy", rename_fields = "snake_case")]
impl KeypairPolicy {
    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.0.created_at.into())
    }

    async fn default_for_unspecified(&self) -> Option<&str> {
        Some(&self.0.default_for_unspecified)
    }

    async fn total_resource_slots(&self) -> Option<JsonString> {
        Some(self.0.total_resource_slots.clone().into())
    }

    async fn max_session_lifetime(&self) -> Option<i32> {
        Some(self.0.max_session_lifetime)
    }

    async fn max_concurrent_sessions(&self) -> Option<i32> {
        Some(self.0.max_concurrent_sessions)
    }

    async fn max_containers_per_session(&self) -> Option<i32> {
        Some(self.0.max_containers_per_session)
    }

    async fn idle_timeout(&self) -> Option<BigInt> {
        Some(BigInt(self.0.idle_timeout))
    }

    async fn allowed_vfolder_hosts(&self) -> Option<JsonString> {
        Some(self.0.allowed_vfolder_hosts.clone().into())
    }

    async fn max_vfolder_count(&self) -> Option<i32> {
        Some(self.0.max_vfolder_count)
    }

    async fn max_vfolder_size(&self) -> Option<BigInt> {
        Some(BigInt(self.0.max_vfolder_size))
    }

    async fn max_quota_scope_size(&self) -> Option<BigInt> {
        Some(BigInt(self.0.max_vfolder_size))
    }
}

/// A named set of amounts.
#[Object(rename_fields = "snake_case")]
impl ResourcePreset {
    async fn name(&self) -> Option<&str> {
        Some(&self.0.name)
    }

    async fn resource_slots(&self) -> Option<JsonString> {
        Some(JsonString::slots(&self.0.slots))
    }

    async fn shared_memory(&self) -> Option<BigInt> {
        self.0.shared_memory.map(BigInt)
    }
}
