//! Where boards find us.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Result, anyhow};
use socket2::{Domain, Socket, Type};

/// As many may wait to be let in.
const BACKLOG: i32 = 1024;

/// Takes an address.
///
/// # Errors
/// Says why it cannot be had, and what to do.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    let take = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Elsewhere it would let another program take the address, too.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // As it is by default nearly everywhere.
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    take().map_err(|error: std::io::Error| {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => {
                let other = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
                format!(" (end what listens there, or try --serve {other})")
            }
            ErrorKind::AddrNotAvailable => {
                " (it is none of this computer's; a HOST to send to comes before --serve)"
                    .to_owned()
            }
            ErrorKind::PermissionDenied => " (try a port above 1023)".to_owned(),
            _ => String::new(),
        };
        anyhow!("cannot serve at {address}: {error}{remedy}")
    })
}

/// What to put on the board, for each of this computer's addresses that it may be in reach of.
pub fn urls(address: SocketAddr, token: Option<&str>) -> Vec<String> {
    let token = token.map_or_else(String::new, |token| format!("/{token}"));
    let url = |ip: IpAddr| format!("http://{}{token}", SocketAddr::new(ip, address.port()));
    if !address.ip().is_unspecified() {
        return vec![url(address.ip())];
    }
    let mut ips: Vec<IpAddr> = (if_addrs::get_if_addrs().unwrap_or_default().into_iter())
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| interface.ip())
        .filter(|ip| ip.is_ipv4() || address.is_ipv6())
        .collect();
    // The ones that boards know come first.
    ips.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    if ips.is_empty() {
        ips.push(address.ip());
    }
    ips.into_iter().map(url).collect()
}
