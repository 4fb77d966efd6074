//! The elementary values of AMQP 0-9-1 (4.2.5), out of bytes and into bytes. Numbers are big-endian; neighbouring bits
//! share a byte.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::field::Table;
use crate::text::ShortString;

/// Why bytes say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too soon.
    #[error("it ends {missing} bytes too soon")]
    Short {
        /// Bytes that are not there.
        missing: usize,
    },
    /// Something stands behind the last field.
    #[error("{0} bytes stand behind its last field")]
    Long(usize),
    /// RabbitMQ wants text in methods.
    #[error("a short string is not UTF-8")]
    Text,
    /// A field of a table is of a type that nobody knows.
    #[error("the type {0} of a field is unknown")]
    FieldType(u8),
    /// Tables are nested deeper than [`crate::limits::TABLE_DEPTH_MAX`].
    #[error("its tables are nested deeper than {}", crate::limits::TABLE_DEPTH_MAX)]
    Depth,
    /// A table has more fields than [`crate::limits::TABLE_FIELDS_MAX`].
    #[error("its tables have more than {} fields", crate::limits::TABLE_FIELDS_MAX)]
    Fields,
    /// AMQP 0-9-1, 4.2.6.1: no property has these bits.
    #[error("its property flags {0:#06x} are unknown")]
    Flags(u16),
}

/// Reads values one after another.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    /// Which bit of the byte before `at` is next, if bits were read last.
    bit: Option<u8>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a Bytes) -> Self {
        Self {
            bytes,
            at: 0,
            bit: None,
        }
    }

    pub(crate) fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Everything was read.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        match self.rest() {
            0 => Ok(()),
            rest => Err(Malformed::Long(rest)),
        }
    }

    fn skip(&mut self, len: usize) -> Result<usize, Malformed> {
        self.bit = None;
        let rest = self.rest();
        if len > rest {
            let missing = len - rest;
            return Err(Malformed::Short { missing });
        }
        let from = self.at;
        self.at += len;
        Ok(from)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let from = self.skip(N)?;
        let slice = &self.bytes[from..from + N];
        Ok(<[u8; N]>::try_from(slice).expect("cut to this length"))
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<Bytes, Malformed> {
        let from = self.skip(len)?;
        Ok(self.bytes.slice(from..from + len))
    }

    pub(crate) fn octet(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn short(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn long(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn longlong(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn bit(&mut self) -> Result<bool, Malformed> {
        let bit = match self.bit {
            Some(bit) if bit < 8 => bit,
            None | Some(_) => {
                self.skip(1)?;
                0
            }
        };
        self.bit = Some(bit + 1);
        Ok(self.bytes[self.at - 1] & (1 << bit) != 0)
    }

    /// A short string of any bytes.
    pub(crate) fn short_bytes(&mut self) -> Result<ShortString, Malformed> {
        let len = self.octet()?;
        let bytes = self.slice(usize::from(len))?;
        Ok(ShortString::new(bytes).expect("the length is one byte"))
    }

    pub(crate) fn long_bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = self.long()?;
        self.slice(usize::try_from(len).map_err(|_| Malformed::Short {
            missing: usize::MAX,
        })?)
    }
}

/// Writes values one after another.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) bytes: &'a mut BytesMut,
    bit: Option<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(bytes: &'a mut BytesMut) -> Self {
        Self { bytes, bit: None }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bit = None;
        self.bytes.put_slice(bytes);
    }

    fn put_bit(&mut self, value: bool) {
        let bit = match self.bit {
            Some(bit) if bit < 8 => bit,
            None | Some(_) => {
                self.bytes.put_u8(0);
                0
            }
        };
        self.bit = Some(bit + 1);
        let last = self.bytes.last_mut().expect("a byte was put");
        *last |= u8::from(value) << bit;
    }

    /// A length that was left open: writes what `inside` writes behind its length.
    pub(crate) fn counted(&mut self, inside: impl FnOnce(&mut Self)) {
        self.put(&[0; 4]);
        let from = self.bytes.len();
        inside(self);
        let len = u32::try_from(self.bytes.len() - from).expect("tables are bounded by frames");
        self.bytes[from - 4..from].copy_from_slice(&len.to_be_bytes());
    }
}

/// A value of a method's field.
pub(crate) trait Wire: Sized {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed>;
    fn write(&self, writer: &mut Writer<'_>);
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Wire for $number {
            fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self::from_be_bytes(reader.array()?))
            }

            fn write(&self, writer: &mut Writer<'_>) {
                writer.put(&self.to_be_bytes());
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64);

impl Wire for bool {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.bit()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.put_bit(*self);
    }
}

impl Wire for ShortString {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let text = reader.short_bytes()?;
        match core::str::from_utf8(text.as_bytes()) {
            Ok(_) => Ok(text),
            Err(_) => Err(Malformed::Text),
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let len = u8::try_from(self.as_bytes().len()).expect("a short string is short");
        writer.put(&[len]);
        writer.put(self.as_bytes());
    }
}

/// A long string.
impl Wire for Bytes {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.long_bytes()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.counted(|writer| writer.put(self));
    }
}

impl Wire for Table {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::read_from(reader)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        self.write_to(writer);
    }
}

/// A field that means nothing: read over, and written as zero or as an empty string (AMQP 0-9-1 calls them reserved).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved<T>(core::marker::PhantomData<T>);

impl<T: Wire + Default> Wire for Reserved<T> {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::read(reader)?;
        Ok(Self(core::marker::PhantomData))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        T::default().write(writer);
    }
}
