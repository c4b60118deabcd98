//! A worker's arena: hands out ranges of sealed segments and takes them back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use naiad_tensor::{OutOfSegment, Segment};

use super::frame::Range;
use crate::admission::{Budget, Reservation};

/// Requests of one worker that can be in flight: the length of the two tables.
pub const SLOTS: u32 = 1024;
/// Every range starts at a multiple of this.
pub const ALIGNMENT: u64 = 64;

const TABLES: u64 = 8192;
const STARTED: u64 = 4096;
const FIRST_SIZE: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// The byte budget has no room for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaFull {
    /// Bytes that were asked for.
    pub wanted: u64,
}

#[derive(Debug)]
struct Part {
    segment: Arc<Segment>,
    /// Free bytes: length by offset, never two that touch.
    free: BTreeMap<u64, u64>,
    /// Absent while the segment's memory is given back.
    reservation: Option<Reservation>,
}

impl Part {
    /// Wholly free and still backed by memory.
    fn is_idle(&self) -> bool {
        self.reservation.is_some() && self.free.get(&0) == Some(&(self.segment.size() as u64))
    }
}

/// Segments and what is free in them. One task owns it.
#[derive(Debug)]
pub struct Arena {
    budget: Arc<Budget>,
    parts: Vec<Part>,
    announced: usize,
}

impl Arena {
    /// An arena of one segment, whose start holds the tables.
    pub fn new(budget: Arc<Budget>) -> io::Result<Self> {
        let mut arena = Self { budget, parts: Vec::new(), announced: 0 };
        arena.add(FIRST_SIZE)?;
        let tables = arena.allocate(TABLES).map_err(|full| io::Error::other(format!("{full:?}")))?;
        debug_assert_eq!((tables.segment, tables.offset), (0, 0));
        Ok(arena)
    }

    /// A range of `length` bytes; grows by a segment if none is free and the budget allows it.
    pub fn allocate(&mut self, length: u64) -> Result<Range, ArenaFull> {
        let full = ArenaFull { wanted: length };
        if length == 0 {
            return Ok(Range::default());
        }
        let need = length.checked_next_multiple_of(ALIGNMENT).ok_or(full)?;
        if let Some(range) = self.take(need, length) {
            return Ok(range);
        }
        let double = self.parts.last().map_or(FIRST_SIZE, |part| (part.segment.size() as u64).saturating_mul(2));
        let exact = need.checked_next_multiple_of(PAGE).ok_or(full)?;
        self.add(exact.max(double)).or_else(|_| self.add(exact)).map_err(|_| full)?;
        self.take(need, length).ok_or(full)
    }

    /// The same, all zeros.
    pub fn allocate_zeroed(&mut self, length: u64) -> Result<Range, ArenaFull> {
        let range = self.allocate(length)?;
        if length > 0 {
            let part = &self.parts[range.segment as usize];
            part.segment.zero(range.offset, range.length).expect("an allocated range lies in its segment");
        }
        Ok(range)
    }

    fn take(&mut self, need: u64, length: u64) -> Option<Range> {
        for (number, part) in self.parts.iter_mut().enumerate() {
            let found = part.free.iter().find(|(_, free)| **free >= need).map(|(offset, free)| (*offset, *free));
            if let Some((offset, free)) = found {
                if part.reservation.is_none() {
                    let Some(reservation) = self.budget.reserve(part.segment.size() as u64) else { continue };
                    part.reservation = Some(reservation);
                }
                part.free.remove(&offset);
                if free > need {
                    part.free.insert(offset + need, free - need);
                }
                return Some(Range { segment: number as u32, offset, length });
            }
        }
        None
    }

    fn add(&mut self, size: u64) -> io::Result<()> {
        let reservation =
            self.budget.reserve(size).ok_or_else(|| io::Error::other("the byte budget has no room for an arena"))?;
        let size_here = usize::try_from(size).map_err(io::Error::other)?;
        let segment = Arc::new(Segment::create(size_here)?);
        self.parts.push(Part { segment, free: BTreeMap::from([(0, size)]), reservation: Some(reservation) });
        Ok(())
    }

    /// Takes back a range that `allocate` gave.
    pub fn free(&mut self, range: Range) {
        if range.length == 0 {
            return;
        }
        let free = &mut self.parts[range.segment as usize].free;
        let mut offset = range.offset;
        let mut length = range.length.next_multiple_of(ALIGNMENT);
        if let Some((&before, &size)) = free.range(..offset).next_back() {
            debug_assert!(before + size <= offset, "a range is freed once");
            if before + size == offset {
                free.remove(&before);
                offset = before;
                length += size;
            }
        }
        if let Some(size) = free.remove(&(offset + length)) {
            length += size;
        }
        free.insert(offset, length);
    }

    /// Whether [`Arena::trim`] would give memory back.
    pub fn is_trimmable(&self) -> bool {
        self.parts.iter().skip(1).any(Part::is_idle)
    }

    /// Gives the memory of wholly free segments back: what one large request needed is not kept for ever.
    pub fn trim(&mut self) {
        for part in self.parts.iter_mut().skip(1).filter(|part| part.is_idle()) {
            if part.segment.discard().is_ok() {
                part.reservation = None;
            }
        }
    }

