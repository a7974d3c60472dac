//! Between the async side, where objects come and go in pieces, and the
//! blocking side, where content is compressed and encrypted.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Reads what comes through a channel. A failure on the other side is an error
/// here; so is an end that nobody announced.
#[derive(Debug)]
pub(super) struct ChannelReader {
    pieces: mpsc::Receiver<Option<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl ChannelReader {
    /// `None` through the channel is the end.
    pub(super) fn new(pieces: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self { pieces, current: Bytes::new(), ended: false }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => self.current = piece,
                Some(None) => self.ended = true,
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        let read = self.current.len().min(buffer.len());
        if let Some(target) = buffer.get_mut(..read) {
            self.current.copy_to_slice(target);
        }
        Ok(read)
    }
}

/// Sends what is written through a channel, in pieces of one size; `finish`
/// sends the rest.
#[derive(Debug)]
pub(super) struct ChannelWriter {
    pieces: mpsc::Sender<Bytes>,
    size: usize,
    current: Vec<u8>,
}

impl ChannelWriter {
    pub(super) fn new(pieces: mpsc::Sender<Bytes>, size: usize) -> Self {
        Self { pieces, size, current: Vec::new() }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.current.is_empty() { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.current));
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.current.capacity() == 0 {
            self.current.reserve_exact(self.size);
        }
        let taken = bytes.len().min(self.size - self.current.len());
        self.current.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.current.len() == self.size {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
