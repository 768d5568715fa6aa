//! How names beyond ASCII are written on the wire.

use crate::support::{Act, Project, Scripted};

#[test]
fn utf8_is_agreed_on_where_it_is_offered_and_needed() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("FEAT", Act::Reply("211-Features:\r\n SIZE\r\n UTF8\r\n211 End"));
    server.on("OPTS", Act::Reply("200 OK"));
    let mut run = project.watch(&[&server.host()]);
    project.write("plain.py", "1");
    server.wait_stored("plain.py", "1");
    assert_eq!(server.commands("FEAT"), [""; 0], "a name in ASCII needs nothing");
    for (name, content) in [("é.py", "2"), ("日本.py", "3")] {
        project.write(name, content);
        server.wait_stored(name, content);
    }
    run.stop();
    assert_eq!(server.commands("FEAT").len(), 1);
    assert_eq!(server.commands("OPTS"), ["OPTS UTF8 ON"]);
}

#[test]
fn utf8_is_not_asked_for_where_it_is_not_offered() {
    for features in ["502 Not implemented", "211 no-features", "211-Features:\r\n SIZE\r\n211 End"]
    {
        let (project, server) = (Project::new(), Scripted::start());
        server.on("FEAT", Act::Reply(features));
        let mut run = project.watch(&[&server.host()]);
        project.write("é.py", "1");
        server.wait_stored("é.py", "1");
        run.stop();
        assert_eq!(server.commands("OPTS"), [""; 0], "{features}");
    }
}

#[test]
fn boards_are_not_asked_for_features() {
    for greeting in ["220 Hello, this is the linux.", "220 FTPdLite (MicroPython)"] {
        let (project, server) = (Project::new(), Scripted::start());
        server.on("greeting", Act::Say(greeting));
        let mut run = project.watch(&[&server.host()]);
        project.write("é.py", "1");
        server.wait_stored("é.py", "1");
        run.stop();
        assert_eq!(server.commands("FEAT"), [""; 0], "{greeting}");
    }
}

#[test]
fn latin1_where_it_is_asked_for() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.run(&["--encoding=latin1", &server.host()]);
    run.wait_for("watching");
    project.write("é.py", "1");
    // One byte, which alone is no UTF-8.
    server.wait_stored("\u{fffd}.py", "1");
    project.write("€.py", "2");
    let error = run.wait_for_error("€.py").text;
    assert!(error.contains("latin1"), "{error}");
    project.write("b.py", "3");
    server.wait_stored("b.py", "3");
    assert_eq!(run.interrupt_and_wait(), 1, "one file was not delivered");
    assert_eq!(server.sessions(), 1, "a name that cannot be written ends no session");
}

#[test]
fn a_blank_at_the_end_is_kept_where_the_server_keeps_it() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&[&server.host(), "-p", "*"]);
    for (name, content) in [("a", "1"), ("a ", "22"), ("b ", "3"), ("b", "44"), ("a ", "555")] {
        project.write(name, content);
        server.wait_stored(name, content);
    }
    run.stop();
    assert_eq!(run.stderr(), "");
    assert_eq!(server.files().len(), 4);
}

#[test]
fn a_blank_at_the_end_that_the_server_drops_overwrites_nothing() {
    let (project, server) = (Project::new(), Scripted::start());
    server.put("a", "mine");
    // What a server does that reads both names as one.
    server.on("SIZE a ", Act::Reply("213 4"));
    let mut run = project.watch(&[&server.host(), "-p", "*"]);
    project.write("a ", "other");
    let error = run.wait_for_error("a ").text;
    assert!(error.contains("blank"), "{error}");
    assert_eq!(run.interrupt_and_wait(), 1);
    assert_eq!(server.files(), [("a".to_owned(), "mine".to_owned())]);
}
