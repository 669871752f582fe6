//! The route table: every path the API answers, who may use it, and when.
//!
//! It is the one list. Requests are dispatched by it, `Allow` headers and preflight answers
//! are made from it, and tests walk it: a route cannot exist without a rule.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use warp::http::Method;
use warp::reply::Response;

use super::call::Call;
use super::problem::Problem;
use super::rest::{
    account, acl, auth, config, dotfile, error_log, manager, resource, scaling_group, service,
    session, session_commit, session_files, session_history, session_logs, session_relations,
    ssh_keypair, template, totp, usage, vfolder, vfolder_files, vfolder_sharing, vfolder_storage,
    vfolder_transfer, watcher,
};
use super::{events, graphql, stream};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everybody; a signature is not even looked at.
    Public,
    /// Whoever signs.
    User,
    /// Keypairs of administrators.
    Admin,
    /// Users with the role superadmin.
    Superadmin,
}

/// In which states of the manager a route works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Always.
    Any,
    /// While RUNNING.
    All,
    /// While RUNNING or FROZEN.
    Read,
}

/// How a route's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Into memory, before the handler is called. At most a megabyte.
    Whole,
    /// By the handler, of any length.
    Streamed,
}

/// Answers a request.
pub type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// One row of the table.
pub struct Route {
    /// Methods as on the wire.
    pub methods: &'static [&'static str],
    /// Path; `{x}` is one segment of any text.
    pub path: &'static str,
    /// Who may use it.
    pub level: Level,
    /// When it works.
    pub guard: Guard,
    /// How its body is read.
    pub body: Body,
    /// The handler's name, for people.
    pub name: &'static str,
    /// The handler.
    pub handler: Handler,
}

macro_rules! body {
    () => {
        Body::Whole
    };
    ($body:ident) => {
        Body::$body
    };
}

macro_rules! routes {
    ($($($method:ident)|+ $path:literal, $level:ident, $guard:ident $(, $body:ident)?
        => $handler:path;)+) => {
        /// Every route.
        pub static ROUTES: &[Route] = &[$(Route {
            methods: &[$(stringify!($method)),+],
            path: $path,
            level: Level::$level,
            guard: Guard::$guard,
            body: body!($($body)?),
            name: stringify!($handler),
            handler: |call| Box::pin($handler(call)),
        }),+];
    };
}

