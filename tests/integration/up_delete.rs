//! `--up-delete`: the local file goes only after every host has exactly what it holds.

use crate::support::{Act, Autoftp, Project, Scripted};

/// Runs with `--up-delete '*.mpy'`.
fn watch(project: &Project, hosts: &[&Scripted]) -> Autoftp {
    let hosts: Vec<String> = hosts.iter().map(|server| server.host()).collect();
    let mut args = vec!["-p", "*.py,*.mpy", "--up-delete", "*.mpy"];
    args.extend(hosts.iter().map(String::as_str));
    project.watch(&args)
}

#[test]
fn an_uploaded_file_that_matches_is_deleted_here() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = watch(&project, &[&server]);
    project.write("a.mpy", "a");
    project.write("a.py", "a");
    server.wait_stored("a.mpy", "a");
    server.wait_stored("a.py", "a");
    project.wait_gone("a.mpy");
    run.stop();
    assert!(project.has("a.py"));
    assert_eq!(server.commands("DELE"), [""; 0]);
}

#[test]
fn a_file_made_again_with_the_same_bytes_is_deleted_again() {
    // A compiler's output is often the same as before, and must not pile up for that.
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = watch(&project, &[&server]);
    for _ in 0..3 {
        project.write("a.mpy", "same");
        project.wait_gone("a.mpy");
    }
    run.stop();
}

#[test]
fn a_refused_file_stays() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR a.mpy", Act::Reply("550 No"));
    let mut run = watch(&project, &[&server]);
    project.write("a.mpy", "a");
    run.wait_for_error("a.mpy");
    run.interrupt_and_wait();
    assert!(project.has("a.mpy"));
}

#[test]
fn a_file_changed_during_its_upload_stays_until_the_change_is_sent() {
    let (project, server) = (Project::new(), Scripted::start());
    server.times(1, "STOR", Act::Hold);
    let mut run = watch(&project, &[&server]);
    project.write("a.mpy", "one");
    server.wait_stored("a.mpy", "one");
    project.write("a.mpy", "two");
    // Were the first 226 enough, "two" would be deleted unsent.
    server.release();
    server.wait_stored("a.mpy", "two");
    project.wait_gone("a.mpy");
    run.stop();
}

#[test]
fn a_file_stays_until_all_hosts_have_it() {
    let (project, server, mut late) = (Project::new(), Scripted::start(), Scripted::start());
    late.stop();
    let mut run = watch(&project, &[&server, &late]);
    project.write("a.mpy", "a");
    server.wait_stored("a.mpy", "a");
    project.write("marker.py", "a later file");
    server.wait_stored("marker.py", "a later file");
    assert!(project.has("a.mpy"));
    late.restart();
    late.wait_stored("a.mpy", "a");
    late.wait_stored("marker.py", "a later file");
    project.wait_gone("a.mpy");
    run.stop();
}

#[cfg(unix)]
#[test]
fn a_symlink_is_never_deleted() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = watch(&project, &[&server]);
    project.write("real.txt", "real");
    std::os::unix::fs::symlink("real.txt", project.path("link.mpy")).unwrap();
    project.write("marker.py", "a later file");
    server.wait_stored("marker.py", "a later file");
    run.stop();
    assert!(project.has("link.mpy") && project.has("real.txt"));
}
