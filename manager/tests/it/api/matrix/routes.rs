//! REST: every route with every actor, and paths that name what is others' or nothing.

use backendai_manager::api::routes::{Level, ROUTES, Route};
use backendai_manager::context::Role;
use serde_json::{Value, json};

use super::{Actor, NO_ID, NO_OTHER_ID, Site, Tally};

/// Routes whose answer never ends or that speak another protocol: only their heads are read.
const ENDLESS: [&str; 2] = ["/events/session", "/events/background-task"];

pub async fn run(site: &Site, tally: &mut Tally) {
    for route in ROUTES {
        for method in route.methods {
            for actor in &site.actors {
                run_one(site, tally, route, method, actor).await;
            }
        }
    }
}

async fn run_one(site: &Site, tally: &mut Tally, route: &Route, method: &str, actor: &Actor) {
    let admits = match (route.level, &actor.person) {
        (Level::Public, _) | (Level::User, Some(_)) => true,
        (Level::Admin, Some(who)) => matches!(who.role, Role::Superadmin | Role::Admin),
        (Level::Superadmin, Some(who)) => who.role == Role::Superadmin,
        (_, None) => false,
    };
    let mut nothing = [(0, String::new()), (0, String::new())];
    if route.path.contains('{') {
        nothing = [
            send(site, route, method, actor, "no-such-name").await,
            send(site, route, method, actor, NO_ID).await,
        ];
    }
    for thing in things(site, route, actor) {
        let (status, text) = send(site, route, method, actor, &thing).await;
        let what = || format!("{} {method} {} of {thing}: {status} {text}", actor.what, route.path);
        tally.check(status != 500, what);
        let is_refused = status == 401
            && (text.contains("Unauthorized access") || text.contains("Access key not found"));
        tally.check(is_refused != admits, what);
        // A thing of others answers as one that is not there.
        if route.path.contains('{') {
            // Names and ids may be refused in different words.
            let is_id = thing.len() == NO_ID.len() && thing.matches('-').count() == 4;
            let nothing = &nothing[usize::from(is_id)];
            tally.check((status, &text) == (nothing.0, &nothing.1), || {
                format!("{} but of nothing: {nothing:?}", what())
            });
        }
    }
}

/// Names and ids of things that are not the actor's, and of some that do not exist.
fn things(site: &Site, route: &Route, actor: &Actor) -> Vec<String> {
    if !route.path.contains('{') {
        return vec![String::new()];
    }
    let own = actor.person.as_ref().map(|person| &person.id);
    let others = site.people.iter().filter(|person| Some(&person.id) != own);
    let names = others.clone().map(|p| format!("of-{}", p.email.split('@').next().unwrap()));
    let sessions = others.map(|person| person.session.clone());
    names.chain(sessions).step_by(3).chain([NO_OTHER_ID.to_owned(), "nothing".to_owned()]).collect()
}

/// Status and body, with the thing's name taken out.
async fn send(
    site: &Site,
    route: &Route,
    method: &str,
    actor: &Actor,
    thing: &str,
) -> (u16, String) {
    let segments = route.path.split('/').map(|s| if s.starts_with('{') { thing } else { s });
    let path = segments.collect::<Vec<_>>().join("/");
    let mut request = site.world.request(method, &path);
    if method != "GET" {
        request = request.json(&json!({}));
    }
    if let Some(key) = actor.key {
        request = request.signed(key);
    }
    if ENDLESS.contains(&route.path) {
        let status = request.head().await.as_u16();
        // The text that refusals have.
        let text = if status == 401 { "Unauthorized access" } else { "" };
        return (status, text.to_owned());
    }
    let reply = request.send().await;
    let text = if thing.is_empty() { reply.text } else { reply.text.replace(thing, "@") };
    // What differs from request to request is not what is asked about.
    let text = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(body)) if body.contains_key("type") => {
            format!(
                "{} {} {}",
                body["type"],
                body["title"],
                body.get("msg").unwrap_or(&Value::Null)
            )
        }
        _ => text,
    };
    (reply.status.as_u16(), text)
}
