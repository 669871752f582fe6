//! Who asks, and on whose behalf.

use backendai_types::{AccessKey, UserId};
use serde::{Deserialize, Serialize};

/// A user's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May do everything.
    Superadmin,
    /// Administers a domain.
    Admin,
    /// Uses the cluster.
    User,
    /// Sees what an administrator sees, changes nothing.
    Monitor,
}

impl Role {
    /// The spelling on the wire and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Superadmin => "superadmin",
            Self::Admin => "admin",
            Self::User => "user",
            Self::Monitor => "monitor",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "superadmin" => Ok(Self::Superadmin),
            "admin" => Ok(Self::Admin),
            "user" => Ok(Self::User),
            "monitor" => Ok(Self::Monitor),
            other => Err(format!("unknown role {other:?}")),
        }
    }
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Names the request in logs and in the error the client sees.
    pub request_id: String,
    /// The keypair that signed.
    pub access_key: AccessKey,
    /// True for administrators' keypairs.
    pub is_admin_key: bool,
    /// The keypair's user.
    pub user_id: UserId,
    /// The user's e-mail address.
    pub email: String,
    /// The user's role.
    pub role: Role,
    /// The user's domain.
    pub domain_name: String,
    /// Negotiated API version.
    pub api_version: (u32, String),
}

impl RequestContext {
    /// True for the role that may do everything.
    pub fn is_superadmin(&self) -> bool {
        self.role == Role::Superadmin
    }
}
