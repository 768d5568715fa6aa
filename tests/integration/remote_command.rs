//! `SITE` after an upload.

use crate::support::{Act, Project, Scripted};

/// Saves the files one after the other, drains, and says which SITE commands the server heard.
fn sites(args: &[&str], paths: &[&str]) -> Vec<String> {
    sites_with("", args, paths)
}

fn sites_with(settings: &str, args: &[&str], paths: &[&str]) -> Vec<String> {
    let (project, server) = (Project::new(), Scripted::start());
    project.write(".autoftp", settings);
    let host = server.host();
    let mut run = project.watch(&[args, &[host.as_str()]].concat());
    for path in paths {
        project.write(path, *path);
        server.wait_stored(path, path);
    }
    run.stop();
    server.commands("SITE")
}

#[test]
fn it_follows_each_upload() {
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-r", "reload()", &server.host()]);
    project.write("a.py", "a");
    server.wait_commands(1, "SITE");
    project.write("b.py", "b");
    server.wait_commands(2, "SITE");
    run.stop();
    assert_eq!(server.commands("SITE"), ["SITE reload()", "SITE reload()"]);
    let commands = server.commands("S");
    let order: Vec<_> = commands
        .iter()
        .filter(|line| line.starts_with("STOR") || line.starts_with("SITE"))
        .collect();
    assert_eq!(order, ["STOR a.py", "SITE reload()", "STOR b.py", "SITE reload()"]);
}

#[test]
fn percent_percent_f_is_the_base_name_up_to_its_first_dot_everywhere() {
    assert_eq!(
        sites(&["-r", "reload('%%f','%%f')"], &["main.test.py"]),
        ["SITE reload('main','main')"]
    );
}

#[test]
fn the_last_one_given_wins() {
    let settings = "remote-command: from the file\n";
    assert_eq!(sites_with(settings, &["-r", "first", "-r", "second"], &["a.py"]), ["SITE second"]);
}

#[test]
fn remote_match_narrows_it() {
    let args = ["-p", "*.py", "-m", "*main.py, lib/*.py", "-r", "%%f"];
    assert_eq!(sites(&args, &["other.py", "main.py"]), ["SITE main"]);
}

#[test]
fn a_newline_on_the_command_line_becomes_nul() {
    // Pins a fix: the original crashes. uftpd turns NUL back into a newline.
    assert_eq!(sites(&["-r", "import a\na.go()"], &["a.py"]), ["SITE import a\0a.go()"]);
}

#[test]
fn the_settings_file_goes_on_over_lines_and_keeps_the_indentation() {
    let settings = "remote-command:\nfor x in 'ab':\n    print(x)\nreload('%%f')\ninclude: *.py\n";
    assert_eq!(
        sites_with(settings, &[], &["a.py"]),
        ["SITE for x in 'ab':\0    print(x)\0reload('a')"]
    );
}

#[test]
fn it_may_begin_on_the_keys_own_line() {
    let settings = "remote-command: first()\nsecond()\n";
    assert_eq!(sites_with(settings, &[], &["a.py"]), ["SITE first()\0second()"]);
}

#[test]
fn a_line_that_only_starts_like_a_key_does_not_end_it() {
    // Pins a fix: the original takes `debugging stuff` for the key `debug`.
    let settings = "remote-command:\ndebugging = 1\nhosts = 2\ninclude_all()\n";
    assert_eq!(
        sites_with(settings, &[], &["a.py"]),
        ["SITE debugging = 1\0hosts = 2\0include_all()"]
    );
}

#[test]
fn a_name_that_could_be_code_is_not_pasted_into_it() {
    // %%f lands in Python that the board executes.
    let (project, server) = (Project::new(), Scripted::start());
    let mut run = project.watch(&["-r", "reload('%%f')", &server.host()]);
    project.write("a');boom('.py", "hostile");
    server.wait_stored("a');boom('.py", "hostile");
    run.wait_for_error("boom");
    project.write("good_1.py", "good");
    server.wait_commands(1, "SITE");
    run.interrupt_and_wait();
    assert_eq!(server.commands("SITE"), ["SITE reload('good_1')"]);
}

#[test]
fn a_failing_one_is_shown_and_nothing_else_happens() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("SITE", Act::Reply("550 NameError: no reload here"));
    let mut run = project.watch(&["-r", "reload()", &server.host()]);
    project.write("a.py", "a");
    run.wait_for("NameError");
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.interrupt_and_wait();
    assert_eq!(server.commands("STOR").len(), 2, "the upload itself was good");
    assert_eq!(server.sessions(), 1);
}

#[test]
fn it_is_not_run_after_a_refused_upload() {
    let (project, server) = (Project::new(), Scripted::start());
    server.on("STOR a.py", Act::Reply("550 No"));
    let mut run = project.watch(&["-r", "reload('%%f')", &server.host()]);
    project.write("a.py", "a");
    run.wait_for_error("a.py");
    project.write("b.py", "b");
    server.wait_commands(1, "SITE");
    run.interrupt_and_wait();
    assert_eq!(server.commands("SITE"), ["SITE reload('b')"]);
}

#[test]
fn each_host_gets_its_own() {
    let (project, one, two) = (Project::new(), Scripted::start(), Scripted::start());
    let mut run = project.watch(&["-r", "reload()", &one.host(), &two.host()]);
    project.write("a.py", "a");
    one.wait_commands(1, "SITE");
    two.wait_commands(1, "SITE");
    run.stop();
}
