//! The least a manager could do: warp handlers with one query each and no checks at all.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use serde_json::{Value, json};
use tokio_postgres::{Client, Row, Statement};
use warp::Filter;

/// As many as the manager keeps.
const CONNECTIONS: usize = 8;

const ONE: &str = "SELECT id::text, name, session_type, status, image, \
    to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF'), 0::bigint \
    FROM sessions WHERE access_key = $1 AND name = $2 AND status NOT IN ('TERMINATED', 'CANCELLED')";
const HUNDRED: &str = "SELECT id::text, name, session_type, status, image, \
    to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF'), count(*) OVER () \
    FROM sessions ORDER BY greatest(created_at, terminated_at) DESC, id LIMIT 100";

struct Connection {
    client: Client,
    one: Statement,
    hundred: Statement,
}

struct Pool {
    connections: Vec<Connection>,
    next: AtomicUsize,
}

impl Pool {
    fn get(&self) -> &Connection {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.connections[turn % self.connections.len()]
    }
}

/// Serves `/`, `/session/{key}/{name}` and `/list` until killed.
pub async fn serve(postgres: &str, port: u16) -> Result<()> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = backendai_tests::servers::connect(postgres).await?;
        let one = client.prepare(ONE).await?;
        let hundred = client.prepare(HUNDRED).await?;
        connections.push(Connection { client, one, hundred });
    }
    let pool = Arc::new(Pool { connections, next: AtomicUsize::new(0) });
    let with_pool = warp::any().map(move || Arc::clone(&pool));

    let version = warp::path::end()
        .map(|| warp::reply::json(&json!({"version": "v7.20230615", "manager": "23.09.10"})));
    let session = warp::path!("session" / String / String).and(with_pool.clone()).and_then(
        async |key: String, name: String, pool: Arc<Pool>| {
            let connection = pool.get();
            let found = connection.client.query_opt(&connection.one, &[&key, &name]).await;
            let body = found.ok().flatten().map_or(Value::Null, |row| view(&row));
            Ok::<_, Infallible>(warp::reply::json(&body))
        },
    );
    let list = warp::path!("list").and(with_pool).and_then(async |pool: Arc<Pool>| {
        let connection = pool.get();
        let rows = connection.client.query(&connection.hundred, &[]).await.unwrap_or_default();
        let total: i64 = rows.first().map_or(0, |row| row.get(6));
        let items: Vec<Value> = rows.iter().map(view).collect();
        let list = json!({"items": items, "total_count": total});
        let body = json!({"data": {"compute_session_list": list}});
        Ok::<_, Infallible>(warp::reply::json(&body))
    });
    warp::serve(version.or(session).or(list)).run(([127, 0, 0, 1], port)).await;
    Ok(())
}

fn view(row: &Row) -> Value {
    json!({
        "id": row.get::<_, &str>(0),
        "session_id": row.get::<_, &str>(0),
        "name": row.get::<_, &str>(1),
        "type": row.get::<_, &str>(2),
        "status": row.get::<_, &str>(3),
        "image": row.get::<_, &str>(4),
        "created_at": row.get::<_, &str>(5),
    })
}
