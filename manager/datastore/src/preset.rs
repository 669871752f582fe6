//! Resource presets, as administrators make and change them.

use backendai_types::ResourceSlots;

use crate::error::Result;
use crate::row::slots_json;
use crate::tx::Transaction;

impl Transaction {
    /// Makes a preset. `shared_memory` is in bytes.
    ///
    /// # Errors
    /// There is one of this name.
    pub async fn preset_insert(
        &self,
        name: &str,
        slots: &ResourceSlots,
        shared_memory: Option<i64>,
    ) -> Result<()> {
        self.execute_one(
            "resource preset",
            "-- preset_insert
            INSERT INTO resource_presets (name, resource_slots, shared_memory) VALUES ($1, $2, $3)",
            &[&name, &slots_json(slots), &shared_memory],
        )
        .await
    }

    /// Changes a preset; `None` leaves a value as it is. False if there is none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn preset_update(
        &self,
        name: &str,
        slots: Option<&ResourceSlots>,
        shared_memory: Option<i64>,
    ) -> Result<bool> {
        let sql = "-- preset_update
                   UPDATE resource_presets SET resource_slots = coalesce($2, resource_slots),
                       shared_memory = coalesce($3, shared_memory) WHERE name = $1";
        Ok(self.execute(sql, &[&name, &slots.map(slots_json), &shared_memory]).await? == 1)
    }

    /// Removes a preset; false if there is none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn preset_delete(&self, name: &str) -> Result<bool> {
        let sql = "-- preset_delete
                   DELETE FROM resource_presets WHERE name = $1";
        Ok(self.execute(sql, &[&name]).await? == 1)
    }
}