routes! {
    GET "/", Public, Any => manager::version;
    GET "/spec", Public, Any => manager::spec;

    GET "/manager/status", Public, Any => manager::status;
    PUT "/manager/status", Superadmin, Any => manager::set_status;
    GET "/manager/announcement", Public, Any => manager::announcement;
    POST "/manager/announcement", Superadmin, Any => manager::announce;
    POST "/manager/scheduler/operation", Superadmin, Any => manager::scheduler_operation;
    POST "/manager/scheduler/trigger", Superadmin, Any => manager::scheduler_trigger;
    GET "/manager/scheduler/status", Superadmin, Any => manager::scheduler_status;

    GET | POST "/auth", User, Any => auth::test;
    GET | POST "/auth/test", User, Any => auth::test;
    POST "/auth/authorize", Public, Any => auth::authorize;
    GET "/auth/role", User, Any => auth::role;
    POST "/auth/signup", Public, All => account::sign_up;
    POST "/auth/signout", User, All => account::sign_out;
    POST "/auth/update-password", User, All => account::update_password;
    POST "/auth/update-password-no-auth", Public, All => account::update_expired_password;
    POST "/auth/update-full-name", User, All => account::update_full_name;
    GET "/auth/ssh-keypair", User, Any => ssh_keypair::show;
    PATCH "/auth/ssh-keypair", User, All => ssh_keypair::generate;
    POST "/auth/ssh-keypair", User, All => ssh_keypair::upload;

    GET "/totp", User, Any => totp::version;
    POST "/totp", User, All => totp::begin;
    POST "/totp/verify", User, All => totp::activate;
    DELETE "/totp", User, All => totp::remove;

    POST "/session", User, All => session::create;
    POST "/session/_/create", User, All => session::create;
    POST "/session/_/create-from-template", User, All => template::create_from_template;
    POST "/session/_/create-cluster", User, All => template::create_cluster;
    GET "/session/_/match", User, Read => session::match_sessions;
    POST "/session/_/sync-agent-registry", User, All => session_relations::sync_agent_registry;
    GET "/session/_/logs", User, Read => session_logs::task_logs;
    GET "/session/{name}", User, Read => session::info;
    POST "/session/{name}", User, Read => session::execute;
    PATCH "/session/{name}", User, Read => session_relations::restart;
    DELETE "/session/{name}", User, Read => session::destroy;
    POST "/session/{name}/interrupt", User, Read => session::interrupt;
    POST "/session/{name}/complete", User, Read => session::complete;
    GET "/session/{name}/logs", User, Read => session_logs::logs;
    POST "/session/{name}/upload", User, Read, Streamed => session_files::upload;
    GET "/session/{name}/download", User, Read => session_files::download;
    GET "/session/{name}/download_single", User, Read => session_files::download_single;
    GET "/session/{name}/files", User, Read => session_files::list;
    POST "/session/{name}/rename", User, All => session_relations::rename;
    GET "/session/{name}/dependency-graph", User, Read => session_relations::dependency_graph;
    GET "/session/{name}/direct-access-info", User, Read => session_relations::direct_access_info;
    GET "/session/{name}/abusing-report", User, All => session_relations::abusing_report;

    POST "/session/{name}/start-service", User, Read => service::start;
    POST "/session/{name}/shutdown-service", User, Read => service::stop;

    GET "/stream/session/{name}/apps", User, Read => service::list;
    GET "/stream/session/{name}/execute", User, Read => stream::execute::execute;
    GET "/stream/session/{name}/pty", User, Read => stream::terminal::pty;
    GET "/stream/session/{name}/tcpproxy", User, Read => stream::proxy::proxy;
    GET "/stream/session/{name}/httpproxy", User, Read => stream::proxy::proxy;

    POST "/session/{name}/commit", User, All => session_commit::commit;
    GET "/session/{name}/commit", User, All => session_commit::status;
    GET "/session/{name}/status-history", User, Read => session_history::status_history;

    GET "/events/background-task", User, Read => events::background_task::background_task;
    GET "/events/session", User, Read => events::session::session;

    POST "/template/session", User, Read => template::create_task;
    GET "/template/session", User, Read => template::list_tasks;
    GET "/template/session/{id}", User, Read => template::show_task;
    PUT "/template/session/{id}", User, Read => template::update_task;
    DELETE "/template/session/{id}", User, Read => template::delete_task;
    POST "/template/cluster", User, Read => template::create_cluster_template;
    GET "/template/cluster", User, Read => template::list_clusters;
    GET "/template/cluster/{id}", User, Read => template::show_cluster;
    PUT "/template/cluster/{id}", User, Read => template::update_cluster;
    DELETE "/template/cluster/{id}", User, Read => template::delete_cluster;

    POST "/logs/error", User, Read => error_log::report;
    GET "/logs/error", User, Read => error_log::list;
    POST "/logs/error/{log_id}/clear", User, Read => error_log::clear;

    POST "/user-config/dotfiles", User, Read => dotfile::create_for_user;
    GET "/user-config/dotfiles", User, Read => dotfile::show_of_user;
    PATCH "/user-config/dotfiles", User, Read => dotfile::update_of_user;
    DELETE "/user-config/dotfiles", User, Read => dotfile::delete_of_user;
    GET "/user-config/bootstrap-script", User, Read => dotfile::bootstrap_script;
    POST "/user-config/bootstrap-script", User, Read => dotfile::set_bootstrap_script;
    POST "/group-config/dotfiles", Admin, Read => dotfile::create_for_group;
    GET "/group-config/dotfiles", User, Read => dotfile::show_of_group;
    PATCH "/group-config/dotfiles", Admin, Read => dotfile::update_of_group;
    DELETE "/group-config/dotfiles", Admin, Read => dotfile::delete_of_group;
    POST "/domain-config/dotfiles", Admin, Read => dotfile::create_for_domain;
    GET "/domain-config/dotfiles", User, Read => dotfile::show_of_domain;
    PATCH "/domain-config/dotfiles", Admin, Read => dotfile::update_of_domain;
    DELETE "/domain-config/dotfiles", Admin, Read => dotfile::delete_of_domain;

    GET "/config/resource-slots", Public, Any => config::slots;
    GET "/config/resource-slots/details", Public, Any => config::slot_details;
    GET "/config/vfolder-types", Public, Any => config::vfolder_types;
    GET "/config/docker-registries", Superadmin, Any => config::docker_registries;
    POST "/config/get", Superadmin, Any => config::get;
    POST "/config/set", Superadmin, Any => config::set;
    POST "/config/delete", Superadmin, Any => config::delete;

    POST "/folders", User, All => vfolder::create;
    GET "/folders", User, Read => vfolder::list;
    DELETE "/folders", Superadmin, All => vfolder::delete_by_id;
    GET "/folders/_/hosts", User, Read => vfolder::hosts;
    GET "/folders/_/all-hosts", Superadmin, Read => vfolder::all_hosts;
    GET "/folders/_/all_hosts", Superadmin, Read => vfolder::all_hosts;
    GET "/folders/_/allowed-types", User, Read => vfolder::allowed_types;
    GET "/folders/_/allowed_types", User, Read => vfolder::allowed_types;
    GET "/folders/_/audit", Superadmin, Read => vfolder::audit;
    GET "/folders/_/trash", User, Read => vfolder::trash;
    POST "/folders/restore-from-trash-bin", User, All => vfolder::restore;
    POST "/folders/delete-from-trash-bin", User, All => vfolder::purge;
    GET "/folders/_/shared", User, Read => vfolder_sharing::shared;
    POST "/folders/_/shared", User, All => vfolder_sharing::update_shared;
    POST "/folders/_/change-ownership", Superadmin, All => vfolder_sharing::change_owner;
    GET "/folders/_/quota", User, Read => vfolder_storage::quota;
    POST "/folders/_/quota", User, All => vfolder_storage::set_quota;
    GET "/folders/_/usage", Superadmin, Read => vfolder_storage::usage;
    GET "/folders/_/used-bytes", Superadmin, Read => vfolder_storage::used_bytes;
    GET "/folders/_/perf-metric", Superadmin, Read => vfolder_storage::performance;
    GET "/folders/_/fstab", Superadmin, Read => vfolder_storage::fstab;
    GET "/folders/_/mounts", Superadmin, Read => vfolder_storage::mounts;
    POST "/folders/_/mounts", Superadmin, All => vfolder_storage::mount;
    DELETE "/folders/_/mounts", Superadmin, All => vfolder_storage::unmount;
    GET "/folders/invitations/list", User, Read => vfolder_sharing::received;
    GET "/folders/invitations/list-sent", User, Read => vfolder_sharing::sent;
    GET "/folders/invitations/list_sent", User, Read => vfolder_sharing::sent;
    POST "/folders/invitations/update/{inv_id}", User, All => vfolder_sharing::update_invitation;
    POST "/folders/invitations/accept", User, All => vfolder_sharing::accept;
    DELETE "/folders/invitations/delete", User, All => vfolder_sharing::decline;
    GET "/folders/{name}", User, Read => vfolder::info;
    DELETE "/folders/{name}", User, All => vfolder::delete;
    POST "/folders/{name}/rename", User, All => vfolder::rename;
    POST "/folders/{name}/update-options", User, All => vfolder::update_options;
    GET "/folders/{name}/files", User, Read => vfolder_files::list;
    POST "/folders/{name}/mkdir", User, Read => vfolder_files::make_directory;
    POST "/folders/{name}/rename-file", User, Read => vfolder_files::rename;
    POST "/folders/{name}/rename_file", User, Read => vfolder_files::rename;
    POST "/folders/{name}/move-file", User, Read => vfolder_files::move_file;
    DELETE "/folders/{name}/delete-files", User, Read => vfolder_files::remove;
    DELETE "/folders/{name}/delete_files", User, Read => vfolder_files::remove;

    POST "/folders/{name}/request-upload", User, Read => vfolder_transfer::request_upload;
    POST "/folders/{name}/request-download", User, Read => vfolder_transfer::request_download;
    POST "/folders/{name}/invite", User, All => vfolder_sharing::invite;
    POST "/folders/{name}/leave", User, All => vfolder_sharing::leave;
    POST "/folders/{name}/share", Admin, All => vfolder_sharing::share;
    DELETE "/folders/{name}/unshare", Admin, All => vfolder_sharing::unshare;
    POST "/folders/{name}/clone", User, All => vfolder_sharing::clone_folder;
    GET "/storage/upload", Public, Read => vfolder_transfer::upload_state;
    PATCH "/storage/upload", Public, Read, Streamed => vfolder_transfer::upload;
    GET "/storage/download", Public, Read => vfolder_transfer::download;

    GET "/resource/presets", User, Any => resource::presets;
    POST "/resource/check-presets", User, Read => resource::check_presets;
    GET "/resource/container-registries", Superadmin, Any => resource::container_registries;
    POST "/resource/recalculate-usage", Superadmin, Read => resource::recalculate_usage;
    GET "/resource/usage/month", Superadmin, Read => usage::month;
    GET "/resource/usage/period", Superadmin, Read => usage::period;
    GET "/resource/stats/user/month", User, Read => usage::user_month;
    GET "/resource/stats/admin/month", Superadmin, Read => usage::admin_month;
    GET "/resource/watcher", Superadmin, Read => watcher::status;
    POST "/resource/watcher/agent/start", Superadmin, Read => watcher::start;
    POST "/resource/watcher/agent/stop", Superadmin, Read => watcher::stop;
    POST "/resource/watcher/agent/restart", Superadmin, Read => watcher::restart;

    GET "/scaling-groups", User, Read => scaling_group::list;
    GET "/scaling-groups/{name}/wsproxy-version", User, Read => scaling_group::proxy_version;

    GET "/acl", User, All => acl::permissions;

    POST "/admin/gql", User, Any => graphql::query;
    POST "/admin/graphql", User, Any => graphql::legacy_query;
}

