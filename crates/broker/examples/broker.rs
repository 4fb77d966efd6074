//! A broker alone, for suites of clients: `cargo run -p mainstay-broker --example broker -- DIRECTORY PORT`.

use std::net::TcpListener;
use std::path::PathBuf;

use mainstay_broker::{Keeps, Limits, Options, Sockets, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let mut arguments = std::env::args().skip(1);
    let state = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let port: u16 = arguments.next().ok_or("which port?")?.parse()?;
    let listen = |host: &str| TcpListener::bind((host, port));
    let options = Options {
        state,
        limits: Limits {
            memory_max: 2 << 30,
            disk_free_min: match std::env::var("DISK_FREE_MIN") {
                Ok(bytes) => bytes.parse()?,
                Err(_) => 50 << 20,
            },
        },
        metrics: match std::env::var("METRICS") {
            Ok(address) => Some(address.parse()?),
            Err(_) => None,
        },
        keeps: Keeps::All,
    };
    let sockets = Sockets {
        amqp: vec![listen("127.0.0.1")?, listen("::1")?],
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut broker = std::pin::pin!(run(options, sockets, stop.clone()));
        loop {
            tokio::select! {
                ended = &mut broker => return Ok(ended?),
                _ = terminate.recv() => stop.cancel(),
            }
        }
    })
}
