//! One QUIC connection with its HTTP/3, and the few things a MASQUE endpoint does with it.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use quiche::h3::{self, Header, NameValue};

use crate::wire::{put_varint, take_varint};

/// DATAGRAM frames waiting for the congestion controller; beyond this we stop reading what would add to them.
const MAX_WAITING_DATAGRAMS: usize = 256;
const DATAGRAM_QUEUE: usize = 4096;
const H3_NO_ERROR: u64 = 0x100;

/// Both roles' transport parameters and limits.
pub fn quic_config(max_udp_payload: usize, idle_timeout_ms: u64) -> quiche::Result<quiche::Config> {
    let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
    config.set_application_protos(h3::APPLICATION_PROTOCOL)?;
    config.set_max_idle_timeout(idle_timeout_ms);
    config.set_max_recv_udp_payload_size(65_527);
    config.set_max_send_udp_payload_size(max_udp_payload);
    config.set_initial_max_data(10_000_000);
    config.set_initial_max_stream_data_bidi_local(1_000_000);
    config.set_initial_max_stream_data_bidi_remote(1_000_000);
    config.set_initial_max_stream_data_uni(1_000_000);
    config.set_initial_max_streams_bidi(100);
    config.set_initial_max_streams_uni(100);
    config.enable_dgram(true, DATAGRAM_QUEUE, DATAGRAM_QUEUE);
    config.enable_pacing(false); // we send at once, so that it must not count on us to wait
    Ok(config)
}

pub struct Link {
    pub quic: quiche::Connection,
    pub http: Option<h3::Connection>,
    unsent: HashMap<u64, Vec<u8>>,
}

impl Link {
    pub fn new(quic: quiche::Connection) -> Link {
        Link { quic, http: None, unsent: HashMap::new() }
    }

    /// Starts HTTP/3 once the handshake is done, with extended CONNECT allowed; quiche adds H3_DATAGRAM by itself.
    pub fn start_http(&mut self) -> h3::Result<()> {
        if self.http.is_none() && self.quic.is_established() {
            let mut config = h3::Config::new()?;
            config.enable_extended_connect(true);
            self.http = Some(h3::Connection::with_transport(&mut self.quic, &config)?);
        }
        Ok(())
    }

    /// The next thing that happened on a stream; None when there is nothing more for now.
    pub fn poll(&mut self) -> Option<(u64, h3::Event)> {
        match self.http.as_mut()?.poll(&mut self.quic) {
            Ok(event) => Some(event),
            Err(h3::Error::Done) => None,
            Err(error) => {
                eprintln!("HTTP/3: {error:?}");
                None
            }
        }
    }

    pub fn read_body(&mut self, stream: u64) -> Vec<u8> {
        let mut data = Vec::new();
        let mut chunk = [0; 16_384];
        while let Some(Ok(length)) = self.http.as_mut().map(|http| http.recv_body(&mut self.quic, stream, &mut chunk)) {
            data.extend_from_slice(&chunk[..length]);
        }
        data
    }

    pub fn respond(&mut self, stream: u64, status: u16, fields: &[(&str, &str)], is_end: bool) {
        let mut headers = vec![Header::new(b":status", status.to_string().as_bytes())];
        headers.extend(fields.iter().map(|(name, value)| Header::new(name.as_bytes(), value.as_bytes())));
        if let Some(http) = self.http.as_mut() {
            if let Err(error) = http.send_response(&mut self.quic, stream, &headers, is_end) {
                eprintln!("response on stream {stream}: {error:?}");
            }
        }
    }

    /// Sends bytes on a request stream, as soon as flow control lets them go.
    pub fn send_body(&mut self, stream: u64, data: &[u8]) {
        self.unsent.entry(stream).or_default().extend_from_slice(data);
        self.send_unsent();
    }

    pub fn send_unsent(&mut self) {
        let Some(http) = self.http.as_mut() else { return };
        for (stream, data) in &mut self.unsent {
            while !data.is_empty() {
                match http.send_body(&mut self.quic, *stream, data, false) {
                    Ok(length) => drop(data.drain(..length)),
                    Err(h3::Error::Done | h3::Error::StreamBlocked) => break,
                    Err(_) => data.clear(),
                }
            }
        }
        self.unsent.retain(|_, data| !data.is_empty());
    }

    /// Ends our side of a request stream, and reading its other side.
    pub fn end_stream(&mut self, stream: u64) {
        self.unsent.remove(&stream);
        if let Some(http) = self.http.as_mut() {
            let _ = http.send_body(&mut self.quic, stream, b"", true);
        }
        let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Read, H3_NO_ERROR);
    }

    /// Sends an HTTP Datagram with Context ID 0 (RFC 9297 §2.1); false when it is too long or there is no room.
    pub fn send_datagram(&mut self, stream: u64, payload: &[u8]) -> bool {
        let mut frame = Vec::with_capacity(payload.len() + 9);
        put_varint(&mut frame, stream / 4);
        frame.push(0);
        frame.extend_from_slice(payload);
        self.quic.dgram_send(&frame).is_ok()
    }

    /// The next HTTP Datagram with Context ID 0: its stream and its payload. Others are dropped.
    pub fn read_datagram(&mut self) -> Option<(u64, Vec<u8>)> {
        loop {
            let frame = self.quic.dgram_recv_buf().ok()?;
            let data: &[u8] = frame.as_ref();
            let Some((quarter, length)) = take_varint(data) else { continue };
            if let Some((0, context_length)) = take_varint(&data[length..]) {
                return Some((quarter * 4, data[length + context_length..].to_vec()));
            }
        }
    }

    pub fn is_congested(&self) -> bool {
        self.quic.dgram_send_queue_len() >= MAX_WAITING_DATAGRAMS
    }

    /// Sends what QUIC wants to send.
    pub fn flush(&mut self, socket: &UdpSocket) {
        let mut packet = [0; 65_535];
        while let Ok((length, info)) = self.quic.send(&mut packet) {
            while let Err(error) = socket.send_to(&packet[..length], info.to) {
                if error.kind() != ErrorKind::WouldBlock {
                    break; // lost, as any packet may be
                }
                wait(&mut [poll_for(socket, libc::POLLOUT)], 100);
            }
        }
    }

    /// Says goodbye without a fault (RFC 9114 §8.1).
    pub fn close(&mut self, socket: &UdpSocket) {
        let _ = self.quic.close(true, H3_NO_ERROR, b"");
        self.flush(socket);
    }
}

/// The value of a header or pseudo-header field, "" when it is not there.
pub fn field(headers: &[Header], name: &str) -> String {
    let found = headers.iter().find(|header| header.name() == name.as_bytes());
    found.map(|header| String::from_utf8_lossy(header.value()).into_owned()).unwrap_or_default()
}

/// A Connection ID nobody can guess.
pub fn new_connection_id() -> quiche::ConnectionId<'static> {
    let mut bytes = vec![0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).expect("randomness");
    quiche::ConnectionId::from_vec(bytes)
}

pub fn poll_for(source: &impl AsRawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: source.as_raw_fd(), events, revents: 0 }
}

/// poll(2): until one of `sources` is ready, the time is over or a signal came.
pub fn wait(sources: &mut [libc::pollfd], timeout_ms: i32) {
    // SAFETY: a valid slice and its own length.
    unsafe { libc::poll(sources.as_mut_ptr(), sources.len() as libc::nfds_t, timeout_ms) };
}
