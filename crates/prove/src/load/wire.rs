//! HTTP/1.1 from the client's side, as lean as counting allows: one write, a parsed head, a body
//! that is checked while it passes and never kept.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::report::Kind;
use super::{Connections, Expect, Method, NONCE_HEADER, REQUEST_DEADLINE, Request};

/// Digits of a nonce.
pub(super) const NONCE_LEN: usize = 16;

/// A head that is longer than this is not an answer; it also is how much is read at once.
const BUFFER_LEN: usize = 16 * 1024;

/// Fields of a head; more is not an answer either.
const FIELDS_MAX: usize = 64;

/// The longest `mainstay-reason` or `mainstay-instance` that is taken over: a word or a name with a
/// number.
const WORD_LEN_MAX: usize = 80;

/// What identifies a body that is the same for every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its length in bytes.
    pub len: u64,
    /// FNV-1a of its bytes: against accidents, not against forgers.
    pub hash: u64,
}

/// What came back, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) fingerprint: Fingerprint,
    pub(super) nonce_in_head: bool,
    pub(super) nonce_in_body: bool,
    pub(super) reusable: bool,
}

impl Answer {
    /// What is wrong with it, if anything.
    pub(super) fn verdict(&self, expect: Expect) -> Result<(), Kind> {
        if !(200..400).contains(&self.status) {
            return Err(Kind::Status {
                code: self.status,
                reason: self.reason.clone(),
            });
        }
        let right = match expect {
            Expect::Nonce => self.nonce_in_head && self.nonce_in_body,
            Expect::Body(wanted) => self.fingerprint == wanted,
            Expect::Whole => true,
        };
        if right { Ok(()) } else { Err(Kind::WrongBody) }
    }
}

/// Asks once on a connection of its own: how the warm-up learns whether a service answers the
/// nonce, and which body it has.
pub async fn fetch(
    address: SocketAddr,
    host: &str,
    request: &Request,
    seed: u64,
) -> Result<Expect, Kind> {
    let nonce = nonce(seed);
    let mut bytes = Vec::new();
    let once = Connections::PerRequest(NonZeroUsize::MIN);
    write_request(&mut bytes, request, host, once, &nonce, seed);
    let asked = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| Kind::of_connect(&e))?;
        Stream::new(stream).exchange(&bytes, &nonce, None).await
    };
    let answer = tokio::time::timeout(REQUEST_DEADLINE, asked)
        .await
        .map_err(|_| Kind::TimedOut)??;
    answer.verdict(Expect::Whole)?;
    let echoes = answer.verdict(Expect::Nonce).is_ok();
    Ok(if echoes {
        Expect::Nonce
    } else {
        Expect::Body(answer.fingerprint)
    })
}

/// Writes a nonce that no other request of the run has: `drawn` comes from a bijection.
pub(super) fn nonce(drawn: u64) -> [u8; NONCE_LEN] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| {
        let shift = 4 * (NONCE_LEN - 1 - i);
        HEX[usize::try_from(drawn >> shift & 15).unwrap_or_default()]
    })
}

