//! What both roles need: the transport's settings, Context ID 0, and templates.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h3::quic::StreamId;

pub const H3_NO_ERROR: u32 = 0x100;

/// Bytes of the first QUIC packets; quinn probes for more. Its own default of 1200 would carry no inner QUIC.
const INITIAL_MTU: u16 = 1350;

pub fn transport() -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    transport.initial_mtu(INITIAL_MTU);
    transport.max_idle_timeout(Some(Duration::from_secs(30).try_into().expect("seconds fit")));
    Arc::new(transport)
}

/// Sends a UDP payload as an HTTP Datagram with Context ID 0 (RFC 9298 §5); what is too long is lost.
///
/// Not by way of h3-datagram 0.0.2, which computes the Quarter Stream ID and then writes zeros in its place: its
/// datagrams all claim to belong to stream 0 (against RFC 9297 §2.1).
pub fn send(connection: &quinn::Connection, stream: StreamId, payload: &[u8]) {
    let mut datagram = BytesMut::with_capacity(payload.len() + 9);
    put_varint(&mut datagram, stream.into_inner() / 4);
    datagram.put_u8(0);
    datagram.put_slice(payload);
    let _ = connection.send_datagram(datagram.freeze());
}

fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(value as u16 | 0x4000),
        0x4000..=0x3fff_ffff => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// The UDP payload of an HTTP Datagram; None when it is of another context. Context ID 0 may be written in 1 to 8 bytes.
pub fn unwrap(mut datagram: Bytes) -> Option<Bytes> {
    let length = 1usize << (*datagram.first()? >> 6);
    let context = datagram.get(..length)?;
    let is_zero = context[0] & 0x3f == 0 && context[1..].iter().all(|byte| *byte == 0);
    datagram.advance(length);
    is_zero.then_some(datagram)
}

/// The values of a template's variables in `path`, in order, percent-decoded; None when it does not match.
pub fn match_template(template: &str, path: &str) -> Option<Vec<String>> {
    let (mut patterns, mut segments) = (template.split('/'), path.split('/'));
    let mut values = Vec::new();
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return Some(values),
            (Some(pattern), Some(segment)) if pattern.starts_with('{') => values.push(percent_decode(segment)?),
            (Some(pattern), Some(segment)) if pattern == segment => {}
            _ => return None,
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            _ => byte,
        });
    }
    String::from_utf8(out).ok()
}
