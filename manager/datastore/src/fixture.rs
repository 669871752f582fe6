//! Rows from files: a JSON object with a list of rows for each table.
//!
//! A file is loaded whole or not at all. Tables are filled in an order in which what a row
//! refers to comes first, whatever the order in the file; a user's main key and a key's
//! owner, which refer to each other, are checked at the end of the transaction. Rows that
//! exist are left alone, so that loading a file again is harmless; with
//! `"__mode": "update"` rows are changed instead, by primary key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backendai_types::ResourceSlots;
use serde_json::{Map, Value};

use crate::error::DatastoreError;
use crate::image::{read_resources, resources_json};
use crate::password;
use crate::policy::{Caps, parse_host_permissions};
use crate::tx::{AsDatastoreError, Datastore, Transaction};

/// The tables that files may fill, each after those its rows refer to.
const TABLES: [&str; 15] = [
    "domains",
    "user_resource_policies",
    "project_resource_policies",
    "keypair_resource_policies",
    "groups",
    "users",
    "association_groups_users",
    "keypairs",
    "scaling_groups",
    "sgroups_for_domains",
    "sgroups_for_groups",
    "sgroups_for_keypairs",
    "resource_presets",
    "images",
    "image_aliases",
];

/// Columns that files of the product may have and our tables do not: surrogate keys of
/// associations, which are keyed by what they associate here. Dropped.
const IGNORED_COLUMNS: [(&str, &str); 5] = [
    ("association_groups_users", "id"),
    ("sgroups_for_domains", "id"),
    ("sgroups_for_groups", "id"),
    ("sgroups_for_keypairs", "id"),
    ("image_aliases", "id"),
];

/// What tells a row to a person, where a table has it.
const NAMING_COLUMNS: [&str; 5] = ["name", "email", "access_key", "username", "alias"];

/// What was loaded, by table in the order of loading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixtureReport {
    /// Counts by table.
    pub tables: Vec<(String, RowCounts)>,
}

/// Counts of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows in the file.
    pub given: usize,
    /// Rows added or changed.
    pub written: usize,
}

/// A file that cannot be loaded. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// Not an object of lists of rows.
    #[error("{0}")]
    Format(String),
    /// A row cannot be stored.
    #[error("{place}: {message}")]
    Row {
        /// Table, number and name of the row.
        place: String,
        /// Why.
        message: String,
    },
    /// A row has a value that PostgreSQL cannot read.
    #[error("{place}: {message}")]
    Value {
        /// The table.
        table: &'static str,
        /// The row.
        row: Box<Map<String, Value>>,
        /// Table, number and name of the row.
        place: String,
        /// Why.
        message: String,
    },
    /// The database failed.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
}

