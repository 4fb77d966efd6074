//! Field tables, with every type that RabbitMQ reads and writes (its errata of AMQP 0-9-1, 4.2.1).

use alloc::vec::Vec;

use bytes::Bytes;

use crate::limits::{TABLE_DEPTH_MAX, TABLE_FIELDS_MAX};
use crate::text::ShortString;
use crate::wire::{Malformed, Reader, Wire as _, Writer};

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    Byte(i8),
    /// `B`
    UnsignedByte(u8),
    /// `s`
    Short(i16),
    /// `u`
    UnsignedShort(u16),
    /// `I`
    Int(i32),
    /// `i`
    UnsignedInt(u32),
    /// `l`, and `L`, which RabbitMQ reads as the same.
    Long(i64),
    /// `f`
    Float(f32),
    /// `d`
    Double(f64),
    /// `D`: a scale and digits.
    Decimal(u8, u32),
    /// `S`
    String(Bytes),
    /// `A`
    Array(Vec<Self>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(Table),
    /// `x`
    Binary(Bytes),
    /// `V`
    Void,
}

impl Value {
    /// Text as a value.
    pub const fn literal(text: &'static str) -> Self {
        Self::String(Bytes::from_static(text.as_bytes()))
    }

    /// RabbitMQ's name of the type, which its error texts have.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Byte(_) => "byte",
            Self::UnsignedByte(_) => "unsignedbyte",
            Self::Short(_) => "short",
            Self::UnsignedShort(_) => "unsignedshort",
            Self::Int(_) => "signedint",
            Self::UnsignedInt(_) => "unsignedint",
            Self::Long(_) => "long",
            Self::Float(_) => "float",
            Self::Double(_) => "double",
            Self::Decimal(..) => "decimal",
            Self::String(_) => "longstr",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Binary(_) => "binary",
            Self::Void => "void",
        }
    }

    /// The number, of any of the types of whole numbers that RabbitMQ takes for one.
    pub const fn integer(&self) -> Option<i64> {
        match self {
            Self::Byte(n) => Some(*n as i64),
            Self::UnsignedByte(n) => Some(*n as i64),
            Self::Short(n) => Some(*n as i64),
            Self::UnsignedShort(n) => Some(*n as i64),
            Self::Int(n) => Some(*n as i64),
            Self::UnsignedInt(n) => Some(*n as i64),
            Self::Long(n) => Some(*n),
            Self::Bool(_)
            | Self::Float(_)
            | Self::Double(_)
            | Self::Decimal(..)
            | Self::String(_)
            | Self::Array(_)
            | Self::Timestamp(_)
            | Self::Table(_)
            | Self::Binary(_)
            | Self::Void => None,
        }
    }

    /// The text of a string.
    pub const fn string(&self) -> Option<&Bytes> {
        match self {
            Self::String(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn read(reader: &mut Reader<'_>, depth: usize, left: &mut usize) -> Result<Self, Malformed> {
        *left = left.checked_sub(1).ok_or(Malformed::Fields)?;
        Ok(match reader.octet()? {
            b't' => Self::Bool(reader.octet()? != 0),
            b'b' => Self::Byte(i8::from_be_bytes(reader.array()?)),
            b'B' => Self::UnsignedByte(reader.octet()?),
            b's' => Self::Short(i16::from_be_bytes(reader.array()?)),
            b'u' => Self::UnsignedShort(reader.short()?),
            b'I' => Self::Int(i32::from_be_bytes(reader.array()?)),
            b'i' => Self::UnsignedInt(reader.long()?),
            b'l' | b'L' => Self::Long(i64::from_be_bytes(reader.array()?)),
            b'f' => Self::Float(f32::from_be_bytes(reader.array()?)),
            b'd' => Self::Double(f64::from_be_bytes(reader.array()?)),
            b'D' => Self::Decimal(reader.octet()?, reader.long()?),
            b'S' => Self::String(reader.long_bytes()?),
            b'A' => Self::read_array(reader, depth, left)?,
            b'T' => Self::Timestamp(reader.longlong()?),
            b'F' => Self::Table(Table::read_nested(reader, depth, left)?),
            b'x' => Self::Binary(reader.long_bytes()?),
            b'V' => Self::Void,
            unknown => return Err(Malformed::FieldType(unknown)),
        })
    }

    fn read_array(
        reader: &mut Reader<'_>,
        depth: usize,
        left: &mut usize,
    ) -> Result<Self, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Depth)?;
        let inside = reader.long_bytes()?;
        let mut reader = Reader::new(&inside);
        let mut values = Vec::new();
        while reader.rest() > 0 {
            values.push(Self::read(&mut reader, depth, left)?);
        }
        Ok(Self::Array(values))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Bool(value) => writer.put(&[b't', u8::from(*value)]),
            Self::Byte(n) => tagged(writer, b'b', &n.to_be_bytes()),
            Self::UnsignedByte(n) => writer.put(&[b'B', *n]),
            Self::Short(n) => tagged(writer, b's', &n.to_be_bytes()),
            Self::UnsignedShort(n) => tagged(writer, b'u', &n.to_be_bytes()),
            Self::Int(n) => tagged(writer, b'I', &n.to_be_bytes()),
            Self::UnsignedInt(n) => tagged(writer, b'i', &n.to_be_bytes()),
            Self::Long(n) => tagged(writer, b'l', &n.to_be_bytes()),
            Self::Float(n) => tagged(writer, b'f', &n.to_be_bytes()),
            Self::Double(n) => tagged(writer, b'd', &n.to_be_bytes()),
            Self::Decimal(scale, digits) => {
                writer.put(&[b'D', *scale]);
                writer.put(&digits.to_be_bytes());
            }
            Self::String(bytes) => {
                writer.put(b"S");
                bytes.write(writer);
            }
            Self::Array(values) => {
                writer.put(b"A");
                writer.counted(|writer| values.iter().for_each(|value| value.write(writer)));
            }
            Self::Timestamp(seconds) => tagged(writer, b'T', &seconds.to_be_bytes()),
            Self::Table(table) => {
                writer.put(b"F");
                table.write_to(writer);
            }
            Self::Binary(bytes) => {
                writer.put(b"x");
                bytes.write(writer);
            }
            Self::Void => writer.put(b"V"),
        }
    }
}

