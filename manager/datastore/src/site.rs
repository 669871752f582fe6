//! What a site is declared to have, compared with what it has and brought into line.
//!
//! Rows are known by names (an e-mail address, a project's name) and not by generated ids, and
//! refer to each other by them. Only declared columns are touched, and nothing is deleted: what
//! people made by hand stays. A plan is the same transaction, rolled back, so that it finds every
//! error that applying would.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::error::DatastoreError;
use crate::fixture::{Catalog, FixtureError, convert, place};
use crate::tx::{AsDatastoreError, Datastore, Transaction};

/// A row that must be there.
#[derive(Clone, Debug)]
pub struct DeclaredRow {
    /// Its table.
    pub table: &'static str,
    /// The columns it is known by.
    pub key: &'static [&'static str],
    /// Declared columns. A value `{"$of": table, "$column": c, …}` is column `c` of the row of
    /// that table whose other columns are as given.
    pub row: Map<String, Value>,
    /// Columns that count only when the row is made: secrets, which people change.
    pub initial: Map<String, Value>,
}

/// What is done with a row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// These columns are changed.
    Change(Vec<String>),
    /// It is as declared.
    Keep,
}

/// A row and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SiteChange {
    /// Table and name.
    pub what: String,
    /// What is done.
    pub action: Action,
}

/// The end of a plan's transaction: an error, so that it is rolled back.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("the plan is made")]
    Planned(Vec<SiteChange>),
    #[error(transparent)]
    Failed(#[from] FixtureError),
}

