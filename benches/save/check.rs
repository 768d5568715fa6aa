//! Whether the relay is as far away as it is said to be: exchanges whose round trips are known.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::relay::Relay;
use crate::support::Server;
use crate::tables::Table;

const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Each exchange with the round trips that it took and should have taken.
pub fn exchanges() -> io::Result<Table> {
    let remote = TempDir::new()?;
    let server = Server::start(remote.path());
    let relay = Relay::start(server.host().parse().map_err(io::Error::other)?)?;
    relay.set_round_trip(ROUND_TRIP);
    let mut table = Table::new(&["raw exchange", "round trips", "by the book"]);
    let mut add = |name: &str, begun: Instant, expected: u32| {
        let took = begun.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64();
        table.row([name.to_owned(), format!("{took:.2}"), expected.to_string()]);
    };
    let begun = Instant::now();
    let mut session = Session::open(&relay)?;
    add("connect, greeting", begun, 2);
    session.ask("USER x")?;
    session.ask("PASS x")?;
    let begun = Instant::now();
    session.ask("NOOP")?;
    add("NOOP", begun, 1);
    let begun = Instant::now();
    let data = session.open_data()?;
    session.ask("STOR a")?;
    session.finish(&data, 1)?;
    add("PASV, connect, STOR, data", begun, 4);
    let begun = Instant::now();
    let data = session.open_data()?;
    session.say("STOR a")?;
    session.finish(&data, 2)?;
    add("PASV, connect, STOR with data", begun, 3);
    let data = session.open_data()?;
    // One round trip for the handshake.
    session.ask("NOOP")?;
    let begun = Instant::now();
    session.say("STOR a")?;
    session.finish(&data, 2)?;
    add("STOR with data, connected before", begun, 1);
    Ok(table)
}

struct Session(BufReader<TcpStream>);

impl Session {
    fn open(relay: &Relay) -> io::Result<Session> {
        let control = TcpStream::connect(relay.address())?;
        control.set_nodelay(true)?;
        let mut session = Session(BufReader::new(control));
        session.reply()?;
        Ok(session)
    }

    fn say(&self, line: &str) -> io::Result<()> {
        self.0.get_ref().write_all(format!("{line}\r\n").as_bytes())
    }

    fn reply(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.say(line)?;
        self.reply()
    }

    fn open_data(&mut self) -> io::Result<TcpStream> {
        let reply = self.ask("EPSV")?;
        let port = reply.split('|').nth(3).and_then(|port| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| io::Error::other(reply))?;
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
    }

    /// Sends a file, and hears what the server still has to say.
    fn finish(&mut self, mut data: &TcpStream, replies: usize) -> io::Result<()> {
        data.write_all(b"short")?;
        data.shutdown(Shutdown::Write)?;
        for _ in 0..replies {
            self.reply()?;
        }
        Ok(())
    }
}
