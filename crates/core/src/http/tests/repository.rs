//! Load, unload and inspect: what reaches Python and what comes back.

use std::thread;

use super::*;

/// Answers one command as Python would and returns it.
fn python(site: &Site, result: &Value) -> Value {
    let command = site.server.commands().next(Duration::from_secs(20)).unwrap().expect("a command comes");
    let command: Value = serde_json::from_slice(&command).unwrap();
    site.server.commands().complete(command["id"].as_u64().unwrap(), result.to_string().as_bytes()).unwrap();
    command
}

/// Asks while Python answers.
fn asked(site: &Site, path: &str, body: &str, result: &Value) -> (Reply, Value) {
    thread::scope(|scope| {
        let reply = scope.spawn(|| site.post(path, body));
        let command = python(site, result);
        (reply.join().unwrap(), command)
    })
}

#[test]
fn load_and_unload_reach_python() {
    let site = Site::new(&json!({"allow_file_override": true}));
    let body = r#"{"parameters":{"config":"{}","file:1/m.pt":"aGk="}}"#;
    let (reply, command) = asked(&site, "/v2/repository/models/m/load", body, &json!({"ok": true, "body": null}));
    assert_eq!((reply.status, reply.header("content-length"), reply.text().as_str()), (200, Some("0"), ""));
    let expected = json!({"id": 1, "kind": "load", "model": "m", "config": "{}", "files": {"1/m.pt": "aGk="}});
    assert_eq!(command, expected);

    let body = r#"{"parameters":{"unload_dependents":true}}"#;
    let (reply, command) = asked(&site, "/v2/repository/models/m/unload", body, &json!({"ok": true}));
    assert_eq!((reply.status, &command["unload_dependents"]), (200, &json!(true)));

    let text = "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: no;\n";
    let failed = json!({"ok": false, "code": "invalid_arg", "message": text});
    let (reply, command) = asked(&site, "/v2/repository/models/m/load", "", &failed);
    assert_eq!((reply.status, reply.error().as_str(), &command["config"]), (400, text, &Value::Null));

    let (reply, command) = asked(&site, "/naiad/v1/inspect", r#"{"path":"x"}"#, &json!({"ok": true, "body": {"a": 1}}));
    assert_eq!((reply.text().as_str(), &command["parameters"]["path"]), (r#"{"a":1}"#, &json!("x")));
}

#[test]
fn wrong_requests_are_refused_with_tritons_texts() {
    let site = Site::new(&json!({}));
    let load = |body: &str| {
        let reply = site.post("/v2/repository/models/m/load", body);
        (reply.status, reply.error())
    };
    let refused = |status: u16, text: &str| (status, text.to_owned());
    let object = r#"{"parameters":{"config":{}}}"#;
    assert_eq!(load(object), refused(500, "attempt to access JSON non-string as string"));
    assert_eq!(load(r#"{"parameters":{"x":"1"}}"#), refused(500, "unrecognized load parameter 'x'."));
    assert_eq!(load("{"), refused(400, "failed to parse the request JSON buffer: Invalid value. at 1"));
    let (status, text) = load(r#"{"parameters":{"file:1/m":""}}"#);
    assert!(status == 400 && text.contains("'config'"), "{text}");
    assert_eq!(load(r#"{"parameters":{"config":"{}","file:1/m":"aGk="}}"#).0, 403);
    let elsewhere = site.post("/v2/repository/r/models/m/load", "");
    assert_eq!(
        (elsewhere.status, elsewhere.error().as_str()),
        (501, "'repository_name' specification is not supported")
    );
}

#[test]
fn only_explicit_mode_loads() {
    let site = Site::new(&json!({"model_control": "none"}));
    let text = "explicit model load / unload is not allowed if polling is enabled";
    for path in ["/v2/repository/models/m/load", "/v2/repository/models/m/unload"] {
        let reply = site.post(path, "");
        assert_eq!((reply.status, reply.error().as_str()), (503, text));
    }
}