impl From<DatastoreError> for Ending {
    fn from(error: DatastoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl AsDatastoreError for Ending {
    fn as_datastore_error(&self) -> Option<&DatastoreError> {
        match self {
            Self::Planned(_) => None,
            Self::Failed(error) => error.as_datastore_error(),
        }
    }
}

impl Datastore {
    /// Brings rows into line, all or none, in the order given; with `plan` says only what it
    /// would do.
    ///
    /// # Errors
    /// A row cannot be stored or refers to one that is not there, or PostgreSQL is not available.
    pub async fn site_reconcile(
        &self,
        rows: Vec<DeclaredRow>,
        plan: bool,
    ) -> Result<Vec<SiteChange>, FixtureError> {
        let rows = Arc::new(rows);
        let result = self
            .run_tx("site_reconcile", |tx| {
                let rows = Arc::clone(&rows);
                async move {
                    let changes = reconcile(&tx, &rows).await?;
                    // What is checked at the end of the transaction is checked now, so that the
                    // plan finds it too.
                    tx.execute("SET CONSTRAINTS ALL IMMEDIATE", &[]).await?;
                    if plan { Err(Ending::Planned(changes)) } else { Ok(changes) }
                }
            })
            .await;
        match result {
            Ok(changes) | Err(Ending::Planned(changes)) => Ok(changes),
            Err(Ending::Failed(error)) => Err(error),
        }
    }
}

async fn reconcile(tx: &Transaction, rows: &[DeclaredRow]) -> Result<Vec<SiteChange>, Ending> {
    let catalog = Catalog::read(tx).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for (index, declared) in rows.iter().enumerate() {
        let table = declared.table;
        let what = place(table, index, &declared.row);
        let at_row = |message: String| FixtureError::Row { place: what.clone(), message };
        let mut row = resolve(tx, &declared.row).await?.map_err(at_row)?;
        convert(table, &mut row).map_err(at_row)?;
        catalog.check(table, &row).map_err(at_row)?;
        let key: Map<String, Value> =
            declared.key.iter().map(|c| ((*c).to_owned(), row[*c].clone())).collect();
        let action = match find(tx, table, &key).await? {
            None => {
                let mut initial = resolve(tx, &declared.initial).await?.map_err(at_row)?;
                convert(table, &mut initial).map_err(at_row)?;
                row.extend(initial);
                write(tx, &catalog, &catalog.insert(table, &row), row, &key)
                    .await?
                    .map_err(at_row)?;
                Action::Create
            }
            Some(found) => {
                let wanted = canonical(tx, table, &row).await?;
                let changed: Vec<String> =
                    row.keys().filter(|c| found.get(*c) != wanted.get(*c)).cloned().collect();
                if changed.is_empty() {
                    Action::Keep
                } else {
                    let sql = update(table, &changed);
                    write(tx, &catalog, &sql, row, &key).await?.map_err(at_row)?;
                    Action::Change(changed)
                }
            }
        };
        changes.push(SiteChange { what, action });
    }
    Ok(changes)
}

/// The row with these values, as JSON.
async fn find(
    tx: &Transaction,
    table: &str,
    key: &Map<String, Value>,
) -> Result<Option<Value>, DatastoreError> {
    let sql =
        format!("-- site_find\nSELECT to_jsonb(t) FROM \"{table}\" t WHERE to_jsonb(t) @> $1");
    let row = tx.query(&sql, &[&Value::Object(key.clone())]).await?.into_iter().next();
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Declared values as PostgreSQL prints them, to be compared with a row's.
async fn canonical(
    tx: &Transaction,
    table: &str,
    row: &Map<String, Value>,
) -> Result<Value, DatastoreError> {
    let sql =
        format!("-- site_canonical\nSELECT to_jsonb(jsonb_populate_record(NULL::\"{table}\", $1))");
    let rows = tx.query(&sql, &[&Value::Object(row.clone())]).await?;
    match rows.first() {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(Value::Null),
    }
}

/// Names in it are from the catalog: the row was checked against it.
fn update(table: &str, changed: &[String]) -> String {
    let set: Vec<_> = changed.iter().map(|c| format!("\"{c}\" = new.\"{c}\"")).collect();
    format!(
        "-- site_update\n\
         UPDATE \"{table}\" old SET {} \
         FROM jsonb_populate_record(NULL::\"{table}\", $1) new WHERE to_jsonb(old) @> $2",
        set.join(", ")
    )
}

async fn write(
    tx: &Transaction,
    catalog: &Catalog,
    sql: &str,
    row: Map<String, Value>,
    key: &Map<String, Value>,
) -> Result<Result<(), String>, DatastoreError> {
    let (row, key) = (Value::Object(row), Value::Object(key.clone()));
    let result = if sql.contains("$2") {
        tx.execute(sql, &[&row, &key]).await
    } else {
        tx.execute(sql, &[&row]).await
    };
    match result {
        Ok(0) => Ok(Err("another row has one of its unique values".to_owned())),
        Ok(_) => Ok(Ok(())),
        Err(error) => match catalog.explain(&error) {
            Some(message) => Ok(Err(message)),
            None => Err(error),
        },
    }
}

/// Replaces references by what they refer to.
async fn resolve(
    tx: &Transaction,
    row: &Map<String, Value>,
) -> Result<Result<Map<String, Value>, String>, DatastoreError> {
    let mut resolved = Map::new();
    for (column, value) in row {
        let Some(table) = value.get("$of").and_then(Value::as_str) else {
            resolved.insert(column.clone(), value.clone());
            continue;
        };
        let wanted = value.get("$column").and_then(Value::as_str).unwrap_or_default();
        let mut key = value.as_object().cloned().unwrap_or_default();
        key.retain(|name, _| !name.starts_with('$'));
        match find(tx, table, &key).await? {
            Some(found) => resolved.insert(column.clone(), found[wanted].clone()),
            None => {
                let named = Value::Object(key);
                return Ok(Err(format!("{column}: there is no row {named} in {table}")));
            }
        };
    }
    Ok(Ok(resolved))
}

/// A reference to a column of the row of `table` that `key` names.
pub fn reference(table: &str, column: &str, key: &[(&str, &str)]) -> Value {
    let mut value = json!({"$of": table, "$column": column});
    for (name, text) in key {
        value[*name] = json!(text);
    }
    value
}
