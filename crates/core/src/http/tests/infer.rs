//! Inference over the wire, with a worker that the test drives.

use std::thread;
use std::time::Instant;

use super::*;

pub const BODY: &str = r#"{"id":"7","inputs":[{"name":"x","shape":[1,2],"datatype":"INT32","data":[3,4]}]}"#;

/// A site with `name` and a thread that answers so many calls with their inputs.
pub fn echoing(name: &str, calls: usize) -> (Site, thread::JoinHandle<()>) {
    let site = Site::new(&json!({"max_input_size": 3 << 20}));
    let runtime = runtime();
    let mut worker = {
        let _context = runtime.enter();
        site.publish(name, &json!({}))
    };
    let echo = thread::spawn(move || {
        runtime.block_on(async {
            for _ in 0..calls {
                let call = worker.call().await;
                worker.reply(&[worker.echo(&call)]);
            }
            // The channel stays open for as long as the core wants it.
            while worker.frame().await.is_some() {}
        });
    });
    (site, echo)
}

#[test]
fn json_and_binary_go_both_ways() {
    let (site, echo) = echoing("m", 3);
    let mut client = site.connect();
    client.send(request("POST", "/v2/models/m/infer", "", BODY).as_bytes());
    let reply = client.reply(false);
    let outputs = r#""outputs":[{"name":"y","datatype":"INT32","shape":[1,2],"data":[3,4]}]}"#;
    assert_eq!(reply.text(), format!(r#"{{"id":"7","model_name":"m","model_version":"1",{outputs}"#));

    let head = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT32","parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
    let header = format!("Inference-Header-Content-Length: {}\r\n", head.len());
    client.send(request("POST", "/v2/models/m/versions/1/infer", &header, &format!("{head}abcdefgh")).as_bytes());
    let reply = client.reply(false);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/octet-stream")));
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(&reply.body[length..], b"abcdefgh");

    client.send(request("POST", "/v2/models/m/infer", "Inference-Header-Content-Length: 0\r\n", "abcdefgh").as_bytes());
    let reply = client.reply(false);
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(&reply.body[length..], b"abcdefgh", "{}", reply.text());
    drop(site);
    echo.join().unwrap();
}

#[test]
fn a_service_speaks_its_public_name() {
    let (site, echo) = echoing("m.v1", 1);
    let snapshot = r#"{"generation":1,"aliases":{"m":[{"model":"m.v1","weight":1}]}}"#;
    site.server.set_access(snapshot.as_bytes()).unwrap();
    assert_eq!(site.post("/v2/models/m/infer", BODY).json()["model_name"], "m");
    assert_eq!(site.get("/v2/models/m").json()["name"], "m");
    assert_eq!(site.get("/v2/models/m/config").text(), r#"{"max_batch_size":8,"name":"m"}"#);
    assert_eq!(site.get("/v2/models/m/ready").text(), r#"{"name":"m","ready":true}"#);
    let wrong = BODY.replace(r#""x""#, r#""z""#);
    assert_eq!(site.post("/v2/models/m/infer", &wrong).error(), "unexpected inference input 'z' for model 'm'");
    let error = site.get("/v2/models/m/versions/3").error();
    assert_eq!(error, "Request for unknown model: 'm' version 3 is not found");
    drop(site);
    echo.join().unwrap();
}

#[test]
fn a_large_body_in_many_pieces_arrives_whole() {
    let (site, echo) = echoing("m", 1);
    let padding = " ".repeat(2 << 20);
    let reply = site.post("/v2/models/m/infer", &format!("{padding}{BODY}"));
    assert_eq!((reply.status, &reply.json()["outputs"][0]["data"]), (200, &json!([3, 4])));
    drop(site);
    echo.join().unwrap();
}

#[test]
fn a_client_that_goes_away_cancels_its_request() {
    let site = Site::new(&json!({}));
    let runtime = runtime();
    let mut worker = {
        let _context = runtime.enter();
        site.publish("m", &json!({}))
    };
    let mut client = site.connect();
    client.send(request("POST", "/v2/models/m/infer", "", BODY).as_bytes());
    runtime.block_on(async {
        let call = worker.call().await;
        assert!(!worker.is_cancelled(&call));
        drop(client);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !worker.is_cancelled(&call) {
            assert!(Instant::now() < deadline, "the core did not cancel the request");
            tokio::task::yield_now().await;
        }
    });
}
