//! A client of HTTP/2 that asks one request after the other on one connection, and goes to another one when it is told
//! to (GOAWAY).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client goes on with a connection of which it hears nothing, before it is asked for.
const READY_TIME: Duration = Duration::from_secs(1);

/// A connection, if there is one.
#[derive(Default)]
pub(super) struct Client(Option<SendRequest<Empty<Bytes>>>);

impl Client {
    /// One request.
    pub(super) async fn ask(&mut self, address: SocketAddr) -> io::Result<()> {
        // One that was told to go elsewhere says so here, before anything is sent.
        let kept = match &mut self.0 {
            Some(sender) => matches!(timeout(READY_TIME, sender.ready()).await, Ok(Ok(()))),
            None => false,
        };
        if !kept {
            self.0 = Some(connect(address).await?);
        }
        let Some(sender) = &mut self.0 else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let request = Request::get(format!("http://{address}/")).body(Empty::new());
        let request = request.map_err(io::Error::other)?;
        let answered = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            let status = answer.status();
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(io::Error::other)?;
            match (status.as_u16(), body.to_bytes().is_empty()) {
                (200, false) => Ok(()),
                (code, _) => Err(io::Error::other(format!("answered {code}"))),
            }
        };
        let answered = answered.await;
        if answered.is_err() {
            self.0 = None;
        }
        answered
    }

    /// After a request that was given up, the connection is of no use.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

async fn connect(address: SocketAddr) -> io::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(io::Error::other)?;
    // Ends with the connection, of which the next request learns.
    tokio::spawn(connection);
    Ok(sender)
}
