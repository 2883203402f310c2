//! The proxy: CONNECT-UDP (RFC 9298) to sockets, CONNECT-IP (RFC 9484) to a TUN device.
//!
//! Unlike other proxies it assigns addresses only when it is asked to, answers the first Initial with a Retry when told
//! so, and says of everything it refuses why.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use quiche::h3::{Event, Header};

use crate::link::{field, new_connection_id, poll_for, wait, Link};
use crate::tun::{packet_addresses, Tun};
use crate::wire::{self, AddressEntry, CapsuleReader, Route};

const CONNECTION_ID_BYTES: usize = 16;
const RETRY_MARK: &[u8] = b"quiche-peer";
const BATCH: usize = 64;

pub struct Settings {
    pub certificate: String,
    pub key: String,
    pub udp_path: String,
    pub ip_path: String,
    pub authorization: Option<String>,
    pub pools: Vec<Pool>,
    pub routes: Vec<Route>,
    pub tun: Option<Tun>,
    pub max_udp_payload: usize,
    pub idle_timeout_ms: u64,
    pub retry: bool,
}

/// Addresses for clients; the first two of the prefix are never given.
pub struct Pool {
    first: IpAddr,
    last: IpAddr,
    used: Vec<IpAddr>,
}

impl Pool {
    pub fn new(first: IpAddr, last: IpAddr) -> Pool {
        Pool { first, last, used: Vec::new() }
    }

    fn take(&mut self, wanted: IpAddr) -> Option<IpAddr> {
        let is_free = |used: &Vec<IpAddr>, address| !used.contains(&address) && address <= self.last;
        let lowest = wire::nth_address(self.first, 2);
        let chosen = if wanted >= lowest && is_free(&self.used, wanted) {
            wanted
        } else {
            (2..).map(|offset| wire::nth_address(self.first, offset)).find(|address| !self.used.contains(address))?
        };
        is_free(&self.used, chosen).then(|| self.used.push(chosen))?;
        Some(chosen)
    }
}

enum Session {
    Udp(CapsuleReader, UdpSocket),
    Ip(CapsuleReader, Vec<AddressEntry>),
}

struct Client {
    link: Link,
    sessions: HashMap<u64, Session>,
}

type Key = Vec<u8>;

pub struct Proxy {
    settings: Settings,
    socket: UdpSocket,
    config: quiche::Config,
    clients: HashMap<Key, Client>,
    first_ids: HashMap<Key, Key>,
    owners: HashMap<IpAddr, (Key, u64)>,
}

impl Proxy {
    pub fn new(settings: Settings, listen: &str) -> Result<Proxy, Box<dyn std::error::Error>> {
        let socket = UdpSocket::bind(listen)?;
        socket.set_nonblocking(true)?;
        let mut config = crate::link::quic_config(settings.max_udp_payload, settings.idle_timeout_ms)?;
        config.load_cert_chain_from_pem_file(&settings.certificate)?;
        config.load_priv_key_from_pem_file(&settings.key)?;
        let (clients, first_ids, owners) = (HashMap::new(), HashMap::new(), HashMap::new());
        Ok(Proxy { settings, socket, config, clients, first_ids, owners })
    }

    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `is_stopped` says so, then tells the clients.
    pub fn run(&mut self, is_stopped: impl Fn() -> bool) {
        while !is_stopped() {
            self.sleep();
            self.read_quic();
            self.read_tun();
            for key in self.clients.keys().cloned().collect::<Vec<_>>() {
                self.serve(&key);
            }
            self.forget_closed();
        }
        for client in self.clients.values_mut() {
            client.link.close(&self.socket);
        }
    }

