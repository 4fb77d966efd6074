//! The properties of a message (AMQP 0-9-1, class basic), out of bytes and into bytes.

use bytes::{Bytes, BytesMut};

use crate::field::Table;
use crate::text::ShortString;
use crate::wire::{Malformed, Reader, Wire as _, Writer};

/// The bits below the properties: the last says that more flags follow, which no class has.
const UNUSED: u16 = 0b11;

/// What a publisher says of its message. Absent is not empty.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub struct Properties {
    pub content_type: Option<ShortString>,
    pub content_encoding: Option<ShortString>,
    pub headers: Option<Table>,
    /// 2 is persistent.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<ShortString>,
    pub reply_to: Option<ShortString>,
    /// Milliseconds in digits.
    pub expiration: Option<ShortString>,
    pub message_id: Option<ShortString>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub kind: Option<ShortString>,
    pub user_id: Option<ShortString>,
    pub app_id: Option<ShortString>,
    /// The cluster id of older versions.
    pub reserved: Option<ShortString>,
}

impl Properties {
    /// Reads flags and properties, all of `bytes`.
    pub fn read(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let flags = reader.short()?;
        if flags & UNUSED != 0 {
            return Err(Malformed::Flags(flags));
        }
        let reader = &mut reader;
        let properties = Self {
            content_type: text(flags, 15, reader)?,
            content_encoding: text(flags, 14, reader)?,
            headers: given(flags, 13, reader, Table::read_from)?,
            delivery_mode: given(flags, 12, reader, Reader::octet)?,
            priority: given(flags, 11, reader, Reader::octet)?,
            correlation_id: text(flags, 10, reader)?,
            reply_to: text(flags, 9, reader)?,
            expiration: text(flags, 8, reader)?,
            message_id: text(flags, 7, reader)?,
            timestamp: given(flags, 6, reader, Reader::longlong)?,
            kind: text(flags, 5, reader)?,
            user_id: text(flags, 4, reader)?,
            app_id: text(flags, 3, reader)?,
            reserved: text(flags, 2, reader)?,
        };
        reader.end()?;
        Ok(properties)
    }

    /// Flags and properties.
    pub fn write(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        let mut writer = Writer::new(&mut bytes);
        writer.put(&[0; 2]);
        let texts = |list: &[(u32, &Option<ShortString>)], writer: &mut Writer<'_>| {
            let mut flags = 0;
            for (bit, text) in list {
                if let Some(text) = text {
                    flags |= 1 << bit;
                    text.write(writer);
                }
            }
            flags
        };
        let mut flags: u16 = texts(
            &[(15, &self.content_type), (14, &self.content_encoding)],
            &mut writer,
        );
        if let Some(headers) = &self.headers {
            flags |= 1 << 13;
            headers.write_to(&mut writer);
        }
        for (bit, octet) in [(12, self.delivery_mode), (11, self.priority)] {
            if let Some(octet) = octet {
                flags |= 1 << bit;
                writer.put(&[octet]);
            }
        }
        let middle = [
            (10, &self.correlation_id),
            (9, &self.reply_to),
            (8, &self.expiration),
            (7, &self.message_id),
        ];
        flags |= texts(&middle, &mut writer);
        if let Some(timestamp) = self.timestamp {
            flags |= 1 << 6;
            writer.put(&timestamp.to_be_bytes());
        }
        let last = [
            (5, &self.kind),
            (4, &self.user_id),
            (3, &self.app_id),
            (2, &self.reserved),
        ];
        flags |= texts(&last, &mut writer);
        bytes[..2].copy_from_slice(&flags.to_be_bytes());
        bytes.freeze()
    }
}

fn given<'a, T>(
    flags: u16,
    bit: u32,
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if flags & (1 << bit) == 0 {
        return Ok(None);
    }
    read(reader).map(Some)
}

fn text(flags: u16, bit: u32, reader: &mut Reader<'_>) -> Result<Option<ShortString>, Malformed> {
    given(flags, bit, reader, Reader::short_bytes)
}
