//! A CONNECT-UDP proxy and client (RFC 9298) on quinn and h3, whose TLS is rustls: a third QUIC stack for the engines.
//!
//!     quinn-peer proxy --listen 192.0.2.2:443 --certificate PEM --key PEM [--udp-path TEMPLATE] [--authorization VALUE]
//!     quinn-peer client --template https://proxy.example:443/… --ca PEM --target HOST:PORT --forward ADDR:PORT
//!
//! Prints a JSON line on stdout when it is ready. The client's last words are on stderr, its exit status is 7 for a lost
//! tunnel and 8 for a refused one. h3 0.0.8 knows the protocols `connect-udp` and `webtransport`, so no CONNECT-IP here.

mod client;
mod proxy;
mod tunnel;

use std::collections::HashMap;
use std::error::Error;

pub type Failure = Box<dyn Error + Send + Sync>;

/// `--name value` pairs.
pub struct Options(HashMap<String, String>);

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
        let mut values = HashMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").ok_or(format!("{argument} is no option"))?.to_string();
            let value = arguments.next().ok_or(format!("--{name} takes a value"))?;
            values.insert(name, value);
        }
        Ok(Options(values))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn need(&self, name: &str) -> Result<&str, Failure> {
        self.text(name).ok_or(format!("--{name} is missing").into())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    let options = Options::parse(arguments)?;
    match role.as_str() {
        "proxy" => proxy::run(&options).await,
        "client" => std::process::exit(client::run(&options).await?),
        _ => Err("say proxy or client".into()),
    }
}

/// Waits for SIGINT or SIGTERM.
pub async fn stopped() -> Result<(), Failure> {
    use tokio::signal::unix::{signal, SignalKind};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