/// Appends the whole request to `out`. `drawn` fills `{n}` in.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    request: &Request,
    host: &str,
    connections: Connections,
    nonce: &[u8; NONCE_LEN],
    drawn: u64,
) {
    out.extend_from_slice(match request.method {
        Method::Get => b"GET ",
        Method::Post => b"POST ",
    });
    match request.path.split_once("{n}") {
        None => out.extend_from_slice(request.path.as_bytes()),
        Some((before, after)) => {
            let number = (drawn >> 32) % 1000;
            out.extend_from_slice(format!("{before}{number}{after}").as_bytes());
        }
    }
    for part in [" HTTP/1.1\r\nhost: ", host, "\r\n", NONCE_HEADER, ": "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(nonce);
    if request.method == Method::Post {
        let len = request.body.len();
        let fields = format!("\r\ncontent-type: application/json\r\ncontent-length: {len}");
        out.extend_from_slice(fields.as_bytes());
    }
    if matches!(connections, Connections::PerRequest(_)) {
        out.extend_from_slice(b"\r\nconnection: close");
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(request.body.as_bytes());
}

/// A connection with what was read from it and not yet used.
pub(super) struct Stream {
    tcp: TcpStream,
    buffer: Box<[u8]>,
    used: usize,
    filled: usize,
}

enum BodyEnd {
    Length(u64),
    Chunked,
    Close,
}

struct Head {
    answer: Answer,
    body: BodyEnd,
    len: usize,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        // Without it a request could wait for the acknowledgement of the one before; should it
        // fail, the latencies will show it.
        let _ = tcp.set_nodelay(true);
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        Self {
            tcp,
            buffer,
            used: 0,
            filled: 0,
        }
    }

    /// Whether the server has closed it, or said something unasked, while it was idle.
    pub(super) fn is_stale(&self) -> bool {
        match self.tcp.try_read(&mut [0]) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }

    /// Sends a request and reads its whole answer, looking only for what is expected of it; `None`
    /// looks for all that could be.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        nonce: &[u8; NONCE_LEN],
        expect: Option<Expect>,
    ) -> Result<Answer, Kind> {
        self.tcp.write_all(request).await.map_err(|_| Kind::Reset)?;
        let Head {
            mut answer, body, ..
        } = self.read_head(nonce).await?;
        let mut check = BodyCheck::new(nonce, expect);
        match body {
            BodyEnd::Length(len) => self.take(len, &mut check).await?,
            BodyEnd::Chunked => self.take_chunks(&mut check).await?,
            BodyEnd::Close => self.take_until_close(&mut check).await?,
        }
        answer.fingerprint = check.fingerprint;
        answer.nonce_in_body = check.found;
        // What follows the answer belongs to no request of ours.
        answer.reusable &= self.used == self.filled;
        Ok(answer)
    }

    async fn read_head(&mut self, nonce: &[u8]) -> Result<Head, Kind> {
        loop {
            if let Some(head) = parse_head(&self.buffer[self.used..self.filled], nonce)? {
                self.used += head.len;
                // RFC 9110, 15.2: interim answers precede the real one.
                if (100..200).contains(&head.answer.status) && head.answer.status != 101 {
                    continue;
                }
                return Ok(head);
            }
            if self.fill().await.map_err(|_| Kind::Reset)? == 0 {
                return Err(Kind::Reset);
            }
        }
    }

    /// Reads more behind what is there; `Ok(0)` is the end, an error also a full buffer.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.used == self.filled {
            (self.used, self.filled) = (0, 0);
        } else if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
        }
        if self.filled == self.buffer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let read = self.tcp.read(&mut self.buffer[self.filled..]).await?;
        self.filled += read;
        Ok(read)
    }

    /// [`Stream::fill`] inside a body, where the end is a cut.
    async fn fill_body(&mut self) -> Result<(), Kind> {
        match self.fill().await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(Kind::CutBody),
        }
    }

    async fn take(&mut self, len: u64, check: &mut BodyCheck<'_>) -> Result<(), Kind> {
        let mut missing = len;
        while missing > 0 {
            if self.used == self.filled {
                self.fill_body().await?;
            }
            let there = self.filled - self.used;
            let part = usize::try_from(missing).map_or(there, |missing| missing.min(there));
            check.feed(&self.buffer[self.used..self.used + part]);
            self.used += part;
            missing -= part as u64;
        }
        Ok(())
    }

    /// RFC 9112, 7.1.
    async fn take_chunks(&mut self, check: &mut BodyCheck<'_>) -> Result<(), Kind> {
        loop {
            let parsed = httparse::parse_chunk_size(&self.buffer[self.used..self.filled]);
            match parsed.map_err(|_| Kind::Malformed)? {
                httparse::Status::Partial => self.fill_body().await?,
                httparse::Status::Complete((len, 0)) => {
                    self.used += len;
                    while self.take_line().await? > 0 {}
                    return Ok(());
                }
                httparse::Status::Complete((len, size)) => {
                    self.used += len;
                    self.take(size, check).await?;
                    if self.take_line().await? > 0 {
                        return Err(Kind::Malformed);
                    }
                }
            }
        }
    }

    /// Passes over a line; answers its length without its end.
    async fn take_line(&mut self) -> Result<usize, Kind> {
        loop {
            let there = &self.buffer[self.used..self.filled];
            if let Some(len) = there.windows(2).position(|pair| pair == b"\r\n") {
                self.used += len + 2;
                return Ok(len);
            }
            self.fill_body().await?;
        }
    }

    async fn take_until_close(&mut self, check: &mut BodyCheck<'_>) -> Result<(), Kind> {
        loop {
            check.feed(&self.buffer[self.used..self.filled]);
            self.used = self.filled;
            if self.fill().await.map_err(|_| Kind::CutBody)? == 0 {
                return Ok(());
            }
        }
    }
}

