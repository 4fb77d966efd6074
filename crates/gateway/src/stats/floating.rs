//! The metrics of the process that holds floating addresses, where this machine has one: one scrape for both.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long it may take: it answers between two adverts. Whoever scrapes us waits no longer for it.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// The longest text; 64 floating addresses with all that they depend on are some 200 KiB.
const TEXT_LEN_MAX: u64 = 1024 * 1024;

/// What it says on its socket; nothing if it is not there, or says nothing in time.
pub(super) async fn metrics(socket: &Path) -> String {
    match timeout(ANSWER_TIME, ask(socket)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot get the metrics of floating addresses");
            String::new()
        }
        Err(_) => {
            tracing::debug!("the metrics of floating addresses did not come in {ANSWER_TIME:?}");
            String::new()
        }
    }
}

async fn ask(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"metrics\n").await?;
    let mut text = String::new();
    stream.take(TEXT_LEN_MAX).read_to_string(&mut text).await?;
    // A text that is cut off has half a line at its end, which would spoil ours.
    if !text.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;
    use tokio::net::UnixListener;

    /// What is shown of a process that says this to each caller; `None`: it says nothing and hangs.
    async fn shown(says: Option<&'static str>) -> String {
        let dir = TempDir::new("floating");
        let socket = dir.join("vip.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let process = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut call = [0; 8];
            stream.read_exact(&mut call).await.unwrap();
            assert_eq!(&call, b"metrics\n");
            match says {
                Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
        };
        let asked = metrics(&socket);
        let mut process = std::pin::pin!(process);
        tokio::pin!(asked);
        let mut over = false;
        loop {
            tokio::select! {
                text = &mut asked => return text,
                () = &mut process, if !over => over = true,
            }
        }
    }

    #[tokio::test]
    async fn what_is_whole_is_shown_and_nobody_is_waited_for_long() {
        assert_eq!(metrics(Path::new("/nowhere/vip.sock")).await, "");
        assert_eq!(shown(Some("a 1\n")).await, "a 1\n");
        assert_eq!(shown(Some("a 1\nb")).await, "");
        assert_eq!(shown(None).await, "");
    }
}
