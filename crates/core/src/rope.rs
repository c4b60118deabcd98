//! Bytes in several pieces, as a connection gave them: handed on, cut and read without being joined.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::iter;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};

/// The first room for pieces that are copied together where nobody knows how many bytes follow ...
const LEAST_ROOM: usize = 4 << 10;
/// ... and the most that is given at once.
const MOST_ROOM: usize = 256 << 10;

/// Pieces in their order, none of them empty; one alone costs no allocation.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    first: Bytes,
    rest: VecDeque<Bytes>,
    len: usize,
}

impl Rope {
    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the bytes lie side by side.
    pub fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        iter::once(&self.first).chain(&self.rest).map(|piece| &piece[..])
    }

    /// Appends a piece as it is.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.len += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push_back(piece);
        }
    }

    /// Cuts the first `length` bytes off, not copied.
    ///
    /// # Panics
    /// There are fewer.
    #[must_use]
    pub fn split_to(&mut self, length: usize) -> Self {
        assert!(length <= self.len, "{length} bytes are cut off {}", self.len);
        let mut front = Self::default();
        while front.len < length {
            let left = length - front.len;
            let piece = if left < self.first.len() {
                self.first.split_to(left)
            } else {
                mem::replace(&mut self.first, self.rest.pop_front().unwrap_or_default())
            };
            front.push(piece);
        }
        self.len -= length;
        front
    }

    /// All bytes side by side: copied only where they are not.
    pub fn into_bytes(self) -> Bytes {
        if self.is_whole() { self.first } else { self.to_vec().into() }
    }

    /// The same for who reads on from element to element.
    #[must_use]
    pub fn joined(self) -> Self {
        if self.is_whole() { self } else { self.into_bytes().into() }
    }

    /// The same, borrowed where they lie side by side.
    pub fn contiguous(&self) -> Cow<'_, [u8]> {
        if self.is_whole() { Cow::Borrowed(&self.first) } else { Cow::Owned(self.to_vec()) }
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(self.len);
        for piece in self.pieces() {
            copy.extend_from_slice(piece);
        }
        copy
    }
}