    fn sleep(&self) {
        let timeouts = self.clients.values().filter_map(|client| client.link.quic.timeout());
        let timeout = timeouts.min().unwrap_or(Duration::from_millis(200)).min(Duration::from_millis(200));
        let mut sources = vec![poll_for(&self.socket, libc::POLLIN)];
        if !self.clients.values().any(|client| client.link.is_congested()) {
            sources.extend(self.settings.tun.iter().map(|tun| poll_for(tun, libc::POLLIN)));
        }
        for client in self.clients.values().filter(|client| !client.link.is_congested()) {
            for session in client.sessions.values() {
                if let Session::Udp(_, socket) = session {
                    sources.push(poll_for(socket, libc::POLLIN));
                }
            }
        }
        wait(&mut sources, timeout.as_micros().div_ceil(1000) as i32);
    }

    fn read_quic(&mut self) {
        let mut packet = [0; 65_535];
        for _ in 0..BATCH {
            let Ok((length, from)) = self.socket.recv_from(&mut packet) else { return };
            let Ok(to) = self.socket.local_addr() else { return };
            if let Some(key) = self.find_client(&mut packet[..length], from, to) {
                if let Some(client) = self.clients.get_mut(&key) {
                    if let Err(error) = client.link.quic.recv(&mut packet[..length], quiche::RecvInfo { from, to }) {
                        eprintln!("QUIC packet from {from}: {error:?}");
                    }
                }
            }
        }
    }

    /// Whose packet this is; a new client's first one makes a connection, or is answered with a Retry.
    fn find_client(&mut self, packet: &mut [u8], from: SocketAddr, to: SocketAddr) -> Option<Key> {
        let header = quiche::Header::from_slice(packet, CONNECTION_ID_BYTES).ok()?;
        let id = header.dcid.to_vec();
        if self.clients.contains_key(&id) {
            return Some(id);
        }
        if let Some(key) = self.first_ids.get(&id) {
            return Some(key.clone());
        }
        let mut answer = [0; 1500];
        if header.ty != quiche::Type::Initial {
            return None;
        }
        if !quiche::version_is_supported(header.version) {
            let length = quiche::negotiate_version(&header.scid, &header.dcid, &mut answer).ok()?;
            let _ = self.socket.send_to(&answer[..length], from);
            return None;
        }
        let token = header.token.as_deref().unwrap_or_default();
        let ours = new_connection_id();
        let connection = match (self.settings.retry, token.strip_prefix(RETRY_MARK)) {
            (true, None) => {
                let token = [RETRY_MARK, &header.dcid].concat(); // a test's: says nothing of who may use it
                let version = header.version;
                let length = quiche::retry(&header.scid, &header.dcid, &ours, &token, version, &mut answer).ok()?;
                let _ = self.socket.send_to(&answer[..length], from);
                return None;
            }
            (true, Some(original)) => {
                let original = quiche::ConnectionId::from_ref(original);
                quiche::accept(&header.dcid, Some(&original), to, from, &mut self.config)
            }
            (false, _) => quiche::accept(&ours, None, to, from, &mut self.config),
        };
        let key = if self.settings.retry { id.clone() } else { ours.to_vec() };
        let client = Client { link: Link::new(connection.ok()?), sessions: HashMap::new() };
        self.clients.insert(key.clone(), client);
        self.first_ids.insert(id, key.clone());
        Some(key)
    }

    fn read_tun(&mut self) {
        let Some(tun) = &self.settings.tun else { return };
        let mut packet = [0; 65_535];
        for _ in 0..BATCH {
            if self.clients.values().any(|client| client.link.is_congested()) {
                return;
            }
            let Some(length) = tun.read(&mut packet) else { return };
            let Some((_, destination)) = packet_addresses(&packet[..length]) else { continue };
            let Some((key, stream)) = self.owners.get(&destination) else { continue };
            if let Some(client) = self.clients.get_mut(key) {
                if !client.link.send_datagram(*stream, &packet[..length]) {
                    eprintln!("a packet of {length} bytes for {destination} does not fit");
                }
            }
        }
    }

