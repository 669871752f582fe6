//! What can go wrong between us and PostgreSQL.

use tokio_postgres::error::SqlState;

/// Result of a datastore operation.
pub type Result<T, E = DatastoreError> = std::result::Result<T, E>;

/// A datastore operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DatastoreError {
    /// The server cannot be reached, or no connection became free in time.
    #[error("connect to PostgreSQL")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row with this key exists already; the text names the constraint.
    #[error("{constraint} is violated: such a row exists already")]
    Conflict {
        /// Name of the constraint.
        constraint: String,
        /// The server's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A row refers to one that does not exist, or is referred to.
    #[error("{constraint} is violated: a referenced row is missing or still in use")]
    Reference {
        /// Name of the constraint.
        constraint: String,
        /// The server's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The change is not one the state diagram has.
    #[error(transparent)]
    Transition(#[from] backendai_types::TransitionError),
    /// An update that must touch one row touched another number.
    #[error("{what} should be one row, is {rows}")]
    RowCount {
        /// What was to be changed.
        what: &'static str,
        /// How many rows there were.
        rows: u64,
    },
    /// A stored value cannot be read as what it should be.
    #[error("malformed {column} in the database: {message}")]
    Malformed {
        /// Where.
        column: &'static str,
        /// Why.
        message: String,
    },
    /// The schema is not the one this program was built for.
    #[error("{0}")]
    Schema(String),
    /// A value given by the caller cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// Anything else PostgreSQL reports.
    #[error("query PostgreSQL")]
    Query(#[source] tokio_postgres::Error),
}

impl DatastoreError {
    /// True when the same transaction may succeed when tried again at once.
    pub(crate) fn is_retryable(&self) -> bool {
        let Self::Query(error) = self else { return false };
        matches!(
            error.code(),
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED)
        )
    }

    /// What is wrong with the values, if PostgreSQL refused to store them.
    pub fn refused_values(&self) -> Option<String> {
        match self {
            Self::Conflict { .. } | Self::Reference { .. } | Self::Invalid(_) => {
                Some(self.to_string())
            }
            Self::Query(error) => {
                let db = error.as_db_error()?;
                let refused = matches!(
                    *db.code(),
                    SqlState::STRING_DATA_RIGHT_TRUNCATION
                        | SqlState::NUMERIC_VALUE_OUT_OF_RANGE
                        | SqlState::CHECK_VIOLATION
                        | SqlState::NOT_NULL_VIOLATION
                        | SqlState::CHARACTER_NOT_IN_REPERTOIRE
                );
                refused.then(|| db.message().to_owned())
            }
            _ => None,
        }
    }

    /// True when PostgreSQL was not there (any more).
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Query(error) => {
                error.is_closed()
                    || matches!(
                        error.code(),
                        Some(
                            &SqlState::ADMIN_SHUTDOWN
                                | &SqlState::CRASH_SHUTDOWN
                                | &SqlState::CANNOT_CONNECT_NOW
                                | &SqlState::TOO_MANY_CONNECTIONS
                        )
                    )
                    || std::error::Error::source(error)
                        .is_some_and(|source| source.downcast_ref::<std::io::Error>().is_some())
            }
            _ => false,
        }
    }
}

impl From<tokio_postgres::Error> for DatastoreError {
    fn from(source: tokio_postgres::Error) -> Self {
        let Some(db) = source.as_db_error() else { return Self::Query(source) };
        let constraint = db.constraint().unwrap_or("a constraint").to_owned();
        match *db.code() {
            SqlState::UNIQUE_VIOLATION => Self::Conflict { constraint, source },
            SqlState::FOREIGN_KEY_VIOLATION => Self::Reference { constraint, source },
            _ => Self::Query(source),
        }
    }
}

impl From<deadpool_postgres::PoolError> for DatastoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}