/// The table, prepared for lookups: by the first segment, literal segments before any text.
pub struct Table {
    by_first: HashMap<&'static str, Vec<Entry>>,
}

struct Entry {
    segments: Vec<Segment>,
    route: &'static Route,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(&'static str),
    Any,
}

/// What the table says of a request.
pub enum Lookup {
    /// Its route, and the values of the path's parameters.
    Found(&'static Route, Vec<String>),
    /// The path exists with these methods only.
    WrongMethod(Vec<&'static str>),
    /// No such path.
    NoPath,
}

impl Table {
    /// Prepares the table.
    pub fn prepare() -> Self {
        let mut by_first: HashMap<_, Vec<Entry>> = HashMap::new();
        for route in ROUTES {
            let segments: Vec<_> = split(route.path)
                .map(
                    |part| {
                        if part.starts_with('{') { Segment::Any } else { Segment::Literal(part) }
                    },
                )
                .collect();
            let first = split(route.path).next().unwrap_or_default();
            by_first.entry(first).or_default().push(Entry { segments, route });
        }
        for entries in by_first.values_mut() {
            // Literals sort before `Any`, position by position.
            entries.sort_by_key(|entry| {
                entry.segments.iter().map(|s| *s == Segment::Any).collect::<Vec<_>>()
            });
        }
        Self { by_first }
    }

    /// Finds the route of a request. `HEAD` is answered by `GET` routes.
    pub fn find(&self, method: &str, path: &str) -> Lookup {
        let method = if method == Method::HEAD.as_str() { Method::GET.as_str() } else { method };
        let mut segments = split(path);
        let entries = self.by_first.get(segments.next().unwrap_or_default());
        let mut allowed: Vec<&'static str> = Vec::new();
        for entry in entries.into_iter().flatten() {
            let Some(values) = matches(&entry.segments, path) else { continue };
            if entry.route.methods.contains(&method) {
                return Lookup::Found(entry.route, values);
            }
            allowed.extend(entry.route.methods);
        }
        if allowed.is_empty() {
            return Lookup::NoPath;
        }
        allowed.sort_unstable();
        allowed.dedup();
        Lookup::WrongMethod(allowed)
    }

    /// The methods a path has; empty if there is no such path.
    pub fn methods(&self, path: &str) -> Vec<&'static str> {
        match self.find("", path) {
            Lookup::WrongMethod(methods) => methods,
            Lookup::Found(..) | Lookup::NoPath => Vec::new(),
        }
    }
}

/// Segments of a path; a trailing slash makes an empty last one, so `/a/` is not `/a`.
fn split(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

fn matches(pattern: &[Segment], path: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let mut parts = split(path);
    for segment in pattern {
        let part = parts.next()?;
        match segment {
            Segment::Literal(text) if *text == part => {}
            Segment::Literal(_) => return None,
            Segment::Any if part.is_empty() => return None,
            Segment::Any => {
                let decoded = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
                if decoded.contains('\0') {
                    return None;
                }
                values.push(decoded.into_owned());
            }
        }
    }
    parts.next().is_none().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(&'static str, Vec<String>)> {
        match Table::prepare().find(method, path) {
            Lookup::Found(route, values) => Some((route.name, values)),
            _ => None,
        }
    }

    #[test]
    fn literal_segments_come_before_any_text() {
        assert_eq!(found("GET", "/session/_/match").unwrap().0, "session::match_sessions");
        assert_eq!(found("GET", "/session/_"), Some(("session::info", vec!["_".into()])));
        assert_eq!(found("GET", "/session/a%20b/logs").unwrap().1, ["a b"]);
        assert_eq!(found("HEAD", "/").unwrap().0, "manager::version");
        assert_eq!(found("GET", "").unwrap().0, "manager::version");
        assert_eq!(found("GET", "/session/"), None);
        assert_eq!(found("GET", "/session/x/"), None);
        assert_eq!(found("GET", "/session/%ff"), None);
        assert_eq!(found("GET", "/session/%00"), None);
    }

    #[test]
    fn a_known_path_with_another_method_names_its_methods() {
        let table = Table::prepare();
        let Lookup::WrongMethod(methods) = table.find("PUT", "/session/x") else { panic!() };
        assert_eq!(methods, ["DELETE", "GET", "PATCH", "POST"]);
        assert_eq!(table.methods("/session"), ["POST"]);
        assert!(table.methods("/nope").is_empty());
    }

    /// The whole table as a golden file: a change of who may do what is seen in review.
    #[test]
    fn routes_and_their_rules_are_those_of_the_golden_file() {
        let table: Vec<String> = ROUTES
            .iter()
            .map(|r| {
                format!("{:10} {:36} {:?}/{:?}", r.methods.join("|"), r.path, r.level, r.guard)
            })
            .collect();
        super::super::golden::compare("routes.txt", &table.join("\n"));
    }

    /// This list may shrink but should never grow without a reason in the product's contract.
    #[test]
    fn only_these_routes_answer_without_a_signature() {
        let public: Vec<_> =
            ROUTES.iter().filter(|r| r.level == Level::Public).map(|r| r.path).collect();
        assert_eq!(
            public,
            [
                "/",
                "/spec",
                "/manager/status",
                "/manager/announcement",
                "/auth/authorize",
                "/auth/signup",
                "/auth/update-password-no-auth",
                "/config/resource-slots",
                "/config/resource-slots/details",
                "/config/vfolder-types",
                // These want a token that the signed routes give.
                "/storage/upload",
                "/storage/upload",
                "/storage/download"
            ]
        );
    }

    #[test]
    fn no_two_rows_answer_the_same_request() {
        let mut seen = std::collections::HashSet::new();
        for route in ROUTES {
            for method in route.methods {
                assert!(seen.insert((method, route.path)), "{method} {}", route.path);
            }
        }
    }
}