    /// Segments that the worker does not know yet, with their numbers; they count as told from now on.
    pub fn unannounced(&mut self) -> Vec<(u32, Arc<Segment>)> {
        let first = self.announced;
        self.announced = self.parts.len();
        let fresh = self.parts.iter().enumerate().skip(first);
        fresh.map(|(number, part)| (number as u32, Arc::clone(&part.segment))).collect()
    }

    /// Copies bytes to an allocated place.
    pub fn write(&self, segment: u32, offset: u64, bytes: &[u8]) {
        let part = &self.parts[segment as usize];
        part.segment.write(offset, bytes).expect("an allocated range lies in its segment");
    }

    /// The segment in which a range lies, if it does.
    pub fn segment(&self, range: Range) -> Option<&Arc<Segment>> {
        let segment = &self.parts.get(range.segment as usize)?.segment;
        segment.check(range.offset, range.length).ok()?;
        Some(segment)
    }

    /// Copies a range out, checked against its segment.
    pub fn read(&self, range: Range) -> Option<Vec<u8>> {
        self.segment(range)?.read(range.offset, range.length).ok()
    }

    /// Tells the worker that nobody waits for the request with this tag.
    pub fn cancel(&self, slot: u32, tag: u32) {
        self.word(u64::from(slot) * 4).store(tag, Ordering::Release);
    }

    /// Whether the worker has started the request with this tag.
    pub fn started(&self, slot: u32, tag: u32) -> bool {
        self.word(STARTED + u64::from(slot) * 4).load(Ordering::Acquire) == tag
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        let word: Result<_, OutOfSegment> = self.parts[0].segment.word(offset);
        word.expect("the tables lie at the start of segment 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(budget: u64) -> Arena {
        Arena::new(Budget::new(budget)).unwrap()
    }

    #[test]
    fn ranges_are_aligned_disjoint_and_reused() {
        let mut arena = arena(1 << 24);
        let a = arena.allocate(100).unwrap();
        let b = arena.allocate(1).unwrap();
        assert_eq!((a.offset, b.offset), (8192, 8192 + 128));
        arena.free(a);
        arena.free(b);
        let all = arena.allocate(FIRST_SIZE - TABLES).unwrap();
        assert_eq!((all.segment, all.offset), (0, 8192), "freed neighbours are one range again");
        assert_eq!(arena.allocate(0).unwrap(), Range::default());
    }

    #[test]
    fn freed_ranges_join_in_any_order() {
        let mut arena = arena(1 << 24);
        let ranges: Vec<_> = (0..5).map(|_| arena.allocate(1000).unwrap()).collect();
        for position in [1, 3, 2, 0, 4] {
            arena.free(ranges[position]);
        }
        assert_eq!(arena.parts[0].free, BTreeMap::from([(TABLES, FIRST_SIZE - TABLES)]));
    }

    #[test]
    fn it_grows_by_segments_up_to_the_budget() {
        let mut arena = arena(8 << 20);
        assert_eq!(arena.unannounced().len(), 1);
        let big = arena.allocate(3 << 20).unwrap();
        assert_eq!(big.segment, 1);
        let fresh = arena.unannounced();
        assert_eq!(fresh.iter().map(|(number, segment)| (*number, segment.size())).collect::<Vec<_>>(), [(1, 3 << 20)]);
        assert_eq!(arena.allocate(5 << 20), Err(ArenaFull { wanted: 5 << 20 }));
        assert_eq!(arena.allocate(u64::MAX), Err(ArenaFull { wanted: u64::MAX }));
        assert_eq!(arena.allocate(4 << 20).unwrap().segment, 2, "less than double where the budget ends");
        let budget = Arc::clone(&arena.budget);
        assert_eq!(budget.used(), 8 << 20);
        drop(arena);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn memory_of_free_segments_goes_back_and_comes_again() {
        let mut arena = arena(4 << 20);
        let large = arena.allocate(3 << 20).unwrap();
        arena.write(large.segment, large.offset, &[7; 100]);
        assert!(!arena.is_trimmable());
        arena.free(large);
        assert!(arena.is_trimmable());
        arena.trim();
        assert!(!arena.is_trimmable());
        assert_eq!(arena.budget.used(), FIRST_SIZE);
        let other = arena.budget.reserve(1 << 20).unwrap();
        assert!(arena.allocate(3 << 20).is_err(), "others have taken the bytes");
        drop(other);
        assert_eq!(arena.allocate(3 << 20).unwrap(), large);
        assert_eq!((arena.budget.used(), arena.read(large).unwrap()[0]), (4 << 20, 0));
    }

    #[test]
    fn areas_are_zero_though_used_before() {
        let mut arena = arena(1 << 24);
        let used = arena.allocate(64).unwrap();
        arena.write(used.segment, used.offset, &[7; 64]);
        arena.free(used);
        let again = arena.allocate_zeroed(64).unwrap();
        assert_eq!(again, used);
        assert_eq!(arena.read(again).unwrap(), [0; 64]);
        assert_eq!(arena.read(Range { segment: 9, offset: 0, length: 1 }), None);
        assert_eq!(arena.read(Range { segment: 0, offset: FIRST_SIZE, length: 1 }), None);
    }
}