    fn serve(&mut self, key: &Key) {
        let Some(mut client) = self.clients.remove(key) else { return };
        if client.link.quic.timeout() == Some(Duration::ZERO) {
            client.link.quic.on_timeout();
        }
        if let Err(error) = client.link.start_http() {
            eprintln!("HTTP/3: {error:?}");
        }
        while let Some((stream, event)) = client.link.poll() {
            match event {
                Event::Headers { list, .. } => self.answer(&mut client, key, stream, &list),
                Event::Data => self.read_capsules(&mut client, key, stream),
                Event::Finished | Event::Reset(_) => self.end(&mut client, stream),
                Event::PriorityUpdate | Event::GoAway => {}
            }
        }
        while let Some((stream, payload)) = client.link.read_datagram() {
            self.forward(&client, stream, &payload);
        }
        self.read_targets(&mut client);
        client.link.send_unsent();
        client.link.flush(&self.socket);
        self.clients.insert(key.clone(), client);
    }

    fn answer(&mut self, client: &mut Client, key: &Key, stream: u64, headers: &[Header]) {
        let refuse =
            |client: &mut Client, status, fields: &[(&str, &str)]| client.link.respond(stream, status, fields, true);
        let (method, protocol, path) =
            (field(headers, ":method"), field(headers, ":protocol"), field(headers, ":path"));
        if client.sessions.contains_key(&stream) || (method == "CONNECT" && protocol.is_empty()) {
            return refuse(client, 400, &[]);
        }
        if self.settings.authorization.as_ref().is_some_and(|wanted| *wanted != field(headers, "authorization")) {
            return refuse(client, 401, &[("www-authenticate", "Bearer, Basic realm=\"quiche-peer\"")]);
        }
        let opened = match protocol.as_str() {
            "connect-udp" => wire::match_template(&self.settings.udp_path, &path).ok_or(404).and_then(open_target),
            "connect-ip" if self.settings.tun.is_none() => Err(404),
            "connect-ip" => match wire::match_template(&self.settings.ip_path, &path) {
                Some(_) => Ok(Session::Ip(CapsuleReader::default(), Vec::new())),
                None => Err(404),
            },
            "" => Err(404),
            _ => Err(501),
        };
        match opened {
            Ok(session) => {
                client.link.respond(stream, 200, &[("capsule-protocol", "?1")], false);
                if matches!(session, Session::Ip(..)) {
                    let routes = wire::encode_routes(&self.settings.routes);
                    client.link.send_body(stream, &wire::encode_capsule(wire::ROUTE_ADVERTISEMENT, &routes));
                }
                client.sessions.insert(stream, session);
                self.read_capsules(client, key, stream);
            }
            Err(502) => refuse(client, 502, &[("proxy-status", "quiche-peer; error=dns_error")]),
            Err(status) => refuse(client, status, &[]),
        }
    }

