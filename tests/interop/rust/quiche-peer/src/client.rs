//! The client: one tunnel, from a local UDP port to a target, or from a TUN device to wherever the proxy routes.
//!
//! Prints a JSON line on stdout when packets may come, and says on stderr why it is over.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use quiche::h3::{Event, Header};

use crate::link::{field, new_connection_id, poll_for, wait, Link};
use crate::tun::Tun;
use crate::wire::{self, AddressEntry, CapsuleReader};

const BATCH: usize = 64;
const LOST: i32 = 7;
const REFUSED: i32 = 8;

/// Where the packets of the tunnel come from and go to.
pub enum Inside {
    Udp { socket: UdpSocket, application: Option<SocketAddr> },
    Ip { tun: Tun },
}

pub struct Request {
    pub authority: String,
    pub path: String,
    pub authorization: Option<String>,
}

pub struct Client {
    socket: UdpSocket,
    link: Link,
    inside: Inside,
    request: Request,
    stream: Option<u64>,
    capsules: CapsuleReader,
    is_open: bool,
    has_addresses: bool,
    has_routes: bool,
    /// Why it is over, and the exit status.
    outcome: Option<(String, i32)>,
}

impl Client {
    pub fn connect(
        proxy: SocketAddr,
        name: &str,
        mut config: quiche::Config,
        request: Request,
        inside: Inside,
    ) -> Result<Client, Box<dyn std::error::Error>> {
        let any: SocketAddr = if proxy.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(proxy)?; // so that local_addr is the one packets leave from
        let local = socket.local_addr()?;
        drop(socket);
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        let quic = quiche::connect(Some(name), &new_connection_id(), local, proxy, &mut config)?;
        let (capsules, stream, outcome) = (CapsuleReader::default(), None, None);
        let (is_open, has_addresses, has_routes) = (false, false, false);
        let link = Link::new(quic);
        Ok(Client { socket, link, inside, request, stream, capsules, is_open, has_addresses, has_routes, outcome })
    }

    /// Runs until the tunnel is over or `is_stopped`; the exit status.
    pub fn run(&mut self, is_stopped: impl Fn() -> bool) -> i32 {
        self.link.flush(&self.socket);
        while !is_stopped() && self.outcome.is_none() {
            self.sleep();
            self.read_quic();
            if self.link.quic.timeout() == Some(Duration::ZERO) {
                self.link.quic.on_timeout();
            }
            self.open_tunnel();
            self.handle_events();
            self.handle_datagrams();
            self.read_inside();
            self.link.send_unsent();
            self.link.flush(&self.socket);
            if self.link.quic.is_closed() && self.outcome.is_none() {
                let reason = match (self.link.quic.peer_error(), self.link.quic.local_error()) {
                    (Some(error), _) => format!("the proxy closed the connection: 0x{:x}", error.error_code),
                    (_, Some(error)) => format!("we closed the connection: 0x{:x}", error.error_code),
                    _ => "idle timeout".to_string(),
                };
                self.fail(&reason);
            }
        }
        self.link.close(&self.socket);
        let (words, status) = self.outcome.take().unwrap_or(("stopped".to_string(), 0));
        eprintln!("{words}");
        status
    }

    fn sleep(&self) {
        let timeout = self.link.quic.timeout().unwrap_or(Duration::from_millis(200)).min(Duration::from_millis(200));
        let mut sources = vec![poll_for(&self.socket, libc::POLLIN)];
        if self.is_open && !self.link.is_congested() {
            sources.push(match &self.inside {
                Inside::Udp { socket, .. } => poll_for(socket, libc::POLLIN),
                Inside::Ip { tun } => poll_for(tun, libc::POLLIN),
            });
        }
        wait(&mut sources, timeout.as_micros().div_ceil(1000) as i32);
    }

    fn read_quic(&mut self) {
        let mut packet = [0; 65_535];
        for _ in 0..BATCH {
            let Ok((length, from)) = self.socket.recv_from(&mut packet) else { return };
            let Ok(to) = self.socket.local_addr() else { return };
            if let Err(error) = self.link.quic.recv(&mut packet[..length], quiche::RecvInfo { from, to }) {
                eprintln!("QUIC packet from {from}: {error:?}");
            }
        }
    }

