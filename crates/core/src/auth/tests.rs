//! Who gets in where: keys × scopes × services.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789ABCDEF";

fn text(id: &str) -> String {
    format!("nk_{id}{SECRET}")
}

fn row(id: &str, scopes: &str, services: &str, expires: &str) -> String {
    let digest = blake3::hash(text(id).as_bytes()).to_hex();
    format!(r#"{{"id":"{id}","digest":"{digest}","scopes":[{scopes}],"services":[{services}],"expires":{expires}}}"#)
}

fn gate() -> Gate {
    let keys = [
        row("adminkey", r#""admin""#, "", "null"),
        row("manager1", r#""manage""#, "", "null"),
        row("inferone", r#""infer""#, r#""one""#, "null"),
        row("inferall", r#""infer""#, r#""*""#, "9999999999"),
        row("metrics1", r#""metrics""#, "", "null"),
        row("expired1", r#""admin""#, "", "1000"),
    ];
    let services = r#"{"open":{"mode":"public","header":null,"parameters":[]},"one":{"mode":"key"}}"#;
    let document = format!(r#"{{"generation":7,"keys":[{}],"services":{services}}}"#, keys.join(","));
    let gate = Gate::new(true, Some(blake3::hash(b"boot").to_hex().as_str())).unwrap();
    gate.set(Access::from_json(document.as_bytes()).unwrap());
    gate
}

/// 200, 401 or 403 for a key at a route.
fn status(gate: &Gate, key: &str, scope: Scope, service: Option<&str>) -> u16 {
    let credentials = if key.is_empty() { Credentials::None } else { Credentials::Key(key) };
    match gate.check(credentials, scope, service) {
        Ok(_) => 200,
        Err(Refusal::Unauthorized) => 401,
        Err(Refusal::Forbidden(_)) => 403,
    }
}

#[test]
fn every_key_opens_what_its_scopes_say() {
    let gate = gate();
    let routes = [
        (Scope::Public, None),
        (Scope::AnyKey, None),
        (Scope::Infer, Some("one")),
        (Scope::Infer, Some("two")),
        (Scope::Infer, Some("open")),
        (Scope::Manage, Some("one")),
        (Scope::Metrics, None),
        (Scope::Admin, None),
    ];
    let wrong_secret = format!("{}x", text("adminkey"));
    for (key, expected) in [
        ("", [200, 401, 401, 401, 200, 401, 401, 401]),
        ("boot", [200; 8]),
        (text("adminkey").as_str(), [200; 8]),
        (text("manager1").as_str(), [200, 200, 200, 200, 200, 200, 403, 403]),
        (text("inferone").as_str(), [200, 200, 200, 403, 200, 403, 403, 403]),
        (text("inferall").as_str(), [200, 200, 200, 200, 200, 403, 403, 403]),
        (text("metrics1").as_str(), [200, 200, 403, 403, 200, 403, 200, 403]),
        (text("expired1").as_str(), [200, 401, 401, 401, 200, 401, 401, 401]),
        (text("nobody00").as_str(), [200, 401, 401, 401, 200, 401, 401, 401]),
        (wrong_secret.as_str(), [200, 401, 401, 401, 200, 401, 401, 401]),
        ("nk_é", [200, 401, 401, 401, 200, 401, 401, 401]),
    ] {
        let got = routes.map(|(scope, service)| status(&gate, key, scope, service));
        assert_eq!(got, expected, "key '{key}'");
    }
}

#[test]
fn a_server_that_requires_a_key_denies_before_its_snapshot() {
    let gate = Gate::new(true, None).unwrap();
    assert_eq!(status(&gate, "", Scope::AnyKey, None), 401);
    assert_eq!(status(&gate, &text("adminkey"), Scope::Admin, None), 401);
}

#[test]
fn without_keys_everybody_gets_in_but_proves_nothing() {
    let gate = Gate::new(false, None).unwrap();
    let caller = gate.check(Credentials::None, Scope::Admin, None).unwrap();
    assert!(caller.manages() && !caller.has_managing_key());
    gate.set(
        Access::from_json(format!(r#"{{"generation":1,"keys":[{}]}}"#, row("inferone", "", "", "null")).as_bytes())
            .unwrap(),
    );
    assert_eq!(status(&gate, "", Scope::AnyKey, None), 401);
}

#[test]
fn two_different_keys_are_no_key() {
    let of = |bearer: &[&'static str], header: &[&'static str]| {
        Credentials::of(bearer.iter().map(|value| Some(*value)), header.iter().map(|value| Some(*value)))
    };
    assert!(matches!(of(&["Bearer a"], &[]), Credentials::Key("a")));
    assert!(matches!(of(&["bearer a"], &["a"]), Credentials::Key("a")));
    assert!(matches!(of(&["Bearer a"], &["b"]), Credentials::Wrong));
    assert!(matches!(of(&["Basic eDp5"], &[]), Credentials::Wrong));
    assert!(matches!(of(&[], &["a", "b"]), Credentials::Wrong));
    assert!(matches!(of(&[], &[]), Credentials::None));
    assert!(matches!(Credentials::of([None].into_iter(), [].into_iter()), Credentials::Wrong));
}

#[test]
fn lists_show_an_infer_key_its_own_services() {
    let gate = gate();
    let caller = |key: &str| gate.check(Credentials::Key(key), Scope::AnyKey, None).unwrap();
    assert!(caller(&text("inferone")).sees("one") && !caller(&text("inferone")).sees("two"));
    assert!(caller(&text("inferall")).sees("two") && !caller(&text("metrics1")).sees("one"));
    assert!(caller(&text("manager1")).sees("two"));
}
