//! Some other client of a server, as simple as can be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::watched::DEADLINE;

pub struct Client {
    pub control: TcpStream,
}

impl Client {
    /// Connects, and takes the greeting.
    pub fn of(host: &str) -> Client {
        let control = TcpStream::connect(host).unwrap();
        control.set_read_timeout(Some(DEADLINE)).unwrap();
        let client = Client { control };
        assert!(client.hear().starts_with("220"));
        client
    }

    pub fn ask(&self, command: &str) -> String {
        (&self.control).write_all(format!("{command}\r\n").as_bytes()).unwrap();
        self.hear()
    }

    pub fn hear(&self) -> String {
        let mut buffer = [0; 1024];
        let count = (&self.control).read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    /// Asks for a port and connects to it.
    pub fn connect_data(&self) -> TcpStream {
        let reply = self.ask("PASV");
        let numbers = reply.split(['(', ')']).nth(1).unwrap();
        let mut numbers = numbers.split(',').skip(4).map(|number| number.parse().unwrap());
        let port = u16::from_be_bytes([numbers.next().unwrap(), numbers.next().unwrap()]);
        let host = self.control.peer_addr().unwrap();
        TcpStream::connect(SocketAddr::new(host.ip(), port)).unwrap()
    }

    /// Begins an upload that goes on as long as what this returns lives.
    pub fn begin_upload(&self, path: &str) -> TcpStream {
        let data = self.connect_data();
        assert!(self.ask(&format!("STOR {path}")).starts_with("150"));
        data
    }

    pub fn upload(&self, path: &str, content: &str) {
        let data = self.begin_upload(path);
        (&data).write_all(content.as_bytes()).unwrap();
        drop(data);
        assert!(self.hear().starts_with("226"), "{path}");
    }
}
