//! Fields of a head or a trailer section: where they lie in the bytes, and which ones are known.

use bytes::Bytes;
use smallvec::SmallVec;

/// Names that a proxy treats in its own way. Found once, while parsing, so that nobody compares
/// names again on the way of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of its name")]
pub enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Te,
    Trailer,
    Upgrade,
    Expect,
    Via,
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XRequestId,
    Cookie,
    SetCookie,
    Location,
    IdempotencyKey,
    ContentType,
    RetryAfter,
    /// Any other.
    Other,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelled {
    Right(Known),
    /// It differs from a known name only by `_` in place of `-`.
    Almost(Known),
}

impl Known {
    /// The field that is called so, in any case of letters.
    pub fn of(name: &[u8]) -> Self {
        match Self::spelled(name) {
            Spelled::Right(known) => known,
            Spelled::Almost(_) => Self::Other,
        }
    }

    pub(crate) fn spelled(name: &[u8]) -> Spelled {
        let Some(first) = name.first() else {
            return Spelled::Right(Self::Other);
        };
        // Length and first letter leave at most one to compare with.
        let (known, text): (Self, &[u8]) = match (name.len(), first | 0x20) {
            (2, b't') => (Self::Te, b"te"),
            (3, b'v') => (Self::Via, b"via"),
            (4, b'h') => (Self::Host, b"host"),
            (6, b'c') => (Self::Cookie, b"cookie"),
            (6, b'e') => (Self::Expect, b"expect"),
            (7, b't') => (Self::Trailer, b"trailer"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (8, b'l') => (Self::Location, b"location"),
            (9, b'f') => (Self::Forwarded, b"forwarded"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::KeepAlive, b"keep-alive"),
            (10, b's') => (Self::SetCookie, b"set-cookie"),
            (11, b'r') => (Self::RetryAfter, b"retry-after"),
            (12, b'c') => (Self::ContentType, b"content-type"),
            (12, b'x') => (Self::XRequestId, b"x-request-id"),
            (14, b'c') => (Self::ContentLength, b"content-length"),
            (15, b'i') => (Self::IdempotencyKey, b"idempotency-key"),
            (15, b'x') => (Self::XForwardedFor, b"x-forwarded-for"),
            (16, b'p') => (Self::ProxyConnection, b"proxy-connection"),
            (16, b'x') => (Self::XForwardedHost, b"x-forwarded-host"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (17, b'x') => (Self::XForwardedProto, b"x-forwarded-proto"),
            (18, b'p') => (Self::ProxyAuthenticate, b"proxy-authenticate"),
            (19, b'p') => (Self::ProxyAuthorization, b"proxy-authorization"),
            _ => return Spelled::Right(Self::Other),
        };
        if name.eq_ignore_ascii_case(text) {
            return Spelled::Right(known);
        }
        let mut pairs = name.iter().zip(text);
        if pairs.all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-')) {
            return Spelled::Almost(known);
        }
        Spelled::Right(Self::Other)
    }

    /// Whether it says where a body ends.
    pub(crate) fn is_framing(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding)
    }

    /// Whether whoever stands behind a proxy relies on it that the proxy wrote or removed it.
    pub(crate) fn is_relied_on(self) -> bool {
        match self {
            Self::ContentLength
            | Self::TransferEncoding
            | Self::KeepAlive
            | Self::ProxyConnection
            | Self::ProxyAuthenticate
            | Self::ProxyAuthorization
            | Self::XForwardedFor
            | Self::XForwardedProto
            | Self::XForwardedHost
            | Self::XRequestId => true,
            Self::Host
            | Self::Connection
            | Self::Te
            | Self::Trailer
            | Self::Upgrade
            | Self::Expect
            | Self::Via
            | Self::Forwarded
            | Self::Cookie
            | Self::SetCookie
            | Self::Location
            | Self::IdempotencyKey
            | Self::ContentType
            | Self::RetryAfter
            | Self::Other => false,
        }
    }

    /// Whether `Connection` may keep it from being passed on. What speaks of the whole way, above
    /// all of lengths, hosts and who asked, is not the previous hop's to take out.
    pub(crate) fn may_be_named_by_connection(self) -> bool {
        match self {
            Self::Connection
            | Self::KeepAlive
            | Self::ProxyConnection
            | Self::ProxyAuthenticate
            | Self::ProxyAuthorization
            | Self::Te
            | Self::Trailer
            | Self::Upgrade
            | Self::Other => true,
            Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::Expect
            | Self::Via
            | Self::Forwarded
            | Self::XForwardedFor
            | Self::XForwardedProto
            | Self::XForwardedHost
            | Self::XRequestId
            | Self::Cookie
            | Self::SetCookie
            | Self::Location
            | Self::IdempotencyKey
            | Self::ContentType
            | Self::RetryAfter => false,
        }
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Which one it is, if it is one that a proxy knows.
    pub known: Known,
    /// As it was written.
    pub name: &'a [u8],
    /// Without the white space around it.
    pub value: &'a [u8],
}

/// A part of a head's bytes. Heads are much shorter than 4 GiB, and a connection keeps many of these.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    at: u32,
    len: u32,
}

impl Span {
    /// Where `part` lies in `whole`, of which it must be a slice.
    pub(crate) fn of(whole: &[u8], part: &[u8]) -> Self {
        Self::at(part.as_ptr().addr() - whole.as_ptr().addr(), part.len())
    }

    pub(crate) fn at(at: usize, len: usize) -> Self {
        let short = |number| u32::try_from(number).expect("no head is longer than 4 GiB");
        Self {
            at: short(at),
            len: short(len),
        }
    }

    pub(crate) fn start(self) -> usize {
        self.at as usize
    }

    pub(crate) fn of_bytes(self, whole: &[u8]) -> &[u8] {
        &whole[self.start()..][..self.len as usize]
    }

    pub(crate) fn shared(self, whole: &Bytes) -> Bytes {
        whole.slice(self.start()..self.start() + self.len as usize)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) known: Known,
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// What browsers send fits; more fields cost one allocation, or two.
pub(crate) type Places = SmallVec<[Place; 16]>;

/// The fields of one head, in their order.
#[derive(Debug, Clone)]
pub struct Fields {
    pub(crate) bytes: Bytes,
    pub(crate) places: Places,
}

impl Fields {
    /// All of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| Field {
            known: place.known,
            name: place.name.of_bytes(&self.bytes),
            value: place.value.of_bytes(&self.bytes),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The first value of a known field, trimmed.
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// All values of a known field, in their order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let places = self.places.iter().filter(move |place| place.known == known);
        places.map(|place| place.value.of_bytes(&self.bytes))
    }

    /// The same as [`Fields::get`], as bytes of its own that share the head's memory, and keep all
    /// of it alive.
    pub fn get_shared(&self, known: Known) -> Option<Bytes> {
        let place = self.places.iter().find(|place| place.known == known)?;
        Some(place.value.shared(&self.bytes))
    }

    /// The first value of the field with this name, in any case of letters.
    pub fn named(&self, name: &[u8]) -> Option<&[u8]> {
        let mut fields = self.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(field.value)
    }
}
