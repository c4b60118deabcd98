//! W79, W80: trace and log settings over the wire.

use super::*;

#[test]
fn w80_log_settings_change_all_or_none() {
    let site = Site::new(&json!({}));
    let before = site.get("/v2/logging").json();
    let expected = json!({"log_file": "/dev/null", "log_info": true, "log_warning": true, "log_error": true,
                          "log_verbose_level": 0, "log_format": "default"});
    assert_eq!(before, expected);
    for (body, status, text) in [
        (r#"{"log_file":"x"}"#, 501, "log file location can not be updated through network protocol"),
        (r#"{"log_format":"x"}"#, 503, "invalid argument for --log_format, got: x"),
        (r#"{"log_info":1}"#, 400, "Invalid value for 'log_info': expected a boolean"),
        (r#"{"log_verbose_level":-1}"#, 400, "Invalid value for 'log_verbose_level': expected an unsigned integer"),
        (r#"{"log_info":false,"log_warnings":true}"#, 400, "unknown log setting 'log_warnings'"),
    ] {
        let reply = site.post("/v2/logging", body);
        assert_eq!((reply.status, reply.error().as_str()), (status, text), "{body}");
        assert_eq!(site.get("/v2/logging").json(), before, "{body}");
    }
    let after = site.post("/v2/logging", r#"{"log_info":false,"log_verbose_level":2,"log_format":"ISO8601"}"#).json();
    assert_eq!((&after["log_info"], &after["log_verbose_level"]), (&json!(false), &json!(2)));
    assert_eq!(site.post("/v2/logging", "").json(), after);
}

#[test]
fn w79_trace_settings_are_texts() {
    let site = Site::new(&json!({"trace": {"file": "/dev/null"}}));
    let runtime = runtime();
    let _context = runtime.enter();
    let _worker = site.publish("m", &json!({}));
    let defaults = json!({"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
                          "trace_file": "/dev/null", "trace_mode": "triton"});
    assert_eq!(site.get("/v2/trace/setting").json(), defaults);
    for (body, status, text) in [
        (r#"{"trace_rate":1}"#, 500, "attempt to access JSON non-string as string"),
        (r#"{"trace_rate":"abc"}"#, 400, "Unable to parse 'trace_rate', got: abc"),
        (r#"{"trace_count":"-2"}"#, 400, "Unable to parse 'trace_count', got: -2"),
        (r#"{"trace_file":"x"}"#, 501, "trace file location can not be updated through network protocol"),
        (r#"{"trace_level":["OFF","TENSORS"]}"#, 400, "Unable to parse 'trace_level', got: OFF,TENSORS"),
        (
            r#"{"trace_rate":"0","trace_level":["TENSORS"]}"#,
            400,
            "Attempting to set invalid trace setting :sample rate must be non-zero",
        ),
        (r#"{"trace_rate":"2","wat":"1"}"#, 400, "unknown trace setting 'wat'"),
        ("", 400, "trace settings: expected a JSON object, got an empty body"),
    ] {
        let reply = site.post("/v2/trace/setting", body);
        assert_eq!((reply.status, reply.error().as_str()), (status, text), "{body}");
        assert_eq!(site.get("/v2/trace/setting").json(), defaults, "{body}");
    }
    let own = site.post("/v2/models/m/trace/setting", r#"{"trace_rate":"5","trace_level":["TIMESTAMPS"]}"#).json();
    assert_eq!((&own["trace_rate"], &own["trace_level"]), (&json!("5"), &json!(["TIMESTAMPS"])));
    site.post("/v2/trace/setting", r#"{"trace_rate":"7","trace_count":["9"]}"#);
    let own = site.get("/v2/models/m/trace/setting").json();
    assert_eq!((&own["trace_rate"], &own["trace_count"]), (&json!("5"), &json!("9")));
    let own = site.post("/v2/models/m/trace/setting", r#"{"trace_rate":null}"#).json();
    assert_eq!(own["trace_rate"], "7");
    site.post("/v2/trace/setting", r#"{"trace_rate":null,"trace_count":null}"#);
    assert_eq!(site.get("/v2/trace/setting").json(), defaults);
    for reply in [site.get("/v2/models/no/trace/setting"), site.post("/v2/models/no/trace/setting", "{}")] {
        assert_eq!((reply.status, reply.error().as_str()), (400, "Request for unknown model : no"));
    }
}
