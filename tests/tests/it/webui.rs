//! The stock web pages before our manager, with a real browser: a user and an administrator
//! sign in, look around, and a session is started and ended from the page.
//!
//! The pages come through the stock web server in session mode, as on a real site: see
//! [`WebServer`]. What they ask of the manager goes to `/func/…` there; none of it may fail,
//! and no query may bring an error. The one refusal there always is is the web server's own:
//! the page tries to sign in with nothing typed yet.

use std::time::Duration;

use anyhow::{Context, Result};

use backendai_tests::client::Browser;
use backendai_tests::site::Identity;
use backendai_tests::webserver::WebServer;
use backendai_tests::{Layout, TestCluster};

use crate::support::{LIMIT, wait_nothing_left, wait_status};

/// The pages are a few megabytes of scripts, and the machine may be busy.
const PAGE_LIMIT: Duration = Duration::from_secs(120);
const NOTHING: &str = "No sessions to display";

/// Signs in as a person does, and waits for the first page.
async fn sign_in(browser: &mut Browser, who: &Identity) -> Result<()> {
    browser.expect("!!window.__find?.('#login-button')", PAGE_LIMIT).await?;
    browser.settle(LIMIT).await?;
    browser.focus("#id_user_id", LIMIT).await?;
    browser.type_text(&who.email).await?;
    browser.focus("#id_password", LIMIT).await?;
    browser.type_text(&who.password).await?;
    browser.click("#login-button", None, LIMIT).await?;
    browser.expect("!window.__find('#login-button')", PAGE_LIMIT).await?;
    browser.shows("Resource Statistics", PAGE_LIMIT).await?;
    browser.settle(LIMIT).await
}

/// Goes to a page, waits for what it should show, and keeps its picture.
async fn visit(
    browser: &mut Browser,
    web: &WebServer,
    role: &str,
    (page, shown): (&str, &[&str]),
) -> Result<()> {
    browser.go(&format!("{}/{page}", web.url())).await?;
    for text in shown {
        browser.shows(text, PAGE_LIMIT).await.with_context(|| format!("{role}'s {page}"))?;
    }
    browser.settle(LIMIT).await.with_context(|| format!("{role}'s {page}"))?;
    picture(browser, &format!("{role}-{page}")).await
}

async fn picture(browser: &mut Browser, name: &str) -> Result<()> {
    browser.screenshot(&Layout::discover()?.artefact(&format!("webui/{name}.png"))).await
}

/// Fails if the manager refused anything that the pages asked for.
fn nothing_failed(browser: &Browser, web: &WebServer) {
    let calls = format!("{}/func", web.url());
    let failed: Vec<_> =
        browser.refused().iter().filter(|(_, url)| url.starts_with(&calls)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(browser.graphql_errors().is_empty(), "{:?}", browser.graphql_errors());
}

/// Starts a session with what the dialog proposes, and returns its name.
async fn start_session(browser: &mut Browser, cluster: &TestCluster) -> Result<String> {
    browser.click("#launch-session", None, LIMIT).await?;
    browser.shows("Session Type", LIMIT).await?;
    browser.shows("Confirm and Launch", LIMIT).await?;
    browser.settle(LIMIT).await?;
    browser.click("#launch-button", None, LIMIT).await?;
    browser.shows("Total Allocation", LIMIT).await?;
    picture(browser, "user-session-dialog").await?;
    browser.click("#launch-button", None, LIMIT).await?;
    // It warns that nothing is kept without a folder.
    browser.click("#launch-confirmation-button", None, LIMIT).await?;
    browser.shows("RUNNING", LIMIT).await?;
    let query = "SELECT name FROM sessions";
    let name: String = cluster.database().await?.query_one(query, &[]).await?.get(0);
    browser.shows(&name, LIMIT).await?;
    Ok(name)
}

#[tokio::test]
async fn a_user_looks_around_and_starts_and_ends_a_session() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let web = WebServer::start(&cluster).await?;
    let mut browser = Browser::open(web.url()).await?;
    sign_in(&mut browser, &cluster.identities.user1).await?;
    let pages: [(&str, &[&str]); 5] = [
        ("summary", &["Resource Statistics", "0/20", "Invitation"]),
        ("data", &["Data & Storage", "No Folders to display"]),
        ("statistics", &["Usage History"]),
        ("usersettings", &["SSH Keypair Management"]),
        ("job", &["Sessions", "0/20", NOTHING]),
    ];
    for page in pages {
        visit(&mut browser, &web, "user", page).await?;
    }
    nothing_failed(&browser, &web);

    let name = start_session(&mut browser, &cluster).await?;
    wait_status(&cluster, &name, &["RUNNING"]).await?;
    // The page offers the session's apps.
    browser.shows("Console", LIMIT).await?;
    picture(&mut browser, "user-session-started").await?;
    browser.click("mwc-icon-button[icon=\"close\"]", None, LIMIT).await?;
    browser.click("mwc-icon-button.controls-running.red", None, LIMIT).await?;
    browser.shows("cannot be undone", LIMIT).await?;
    browser.click("mwc-button.ok", None, LIMIT).await?;
    browser.shows(NOTHING, LIMIT).await?;
    wait_status(&cluster, &name, &["TERMINATED"]).await?;
    browser.click("mwc-tab", Some("Finished"), LIMIT).await?;
    browser.shows("TERMINATED", LIMIT).await?;
    browser.settle(LIMIT).await?;
    picture(&mut browser, "user-session-ended").await?;
    nothing_failed(&browser, &web);
    drop(browser);
    web.stop().await?;
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_administrator_sees_people_places_and_images() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let web = WebServer::start(&cluster).await?;
    let mut browser = Browser::open(web.url()).await?;
    sign_in(&mut browser, &cluster.identities.superadmin).await?;
    let (agent, user) = (cluster.agents[0].id(), cluster.identities.user1.email.as_str());
    let pages: [(&str, &[&str]); 8] = [
        ("summary", &["Connected Nodes", "Resource Statistics"]),
        ("job", &["Sessions", NOTHING]),
        ("data", &["Data & Storage", "No Folders to display"]),
        ("settings", &["Register new images from repository"]),
        ("maintenance", &["Recalculate Usage"]),
        ("environment", &["stable", "busybox", "installed"]),
        ("agent", &[agent, "Running", "default"]),
        ("credential", &[user, "Main Access Key"]),
    ];
    for page in pages {
        visit(&mut browser, &web, "administrator", page).await?;
    }
    let key = cluster.identities.user1.access_key.as_str();
    for (tab, shown) in [("Credentials", key), ("Resource Policies", "Create Policy")] {
        browser.click("mwc-tab", Some(tab), LIMIT).await?;
        browser.shows(shown, LIMIT).await?;
        browser.settle(LIMIT).await?;
        picture(&mut browser, &format!("administrator-{}", tab.replace(' ', "-"))).await?;
    }
    browser.go(&format!("{}/agent", web.url())).await?;
    browser.shows(agent, PAGE_LIMIT).await?;
    for (tab, shown) in [("Storages", "local:volume1"), ("Resource Group", "Demo scaling group")] {
        browser.click("mwc-tab", Some(tab), LIMIT).await?;
        browser.shows(shown, LIMIT).await?;
        browser.settle(LIMIT).await?;
        picture(&mut browser, &format!("administrator-{}", tab.replace(' ', "-"))).await?;
    }
    nothing_failed(&browser, &web);
    drop(browser);
    web.stop().await?;
    cluster.stop().await
}
