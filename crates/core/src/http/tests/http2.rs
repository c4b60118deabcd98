//! HTTP/2 by prior knowledge: many requests on a connection, each given up when its client is too slow.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::infer::{BODY, echoing};
use super::*;

type Sent = BoxBody<Bytes, Infallible>;

async fn connect(address: &str, window: u32) -> SendRequest<Sent> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn asked(address: &str, method: &str, path: &str, body: &str) -> Request<Sent> {
    let body = Full::new(Bytes::from(body.to_owned())).boxed();
    Request::builder().method(method).uri(format!("http://{address}{path}")).body(body).unwrap()
}

async fn text(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn requests_share_a_connection() {
    let (site, echo) = echoing("m", 1);
    runtime().block_on(async {
        let mut client = connect(&site.address, 1 << 20).await;
        let live = client.send_request(asked(&site.address, "GET", "/v2/health/live", ""));
        let missing = client.send_request(asked(&site.address, "GET", "/v2/models/nope", ""));
        let infer = client.send_request(asked(&site.address, "POST", "/v2/models/m/infer", BODY));
        let (live, missing, infer) = tokio::join!(live, missing, infer);
        assert_eq!(text(live.unwrap()).await, (200, r#"{"live":true}"#.to_owned()));
        assert_eq!(text(missing.unwrap()).await.0, 404);
        let (status, answer) = text(infer.unwrap()).await;
        assert!(status == 200 && answer.contains(r#""data":[3,4]"#), "{answer}");
        let foreign = client.send_request(asked("evil.test", "GET", "/v2/health/live", "")).await.unwrap();
        assert_eq!(foreign.status(), 421);
        let head = client.send_request(asked(&site.address, "HEAD", "/v2/health/live", "")).await.unwrap();
        assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"13".parse().unwrap()));
    });
    drop(site);
    echo.join().unwrap();
}

#[test]
fn large_bodies_go_both_ways_in_pieces() {
    let site = Site::new(&json!({}));
    let runtime = runtime();
    let mut worker = {
        let _context = runtime.enter();
        site.publish("m", &json!({"max_batch_size": 0, "inputs": [wide("x")], "outputs": [wide("y")]}))
    };
    runtime.block_on(async {
        let mut client = connect(&site.address, 100_000).await;
        let body = "3,".repeat(400_000) + "3";
        let body = format!(r#"{{"inputs":[{{"name":"x","shape":[400001],"datatype":"INT32","data":[{body}]}}]}}"#);
        let reply = client.send_request(asked(&site.address, "POST", "/v2/models/m/infer", &body));
        let answered = async {
            let call = worker.call().await;
            worker.reply(&[worker.echo(&call)]);
        };
        let (reply, ()) = tokio::join!(reply, answered);
        let (status, answer) = text(reply.unwrap()).await;
        assert_eq!((status, answer.matches("3,").count()), (200, 400_000));
    });
}

fn wide(name: &str) -> Value {
    json!({"name": name, "datatype": "INT32", "dims": [-1], "reshape": null, "optional": false, "labels": []})
}

#[test]
fn a_body_that_stops_coming_is_answered_and_others_go_on() {
    let site = Site::looking(Duration::from_millis(10), &json!({}));
    runtime().block_on(async {
        let mut client = connect(&site.address, 1 << 20).await;
        let (pieces, body) = mpsc::channel(1);
        let body = Pieces(body).boxed();
        let uri = format!("http://{}/v2/repository/index", site.address);
        let silent = client.send_request(Request::post(uri).body(body).unwrap());
        pieces.send(Bytes::from_static(b"{")).await.unwrap();
        let silent = text(silent.await.unwrap()).await;
        assert_eq!((silent.0, silent.1.contains("stopped coming")), (408, true), "{}", silent.1);
        let live = client.send_request(asked(&site.address, "GET", "/v2/health/live", "")).await.unwrap();
        assert_eq!(live.status(), 200);
        drop(pieces);
    });
}

/// A body whose frames the test sends.
struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[test]
fn an_answer_that_nobody_takes_is_given_up() {
    let site = Site::looking(Duration::from_millis(10), &json!({}));
    runtime().block_on(async {
        let mut client = connect(&site.address, 0).await;
        let reply = client.send_request(asked(&site.address, "GET", "/v2", "")).await.unwrap();
        assert_eq!(reply.status(), 200);
        // The window stays shut.
        let mut body = reply.into_body();
        let active = || site.server.drain(Duration::from_secs(20));
        assert!(thread::scope(|scope| scope.spawn(active).join().unwrap()), "the stream was not given up");
        let mut broken = false;
        while let Some(frame) = body.frame().await {
            broken = frame.is_err();
            if broken {
                break;
            }
        }
        assert!(broken);
    });
}
