//! The SEQPACKET pair between the core and one worker: whole frames, and descriptors outwards.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::ioctl_fionbio;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Makes a pair: the core's end, which does not block, and the worker's end, which does. Neither is inherited.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (core, worker) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    ioctl_fionbio(&core, true)?;
    Ok((core, worker))
}

/// Sends one frame, with one descriptor if it has one.
pub fn send(socket: impl AsFd, frame: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights = descriptor.as_slice();
    if !rights.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(rights)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(frame)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == frame.len() { Ok(()) } else { Err(io::Error::other(format!("sent {sent} of {} bytes", frame.len()))) }
}

/// Receives one frame into `buffer`; 0 bytes are the end of file. A frame that is longer than `buffer` is an error.
/// Descriptors are not expected here: the kernel closes any that come.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut ancillary = RecvAncillaryBuffer::default();
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame longer than 65536 bytes"));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_borders() {
        let (core, worker) = pair().unwrap();
        send(&core, b"one", None).unwrap();
        send(&core, b"three", None).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receive(&worker, &mut buffer).unwrap(), 3);
        assert_eq!(receive(&worker, &mut buffer).unwrap(), 5);
        drop(core);
        assert_eq!(receive(&worker, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_long_frame_is_an_error_and_the_core_never_blocks() {
        let (core, worker) = pair().unwrap();
        let mut buffer = [0; 4];
        assert_eq!(receive(&core, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&worker, b"12345", None).unwrap();
        assert_eq!(receive(&core, &mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_descriptor_that_comes_is_not_kept() {
        let (core, worker) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&worker, b"x", Some(writer.as_fd())).unwrap();
        drop(writer);
        assert_eq!(receive(&core, &mut [0; 4]).unwrap(), 1);
        assert_eq!(rustix::io::read(&reader, &mut [0; 4]).unwrap(), 0, "no writer is left");
    }
}
