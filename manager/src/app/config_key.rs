//! Keys of the shared configuration as administrators read and write them.

use backendai_service::etcd::{Etcd, Tree, quote};
use etcd_client::{DeleteOptions, Txn, TxnOp};
use serde_json::{Value, json};

use super::{Error, Result, SharedApp};

/// Values one request may write.
const MAX_VALUES: usize = 16;

/// A value; or, with `prefix`, what is at and below a key as nested objects.
///
/// # Errors
/// etcd is not available.
pub async fn get(app: &SharedApp, key: &str, prefix: bool) -> Result<Value> {
    let key = clean(key);
    if prefix {
        return Ok(tree(app.etcd.get_tree(key).await?));
    }
    Ok(app.etcd.get(key).await?.map_or(Value::Null, Value::from))
}

/// A subtree as nested objects; a key's own value has the empty name.
pub fn tree(tree: Tree) -> Value {
    match tree {
        Tree::Empty => json!({}),
        Tree::Leaf(value) => json!({ "": value }),
        Tree::Node(children) => json!(children),
    }
}

/// Writes a value, or the values of an object below a key, all or none.
///
/// # Errors
/// Too many values or none that etcd can hold; or etcd is not available.
pub async fn set(app: &SharedApp, key: &str, value: &Value) -> Result<()> {
    let key = clean(key);
    let pairs = flatten(key, value).map_err(Error::invalid)?;
    if pairs.len() > MAX_VALUES {
        return Err(Error::invalid("Too large update! Split into smaller key-value pair sets."));
    }
    app.etcd.put_all(&pairs).await?;
    app.shared.invalidate();
    Ok(())
}

/// Deletes a value; or, with `prefix`, what is at and below a key. Nothing to delete is no
/// failure.
///
/// # Errors
/// The key is empty, or etcd is not available.
pub async fn delete(app: &SharedApp, key: &str, prefix: bool) -> Result<()> {
    let key = clean(key);
    if key.is_empty() {
        return Err(Error::invalid("The key is empty: this would delete everything"));
    }
    if prefix {
        app.etcd.transact(Txn::new().and_then(delete_subtree(&app.etcd, key))).await?;
    } else {
        app.etcd.delete(key).await?;
    }
    app.shared.invalidate();
    Ok(())
}

/// A key without slashes around it.
pub fn clean(key: &str) -> &str {
    key.trim_matches('/')
}

/// Deletes a key and what is below it, but not its neighbours `keyX`.
pub fn delete_subtree(etcd: &Etcd, key: &str) -> Vec<TxnOp> {
    let full = etcd.full_key(key);
    let below = format!("{full}/");
    let options = DeleteOptions::new().with_prefix();
    vec![TxnOp::delete(full, None), TxnOp::delete(below, Some(options))]
}

/// Keys and values of a JSON tree. Names are quoted where they need it; the name "" is the
/// key itself.
///
/// # Errors
/// Which value etcd cannot hold, and why.
pub fn flatten(key: &str, value: &Value) -> Result<Vec<(String, String)>, String> {
    let text = match value {
        Value::Object(children) => {
            let mut pairs = Vec::new();
            for (name, child) in children {
                let child_key = match (name.as_str(), key) {
                    ("", key) => key.to_owned(),
                    (name, "") => quote(name),
                    (name, key) => format!("{}/{}", key.trim_end_matches('/'), quote(name)),
                };
                pairs.extend(flatten(&child_key, child)?);
            }
            return Ok(pairs);
        }
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null | Value::Array(_) => {
            return Err(format!(
                "{key}: etcd holds texts, and {value} has no text of its own: write it as a string"
            ));
        }
    };
    if clean(key).is_empty() {
        return Err("a value at the root has no key".to_owned());
    }
    Ok(vec![(key.to_owned(), text)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_become_quoted_keys() {
        let tree = json!({"": "own", "a:b": {"c": 1, "": true}, "d": "x"});
        assert_eq!(
            flatten("config", &tree).unwrap(),
            [
                ("config", "own"),
                ("config/a%3Ab/c", "1"),
                ("config/a%3Ab", "true"),
                ("config/d", "x")
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        assert!(flatten("config", &json!({"a": [1]})).is_err());
        assert!(flatten("", &json!("x")).is_err());
    }
}
