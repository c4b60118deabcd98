//! Codings: what headers say, and bytes there and back.

use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use hyper::header::HeaderValue;

use super::*;

fn headers(name: &'static str, values: &[&'static str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for value in values {
        map.append(name, HeaderValue::from_static(value));
    }
    map
}

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

fn open(encoding: Encoding, limit: u64, pieces: &[&[u8]]) -> Result<Bytes, Trouble> {
    let mut inflater = Inflater::new(encoding, limit);
    for piece in pieces {
        inflater.push(piece)?;
    }
    inflater.finish()
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(step).collect()
}

#[test]
fn w35_request_codings() {
    let of = |values: &[&'static str]| of_request(&headers("content-encoding", values)).ok();
    assert_eq!(of(&[]), Some(None));
    assert_eq!(of(&["identity"]), Some(None));
    assert_eq!(of(&["gzip"]), Some(Some(Encoding::Gzip)));
    assert_eq!(of(&["DEFLATE"]), Some(Some(Encoding::Deflate)));
    for unknown in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["x-gzip"]] {
        assert_eq!(of(unknown), None, "{unknown:?}");
    }
    let refusal = of_request(&headers("content-encoding", &["br"])).unwrap_err().response();
    assert_eq!(
        (refusal.status().as_u16(), &refusal.headers()["accept-encoding"]),
        (501, &"gzip, deflate".parse().unwrap())
    );
}

#[test]
fn w37_the_highest_weight_wins_and_ties_go_to_the_first() {
    use Encoding::{Deflate, Gzip};
    for (value, expected) in [
        ("gzip", Some(Gzip)),
        ("deflate", Some(Deflate)),
        ("gzip, deflate", Some(Gzip)),
        ("deflate, gzip, br", Some(Deflate)),
        ("br, gzip;q=0.5", Some(Gzip)),
        ("gzip;q=0.5, deflate;q=0.8", Some(Deflate)),
        ("gzip; Q=0.5 , identity;q=0.6", None),
        ("identity, gzip", None),
        ("identity;q=0.5, gzip", Some(Gzip)),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate;q=0.001", Some(Deflate)),
        ("gzip;q=wat", None),
        ("gzip;q=2", None),
        ("*", None),
        ("br", None),
        ("", None),
        (",,;;", None),
    ] {
        assert_eq!(of_answer(&headers("accept-encoding", &[value])), expected, "{value}");
    }
    assert_eq!(of_answer(&headers("accept-encoding", &["identity;q=0.5", "deflate"])), Some(Deflate));
}

#[test]
fn bodies_open_in_whatever_pieces_they_come() {
    let text = b"0.125, ".repeat(1000);
    for (encoding, sent) in [(Encoding::Gzip, gzip(&text)), (Encoding::Deflate, zlib(&text))] {
        assert_eq!(open(encoding, 7000, &[&sent]).unwrap(), text);
        let bytes: Vec<&[u8]> = sent.chunks(1).collect();
        assert_eq!(open(encoding, 7000, &bytes).unwrap(), text);
        assert_eq!(open(encoding, 6999, &[&sent]).unwrap_err(), Trouble::TooLarge);
        assert_eq!(open(encoding, 7000, &[&sent[..sent.len() - 1]]).unwrap_err(), Trouble::Broken, "cut off");
        assert_eq!(open(encoding, 7000, &[&sent, b"x"]).unwrap_err(), Trouble::Broken, "more behind the end");
        let mut torn = sent.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(open(encoding, 7000, &[&torn]).unwrap_err(), Trouble::Broken, "another checksum");
    }
    for size in [0, 1, STEP - 1, STEP, STEP + 1, 3 * STEP] {
        let bytes = noise(size);
        assert_eq!(open(Encoding::Gzip, size as u64, &[&gzip(&bytes)]).unwrap(), bytes, "{size}");
    }
}

#[test]
fn w35_raw_deflate_and_garbage_are_refused() {
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
    raw.write_all(b"{}").unwrap();
    let raw = raw.finish().unwrap();
    for sent in [&raw[..], b"", b"{}", &gzip(b"{}")] {
        assert_eq!(open(Encoding::Deflate, 1000, &[sent]).unwrap_err(), Trouble::Broken);
    }
    assert_eq!(open(Encoding::Gzip, 1000, &[&zlib(b"{}")]).unwrap_err(), Trouble::Broken);
}

#[tokio::test(flavor = "multi_thread")]
async fn b7_bombs_end_early_and_plain_zeros_do_not() {
    let zeros = vec![0_u8; 24 << 20];
    let bomb = gzip(&zeros);
    let mut inflater = Inflater::new(Encoding::Gzip, 1 << 40);
    assert_eq!(inflater.push(&bomb).unwrap_err(), Trouble::Bomb);
    assert!(inflater.opened.capacity() <= 2 * FREE as usize, "{}", inflater.opened.capacity());
    let modest = &zeros[..FREE as usize];
    assert_eq!(open(Encoding::Gzip, FREE, &[&gzip(modest)]).unwrap(), modest);
    assert_eq!(open(Encoding::Gzip, FREE - 1, &[&gzip(modest)]).unwrap_err(), Trouble::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_what_was_compressed() {
    for size in [0, 1, 1000, STEP, HEAVY, 3 * HEAVY + 1] {
        for bytes in [noise(size), vec![b'a'; size]] {
            let parts = [Bytes::from(bytes.clone()), Bytes::new(), Bytes::from_static(b"tail")];
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                let sent = deflate(encoding, &parts);
                let opened = open(encoding, 1 << 30, &[&sent]).unwrap();
                assert_eq!(opened.len(), size + 4);
                assert!(opened.starts_with(&bytes) && opened.ends_with(b"tail"));
            }
        }
    }
}
