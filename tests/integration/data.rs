//! Data connections: who makes them, and what becomes of those that do not come about.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{Act, Dialect, Project, Scripted, side_by_side};

/// Servers on both of this computer's addresses; there is not everywhere one of the second kind.
fn on_both() -> Vec<Scripted> {
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(TcpListener::bind);
    let start = |listener| Scripted::listen(listener, Dialect::PLAIN);
    listeners.into_iter().flatten().map(start).collect()
}

fn is_v6(server: &Scripted) -> bool {
    server.host().parse::<SocketAddr>().unwrap().is_ipv6()
}

#[test]
fn the_server_connects_where_it_is_told_to() {
    side_by_side(on_both(), |server| {
        let project = Project::new();
        let mut run = project.watch(&["--active", &server.host()]);
        for path in ["a.py", "lib/b.py"] {
            project.write(path, path);
            server.wait_stored(path, path);
        }
        run.stop();
        let command = if is_v6(&server) { "EPRT |2|::1|" } else { "PORT 127,0,0,1," };
        assert!(!server.commands(command).is_empty(), "{:?}", server.commands(""));
        assert_eq!(server.commands("PASV").len() + server.commands("EPSV").len(), 0);
    });
}

/// Whoever else comes to the port that was opened for the server would get the file.
#[test]
#[cfg(target_os = "linux")]
fn nobody_but_the_server_gets_the_file() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("PORT", Act::Hold);
    let mut run = project.watch(&["--active", &server.host()]);
    project.write("a.py", "a secret");
    server.wait_commands(1, "PORT");
    let command = server.commands("PORT").remove(0);
    let numbers: Vec<u16> = command[5..].split(',').map(|number| number.parse().unwrap()).collect();
    let port = numbers[4] << 8 | numbers[5];
    // Before the server does.
    let mut stranger = connect_from(Ipv4Addr::new(127, 0, 0, 2), port);
    server.release();
    server.wait_stored("a.py", "a secret");
    let mut seen = Vec::new();
    // A reset is as good an end as any.
    let _ = stranger.read_to_end(&mut seen);
    assert_eq!(seen, b"");
    run.stop();
}

#[cfg(target_os = "linux")]
fn connect_from(address: Ipv4Addr, port: u16) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let address_of = |address: Ipv4Addr, port| SocketAddr::from((IpAddr::V4(address), port)).into();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&address_of(address, 0)).unwrap();
    socket.connect(&address_of(Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.into()
}

#[test]
fn a_server_that_does_not_connect_is_not_waited_for() {
    side_by_side([Act::Silence, Act::Reply("150 Go on")], |act| {
        let (project, server) = (Project::new(), Scripted::start());
        server.times(1, "STOR", act);
        let mut run = project.watch(&["--active", "--timeout", "1", &server.host()]);
        project.write("a.py", "a");
        server.wait_commands(1, "STOR");
        let begun = Instant::now();
        let error = run.wait_for_error("it did not connect to this computer");
        assert!(begun.elapsed() < Duration::from_secs(3), "{act:?}: {:?}", begun.elapsed());
        assert!(error.text.contains("leave out --active if there is a firewall"), "{}", error.text);
        server.wait_stored("a.py", "a");
        run.stop();
    });
}

/// What is refused at once is not waited for.
#[test]
fn a_server_that_cannot_connect_says_so_itself() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "STOR", Act::Reply("425 No way to there"));
    let mut run = project.watch(&["--active", &server.host()]);
    project.write("a.py", "a");
    run.wait_for_error("425 No way to there (can it connect to this computer?");
    server.wait_stored("a.py", "a");
    run.stop();
}

#[test]
fn a_server_without_active_mode_is_told_of() {
    for server in on_both() {
        let project = Project::new();
        for command in ["PORT", "EPRT"] {
            server.on(command, Act::Reply("502 Not implemented"));
        }
        let mut run = project.watch(&["--active", &server.host()]);
        project.write("a.py", "a");
        run.wait_for_error("502 Not implemented: leave out --active");
        run.interrupt_and_wait();
    }
}

#[test]
fn where_pasv_is_not_known_epsv_is_used() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("PASV", Act::Reply("502 Not implemented"));
    let mut run = project.watch(&[&server.host()]);
    for path in ["a.py", "b.py"] {
        project.write(path, path);
        server.wait_stored(path, path);
    }
    run.stop();
    assert_eq!(run.stderr(), "", "there is nothing to complain of");
    assert_eq!(server.commands("PASV").len(), 1, "once is enough to know it");
}

#[test]
fn a_server_without_passive_mode_is_told_of() {
    for server in on_both() {
        let project = Project::new();
        for command in ["PASV", "EPSV"] {
            server.on(command, Act::Reply("502 Not implemented"));
        }
        let mut run = project.watch(&[&server.host()]);
        project.write("a.py", "a");
        run.wait_for_error("it has no passive mode: 502 Not implemented: try --active");
        run.interrupt_and_wait();
    }
}