    /// Sends the request once the proxy's SETTINGS allow it (RFC 9220 §3, RFC 9297 §2.1.1).
    fn open_tunnel(&mut self) {
        if let Err(error) = self.link.start_http() {
            self.fail(&format!("{error:?}"));
        }
        let Some(http) = self.link.http.as_mut() else { return };
        if self.stream.is_some() || http.peer_settings_raw().is_none() {
            return;
        }
        if !http.extended_connect_enabled_by_peer() || !http.dgram_enabled_by_peer(&self.link.quic) {
            self.outcome = Some(("refused: SETTINGS without extended CONNECT or H3_DATAGRAM".to_string(), REFUSED));
            return;
        }
        let protocol = if matches!(self.inside, Inside::Udp { .. }) { "connect-udp" } else { "connect-ip" };
        let mut fields = vec![
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":authority", &self.request.authority),
            (":path", &self.request.path),
            ("capsule-protocol", "?1"),
        ];
        fields.extend(self.request.authorization.as_ref().map(|value| ("authorization", value.as_str())));
        let headers: Vec<Header> =
            fields.iter().map(|(name, value)| Header::new(name.as_bytes(), value.as_bytes())).collect();
        match http.send_request(&mut self.link.quic, &headers, false) {
            Ok(stream) => self.stream = Some(stream),
            Err(quiche::h3::Error::StreamBlocked) => {}
            Err(error) => self.fail(&format!("{error:?}")),
        }
    }

    fn handle_events(&mut self) {
        while let Some((stream, event)) = self.link.poll() {
            if Some(stream) != self.stream {
                continue;
            }
            match event {
                Event::Headers { list, .. } => self.handle_response(stream, &list),
                Event::Data => self.handle_capsules(stream),
                Event::Finished if self.is_open => self.fail("the proxy ended the tunnel"),
                Event::Reset(code) => self.fail(&format!("the proxy reset the tunnel: 0x{code:x}")),
                _ => {}
            }
        }
    }

    fn handle_response(&mut self, stream: u64, headers: &[Header]) {
        let status = field(headers, ":status");
        match status.as_bytes().first() {
            Some(b'1') => {}
            Some(b'2') => {
                self.is_open = true;
                if matches!(self.inside, Inside::Ip { .. }) {
                    let any = |address: &str| address.parse().expect("an address");
                    let wanted = [
                        AddressEntry { request_id: 1, address: any("0.0.0.0"), prefix_length: 32 },
                        AddressEntry { request_id: 2, address: any("::"), prefix_length: 128 },
                    ];
                    let value = wire::encode_addresses(&wanted);
                    self.link.send_body(stream, &wire::encode_capsule(wire::ADDRESS_REQUEST, &value));
                } else {
                    println!(r#"{{"ready":"client"}}"#);
                }
            }
            _ => self.outcome = Some((format!("refused: {status}"), REFUSED)),
        }
    }

    fn handle_capsules(&mut self, stream: u64) {
        let data = self.link.read_body(stream);
        if !self.is_open {
            return; // the content of a refusal
        }
        self.capsules.push(&data);
        loop {
            match self.capsules.next() {
                Ok(Some((kind, value))) => self.handle_capsule(kind, &value),
                Ok(None) => return,
                Err(problem) => return self.fail(&problem),
            }
        }
    }

    fn handle_capsule(&mut self, kind: u64, value: &[u8]) {
        match (kind, &self.inside) {
            (wire::DATAGRAM, _) => {
                if let Some((0, length)) = wire::take_varint(value) {
                    self.deliver(&value[length..]);
                }
            }
            (wire::ADDRESS_ASSIGN, Inside::Ip { tun }) => {
                let Some(entries) = wire::parse_addresses(value) else { return self.fail("bad ADDRESS_ASSIGN") };
                for entry in entries.iter().filter(|entry| !entry.address.is_unspecified()) {
                    if let Err(error) = tun.add_address(entry.address, entry.prefix_length) {
                        eprintln!("{error}");
                    }
                    self.has_addresses = true;
                }
            }
            (wire::ROUTE_ADVERTISEMENT, Inside::Ip { .. }) => {
                let Some(routes) = wire::parse_routes(value) else { return self.fail("bad ROUTE_ADVERTISEMENT") };
                self.install(routes);
            }
            _ => return,
        }
        if self.has_addresses && self.has_routes {
            (self.has_addresses, self.has_routes) = (false, false);
            println!(r#"{{"ready":"client"}}"#);
        }
    }

    fn install(&mut self, routes: Vec<wire::Route>) {
        let Inside::Ip { tun } = &self.inside else { return };
        for (address, prefix_length) in routes.iter().flat_map(wire::prefixes_of) {
            if let Err(error) = tun.add_route(address, prefix_length) {
                eprintln!("{error}");
            }
        }
        self.has_routes = true;
    }

    fn handle_datagrams(&mut self) {
        while let Some((stream, payload)) = self.link.read_datagram() {
            if Some(stream) == self.stream && self.is_open {
                self.deliver(&payload);
            }
        }
    }

    fn deliver(&self, payload: &[u8]) {
        match &self.inside {
            Inside::Udp { socket, application: Some(application) } => drop(socket.send_to(payload, application)),
            Inside::Udp { .. } => {}
            Inside::Ip { tun } => tun.write(payload),
        }
    }

    fn read_inside(&mut self) {
        let Some(stream) = self.stream.filter(|_| self.is_open) else { return };
        let mut packet = [0; 65_535];
        for _ in 0..BATCH {
            if self.link.is_congested() {
                return;
            }
            let length = match &mut self.inside {
                Inside::Udp { socket, application } => match socket.recv_from(&mut packet) {
                    Ok((length, from)) => {
                        *application = Some(from);
                        length
                    }
                    Err(_) => return,
                },
                Inside::Ip { tun } => match tun.read(&mut packet) {
                    Some(length) => length,
                    None => return,
                },
            };
            self.link.send_datagram(stream, &packet[..length]);
        }
    }

    fn fail(&mut self, reason: &str) {
        self.outcome.get_or_insert((reason.to_string(), LOST));
    }
}
