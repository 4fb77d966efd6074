//! What the environment says.

use std::env;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// How a service behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens: `HOST` and `PORT`.
    pub listen: SocketAddr,
    /// Which copy it is: `MAINSTAY_INSTANCE`.
    pub instance: String,
    /// Which version it is: `MAINSTAY_VERSION`.
    pub version: String,
    /// How long it takes to come up: `SHOP_START_DELAY`, in milliseconds.
    pub start_delay: Duration,
    /// How long a request takes: `SHOP_WORK_MS`.
    pub work: Duration,
    /// What is wrong with it on purpose: `SHOP_FAIL`.
    pub fault: Fault,
}

/// What is wrong with a service on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It ends at once with code 1.
    Exit,
    /// It answers, and says that it is not well.
    Unhealthy,
}

impl Settings {
    /// Reads the environment; the error is a sentence for people.
    pub fn from_env(service: &str) -> Result<Self, String> {
        let millis = |name, default| number(name, default).map(Duration::from_millis);
        let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
        let host = host
            .parse()
            .map_err(|_| format!("HOST is not an IP address: `{host}`"))?;
        let fault = match env::var("SHOP_FAIL").unwrap_or_default().as_str() {
            "" => Fault::None,
            "exit" => Fault::Exit,
            "unhealthy" => Fault::Unhealthy,
            other => return Err(format!("SHOP_FAIL is `{other}`, not exit or unhealthy")),
        };
        Ok(Self {
            listen: SocketAddr::new(host, number("PORT", 8000)?),
            instance: env::var("MAINSTAY_INSTANCE").unwrap_or_else(|_| service.to_owned()),
            version: env::var("MAINSTAY_VERSION").unwrap_or_else(|_| "v0".to_owned()),
            start_delay: millis("SHOP_START_DELAY", 0)?,
            work: millis("SHOP_WORK_MS", 2)?,
            fault,
        })
    }
}

/// The address of a dependency, from the variable of that name.
pub fn address(name: &str) -> Result<SocketAddr, String> {
    let text = env::var(name).map_err(|_| format!("{name} is not set; it is an IP:PORT"))?;
    text.parse()
        .map_err(|_| format!("{name} is not an IP:PORT: `{text}`"))
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name} is not a number: `{text}`")),
        Err(_) => Ok(default),
    }
}
