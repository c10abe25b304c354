//! A cursor over bytes that came from elsewhere, and one over a buffer that is filled. Neither can
//! panic: what is not there is an error, what does not fit is remembered.

/// Takes fixed pieces off the front of bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// The bytes ended inside a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Short;

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Short> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = rest;
        Ok(field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        self.take::<1>().map(|[byte]| *byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        self.take().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        self.take().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Fills a buffer from the front.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    /// How long the whole would be, whether it fits or not.
    len: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        // Cut to the very length, so that the compiler sees that the copy cannot panic.
        let place = self.buffer.get_mut(self.len..).and_then(|rest| rest.get_mut(..bytes.len()));
        if let Some(place) = place {
            place.copy_from_slice(bytes);
        }
        self.len = self.len.saturating_add(bytes.len());
    }

    /// How many bytes were put.
    ///
    /// # Errors
    ///
    /// Where they did not fit, how many they are.
    pub(crate) const fn finish(self) -> Result<usize, usize> {
        if self.len <= self.buffer.len() { Ok(self.len) } else { Err(self.len) }
    }
}

/// `N` bytes put together from `parts`. Their lengths add up to `N`, which each caller's test
/// vectors prove; were they fewer, the rest would be zero.
pub(crate) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut writer = Writer::new(&mut out);
    for part in parts {
        writer.put(part);
    }
    debug_assert_eq!(writer.finish(), Ok(N));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_ends_where_its_bytes_end() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5]);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u32(), Err(Short));
        assert_eq!(reader.take::<3>(), Ok(&[3, 4, 5]));
        assert_eq!(reader.u8(), Err(Short));
        assert!(reader.rest().is_empty());
    }

    #[test]
    fn a_writer_tells_how_much_room_it_wanted() {
        let mut buffer = [0; 4];
        let mut writer = Writer::new(&mut buffer);
        writer.put(&[1, 2, 3]);
        writer.put(&[4, 5]);
        assert_eq!(writer.finish(), Err(5));
        assert_eq!(buffer, [1, 2, 3, 0]);
    }
}
