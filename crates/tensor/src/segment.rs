//! A sealed memfd that this process and one worker map: bounds-checked copies, words and lent bytes.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A range that does not lie in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfSegment {
    offset: u64,
    length: u64,
    size: u64,
}

impl fmt::Display for OutOfSegment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, length, size } = self;
        write!(formatter, "{length} bytes at {offset} pass the end of a segment of {size} bytes")
    }
}

impl std::error::Error for OutOfSegment {}

/// Shared memory without a name. The other process may write to it at any time, so nothing read here is trusted twice.
#[derive(Debug)]
pub struct Segment {
    start: NonNull<u8>,
    size: usize,
    descriptor: OwnedFd,
}

// SAFETY: the mapping belongs to the value alone until it is dropped, and every access through `&self` is a raw copy or
// an atomic, so threads may share and pass it like any buffer of plain bytes.
unsafe impl Send for Segment {}
// SAFETY: as above; concurrent copies may mix bytes of two writers, which the protocol rules out by ownership of ranges.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes a segment of `size` zero bytes, sealed so that its other holder can neither shrink nor grow it.
    pub fn create(size: usize) -> io::Result<Self> {
        let descriptor = memfd_create("naiad-arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, size as u64)?;
        // A peer's ftruncate would otherwise kill this process with SIGBUS.
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing; the descriptor is `size` long
        // and sealed, so every byte of the mapping stays backed.
        let start = unsafe {
            mmap(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &descriptor, 0)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::other("mmap answered address 0"))?;
        Ok(Self { start, size, descriptor })
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The descriptor to send to the worker.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Whether a range lies in the segment; answers it as indexes.
    pub fn check(&self, offset: u64, length: u64) -> Result<(usize, usize), OutOfSegment> {
        let size = self.size as u64;
        if offset.checked_add(length).is_some_and(|end| end <= size) {
            // Both are at most `size`, which is a usize.
            Ok((offset as usize, length as usize))
        } else {
            Err(OutOfSegment { offset, length, size })
        }
    }

    /// Copies `bytes` into the segment.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), OutOfSegment> {
        let (offset, length) = self.check(offset, bytes.len() as u64)?;
        // SAFETY: `check` holds the target inside the mapping; `bytes` cannot overlap it, for no slice of the mapping is
        // ever handed out but as `Lent`, whose range its owner does not write to.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), length) };
        Ok(())
    }

    /// Copies bytes out of the segment.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, OutOfSegment> {
        let (offset, length) = self.check(offset, length)?;
        let mut copy = Vec::<u8>::with_capacity(length);
        // SAFETY: `check` holds the source inside the mapping, the target has room for `length` bytes, and after the copy
        // all of them are initialised. A worker that writes meanwhile can only change which bytes arrive.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), copy.as_mut_ptr(), length);
            copy.set_len(length);
        }
        Ok(copy)
    }

    /// Fills a range with zeros.
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), OutOfSegment> {
        let (offset, length) = self.check(offset, length)?;
        // SAFETY: `check` holds the range inside the mapping.
        unsafe { ptr::write_bytes(self.start.as_ptr().add(offset), 0, length) };
        Ok(())
    }

    /// Gives the memory of the whole segment back to the system; it reads as zeros afterwards, on both sides.
    pub fn discard(&self) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.descriptor, flags, 0, self.size as u64)?)
    }

    /// The 32-bit word at `offset`, which is divisible by 4.
    pub fn word(&self, offset: u64) -> Result<&AtomicU32, OutOfSegment> {
        let (at, _) = self.check(offset, 4)?;
        if !at.is_multiple_of(4) {
            return Err(OutOfSegment { offset, length: 4, size: self.size as u64 });
        }
        // SAFETY: `check` holds the word inside the mapping, whose start is page-aligned, so the pointer is aligned; the
        // reference cannot outlive `&self`; both processes use the word atomically only.
        Ok(unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at).cast()) })
    }

    /// Lends bytes without a copy; `hold` is dropped with the last of them and says that the range is free again.
    ///
    /// The worker can still write to lent memory: only what nobody parses may be lent.
    pub fn lend<H: Send + 'static>(self: &Arc<Self>, offset: u64, length: u64, hold: H) -> Result<Bytes, OutOfSegment> {
        let (offset, length) = self.check(offset, length)?;
        Ok(Bytes::from_owner(Lent { segment: Arc::clone(self), offset, length, _hold: hold }))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `create` with this size and nothing borrows it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own is unmapped");
    }
}

/// Bytes of a segment in the hands of a response.
struct Lent<H> {
    segment: Arc<Segment>,
    offset: usize,
    length: usize,
    _hold: H,
}

impl<H> AsRef<[u8]> for Lent<H> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `lend` checked the range, and the mapping lives as long as `segment`. The core writes nothing there until
        // `hold` is dropped. A worker that breaks the protocol may write; then plain bytes change under a reader that
        // only copies them on.
        unsafe { std::slice::from_raw_parts(self.segment.start.as_ptr().add(self.offset), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    struct Hold(std::sync::mpsc::Sender<()>);

    impl Drop for Hold {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }

    #[test]
    fn bytes_go_in_and_come_out() {
        let segment = Segment::create(4096).unwrap();
        segment.write(4000, b"tensor").unwrap();
        assert_eq!(segment.read(3999, 8).unwrap(), b"\0tensor\0");
        segment.zero(4000, 3).unwrap();
        assert_eq!(segment.read(4000, 6).unwrap(), b"\0\0\0sor");
        segment.word(8).unwrap().store(0x0403_0201, Ordering::Relaxed);
        assert_eq!(segment.read(8, 4).unwrap(), [1, 2, 3, 4]);
        segment.discard().unwrap();
        assert_eq!(segment.read(0, 4096).unwrap(), [0; 4096]);
    }

    #[test]
    fn nothing_passes_the_end() {
        let segment = Arc::new(Segment::create(4096).unwrap());
        assert!(segment.write(4095, b"ab").is_err());
        assert!(segment.read(u64::MAX, 2).is_err());
        assert!(segment.read(0, 4097).is_err());
        assert!(segment.zero(4096, 1).is_err());
        assert!(segment.word(4093).is_err() && segment.word(6).is_err());
        assert!(segment.lend(1, 4096, ()).is_err());
        assert_eq!(segment.read(4096, 0).unwrap(), b"");
    }

    #[test]
    fn lent_bytes_keep_their_segment_and_tell_when_they_are_back() {
        let (told, back) = std::sync::mpsc::channel();
        let segment = Arc::new(Segment::create(4096).unwrap());
        segment.write(64, b"abcdef").unwrap();
        let lent = segment.lend(64, 6, Hold(told)).unwrap();
        drop(segment);
        let part = lent.slice(2..4);
        drop(lent);
        assert!(back.try_recv().is_err());
        assert_eq!(&part[..], b"cd");
        drop(part);
        back.try_recv().unwrap();
    }

    #[test]
    fn the_other_side_can_not_change_the_size() {
        let segment = Segment::create(4096).unwrap();
        let other = segment.descriptor().try_clone_to_owned().unwrap();
        assert!(ftruncate(&other, 0).is_err());
        assert!(ftruncate(&other, 8192).is_err());
        assert!(fcntl_add_seals(&other, SealFlags::WRITE).is_err());
    }
}
