//! A TUN device without packet information, set up with `ip`.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Result, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use crate::wire::address_from;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;

pub struct Tun {
    file: File,
    name: String,
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Tun {
    pub fn open(name: &str, mtu: usize) -> Result<Tun> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let mut request = [0u8; 40]; // struct ifreq
        request[..name.len().min(15)].copy_from_slice(&name.as_bytes()[..name.len().min(15)]);
        request[16..18].copy_from_slice(&(IFF_TUN | IFF_NO_PI).to_ne_bytes());
        // SAFETY: an open descriptor and a buffer of the size of struct ifreq.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, request.as_mut_ptr()) } < 0 {
            return Err(Error::last_os_error());
        }
        let tun = Tun { file, name: name.to_string() };
        tun.ip(&["link", "set", name, "up", "mtu", &mtu.to_string()])?;
        Ok(tun)
    }

    pub fn add_address(&self, address: IpAddr, prefix_length: u8) -> Result<()> {
        self.ip(&["address", "replace", &format!("{address}/{prefix_length}"), "dev", &self.name])
    }

    pub fn add_route(&self, address: IpAddr, prefix_length: u8) -> Result<()> {
        self.ip(&["route", "replace", &format!("{address}/{prefix_length}"), "dev", &self.name])
    }

    /// The next packet of the kernel; None when there is none for now.
    pub fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        (&self.file).read(buffer).ok().filter(|length| *length > 0)
    }

    /// Gives the kernel a packet; what it does not like is lost.
    pub fn write(&self, packet: &[u8]) {
        let _ = (&self.file).write(packet);
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        match Command::new("ip").args(arguments).status()?.success() {
            true => Ok(()),
            false => Err(Error::other(format!("ip {} failed", arguments.join(" ")))),
        }
    }
}

/// Source and destination of an IP packet.
pub fn packet_addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (source, destination) = match packet.first()? >> 4 {
        4 => (packet.get(12..16)?, packet.get(16..20)?),
        6 => (packet.get(8..24)?, packet.get(24..40)?),
        _ => return None,
    };
    Some((address_from(source)?, address_from(destination)?))
}
