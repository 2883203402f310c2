//! A MASQUE proxy and client on quiche, so that the engines meet a QUIC and HTTP/3 stack that is nobody's relative.
//!
//!     quiche-peer proxy --listen 192.0.2.2:443 --certificate PEM --key PEM [--pool4 10.9.0.0/24 --tun NAME] ...
//!     quiche-peer client --template https://proxy.example:443/… --ca PEM --target HOST:PORT --forward ADDR:PORT
//!     quiche-peer client --template https://proxy.example:443/… --ca PEM --tun NAME
//!
//! Prints a JSON line on stdout when it is ready. The client's last words are on stderr, its exit status is 7 for a lost
//! tunnel and 8 for a refused one.

mod client;
mod link;
mod proxy;
mod tun;
mod wire;

use std::collections::HashMap;
use std::error::Error;
use std::net::{ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use client::{Client, Inside, Request};
use proxy::{Pool, Proxy, Settings};
use tun::Tun;
use wire::Route;

const UDP_PATH: &str = "/.well-known/masque/udp/{target_host}/{target_port}/";
const IP_PATH: &str = "/.well-known/masque/ip/{target}/{ipproto}/";
const MAX_UDP_PAYLOAD: usize = 1400;
/// What a QUIC packet and an HTTP Datagram add to an IP packet, at most (RFC 9484 §7.2), with 20-byte Connection IDs.
const OVERHEAD: usize = 51;

static STOPPED: AtomicBool = AtomicBool::new(false);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    let options = Options::parse(arguments)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic.
        unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
    }
    match role.as_str() {
        "proxy" => run_proxy(&options),
        "client" => run_client(&options),
        _ => Err("say proxy or client".into()),
    }
}

extern "C" fn stop(_: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

fn is_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

fn run_proxy(options: &Options) -> Result<(), Box<dyn Error>> {
    let max_udp_payload = options.number("max-udp-payload", MAX_UDP_PAYLOAD)?;
    let tun = options.tun(max_udp_payload)?;
    let mut pools = Vec::new();
    for prefix in options.all("pool4").chain(options.all("pool6")) {
        let (first, last, length) = wire::parse_prefix(prefix)?;
        if let Some(tun) = &tun {
            tun.add_address(wire::nth_address(first, 1), length)?;
        }
        pools.push(Pool::new(first, last));
    }
    let mut routes = Vec::new();
    for prefix in options.all("route") {
        let (start, end, _) = wire::parse_prefix(prefix)?;
        routes.push(Route { start, end, protocol: 0 });
    }
    routes.sort_by_key(|route: &Route| (wire::version_of(route.start), route.start)); // RFC 9484 §4.7.3
    let settings = Settings {
        certificate: options.need("certificate")?.to_string(),
        key: options.need("key")?.to_string(),
        udp_path: options.text("udp-path").unwrap_or(UDP_PATH).to_string(),
        ip_path: options.text("ip-path").unwrap_or(IP_PATH).to_string(),
        authorization: options.text("authorization").map(str::to_string),
        pools,
        routes,
        tun,
        max_udp_payload,
        idle_timeout_ms: options.number("idle-timeout-ms", 30_000)? as u64,
        retry: options.text("retry").is_some(),
    };
    let mut proxy = Proxy::new(settings, options.need("listen")?)?;
    println!(r#"{{"ready":"proxy","listen":"{}"}}"#, proxy.local_address()?);
    proxy.run(is_stopped);
    Ok(())
}

fn run_client(options: &Options) -> Result<(), Box<dyn Error>> {
    let max_udp_payload = options.number("max-udp-payload", MAX_UDP_PAYLOAD)?;
    let template = options.need("template")?.strip_prefix("https://").ok_or("--template takes https://HOST:PORT/…")?;
    let (authority, path) = template.split_at(template.find('/').ok_or("--template has no path")?);
    let name = authority.rsplit_once(':').ok_or("--template has no port")?.0;
    let proxy = authority.to_socket_addrs()?.next().ok_or("the proxy has no address")?;
    let mut config = link::quic_config(max_udp_payload, options.number("idle-timeout-ms", 30_000)? as u64)?;
    config.load_verify_locations_from_file(options.need("ca")?)?;
    config.verify_peer(true);
    let (inside, values) = match options.tun(max_udp_payload)? {
        Some(tun) => (Inside::Ip { tun }, ["*", "*"]),
        None => {
            let socket = UdpSocket::bind(options.need("forward")?)?;
            socket.set_nonblocking(true)?;
            let (host, port) = options.need("target")?.rsplit_once(':').ok_or("--target takes HOST:PORT")?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            (Inside::Udp { socket, application: None }, [host, port])
        }
    };
    let request = Request {
        authority: authority.to_string(),
        path: wire::expand_template(path, &values),
        authorization: options.text("authorization").map(str::to_string),
    };
    std::process::exit(Client::connect(proxy, name, config, request, inside)?.run(is_stopped))
}

/// `--name value` pairs; a name without a value is set to "".
struct Options(HashMap<String, Vec<String>>);

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut values: HashMap<String, Vec<String>> = HashMap::new();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").ok_or(format!("{argument} is no option"))?;
            let value = arguments.next_if(|next| !next.starts_with("--")).unwrap_or_default();
            values.entry(name.to_string()).or_default().push(value);
        }
        Ok(Options(values))
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    fn need(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or(format!("--{name} is missing"))
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, String> {
        self.text(name).map_or(Ok(default), |text| text.parse().map_err(|_| format!("--{name} takes a number")))
    }

    /// The device of `--tun`, with room for what one DATAGRAM frame carries.
    fn tun(&self, max_udp_payload: usize) -> Result<Option<Tun>, Box<dyn Error>> {
        let mtu = self.number("mtu", max_udp_payload - OVERHEAD)?;
        Ok(self.text("tun").map(|name| Tun::open(name, mtu)).transpose()?)
    }
}
