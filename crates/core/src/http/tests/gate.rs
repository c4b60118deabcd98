//! Keys over the wire: every route of the table × kinds of keys (A1, A4, A6).

use std::thread;

use super::*;
use crate::auth::Scope;
use crate::http::routes::{Listener, ROUTES, Verb};

const SECRET: &str = "0123456789abcdef0123456789ABCDEF";

fn key(id: &str) -> String {
    format!("nk_{id}{SECRET}")
}

fn row(id: &str, scope: &str, services: &Value) -> Value {
    let digest = blake3::hash(key(id).as_bytes()).to_hex().to_string();
    json!({"id": id, "digest": digest, "scopes": [scope], "services": services, "expires": null})
}

fn keyed() -> Site {
    let bootstrap = blake3::hash(b"boot").to_hex().to_string();
    let metrics = json!({"listener": {"address": "127.0.0.1", "port": 0}});
    let site = Site::new(&json!({"require_key": true, "bootstrap_key": bootstrap, "metrics": metrics}));
    let snapshot = json!({
        "generation": 7, "limits": {}, "services": {"open": {"mode": "public", "header": null, "parameters": []}},
        "aliases": {"m": [{"model": "m.v1", "weight": 100}]},
        "keys": [row("adminkey", "admin", &json!([])), row("managing", "manage", &json!([])),
                 row("inferone", "infer", &json!(["m"])), row("inferall", "infer", &json!(["*"])),
                 row("metrics1", "metrics", &json!([]))],
    });
    let reply = site.ask("PUT", "/naiad/v1/access", "X-API-Key: boot\r\n", &snapshot.to_string());
    assert_eq!((reply.status, &reply.json()["generation"]), (200, &json!(7)), "{}", reply.text());
    assert_eq!(reply.json()["boot_id"].as_str().unwrap().len(), 32);
    site
}

fn bearer(id: &str) -> String {
    format!("Authorization: Bearer {}\r\n", key(id))
}

#[test]
fn every_route_asks_for_its_scope() {
    let site = keyed();
    thread::scope(|scope| {
        // Python, which says no to everything.
        scope.spawn(|| {
            while let Ok(Some(command)) = site.server.commands().next(Duration::from_secs(20)) {
                let command: Value = serde_json::from_slice(&command).unwrap();
                let no = br#"{"ok":false,"code":"unavailable","message":"no"}"#;
                site.server.commands().complete(command["id"].as_u64().unwrap(), no).unwrap();
            }
        });
        check_routes(&site);
        site.server.stop();
    });
}

fn check_routes(site: &Site) {
    let listed = site.ask("GET", "/naiad/v1/routes", &bearer("adminkey"), "").json();
    assert_eq!(listed.as_array().unwrap().len(), ROUTES.len() + crate::grpc::routes::ROUTES.len());
    for route in ROUTES {
        let method = match route.verb {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
        };
        let path = route.pattern.replace("{version}", "1").replace("{model}", "other").replace(['{', '}'], "");
        let address = if route.listener == Listener::V2 { &site.address } else { &site.metrics };
        let refused = |headers: &str| match Site::ask_at(address, method, &path, headers, "").status {
            status @ (401 | 403) => status,
            _ => 0,
        };
        let (nobody, metrics, one, manage) = match route.scope {
            Scope::Public => (0, 0, 0, 0),
            Scope::AnyKey => (401, 0, 0, 0),
            Scope::Infer | Scope::Manage => (401, 403, 403, 0),
            Scope::Metrics => (401, 0, 403, 403),
            Scope::Admin => (401, 403, 403, 403),
        };
        assert_eq!(refused(""), nobody, "{method} {path}");
        assert_eq!(refused("X-API-Key: nk_wrong\r\n"), nobody, "{method} {path}");
        let two = format!("{}X-API-Key: {}\r\n", bearer("adminkey"), key("managing"));
        assert_eq!(refused(&two), nobody, "{method} {path}");
        assert_eq!(refused(&bearer("metrics1")), metrics, "{method} {path}");
        assert_eq!(refused(&bearer("inferone")), one, "{method} {path}");
        assert_eq!(refused(&bearer("managing")), manage, "{method} {path}");
        assert_eq!(refused(&bearer("adminkey")), 0, "{method} {path}");
    }
}

#[test]
fn a_refusal_names_both_headers_and_reaches_a_client_that_still_sends() {
    let site = keyed();
    let reply = site.post("/v2/models/m/infer", &"x".repeat(900_000));
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
    let text = "missing or invalid API key: send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'";
    assert_eq!(reply.error(), text);
    let reply = site.ask("GET", "/v2/models/other", &bearer("inferone"), "");
    assert_eq!((reply.status, reply.error().as_str()), (403, "the API key is not valid for model 'other'"));
    // A bad name says nothing to those without a key.
    assert_eq!(site.get("/v2/models/%2e%2e").status, 401);
    assert_eq!(site.ask("GET", "/v2/models/%2e%2e", &bearer("adminkey"), "").status, 400);
}

#[test]
fn public_services_answer_without_a_key() {
    let site = keyed();
    assert_eq!(site.get("/v2/models/open").status, 404);
    assert_eq!(site.post("/v2/models/open/infer", "{}").status, 404);
    assert_eq!(site.post("/v2/repository/models/open/load", "").status, 401);
}

#[test]
fn lists_speak_public_names_to_those_who_infer() {
    let site = keyed();
    let runtime = runtime();
    let _context = runtime.enter();
    let _one = site.publish("m.v1", &json!({}));
    let _two = site.publish("other", &json!({}));
    let rows = json!([{"name": "m.v1", "version": 1, "state": "READY", "reason": ""},
                      {"name": "other", "version": 1, "state": "READY", "reason": null},
                      {"name": "never", "version": null, "state": null, "reason": null}]);
    site.server.set_index(rows.to_string().as_bytes()).unwrap();
    let index = |id: &str, body: &str| site.ask("POST", "/v2/repository/index", &bearer(id), body).text();
    assert_eq!(index("inferone", ""), r#"[{"name":"m","version":"1","state":"READY"}]"#);
    assert_eq!(index("metrics1", ""), "[]");
    let all = index("managing", r#"{"ready":true}"#);
    assert!(all.contains(r#""m.v1""#) && all.contains(r#""m""#) && !all.contains("never"), "{all}");
    assert!(index("adminkey", "").contains(r#"{"name":"never"}"#));

    let names = |id: &str| {
        let stats = site.ask("GET", "/v2/models/stats", &bearer(id), "").json();
        let rows = stats["model_stats"].as_array().unwrap().clone();
        rows.into_iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("inferone"), ["m"]);
    assert_eq!(names("inferall"), ["m", "other"]);
    assert_eq!(names("managing"), ["m.v1", "other"]);
    let of_one = site.ask("GET", "/v2/models/m/stats", &bearer("inferone"), "").json();
    assert_eq!(of_one["model_stats"][0]["name"], "m");
}

#[test]
fn a_wrong_snapshot_changes_nothing() {
    let site = keyed();
    let put = |body: &str| site.ask("PUT", "/naiad/v1/access", &bearer("adminkey"), body);
    let reply = put(r#"{"generation":8,"wat":1}"#);
    assert!(reply.status == 400 && reply.error().contains("unknown field `wat`"), "{}", reply.text());
    assert_eq!(put(r#"{"generation":9}"#).status, 200);
    assert_eq!(put(r#"{"generation":10}"#).status, 401);
}
