//! A broker alone, for suites of clients: `cargo run -p mainstay-broker --example broker -- DIRECTORY PORT`.
//!
//! `TLS=PORT,CERTIFICATE,KEY[,CLIENT_CA]` adds TLS, `DESCRIPTORS` limits what it may open.

use std::net::TcpListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mainstay_broker::{ClientLimits, Limits, Options, Sockets, run};
use mainstay_kernel::descriptors;
use mainstay_tls::Files;
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
    match std::env::var("DESCRIPTORS") {
        Ok(most) => descriptors::lower_limit(most.parse()?)?,
        Err(_) => descriptors::raise_limit()?,
    }
    let mut arguments = std::env::args().skip(1);
    let state = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let port: u16 = arguments.next().ok_or("which port?")?.parse()?;
    let (amqps, tls) = match std::env::var("TLS") {
        Ok(said) => {
            let (port, files) = tls(&said)?;
            (listen(port)?, Some(files))
        }
        Err(_) => (Vec::new(), None),
    };
    let options = options(state, tls)?;
    let amqp = listen(port)?;
    let sockets = Sockets { amqp, amqps };
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

fn options(state: PathBuf, tls: Option<Files>) -> Result<Options, Box<dyn std::error::Error>> {
    let timeout = number("CONSUMER_TIMEOUT_MS")?.unwrap_or(30 * 60 * 1000);
    Ok(Options {
        state,
        limits: Limits {
            memory_max: 2 << 30,
            disk_free_min: number("DISK_FREE_MIN")?.unwrap_or(50 << 20),
        },
        tls,
        clients: ClientLimits {
            consumer_timeout: Some(Duration::from_millis(timeout)),
            queues_max: number("QUEUES_MAX")?,
        },
        seams: std::env::var("SEAMS").unwrap_or_default().parse()?,
        metrics: match std::env::var("METRICS") {
            Ok(address) => Some(address.parse()?),
            Err(_) => None,
        },
    })
}

fn number<N: FromStr>(name: &str) -> Result<Option<N>, N::Err> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse())
        .transpose()
}

fn listen(port: u16) -> std::io::Result<Vec<TcpListener>> {
    Ok(vec![
        TcpListener::bind(("127.0.0.1", port))?,
        TcpListener::bind(("::1", port))?,
    ])
}

fn tls(said: &str) -> Result<(u16, Files), Box<dyn std::error::Error>> {
    let mut words = said.split(',');
    let mut next = || words.next().ok_or("TLS=PORT,CERTIFICATE,KEY[,CLIENT_CA]");
    let port = next()?.parse()?;
    let files = Files {
        certificate: next()?.into(),
        key: next()?.into(),
        client_ca: next().ok().map(PathBuf::from),
    };
    Ok((port, files))
}
