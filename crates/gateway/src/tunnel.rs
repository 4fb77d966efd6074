//! A connection that has changed its protocol (WebSocket): bytes both ways until one side ends it.

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use crate::answer::Visit;
use crate::upstream::Stream;
use crate::view::Flight;

/// Per direction. Messages of such protocols are small, and there may be thousands of tunnels.
const BUFFER_LEN: usize = 16 * 1024;

/// The instance's side of a changed connection. Counts as in flight as long as it exists.
pub(crate) struct Tunnel {
    pub(crate) instance: Stream,
    /// What came behind the answer 101.
    pub(crate) early: Bytes,
    pub(crate) flight: Flight,
    pub(crate) visit: Visit,
}

impl Tunnel {
    /// Carries bytes; `early` came behind the client's request.
    pub(crate) async fn run(self, mut client: TcpStream, early: Bytes) {
        let Self {
            mut instance,
            early: answer,
            flight,
            mut visit,
        } = self;
        let carried = async {
            instance.write_all(&early).await?;
            client.write_all(&answer).await?;
            copy_bidirectional_with_sizes(&mut client, &mut instance, BUFFER_LEN, BUFFER_LEN).await
        };
        // An error is how most such connections end: somebody closed a lid.
        if let Ok((_, to_client)) = carried.await {
            visit.bytes = to_client + answer.len() as u64;
        }
        drop(flight);
    }
}