    fn read_capsules(&mut self, client: &mut Client, key: &Key, stream: u64) {
        let data = client.link.read_body(stream);
        let Some(mut session) = client.sessions.remove(&stream) else { return };
        let (Session::Udp(reader, _) | Session::Ip(reader, _)) = &mut session;
        reader.push(&data);
        let mut capsules = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(capsule)) => capsules.push(capsule),
                Ok(None) => break,
                Err(problem) => {
                    eprintln!("stream {stream}: {problem}");
                    self.release(&session);
                    return client.link.end_stream(stream);
                }
            }
        }
        client.sessions.insert(stream, session);
        for (kind, value) in capsules {
            match kind {
                wire::DATAGRAM => {
                    if let Some((0, length)) = wire::take_varint(&value) {
                        self.forward(client, stream, &value[length..]);
                    }
                }
                wire::ADDRESS_REQUEST => self.assign(client, key, stream, &value),
                _ => {} // RFC 9297 §3.2: unknown ones are skipped; what clients assign and advertise we do not use
            }
        }
    }

    /// Answers an ADDRESS_REQUEST with everything that is assigned now (RFC 9484 §4.7.2).
    fn assign(&mut self, client: &mut Client, key: &Key, stream: u64, value: &[u8]) {
        let Some(Session::Ip(_, assigned)) = client.sessions.get_mut(&stream) else { return };
        let mut refused = Vec::new();
        for wanted in wire::parse_addresses(value).unwrap_or_default() {
            let full_length = if wanted.address.is_ipv4() { 32 } else { 128 };
            let pool = self.settings.pools.iter_mut().find(|pool| pool.first.is_ipv4() == wanted.address.is_ipv4());
            match pool.and_then(|pool| pool.take(wanted.address)) {
                Some(address) => {
                    self.owners.insert(address, (key.clone(), stream));
                    assigned.push(AddressEntry { address, prefix_length: full_length, ..wanted });
                }
                None => {
                    let address = wire::address_from(&vec![0; usize::from(full_length) / 8]).expect("4 or 16 bytes");
                    refused.push(AddressEntry { address, prefix_length: full_length, ..wanted });
                }
            }
        }
        let entries = [assigned.as_slice(), &refused].concat();
        let capsule = wire::encode_capsule(wire::ADDRESS_ASSIGN, &wire::encode_addresses(&entries));
        client.link.send_body(stream, &capsule);
    }

    /// Passes a payload on: to the target, or to the kernel if its source address is the client's.
    fn forward(&self, client: &Client, stream: u64, payload: &[u8]) {
        match client.sessions.get(&stream) {
            Some(Session::Udp(_, socket)) => drop(socket.send(payload)),
            Some(Session::Ip(_, assigned)) => {
                let source = packet_addresses(payload).map(|(source, _)| source);
                match &self.settings.tun {
                    Some(tun) if assigned.iter().any(|entry| Some(entry.address) == source) => tun.write(payload),
                    _ => {}
                }
            }
            None => {}
        }
    }

    fn read_targets(&self, client: &mut Client) {
        let Client { link, sessions } = client;
        let mut datagram = [0; 65_535];
        for (stream, session) in sessions.iter() {
            let Session::Udp(_, socket) = session else { continue };
            for _ in 0..BATCH {
                if link.is_congested() {
                    return;
                }
                let Ok(length) = socket.recv(&mut datagram) else { break };
                link.send_datagram(*stream, &datagram[..length]);
            }
        }
    }

    fn end(&mut self, client: &mut Client, stream: u64) {
        if let Some(session) = client.sessions.remove(&stream) {
            self.release(&session);
            client.link.end_stream(stream);
        }
    }

    fn release(&mut self, session: &Session) {
        let Session::Ip(_, assigned) = session else { return };
        for entry in assigned {
            self.owners.remove(&entry.address);
            self.settings.pools.iter_mut().for_each(|pool| pool.used.retain(|address| *address != entry.address));
        }
    }

    fn forget_closed(&mut self) {
        let is_closed = |client: &Client| client.link.quic.is_closed();
        let closed: Vec<Key> =
            self.clients.iter().filter(|(_, it)| is_closed(it)).map(|(key, _)| key.clone()).collect();
        for key in closed {
            for session in self.clients.remove(&key).into_iter().flat_map(|client| client.sessions.into_values()) {
                self.release(&session);
            }
            self.first_ids.retain(|_, owner| *owner != key);
        }
    }
}

/// A socket connected to the target a request names, or the status to refuse it with.
fn open_target(values: Vec<String>) -> Result<Session, u16> {
    let [host, port] = values.as_slice() else { return Err(404) };
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or(400u16)?;
    let target = (host.as_str(), port).to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or(502u16)?;
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).map_err(|_| 500u16)?;
    let is_ready = socket.connect(target).is_ok() && socket.set_nonblocking(true).is_ok();
    is_ready.then(|| Session::Udp(CapsuleReader::default(), socket)).ok_or(500)
}
