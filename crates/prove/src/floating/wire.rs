//! The little of HTTP/1.1 that the clients and the service of these proofs speak.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

/// A head is longer than this from nobody here.
const HEAD_LEN_MAX: usize = 16 * 1024;

/// A head, with what came behind it.
pub(super) struct Head {
    pub(super) text: String,
    pub(super) rest: Vec<u8>,
}

impl Head {
    /// Whether it has this field with this word in it; both in small letters.
    pub(super) fn says(&self, field: &str, word: &str) -> bool {
        self.text.lines().any(|line| {
            let line = line.to_ascii_lowercase();
            let value = line.split_once(':').filter(|(name, _)| *name == field);
            value.is_some_and(|(_, value)| value.contains(word))
        })
    }

    /// The code of an answer.
    pub(super) fn status(&self) -> Option<u16> {
        self.text.split(' ').nth(1)?.parse().ok()
    }

    /// The announced length of the body.
    pub(super) fn len(&self) -> usize {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(':'));
        let len = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        len.and_then(|(_, len)| len.trim().parse().ok())
            .unwrap_or(0)
    }
}

/// Reads a head; `None` if the other side ended before its first byte.
pub(super) async fn read_head(
    from: &mut (impl AsyncRead + Unpin),
    mut bytes: Vec<u8>,
) -> io::Result<Option<Head>> {
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Ok(Some(Head { text, rest }));
        }
        if bytes.len() > HEAD_LEN_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if from.read_buf(&mut bytes).await? == 0 {
            return match bytes.len() {
                0 => Ok(None),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
    }
}

/// Sends a request and reads its whole answer; the head, and whether the connection may be used again. The error says
/// whether the connection had ended before anything of an answer came.
pub(super) async fn ask(stream: &mut tokio::net::TcpStream, head: &str) -> io::Result<Head> {
    stream.write_all(head.as_bytes()).await?;
    let head = read_head(stream, Vec::new()).await?;
    let mut head = head.ok_or(io::ErrorKind::UnexpectedEof)?;
    while head.rest.len() < head.len() {
        if stream.read_buf(&mut head.rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}
