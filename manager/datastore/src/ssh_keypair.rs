//! Ssh keys of keypairs: what their owners' kernels can be entered with.

use backendai_types::AccessKey;

use crate::error::Result;
use crate::tx::Transaction;

impl Transaction {
    /// The public key, in OpenSSH's form; `None` if there is none, or no such keypair.
    pub async fn ssh_public_key(&self, access_key: &AccessKey) -> Result<Option<String>> {
        let row = self
            .query_opt(
                "-- ssh_public_key
                 SELECT ssh_public_key FROM keypairs WHERE access_key = $1",
                &[&access_key.0],
            )
            .await?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// Replaces both halves. False if there is no such keypair.
    pub async fn set_ssh_keypair(
        &self,
        access_key: &AccessKey,
        public_key: &str,
        private_key: &str,
    ) -> Result<bool> {
        let changed = self
            .execute(
                "-- set_ssh_keypair
                 UPDATE keypairs SET ssh_public_key = $2, ssh_private_key = $3, modified_at = now()
                 WHERE access_key = $1",
                &[&access_key.0, &public_key, &private_key],
            )
            .await?;
        Ok(changed == 1)
    }
}
