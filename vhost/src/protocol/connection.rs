//! One connection: messages with their file descriptors, without ever waiting.

use super::ProtocolError;
use super::device::Reply;
use super::message::{HEADER_BYTES, Header};
use crate::memory::REGIONS_MAX;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;

/// A message that has come whole.
#[derive(Debug)]
pub struct Incoming {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: Vec<u8>,
    /// What came along.
    pub fds: Vec<OwnedFd>,
}

/// A connection to a front-end.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    header: Option<Header>,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// Over a stream, which becomes non-blocking.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            header: None,
            bytes: Vec::new(),
            fds: Vec::new(),
        })
    }

    /// The stream, to wait for.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// A message, if one has come whole.
    ///
    /// # Errors
    /// The other side closed, or sent what is no message.
    pub fn receive(&mut self) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            let wanted = match self.header {
                None => HEADER_BYTES,
                Some(header) => usize::try_from(header.bytes).unwrap_or(usize::MAX),
            };
            if self.bytes.len() < wanted {
                match self.read(wanted - self.bytes.len()) {
                    Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            let bytes = std::mem::take(&mut self.bytes);
            match self.header.take() {
                Some(header) => {
                    return Ok(Some(Incoming {
                        header,
                        payload: bytes,
                        fds: std::mem::take(&mut self.fds),
                    }));
                }
                None => {
                    let mut header = [0; HEADER_BYTES];
                    header.copy_from_slice(&bytes);
                    self.header = Some(Header::parse(&header)?);
                }
            }
        }
    }

    /// Reads at most so many bytes. Descriptors come with the first byte of their message.
    fn read(&mut self, bytes: usize) -> io::Result<usize> {
        let start = self.bytes.len();
        self.bytes.resize(start + bytes, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(REGIONS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut self.bytes[start..])];
        let received = rustix::net::recvmsg(
            &self.stream,
            &mut into,
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        );
        let read = received.as_ref().map_or(0, |received| received.bytes);
        self.bytes.truncate(start + read);
        received?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > REGIONS_MAX {
            return Err(io::Error::other("too many file descriptors"));
        }
        Ok(read)
    }

    /// Sends a reply. A front-end that does not read its replies is one that has failed.
    ///
    /// # Errors
    /// It could not be sent whole at once.
    pub fn reply(&mut self, request: u32, reply: &Reply) -> Result<(), ProtocolError> {
        let bytes = Header::reply(request, &reply.payload());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = reply.fd().into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let sent = rustix::net::sendmsg(
            &self.stream,
            &[io::IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
        let sent = sent.map_err(io::Error::from)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero).into())
        }
    }
}
