//! Memory for stored bytes that is used again: who seals one segment after another would ask the system for some MiB
//! each time, grow them step by step, and pay a fault for every page.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers that nobody has at the moment. As many as there were out at the same time, each as large as it had to be.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty one.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// What one holds, to be handed around. It comes back when the last one is done with it.
    pub(crate) fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: Arc::clone(self) })
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_when_all_are_done_with_it() {
        let buffers = Arc::new(Buffers::default());
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"content");
        let (place, capacity) = (buffer.as_ptr(), buffer.capacity());
        let lent = buffers.lend(buffer);
        let (whole, part) = (lent.clone(), lent.slice(3..));
        drop(lent);
        let other = buffers.take();
        assert_ne!(other.as_ptr(), place, "somebody still reads it");
        assert_eq!((&whole[..], &part[..]), (&b"content"[..], &b"tent"[..]));
        drop((whole, part));
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.capacity(), again.len()), (place, capacity, 0));
    }
}
