use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

/// Room for the datagrams of a burst in each direction, in bytes. Linux gives 208 KiB by default, which four streams
/// of 64 KiB fill; it caps this wish at `net.core.rmem_max` and `wmem_max`.
const BUFFER: usize = 2 << 20;

/// A UDP socket bound to `address`, with large buffers where the system grants them.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    for granted in [
        set_socket_recv_buffer_size(&socket, BUFFER),
        set_socket_send_buffer_size(&socket, BUFFER),
    ] {
        if let Err(error) = granted {
            tracing::debug!(%error, "a socket buffer keeps its default size");
        }
    }
    Ok(socket)
}
