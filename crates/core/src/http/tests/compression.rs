//! Compressed bodies over the wire, both ways (W35, W36, W37, B7).

use std::io::Write;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::infer::{BODY, echoing};
use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A request with a body of bytes.
fn posted(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn w35_w36_compressed_requests_are_opened() {
    let (site, echo) = echoing("m", 3);
    let mut client = site.connect();
    for (headers, body) in [
        ("Content-Encoding: gzip\r\n", gzip(BODY.as_bytes())),
        ("content-encoding: Deflate\r\n", zlib(BODY.as_bytes())),
    ] {
        client.send(&posted("/v2/models/m/infer", headers, &body));
        assert_eq!(client.reply(false).json()["outputs"][0]["data"], json!([3, 4]));
    }
    // W36: the length counts what the client did not compress.
    let head = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT32","parameters":{"binary_data_size":8}}]}"#;
    let headers = format!("Content-Encoding: gzip\r\nInference-Header-Content-Length: {}\r\n", head.len());
    client.send(&posted("/v2/models/m/infer", &headers, &gzip(format!("{head}\x03\0\0\0\x04\0\0\0").as_bytes())));
    assert_eq!(client.reply(false).json()["outputs"][0]["data"], json!([3, 4]));
    drop(site);
    echo.join().unwrap();
}

#[test]
fn w36_w37_answers_are_compressed_where_that_was_asked_for() {
    let (site, echo) = echoing("m", 3);
    let mut client = site.connect();
    let head = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT32","data":[3,4]}],"parameters":{"binary_data_output":true}}"#;
    client.send(request("POST", "/v2/models/m/infer", "Accept-Encoding: gzip, deflate\r\n", head).as_bytes());
    let reply = client.reply(false);
    assert_eq!((reply.status, reply.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let mut opened = Vec::new();
    GzDecoder::new(&reply.body[..]).read_to_end(&mut opened).unwrap();
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(&opened[length..], b"\x03\0\0\0\x04\0\0\0");

    for (accepted, answered) in [("gzip;q=0.1, deflate;q=0.2", Some("deflate")), ("*", None)] {
        client
            .send(request("POST", "/v2/models/m/infer", &format!("Accept-Encoding: {accepted}\r\n"), BODY).as_bytes());
        assert_eq!(client.reply(false).header("content-encoding"), answered);
    }
    // Neither errors nor other answers are.
    for (path, status) in [("/v2/models/nope/infer", 404), ("/v2/models/m/infer", 400), ("/v2/repository/index", 200)] {
        client.send(request("POST", path, "Accept-Encoding: gzip\r\n", "{}").as_bytes());
        let reply = client.reply(false);
        assert_eq!((reply.status, reply.header("content-encoding")), (status, None), "{path}");
    }
    drop(site);
    echo.join().unwrap();
}

#[test]
fn w35_other_codings_are_named() {
    let (site, echo) = echoing("m", 0);
    let reply = site.ask("POST", "/v2/models/m/infer", "Content-Encoding: br\r\n", BODY);
    assert_eq!((reply.status, reply.error().as_str()), (501, "Unsupported compression type"));
    assert_eq!(reply.header("accept-encoding"), Some("gzip, deflate"));
    drop(site);
    echo.join().unwrap();
}

#[test]
fn w23_b7_what_opens_too_far_is_refused() {
    let (site, echo) = echoing("m", 0);
    let mut client = site.connect();
    let mut error = |headers: &str, body: &[u8]| {
        client.send(&posted("/v2/models/m/infer", &format!("Content-Encoding: gzip\r\n{headers}"), body));
        let reply = client.reply(false);
        assert_eq!(reply.status, 400);
        reply.error()
    };
    let text = "Decompressed data size exceeds the maximum allowed value of 3145728 bytes. \
                Use --http-max-input-size to increase the limit.";
    assert_eq!(error("", &gzip(&vec![b' '; (3 << 20) + 1])), text);
    assert!(error("", &gzip(&vec![b' '; 3 << 20])).starts_with("failed to parse the request JSON buffer"));
    let bomb = gzip(&vec![0; 24 << 20]);
    assert!(error("Inference-Header-Content-Length: 1\r\n", &bomb).contains("opens to far more"));
    assert!(error("", b"not gzip").contains("not what its Content-Encoding says"));
    assert!(error("", &gzip(b"{}")[..15]).contains("cut off"));
    drop(site);
    echo.join().unwrap();
}