fn tagged(writer: &mut Writer<'_>, tag: u8, bytes: &[u8]) {
    writer.put(&[tag]);
    writer.put(bytes);
}

/// Fields with their names, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table(Vec<(ShortString, Value)>);

impl Table {
    /// No fields.
    pub const EMPTY: Self = Self(Vec::new());

    /// These fields.
    pub const fn new(fields: Vec<(ShortString, Value)>) -> Self {
        Self(fields)
    }

    /// The first field of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// Whether `capabilities`, say, has this one.
    pub fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Bool(true)))
    }

    /// Whether it has no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each field.
    pub fn iter(&self) -> impl Iterator<Item = &(ShortString, Value)> {
        self.0.iter()
    }

    /// Sets a field and sorts all by name, as RabbitMQ does with headers that it writes itself.
    pub fn set(&mut self, name: ShortString, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
        self.sort();
    }

    /// Sorts the fields by name; those of one name stay in order.
    pub fn sort(&mut self) {
        self.0.sort_by(|(one, _), (other, _)| one.cmp(other));
    }

    /// Takes the first field of this name out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn read_from(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut left = TABLE_FIELDS_MAX;
        Self::read_nested(reader, TABLE_DEPTH_MAX, &mut left)
    }

    fn read_nested(
        reader: &mut Reader<'_>,
        depth: usize,
        left: &mut usize,
    ) -> Result<Self, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Depth)?;
        let inside = reader.long_bytes()?;
        let mut reader = Reader::new(&inside);
        let mut fields = Vec::new();
        while reader.rest() > 0 {
            let name = reader.short_bytes()?;
            fields.push((name, Value::read(&mut reader, depth, left)?));
        }
        Ok(Self(fields))
    }

    pub(crate) fn write_to(&self, writer: &mut Writer<'_>) {
        writer.counted(|writer| {
            for (name, value) in &self.0 {
                name.write(writer);
                value.write(writer);
            }
        });
    }
}
