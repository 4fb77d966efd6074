//! A gateway without a control centre, for measuring: `gateway_alone ENTRY_PORT WORKERS LOG INSTANCE...`
//! with `-` for no access log. One service takes everything to the given addresses. Ends with its
//! standard input.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use mainstay_gateway::{AccessLogTo, Deadlines, Link, Options, Seams, Sockets, run_linked};
use mainstay_ids::{
    Attempt, ConsumerId, Epoch, Generation, Incarnation, InstanceId, ServiceName, Version,
};
use mainstay_model::routing::EndpointHealth;
use mainstay_model::{Endpoint, HttpMatch, PathPrefix, Routing, ServiceRoutes, Traffic};
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, workers, log, instances @ ..] = arguments.as_slice() else {
        return Err("gateway_alone ENTRY_PORT WORKERS LOG|- INSTANCE...".into());
    };
    let entry = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    let mut sockets = Vec::new();
    for _ in 0..workers.parse()? {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&entry.into())?;
        socket.listen(4096)?;
        sockets.push(TcpListener::from(socket));
    }
    let (to, routings) = mpsc::channel(1);
    to.blocking_send(routing(instances)?)?;
    // Full at once and never read: acknowledgements are dropped.
    let (acks, _unread) = mpsc::channel(1);
    let options = Options {
        state: std::env::temp_dir().join(format!("gateway-alone-{}", std::process::id())),
        api: PathBuf::from("/nowhere"),
        consumer: ConsumerId {
            name: "gateway".into(),
            incarnation: Incarnation(1),
        },
        access_log: match log.as_str() {
            "-" => AccessLogTo::Off,
            path => AccessLogTo::File(path.into()),
        },
        settings: tokio::sync::watch::channel(std::sync::Arc::default()).1,
        deadlines: Deadlines::default(),
        succession: mainstay_gateway::Succession::default(),
        pulse: None,
        leave: None,
        seams: Seams::default(),
    };
    let stop = CancellationToken::new();
    let at_end = stop.clone();
    std::thread::spawn(move || {
        // Whatever ends the input ends us.
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        at_end.cancel();
    });
    let link = Link { routings, acks };
    run_linked(
        options,
        Sockets {
            entry: sockets,
            stats: None,
        },
        link,
        stop,
    )?;
    Ok(())
}

/// One service that takes everything.
fn routing(instances: &[String]) -> Result<Routing, Box<dyn std::error::Error>> {
    let service = ServiceName::parse("bench")?;
    let mut endpoints = Vec::new();
    for (number, address) in (1..).zip(instances) {
        endpoints.push(Endpoint {
            instance: InstanceId {
                service: service.clone(),
                number,
            },
            attempt: Attempt::FIRST,
            version: Version::FIRST,
            address: address.parse()?,
            health: EndpointHealth::Passing,
            handle: None,
            intake: mainstay_model::Intake::default(),
        });
    }
    let http = HttpMatch::new(None, PathPrefix::parse("/")?);
    Ok(Routing {
        generation: Generation::first(Epoch(1)),
        services: vec![ServiceRoutes {
            service,
            http: Some(http.into()),
            address: None,
            health_path: None,
            endpoints,
            unavailable: None,
            dead: Vec::new(),
            traffic: Traffic::default(),
            rewrites: Vec::new(),
            split: None,
        }],
    })
}
