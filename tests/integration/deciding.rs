//! What is sent and what is not: include, exclude and the settings file.

use crate::support::{Bench, Project, Server};

/// Saves each path in turn, and expects just these to be sent.
fn check(args: &[&str], paths: &[&str], sent: &[&str]) {
    check_with("", args, paths, sent);
}

/// The same with a `.autoftp`.
fn check_with(settings: &str, args: &[&str], paths: &[&str], sent: &[&str]) {
    let bench = Bench::start_with(&[args, &["-p", "sentinel.py"]].concat(), |project| {
        if !settings.is_empty() {
            project.write(".autoftp", settings);
        }
    });
    for path in paths {
        bench.project.write(path, *path);
    }
    bench.expect_sent(sent);
}

#[test]
fn without_an_include_python_files_are_sent() {
    let bench = Bench::start(&[]);
    for path in ["main.py", "lib/deep/a.py", ".hidden.py", "main.mpy", "main.PY", "py"] {
        bench.project.write(path, path);
    }
    bench.expect_sent(&[".hidden.py", "lib/deep/a.py", "main.py"]);
}

#[test]
fn an_include_replaces_the_default() {
    check(&["-p", "*.mpy"], &["main.py", "main.mpy"], &["main.mpy"]);
}

#[test]
fn lists_take_commas_blanks_and_repetition() {
    let paths = ["a.py", "b.mpy", "c.inc", "d.txt", "e.bin"];
    check(
        &["-p", "*.py, *.mpy", "-p", " *.inc ", "--include=*.txt"],
        &paths,
        &["a.py", "b.mpy", "c.inc", "d.txt"],
    );
}

#[test]
fn an_empty_item_is_ignored() {
    // Pins a fix: the original crashes.
    check(&["-p", "*.py,,", "-x", "", "-p", ","], &["a.py", "b.txt"], &["a.py"]);
}

#[test]
fn an_exclude_that_matches_a_directory_covers_all_beneath() {
    // Pins a fix: the original's `test/*` still sends test/deep/z.py.
    let paths =
        ["test/a.py", "test/deep/z.py", "lib/test/b.py", "lib/testing/c.py", "cache/deep/d.py"];
    check(&["-p", "*.py", "-x", "test/*,cache/"], &paths, &["lib/testing/c.py"]);
}

#[test]
fn exclude_wins_over_the_same_include() {
    // Pins a fix: the original raises.
    check(&["-p", "*.py,*.txt", "-x", "*.txt"], &["a.py", "b.txt"], &["a.py"]);
}

#[test]
fn a_file_renamed_into_an_excluded_directory_is_not_sent() {
    // Pins a fix: the original judges a rename by the new name's include alone.
    let bench = Bench::start(&["-p", "*.py", "-x", "attic"]);
    bench.save("a.py", "a");
    std::fs::create_dir(bench.project.path("attic")).unwrap();
    bench.project.rename("a.py", "attic/a.py");
    bench.expect_sent(&["a.py"]);
}

#[test]
fn a_file_renamed_out_of_an_excluded_directory_is_sent() {
    let bench = Bench::start_with(&["-p", "*.py", "-x", "attic"], |project| {
        project.write("attic/a.py", "a");
    });
    bench.project.rename("attic/a.py", "a.py");
    bench.server.wait_file("a.py", "a");
    bench.expect_sent(&["a.py"]);
}

#[test]
fn patterns_match_from_the_right_component_by_component() {
    let paths = ["lib/a.mpy", "deep/lib/b.mpy", "mylib/c.mpy", "lib/deep/d.mpy"];
    check(&["-p", "lib/*.mpy"], &paths, &["deep/lib/b.mpy", "lib/a.mpy"]);
}

#[test]
fn two_stars_cross_directories() {
    check(&["-p", "lib/**/*.mpy"], &["lib/x/y/a.mpy", "src/b.mpy"], &["lib/x/y/a.mpy"]);
}

#[test]
fn braces_are_letters() {
    check(&["-p", "{a}.txt"], &["{a}.txt", "a.txt"], &["{a}.txt"]);
}

#[test]
fn the_settings_file_names_host_and_lists() {
    let project = Project::new();
    let server = Server::start(&project.make_outside("remote"));
    project.write(
        ".autoftp",
        format!("# my board\nhost: {}\ninclude: *.mpy, *.inc\nexclude: test/*\n", server.host()),
    );
    let mut run = project.watch(&[]);
    for path in ["main.py", "test/a.mpy", "a.mpy", "b.inc"] {
        project.write(path, path);
    }
    server.wait_file("a.mpy", "a.mpy");
    server.wait_file("b.inc", "b.inc");
    run.stop();
    assert_eq!(server.puts().len(), 2, "{:?}", server.puts());
}

#[test]
fn the_command_line_extends_the_settings_lists() {
    let settings = "include: *.mpy\nexclude: a.*\n";
    check_with(
        settings,
        &["-p", "*.inc", "-x", "b.*"],
        &["a.mpy", "b.mpy", "c.mpy", "d.inc"],
        &["c.mpy", "d.inc"],
    );
}

#[test]
fn the_command_lines_host_replaces_the_settings_host() {
    check_with("host: no-such-host.invalid\n", &["-p", "*.py"], &["a.py"], &["a.py"]);
}

#[test]
fn windows_line_ends_in_the_settings_are_line_ends() {
    let settings = "include: *.txt\r\nexclude: b.*\r\ndebug\r\n";
    check_with(settings, &[], &["a.txt", "b.txt", "c.py"], &["a.txt"]);
}

#[test]
fn quotes_in_the_settings_are_literal() {
    check_with("include: '*.txt'\n", &[], &["a.txt", "'b.txt'"], &["'b.txt'"]);
}

#[test]
fn false_means_false() {
    // Pins a fix: the original takes `dry-run: false` for true.
    check_with("dry-run: false\ndebug: false\n", &["-p", "*.py"], &["a.py"], &["a.py"]);
}

#[test]
fn a_bare_key_means_true() {
    let bench = Bench::start_with(&[], |project| project.write(".autoftp", "dry-run\n"));
    bench.project.write("a.py", "a");
    bench.run.wait_for("would send");
    assert_eq!(bench.server.puts(), [""; 0]);
}

#[cfg(unix)]
#[test]
fn a_file_that_a_script_processes_is_not_sent_itself() {
    let bench = Bench::start(&["-p", "*.py,*.txt", "-s", "*.txt,true"]);
    bench.project.write("a.txt", "a");
    bench.run.wait_for("a.txt");
    bench.expect_sent(&[]);
}

#[cfg(unix)]
#[test]
fn an_excluded_file_is_not_processed() {
    let bench = Bench::start(&["-x", "*.txt", "-s", "*.txt,cp seed.txt made.py"]);
    bench.project.write("seed.txt", "seed");
    bench.expect_sent(&[]);
}
