//! The service of the nodes: answers every request after a moment, and sends back what comes over a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::wire::read_head;

/// How long an answer takes: what is under way must be there to be lost.
const WORK: Duration = Duration::from_millis(5);
const BODY: &str = "served";

/// Serves at `address` until the process ends.
pub async fn answer(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Ends with its connection; how, is seen by the client.
        tokio::spawn(serve(stream));
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut rest = Vec::new();
    while let Some(head) = read_head(&mut stream, rest).await? {
        if head.says("upgrade", "websocket") {
            let switched = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
            stream.write_all(switched.as_bytes()).await?;
            stream.write_all(&head.rest).await?;
            return echo(stream).await;
        }
        sleep(WORK).await;
        let len = BODY.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n{BODY}");
        stream.write_all(answer.as_bytes()).await?;
        rest = head.rest;
    }
    Ok(())
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; 4096];
    loop {
        let len = stream.read(&mut bytes).await?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..len]).await?;
    }
}