impl<T: Into<Bytes>> From<T> for Rope {
    fn from(bytes: T) -> Self {
        let first = bytes.into();
        Self { len: first.len(), first, rest: VecDeque::new() }
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn advance(&mut self, count: usize) {
        if count < self.first.len() {
            self.first.advance(count);
            self.len -= count;
        } else {
            drop(self.split_to(count));
        }
    }
}

/// A rope while its bytes come. Large frames are kept; small ones are copied together, so that a flood of them costs
/// little more than its bytes.
#[derive(Debug)]
pub struct Gather {
    rope: Rope,
    /// Room for small frames, in part filled.
    room: BytesMut,
    /// The smallest frame that is kept.
    keep: usize,
}

impl Gather {
    /// Nothing yet. Whoever chooses `keep` knows how much memory a frame may hold beside its own bytes.
    pub fn new(keep: usize) -> Self {
        Self { rope: Rope::default(), room: BytesMut::new(), keep: keep.min(MOST_ROOM) }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.rope.len() + self.room.len()
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next frame; `left` is how many bytes are due with it, as far as anyone knows.
    pub fn push(&mut self, mut frame: Bytes, left: Option<usize>) {
        if frame.len() >= self.keep {
            self.close();
            return self.rope.push(frame);
        }
        let room = left.unwrap_or_else(|| self.len().max(LEAST_ROOM)).max(frame.len()).min(MOST_ROOM);
        while !frame.is_empty() {
            if self.room.len() == self.room.capacity() {
                self.close();
                self.room = BytesMut::with_capacity(room);
            }
            let fits = frame.len().min(self.room.capacity() - self.room.len());
            self.room.extend_from_slice(&frame[..fits]);
            frame.advance(fits);
        }
    }

    /// What has come.
    pub fn finish(mut self) -> Rope {
        self.close();
        self.rope
    }

    /// Ends the piece of small frames; the room that is left is for the next one.
    fn close(&mut self) {
        self.rope.push(self.room.split().freeze());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(pieces: &[&'static str]) -> Rope {
        let mut rope = Rope::default();
        for piece in pieces {
            rope.push(Bytes::from_static(piece.as_bytes()));
        }
        rope
    }

    fn pieces(rope: &Rope) -> Vec<&str> {
        rope.pieces().map(|piece| std::str::from_utf8(piece).unwrap()).collect()
    }

    #[test]
    fn it_is_cut_anywhere() {
        for at in 0..=7 {
            let mut back = rope(&["ab", "", "cde", "fg"]);
            let front = back.split_to(at);
            assert_eq!((front.len(), back.len()), (at, 7 - at));
            assert_eq!([front.to_vec(), back.to_vec()].concat(), b"abcdefg");
            assert!(front.pieces().all(|piece| !piece.is_empty() || front.is_empty()));
            assert_eq!(front.contiguous(), front.to_vec());
        }
        let mut all = rope(&["ab", "cde", "fg"]);
        assert_eq!(pieces(&all.split_to(4)), ["ab", "cd"]);
        assert_eq!(pieces(&all), ["e", "fg"]);
        assert!(all.split_to(3).len() == 3 && all.is_empty() && all.is_whole());
    }

    #[test]
    #[should_panic(expected = "8 bytes are cut off 7")]
    fn no_more_is_cut_off_than_there_is() {
        let _ = rope(&["abcd", "efg"]).split_to(8);
    }

    #[test]
    fn what_lies_side_by_side_is_not_copied() {
        let bytes = Bytes::from(vec![7; 100]);
        let mut whole = Rope::from(bytes.clone());
        let tail = {
            let _ = whole.split_to(10);
            whole
        };
        assert!(tail.is_whole());
        assert_eq!(tail.contiguous().as_ptr(), bytes[10..].as_ptr());
        assert_eq!(tail.into_bytes().as_ptr(), bytes[10..].as_ptr());
    }

    #[test]
    fn it_reads_like_a_buffer() {
        let mut number = rope(&["\x01", "\x02\x03", "\x04x"]);
        assert_eq!(number.get_u32(), 0x0102_0304);
        assert_eq!((number.remaining(), number.chunk()), (1, &b"x"[..]));
        number.advance(1);
        assert!(!number.has_remaining());
    }

    fn gather(keep: usize, frames: &[Bytes], left: impl Fn(usize) -> Option<usize>) -> Rope {
        let mut gather = Gather::new(keep);
        for frame in frames {
            gather.push(frame.clone(), left(gather.len()));
        }
        assert_eq!(gather.len(), frames.iter().map(Bytes::len).sum::<usize>());
        let rope = gather.finish();
        assert_eq!(rope.to_vec(), frames.concat());
        rope
    }

    #[test]
    fn large_frames_are_kept_and_small_ones_joined() {
        let frame = |size: usize, byte: u8| Bytes::from(vec![byte; size]);
        let frames = [frame(3, 1), frame(2, 2), frame(10, 3), frame(1, 4), frame(0, 5), frame(10, 6), frame(9, 7)];
        let rope = gather(10, &frames, |_| None);
        assert_eq!(rope.pieces().map(<[u8]>::len).collect::<Vec<_>>(), [5, 10, 1, 10, 9]);
        assert_eq!(rope.pieces().nth(1).unwrap().as_ptr(), frames[2].as_ptr());
    }

    #[test]
    fn small_frames_of_a_known_length_become_one_piece() {
        let frames: Vec<_> = (0..100).map(|byte| Bytes::from(vec![byte; 1000])).collect();
        assert!(gather(1 << 16, &frames, |so_far| Some(100_000 - so_far)).is_whole());
    }

    #[test]
    fn a_flood_of_small_frames_becomes_few_pieces() {
        let frames: Vec<_> = (0..1_000_000).map(|number: u32| Bytes::from(vec![number as u8; 3])).collect();
        let rope = gather(1 << 16, &frames, |_| None);
        assert!(rope.pieces().count() < 3_000_000 / MOST_ROOM + 16, "{} pieces", rope.pieces().count());
        // What was promised and does not come gets no more room than what comes.
        let mut gather = Gather::new(1 << 16);
        gather.push(Bytes::from_static(b"x"), Some(usize::MAX));
        assert_eq!(gather.room.capacity(), MOST_ROOM);
    }
}
