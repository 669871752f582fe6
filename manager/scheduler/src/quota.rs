//! Limits of owners during a pass.

use std::collections::HashMap;

use backendai_types::{AccessKey, GroupId, ResourceLimits, ResourceSlots, UserId};

use crate::amounts::{Amount, Request, SlotTable, Vector, to_amount};
use crate::{Quota, Quotas, Session};

/// What the pass knows of owners.
#[derive(Default)]
pub(crate) struct Owners {
    pub keypairs: HashMap<AccessKey, KeypairState>,
    pub users: HashMap<UserId, Cap>,
    pub groups: HashMap<GroupId, Cap>,
    pub domains: HashMap<String, Cap>,
}

pub(crate) struct KeypairState {
    pub cap: Cap,
    pub max_sessions: Option<i64>,
    pub sessions: i64,
    pub max_private_sessions: Option<i64>,
    pub private_sessions: i64,
}

/// A cap on resource slots, and what is taken of it.
pub(crate) struct Cap {
    used: Vector,
    /// Named slots; `None` is unlimited.
    named: Vec<(usize, Option<Amount>)>,
    unnamed_unlimited: bool,
    limits: ResourceLimits,
}

impl Cap {
    fn new(quota: Quota, table: &mut SlotTable) -> Self {
        let mut named: Vec<(usize, Option<Amount>)> = quota
            .limits
            .named
            .iter()
            .map(|(slot, cap)| (table.number(slot), cap.map(to_amount)))
            .collect();
        named.sort_unstable();
        Self {
            used: table.vector(&quota.used),
            named,
            unnamed_unlimited: quota.limits.unnamed_unlimited,
            limits: quota.limits,
        }
    }

    pub fn allows(&self, request: &Request) -> bool {
        let asked = |slot: usize| match request.0.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(index) => request.0[index].1,
            Err(_) => 0,
        };
        let under_caps = self
            .named
            .iter()
            .all(|(slot, cap)| cap.is_none_or(|cap| self.used.get(*slot) + asked(*slot) <= cap));
        let is_named = |slot: usize| self.named.binary_search_by_key(&slot, |(s, _)| *s).is_ok();
        under_caps && (self.unnamed_unlimited || request.0.iter().all(|(slot, _)| is_named(*slot)))
    }

    pub fn take(&mut self, request: &Request) {
        self.used.add(request);
    }

    pub fn used(&self) -> &Vector {
        &self.used
    }

    /// The finite caps, for messages: `cpu=4 mem=8g`.
    pub fn describe(&self) -> String {
        let finite: ResourceSlots = self
            .limits
            .named
            .iter()
            .filter_map(|(slot, cap)| cap.map(|cap| (slot.clone(), cap)))
            .collect();
        finite.humanize()
    }
}

impl Owners {
    /// Adds owners that are not known yet; what the pass has taken of the others stays.
    pub fn learn(&mut self, quotas: Quotas, table: &mut SlotTable) {
        for (key, quota) in quotas.keypairs {
            self.keypairs.entry(key).or_insert_with(|| KeypairState {
                cap: Cap::new(quota.slots, table),
                max_sessions: quota.max_sessions,
                sessions: quota.sessions,
                max_private_sessions: quota.max_private_sessions,
                private_sessions: quota.private_sessions,
            });
        }
        for (user, quota) in quotas.users {
            self.users.entry(user).or_insert_with(|| Cap::new(quota, table));
        }
        for (group, quota) in quotas.groups {
            self.groups.entry(group).or_insert_with(|| Cap::new(quota, table));
        }
        for (domain, quota) in quotas.domains {
            self.domains.entry(domain).or_insert_with(|| Cap::new(quota, table));
        }
    }

    /// Counts a placed session against its owners.
    pub fn take(&mut self, session: &Session, request: &Request) {
        if let Some(keypair) = self.keypairs.get_mut(&session.access_key) {
            if session.is_private {
                keypair.private_sessions += 1;
                return;
            }
            keypair.sessions += 1;
            keypair.cap.take(request);
        }
        if let Some(cap) = self.users.get_mut(&session.user_id) {
            cap.take(request);
        }
        if let Some(cap) = self.groups.get_mut(&session.group_id) {
            cap.take(request);
        }
        if let Some(cap) = self.domains.get_mut(&session.domain_name) {
            cap.take(request);
        }
    }
}