/// `None` while the head is not whole.
fn parse_head(bytes: &[u8], nonce: &[u8]) -> Result<Option<Head>, Kind> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let len = match parsed.parse(bytes).map_err(|_| Kind::Malformed)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let status = parsed.code.unwrap_or_default();
    let mut answer = Answer {
        status,
        reason: None,
        instance: None,
        fingerprint: Fingerprint { len: 0, hash: 0 },
        nonce_in_head: false,
        nonce_in_body: false,
        reusable: parsed.version == Some(1),
    };
    let mut body = BodyEnd::Close;
    for field in parsed.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is(NONCE_HEADER) {
            answer.nonce_in_head = field.value == nonce;
        } else if is("content-length") && !matches!(body, BodyEnd::Chunked) {
            let text = std::str::from_utf8(field.value).map_err(|_| Kind::Malformed)?;
            body = BodyEnd::Length(text.trim().parse().map_err(|_| Kind::Malformed)?);
        } else if is("transfer-encoding") {
            body = BodyEnd::Chunked;
        } else if is("connection") {
            answer.reusable &= !field.value.eq_ignore_ascii_case(b"close");
        } else if is("mainstay-reason") {
            answer.reason = Some(word(field.value));
        } else if is("mainstay-instance") {
            answer.instance = Some(word(field.value));
        }
    }
    // RFC 9112, 6.3: these have no body whatever their fields say.
    if matches!(status, 100..200 | 204 | 304) {
        body = BodyEnd::Length(0);
    }
    answer.reusable &= !matches!(body, BodyEnd::Close);
    Ok(Some(Head { answer, body, len }))
}

fn word(value: &[u8]) -> String {
    let short = value.get(..WORD_LEN_MAX).unwrap_or(value);
    String::from_utf8_lossy(short).into_owned()
}

/// Looks at a body in the pieces in which it comes.
struct BodyCheck<'a> {
    nonce: &'a [u8; NONCE_LEN],
    expect: Option<Expect>,
    fingerprint: Fingerprint,
    found: bool,
    /// The last bytes of the pieces before, in which a nonce may have begun.
    tail: [u8; NONCE_LEN - 1],
    tail_len: usize,
}

impl<'a> BodyCheck<'a> {
    fn new(nonce: &'a [u8; NONCE_LEN], expect: Option<Expect>) -> Self {
        Self {
            nonce,
            expect,
            fingerprint: Fingerprint {
                len: 0,
                hash: 0xcbf2_9ce4_8422_2325,
            },
            found: false,
            tail: [0; NONCE_LEN - 1],
            tail_len: 0,
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        self.fingerprint.len += piece.len() as u64;
        if matches!(self.expect, None | Some(Expect::Body(_))) {
            for byte in piece {
                let mixed = self.fingerprint.hash ^ u64::from(*byte);
                self.fingerprint.hash = mixed.wrapping_mul(0x0100_0000_01b3);
            }
        }
        if !self.found && matches!(self.expect, None | Some(Expect::Nonce)) {
            self.search(piece);
        }
    }

    fn search(&mut self, piece: &[u8]) {
        let mut seam = [0; 2 * (NONCE_LEN - 1)];
        let begin = piece.len().min(NONCE_LEN - 1);
        seam[..self.tail_len].copy_from_slice(&self.tail[..self.tail_len]);
        seam[self.tail_len..self.tail_len + begin].copy_from_slice(&piece[..begin]);
        let seam = &seam[..self.tail_len + begin];
        let holds = |bytes: &[u8]| bytes.windows(NONCE_LEN).any(|part| part == self.nonce);
        self.found = holds(seam) || holds(piece);
        let end = if piece.len() < NONCE_LEN - 1 {
            seam
        } else {
            piece
        };
        let end = &end[end.len().saturating_sub(NONCE_LEN - 1)..];
        self.tail[..end.len()].copy_from_slice(end);
        self.tail_len = end.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_found_however_the_body_is_cut() {
        let nonce = nonce(0x0123_4567_89ab_cdef);
        assert_eq!(&nonce, b"0123456789abcdef");
        let body = b"{\"nonce\":\"0123456789abcdef\",\"id\":1}";
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let mut check = BodyCheck::new(&nonce, None);
                for piece in [&body[..first], &body[first..second], &body[second..]] {
                    check.feed(piece);
                }
                assert!(check.found, "cut at {first} and {second}");
            }
        }
        let mut check = BodyCheck::new(&nonce, None);
        check.feed(b"0123456789abcde");
        check.feed(b"0123456789abcde");
        assert!(!check.found);
    }

    #[test]
    fn a_head_says_where_its_body_ends_and_who_is_to_blame() {
        let text = b"HTTP/1.1 502 Bad Gateway\r\nMainstay-Reason: lost-in-flight\r\n\
                     mainstay-instance: orders-3\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..text.len() - 3 {
            assert!(parse_head(&text[..cut], b"").unwrap().is_none(), "{cut}");
        }
        let head = parse_head(text, b"").unwrap().unwrap();
        assert_eq!(head.answer.reason.as_deref(), Some("lost-in-flight"));
        assert_eq!(head.answer.instance.as_deref(), Some("orders-3"));
        assert!(head.answer.reusable && matches!(head.body, BodyEnd::Length(3)));
        assert!(parse_head(b"SSH-2.0-x\r\n\r\n", b"").is_err());
    }
}
