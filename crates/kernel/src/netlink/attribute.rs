//! Attributes: type, length and value, padded to four bytes (`struct nlattr`,
//! include/uapi/linux/netlink.h).

/// Of an attribute whose value is attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// What an attribute's type is, without its flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3FFF;
/// Type and length.
const HEADER_LEN: usize = 4;
/// To what attributes and messages are padded.
const ALIGNMENT: usize = 4;

/// Attributes, and the messages around them, as they are written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes as they are, outside of any attribute.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes over what stands at `at`.
    pub(super) fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.begin(kind);
        self.raw(value);
        self.end(start);
    }

    /// A number as netfilter wants all of them: big-endian.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A number as the other parts of the kernel want theirs: in the machine's own order.
    pub(super) fn native(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Text with the zero that ends it.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
        let start = self.begin(kind);
        self.raw(text.as_bytes());
        self.raw(&[0]);
        self.end(start);
    }

    /// An attribute of attributes.
    pub(super) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.begin(kind | NESTED);
        write(self);
        self.end(start);
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.len();
        self.raw(&[0, 0]);
        self.raw(&kind.to_ne_bytes());
        start
    }

    /// Sets the length and pads. Whoever writes more than a few hundred bytes into one attribute
    /// counts them; see [`super::nft::Transaction`].
    fn end(&mut self, start: usize) {
        let len = u16::try_from(self.len() - start)
            .expect("what could be longer is cut into several messages");
        self.overwrite(start, &len.to_ne_bytes());
        let padded = self.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(padded, 0);
    }
}

/// The attributes of a message or of another attribute, as type and value. Ends at the first that
/// is broken.
#[derive(Debug, Clone)]
pub(super) struct Attributes<'a> {
    left: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// The value of the first of this type.
    pub(super) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The same, if it is a number.
    pub(super) fn find_number(&self, kind: u16) -> Option<u64> {
        let value = self.find(kind)?;
        match value.len() {
            4 => Some(u32::from_be_bytes(value.try_into().ok()?).into()),
            8 => Some(u64::from_be_bytes(value.try_into().ok()?)),
            _ => None,
        }
    }

    /// The same, in the machine's own order.
    pub(super) fn find_native(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// The same, if it is text.
    pub(super) fn find_text(&self, kind: u16) -> Option<&'a str> {
        let value = self.find(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.left.split_at_checked(HEADER_LEN)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = self.left.get(HEADER_LEN..len)?;
        let next = len.next_multiple_of(ALIGNMENT).min(self.left.len());
        self.left = &self.left[next..];
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(1, 0x0102_0304);
        writer.native(6, 0x0506_0708);
        writer.text(2, "abcd");
        writer.nest(3, |inner| inner.attribute(4, &[9]));
        writer.bytes
    }

    #[test]
    fn what_is_written_is_padded_and_read_back() {
        let bytes = written();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let read = Attributes::of(&bytes);
        assert_eq!(read.find_number(1), Some(0x0102_0304));
        assert_eq!(read.find_native(6), Some(0x0506_0708));
        assert_eq!(read.find_text(2), Some("abcd"));
        let inner = Attributes::of(read.find(3).unwrap());
        assert_eq!(inner.collect::<Vec<_>>(), [(4, &[9][..])]);
        assert_eq!(read.find(5), None);
    }

    #[test]
    fn every_cut_and_every_broken_byte_ends_the_reading_and_nothing_else() {
        let bytes = written();
        for cut in 0..bytes.len() {
            assert!(Attributes::of(&bytes[..cut]).count() <= 4, "{cut}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 3, 0x7F, 0xFF] {
                let mut broken = bytes.clone();
                broken[at] = value;
                assert!(Attributes::of(&broken).count() <= bytes.len() / HEADER_LEN);
            }
        }
    }
}
