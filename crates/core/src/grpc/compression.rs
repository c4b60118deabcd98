//! gzip and zlib, both ways, message by message: bounded like those of HTTP (B7).

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::HeaderMap;

use super::body::Pieces;
use super::error::GrpcError;
use super::message::PREFIX;
use crate::http::compression::{Encoding, Inflater, Trouble, deflate_with};
use crate::options::CompressionLevel;
use crate::rope::Rope;

/// How the client's messages are encoded.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, GrpcError> {
    let Some(value) = headers.get("grpc-encoding") else { return Ok(None) };
    match value.to_str() {
        Ok("identity") => Ok(None),
        Ok(name) => Encoding::named(name).map(Some).ok_or_else(GrpcError::unsupported_encoding),
        Err(_) => Err(GrpcError::unsupported_encoding()),
    }
}

/// The coding of responses and the effort for it: the first that the client takes, where the server is to compress.
pub(super) fn of_answer(headers: &HeaderMap, level: CompressionLevel) -> Option<(Encoding, u32)> {
    let effort = match level {
        CompressionLevel::None => return None,
        CompressionLevel::Low => 1,
        CompressionLevel::Medium => 6,
        CompressionLevel::High => 9,
    };
    let names = headers.get("grpc-accept-encoding")?.to_str().ok()?;
    let encoding = names.split(',').find_map(|name| Encoding::named(name.trim()))?;
    Some((encoding, effort))
}

/// Opens a message.
pub(super) fn open(encoding: Encoding, message: &Rope, limit: usize) -> Result<Bytes, GrpcError> {
    let mut inflater = Inflater::new(encoding, limit as u64);
    let opened = message.pieces().try_for_each(|piece| inflater.push(piece)).and_then(|()| inflater.finish());
    opened.map_err(|trouble| match trouble {
        Trouble::TooLarge => GrpcError::too_much(format!("message opens to more than the maximum of {limit} bytes")),
        Trouble::Bomb => GrpcError::too_much("message opens to far more than what was sent"),
        Trouble::Broken => GrpcError::broken(format!("message is no {}", encoding.name())),
    })
}

/// Compresses a message that is ready to be sent.
pub(super) fn close((encoding, effort): (Encoding, u32), mut pieces: Pieces) -> Pieces {
    if let Some(first) = pieces.front_mut() {
        *first = first.slice(PREFIX..);
    }
    let message = deflate_with(encoding, effort, pieces.make_contiguous());
    let mut prefix = BytesMut::with_capacity(PREFIX);
    prefix.put_u8(1);
    prefix.put_u32(message.len() as u32);
    VecDeque::from([prefix.freeze(), message])
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_message_comes_back() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let pieces = Pieces::from([Bytes::from_static(b"\0\0\0\0\x06abc"), Bytes::from_static(b"abc")]);
            let closed: Vec<u8> = close((encoding, 6), pieces).into_iter().flatten().collect();
            assert_eq!(closed[..5], [&[1][..], &(closed.len() as u32 - 5).to_be_bytes()].concat());
            let mut closed = Rope::from(closed);
            let _ = closed.split_to(PREFIX);
            assert_eq!(open(encoding, &closed, 6).unwrap(), "abcabc");
            assert!(open(encoding, &closed, 5).unwrap_err().text().contains("maximum of 5 bytes"));
            assert!(open(encoding, &Bytes::from_static(b"abc").into(), 6).is_err());
        }
    }

    #[test]
    fn the_first_known_coding_counts() {
        let asked = |names, level| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-accept-encoding", HeaderValue::from_static(names));
            of_answer(&headers, level)
        };
        assert_eq!(asked("identity, deflate, gzip", CompressionLevel::Low), Some((Encoding::Deflate, 1)));
        assert_eq!(asked("gzip", CompressionLevel::None), None);
        assert_eq!(asked("identity", CompressionLevel::High), None);
    }
}