impl AsDatastoreError for FixtureError {
    fn as_datastore_error(&self) -> Option<&DatastoreError> {
        match self {
            Self::Datastore(error) => Some(error),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Insert,
    Update,
}

/// A file, read and checked as far as it can be without the database.
struct Fixture {
    mode: Mode,
    tables: Vec<(&'static str, Vec<Map<String, Value>>)>,
}

impl Datastore {
    /// Loads a file's rows, all or none. Passwords in plain text are hashed first, which
    /// takes a moment for each.
    ///
    /// # Errors
    /// The file is malformed, names a table or column that does not exist, or has a row
    /// that cannot be stored; or PostgreSQL is not available.
    pub async fn populate(&self, text: &[u8]) -> Result<FixtureReport, FixtureError> {
        let text = text.to_vec();
        // Hashing is work for a thread of its own.
        let fixture = tokio::task::spawn_blocking(move || Fixture::parse(&text))
            .await
            .map_err(|error| FixtureError::Format(format!("reading the file failed: {error}")))??;
        let fixture = Arc::new(fixture);
        let loaded = self
            .run_tx("populate", |tx| {
                let fixture = Arc::clone(&fixture);
                async move { fixture.load(&tx).await }
            })
            .await;
        match loaded {
            Err(FixtureError::Value { table, row, place, message }) => {
                // PostgreSQL says what is wrong with a value, and not of which column it is.
                let message = match self.misfit(table, &row).await? {
                    Some(column) => format!("{column}: {message}"),
                    None => message,
                };
                Err(FixtureError::Row { place, message })
            }
            other => other.map_err(at_commit),
        }
    }

    /// The column of a row whose value PostgreSQL cannot read. All names must be known ones.
    async fn misfit(
        &self,
        table: &str,
        row: &Map<String, Value>,
    ) -> Result<Option<String>, DatastoreError> {
        let tx = self.autocommit().await?;
        for (column, value) in row {
            let alone = Value::Object(Map::from_iter([(column.clone(), value.clone())]));
            let sql = format!(
                "-- fixture_misfit\n\
                 SELECT \"{column}\" FROM jsonb_populate_record(NULL::\"{table}\", $1)"
            );
            if tx.query(&sql, &[&alone]).await.is_err_and(|error| is_misfit(&error)) {
                return Ok(Some(column.clone()));
            }
        }
        Ok(None)
    }
}

impl Fixture {
    fn parse(text: &[u8]) -> Result<Self, FixtureError> {
        let format = |message: String| FixtureError::Format(message);
        let content: Value =
            serde_json::from_slice(text).map_err(|error| format(format!("not JSON: {error}")))?;
        let Value::Object(content) = content else {
            return Err(format("the file must be an object of tables".into()));
        };
        let mut mode = Mode::Insert;
        let mut found = BTreeMap::new();
        for (table, rows) in content {
            if table == "__mode" {
                mode = match rows.as_str() {
                    Some("insert") => Mode::Insert,
                    Some("update") => Mode::Update,
                    _ => {
                        return Err(format(format!("__mode: {rows} is neither insert nor update")));
                    }
                };
                continue;
            }
            if table.starts_with("__") {
                return Err(format(format!("{table}: names with two underscores are reserved")));
            }
            let Some(&table) = TABLES.iter().find(|known| **known == table) else {
                let known = TABLES.join(", ");
                return Err(format(format!("unknown table {table}; there are {known}")));
            };
            let Value::Array(rows) = rows else {
                return Err(format(format!("{table}: must be a list of rows")));
            };
            let mut parsed = Vec::with_capacity(rows.len());
            for (index, row) in rows.into_iter().enumerate() {
                let Value::Object(mut row) = row else {
                    return Err(format(format!("{table} row {}: must be an object", index + 1)));
                };
                convert(table, &mut row).map_err(|message| FixtureError::Row {
                    place: place(table, index, &row),
                    message,
                })?;
                parsed.push(row);
            }
            found.insert(table, parsed);
        }
        let tables = TABLES
            .iter()
            .filter_map(|table| Some((*table, found.remove(table)?)))
            .filter(|(_, rows)| !rows.is_empty())
            .collect();
        Ok(Self { mode, tables })
    }

    async fn load(&self, tx: &Transaction) -> Result<FixtureReport, FixtureError> {
        let catalog = Catalog::read(tx).await?;
        let mut report = FixtureReport::default();
        for (table, rows) in &self.tables {
            let known = &catalog.tables[*table];
            let mut counts = RowCounts { given: rows.len(), written: 0 };
            for (index, row) in rows.iter().enumerate() {
                let at_row = |message: String| FixtureError::Row {
                    place: place(table, index, row),
                    message,
                };
                known.check(row).map_err(at_row)?;
                let sql = match self.mode {
                    Mode::Insert => known.insert(table, row),
                    Mode::Update => known.update(table, row, &rows[0]).map_err(at_row)?,
                };
                let value = Value::Object(row.clone());
                let written = match tx.execute(&sql, &[&value]).await {
                    Ok(written) => written as usize,
                    Err(error) => match catalog.explain(&error) {
                        Some(message) if is_misfit(&error) => {
                            let (row, place) = (Box::new(row.clone()), place(table, index, row));
                            return Err(FixtureError::Value { table, row, place, message });
                        }
                        Some(message) => return Err(at_row(message)),
                        None => return Err(error.into()),
                    },
                };
                if self.mode == Mode::Update && written == 0 {
                    return Err(at_row("there is no such row to update".into()));
                }
                counts.written += written;
            }
            report.tables.push(((*table).to_owned(), counts));
        }
        Ok(report)
    }
}

/// `users row 2 (email=…)`.
pub(crate) fn place(table: &str, index: usize, row: &Map<String, Value>) -> String {
    let name = NAMING_COLUMNS.iter().find_map(|column| Some((column, row.get(*column)?.as_str()?)));
    match name {
        Some((column, name)) => format!("{table} row {} ({column}={name})", index + 1),
        None => format!("{table} row {}", index + 1),
    }
}

/// Brings values into the form in which they are stored.
pub(crate) fn convert(table: &str, row: &mut Map<String, Value>) -> Result<(), String> {
    for (_, column) in IGNORED_COLUMNS.iter().filter(|(of, _)| *of == table) {
        row.remove(*column);
    }
    for (column, value) in row.iter_mut().filter(|(_, value)| !value.is_null()) {
        match (table, column.as_str()) {
            ("users", "password") => {
                let text = value.as_str().ok_or("password: must be text")?;
                if !password::is_hash(text) {
                    *value = password::hash(text).map_err(|e| format!("password: {e}"))?.into();
                }
            }
            ("resource_presets", "resource_slots") => {
                let slots: ResourceSlots = serde_json::from_value(value.clone())
                    .map_err(|error| format!("resource_slots: {error}"))?;
                *value = serde_json::to_value(slots).map_err(|error| error.to_string())?;
            }
            (_, "total_resource_slots") => {
                *value =
                    Caps::parse(value).map_err(|why| format!("total_resource_slots: {why}"))?.0;
            }
            ("images", "resources") => {
                let object = value.as_object().ok_or("resources: must be an object")?;
                let ranges = read_resources(object).map_err(|error| error.to_string())?;
                *value = resources_json(&ranges);
            }
            (_, "allowed_vfolder_hosts") => {
                *value = parse_host_permissions(value.take())
                    .map_err(|why| format!("allowed_vfolder_hosts: {why}"))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the database says of itself.
pub(crate) struct Catalog {
    tables: BTreeMap<String, Table>,
    /// Text of the check constraints by name.
    checks: BTreeMap<String, String>,
}

#[derive(Default)]
struct Table {
    columns: BTreeSet<String>,
    key: BTreeSet<String>,
}

impl Catalog {
    pub(crate) async fn read(tx: &Transaction) -> Result<Self, DatastoreError> {
        let names = TABLES.map(str::to_owned).to_vec();
        let mut tables = BTreeMap::<String, Table>::new();
        let columns = "-- fixture_columns
            SELECT c.relname::text, a.attname::text,
                   a.attnum = ANY (coalesce(i.indkey::int2[], '{}')) AS is_key
            FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1)";
        for row in tx.query(columns, &[&names]).await? {
            let table = tables.entry(row.try_get(0)?).or_default();
            let column: String = row.try_get(1)?;
            if row.try_get(2)? {
                table.key.insert(column.clone());
            }
            table.columns.insert(column);
        }
        if let Some(missing) = TABLES.iter().find(|table| !tables.contains_key(**table)) {
            return Err(DatastoreError::Schema(format!("the database has no table {missing}")));
        }
        let mut checks = BTreeMap::new();
        let definitions = "-- fixture_checks
            SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE contype = 'c' AND connamespace = current_schema()::regnamespace";
        for row in tx.query(definitions, &[]).await? {
            checks.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(Self { tables, checks })
    }

    /// Whether a table has a row's columns.
    pub(crate) fn check(&self, table: &str, row: &Map<String, Value>) -> Result<(), String> {
        self.tables[table].check(row)
    }

    /// Adds a row to a table, unless one of its unique values is taken.
    pub(crate) fn insert(&self, table: &str, row: &Map<String, Value>) -> String {
        self.tables[table].insert(table, row)
    }

    /// Why the database did not take a row; `None` if it was not the row's fault.
    pub(crate) fn explain(&self, error: &DatastoreError) -> Option<String> {
        let source = match error {
            DatastoreError::Conflict { source, .. } | DatastoreError::Reference { source, .. } => {
                source
            }
            DatastoreError::Query(source) if !error.is_retryable() => source,
            _ => return None,
        };
        let db = source.as_db_error()?;
        let mut message = db.message().to_owned();
        if let Some(detail) = db.constraint().and_then(|name| self.checks.get(name)) {
            message.push_str(&format!(": {detail}"));
        } else if let Some(detail) = db.detail() {
            message.push_str(&format!(": {detail}"));
        }
        Some(message)
    }
}

/// True when a value is not one of its column's type, or too long or too large for it.
fn is_misfit(error: &DatastoreError) -> bool {
    let DatastoreError::Query(source) = error else { return false };
    // Class 22 is "data exception".
    source.code().is_some_and(|code| code.code().starts_with("22"))
}

/// The error of a reference that is checked at the end.
fn at_commit(error: FixtureError) -> FixtureError {
    match error {
        FixtureError::Datastore(DatastoreError::Reference { source, .. }) => {
            let detail = source.as_db_error().and_then(|db| db.detail()).unwrap_or("a reference");
            FixtureError::Format(format!("at the end of the file a reference is missing: {detail}"))
        }
        other => other,
    }
}

impl Table {
    fn check(&self, row: &Map<String, Value>) -> Result<(), String> {
        match row.keys().find(|column| !self.columns.contains(*column)) {
            None => Ok(()),
            Some(unknown) => {
                let known: Vec<_> = self.columns.iter().map(String::as_str).collect();
                Err(format!("invalid column name {unknown}; there are {}", known.join(", ")))
            }
        }
    }

    /// Every name in it is from the catalog; values travel as one JSON parameter, which
    /// PostgreSQL converts to the columns' types.
    fn insert(&self, table: &str, row: &Map<String, Value>) -> String {
        let columns: Vec<_> = row.keys().map(|column| format!("\"{column}\"")).collect();
        let columns = columns.join(", ");
        format!(
            "-- fixture_insert\n\
             INSERT INTO \"{table}\" ({columns}) \
             SELECT {columns} FROM jsonb_populate_record(NULL::\"{table}\", $1) \
             ON CONFLICT DO NOTHING"
        )
    }

    fn update(
        &self,
        table: &str,
        row: &Map<String, Value>,
        first: &Map<String, Value>,
    ) -> Result<String, String> {
        if let Some(missing) = self.key.iter().find(|column| !row.contains_key(*column)) {
            return Err(format!("missing primary key column {missing}"));
        }
        if let Some(missing) = first.keys().find(|column| !row.contains_key(*column)) {
            return Err(format!("missing data column {missing}, which the first row has"));
        }
        if let Some(extra) = row.keys().find(|column| !first.contains_key(*column)) {
            return Err(format!("data column {extra}, which the first row does not have"));
        }
        let changed: Vec<_> = row
            .keys()
            .filter(|column| !self.key.contains(*column))
            .map(|column| format!("\"{column}\" = new.\"{column}\""))
            .collect();
        if changed.is_empty() {
            return Err("there is nothing to update beside the primary key".into());
        }
        let key: Vec<_> =
            self.key.iter().map(|column| format!("old.\"{column}\" = new.\"{column}\"")).collect();
        Ok(format!(
            "-- fixture_update\n\
             UPDATE \"{table}\" old SET {} \
             FROM jsonb_populate_record(NULL::\"{table}\", $1) new WHERE {}",
            changed.join(", "),
            key.join(" AND ")
        ))
    }
}
