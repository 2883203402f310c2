//! What MASQUE adds to HTTP/3: variable-length integers, capsules (RFC 9297 §3.2), the payloads of the CONNECT-IP
//! capsules (RFC 9484 §4.7) and paths made from templates. No I/O.

use std::net::IpAddr;

pub const DATAGRAM: u64 = 0x00;
pub const ADDRESS_ASSIGN: u64 = 0x01;
pub const ADDRESS_REQUEST: u64 = 0x02;
pub const ROUTE_ADVERTISEMENT: u64 = 0x03;

const MAX_CAPSULE_BYTES: u64 = 65_536;

/// Appends a variable-length integer in its shortest form (RFC 9000 §16).
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The integer in front of `data` and how many bytes it takes; None when `data` ends before it does.
pub fn take_varint(data: &[u8]) -> Option<(u64, usize)> {
    let length = 1usize << (data.first()? >> 6);
    let bytes = data.get(..length)?;
    let first = u64::from(bytes[0] & 0x3f);
    Some((bytes[1..].iter().fold(first, |value, byte| value << 8 | u64::from(*byte)), length))
}

pub fn encode_capsule(kind: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 16);
    put_varint(&mut out, kind);
    put_varint(&mut out, value.len() as u64);
    out.extend_from_slice(value);
    out
}

/// Takes the bytes of a request stream and gives capsules.
#[derive(Default)]
pub struct CapsuleReader {
    buffer: Vec<u8>,
}

impl CapsuleReader {
    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole capsule; Err when the peer announces one that is too long to keep.
    pub fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, String> {
        let Some((kind, kind_length)) = take_varint(&self.buffer) else { return Ok(None) };
        let Some((length, length_length)) = take_varint(&self.buffer[kind_length..]) else { return Ok(None) };
        if length > MAX_CAPSULE_BYTES {
            return Err(format!("a capsule of {length} bytes"));
        }
        let start = kind_length + length_length;
        let end = start + length as usize;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let value = self.buffer[start..end].to_vec();
        self.buffer.drain(..end);
        Ok(Some((kind, value)))
    }
}

/// One entry of ADDRESS_ASSIGN and ADDRESS_REQUEST (RFC 9484 §4.7.1 and §4.7.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddressEntry {
    pub request_id: u64,
    pub address: IpAddr,
    pub prefix_length: u8,
}

pub fn encode_addresses(entries: &[AddressEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        put_varint(&mut out, entry.request_id);
        put_address(&mut out, Some(version_of(entry.address)), entry.address);
        out.push(entry.prefix_length);
    }
    out
}

pub fn parse_addresses(mut data: &[u8]) -> Option<Vec<AddressEntry>> {
    let mut entries = Vec::new();
    while !data.is_empty() {
        let (request_id, length) = take_varint(data)?;
        data = &data[length..];
        let version = take_byte(&mut data)?;
        let address = take_address(&mut data, version)?;
        let prefix_length = take_byte(&mut data)?;
        entries.push(AddressEntry { request_id, address, prefix_length });
    }
    Some(entries)
}

/// One entry of ROUTE_ADVERTISEMENT (RFC 9484 §4.7.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route {
    pub start: IpAddr,
    pub end: IpAddr,
    pub protocol: u8,
}

pub fn encode_routes(routes: &[Route]) -> Vec<u8> {
    let mut out = Vec::new();
    for route in routes {
        put_address(&mut out, Some(version_of(route.start)), route.start);
        put_address(&mut out, None, route.end);
        out.push(route.protocol);
    }
    out
}

pub fn parse_routes(mut data: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while !data.is_empty() {
        let version = take_byte(&mut data)?;
        let start = take_address(&mut data, version)?;
        let end = take_address(&mut data, version)?;
        let protocol = take_byte(&mut data)?;
        routes.push(Route { start, end, protocol });
    }
    Some(routes)
}

/// The prefixes that cover a route's range exactly, lowest first.
pub fn prefixes_of(route: &Route) -> Vec<(IpAddr, u8)> {
    let bits: u32 = if route.start.is_ipv4() { 32 } else { 128 };
    let (mut low, high) = (to_number(route.start), to_number(route.end));
    let mut prefixes = Vec::new();
    loop {
        // The largest block that starts at `low` and does not pass `high`.
        let mut host_bits = low.trailing_zeros().min(bits);
        while host_bits > 0 && (mask(host_bits) > high - low) {
            host_bits -= 1;
        }
        prefixes.push((to_address(low, bits), (bits - host_bits) as u8));
        match low.checked_add(mask(host_bits)).and_then(|last| last.checked_add(1)) {
            Some(next) if next <= high => low = next,
            _ => return prefixes,
        }
    }
}

/// A prefix in text, as the first and last address and its length.
pub fn parse_prefix(text: &str) -> Result<(IpAddr, IpAddr, u8), String> {
    let bad = || format!("{text} is no prefix");
    let (address, length) = text.split_once('/').ok_or_else(bad)?;
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let length: u8 = length.parse().map_err(|_| bad())?;
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    let host_bits = bits.checked_sub(u32::from(length)).ok_or_else(bad)?;
    let first = to_number(address) & !mask(host_bits);
    Ok((to_address(first, bits), to_address(first | mask(host_bits), bits), length))
}

/// The address `offset` places after `first`.
pub fn nth_address(first: IpAddr, offset: u128) -> IpAddr {
    to_address(to_number(first) + offset, if first.is_ipv4() { 32 } else { 128 })
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

/// A template with its variables replaced by `values`, in order.
pub fn expand_template(template: &str, values: &[&str]) -> String {
    let mut values = values.iter();
    let expand = |segment: &str| match segment.starts_with('{') {
        true => percent_encode(values.next().copied().unwrap_or_default()),
        false => segment.to_string(),
    };
    template.split('/').map(expand).collect::<Vec<_>>().join("/")
}

fn percent_encode(text: &str) -> String {
    let keep = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if keep(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
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

pub fn version_of(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        4
    } else {
        6
    }
}

fn put_address(out: &mut Vec<u8>, version: Option<u8>, address: IpAddr) {
    out.extend(version);
    match address {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

fn take_byte(data: &mut &[u8]) -> Option<u8> {
    let (first, rest) = data.split_first()?;
    *data = rest;
    Some(*first)
}

fn take_address(data: &mut &[u8], version: u8) -> Option<IpAddr> {
    let length = match version {
        4 => 4,
        6 => 16,
        _ => return None,
    };
    let (octets, rest) = (data.get(..length)?, &data[length..]);
    *data = rest;
    address_from(octets)
}

/// The address in 4 or 16 bytes.
pub fn address_from(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn to_address(number: u128, bits: u32) -> IpAddr {
    match bits {
        32 => IpAddr::from((number as u32).to_be_bytes()),
        _ => IpAddr::from(number.to_be_bytes()),
    }
}

fn mask(host_bits: u32) -> u128 {
    if host_bits >= 128 {
        u128::MAX
    } else {
        (1 << host_bits) - 1
    }
}
