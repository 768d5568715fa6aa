//! `--process`: scripts in place of an upload.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Bench, Project, Scripted};

/// A bench whose project holds `script.sh`; `include` is all but the scripts and what they are run
/// on.
fn bench(process: &[&str], script: &str) -> Bench {
    let mut args = vec!["-p", "*.py,*.out"];
    for rule in process {
        args.extend(["-s", *rule]);
    }
    Bench::start_with(&args, |project| project.write("script.sh", script))
}

#[test]
fn a_script_runs_in_the_project_with_the_relative_path_and_its_result_is_sent() {
    let bench = bench(&["*.src,sh script.sh"], "echo \"$# $1 in $PWD\" > result.out\n");
    bench.project.write("lib/a.src", "source");
    let root = bench.project.root().canonicalize().unwrap();
    bench.server.wait_file("result.out", format!("1 ./lib/a.src in {}\n", root.display()));
    bench.expect_sent(&["result.out"]);
}

#[test]
fn a_script_may_have_arguments_and_no_shell_reads_them() {
    // Pins a fix: the original refuses arguments.
    let bench = bench(
        &["*.src,sh script.sh 'two words' ; $HOME *"],
        "for word; do echo \"$word\"; done > result.out\n",
    );
    bench.project.write("a.src", "source");
    bench.server.wait_file("result.out", "two words\n;\n$HOME\n*\n./a.src\n");
    bench.expect_sent(&["result.out"]);
}

#[test]
fn a_name_that_starts_with_a_dash_is_no_option_of_the_script() {
    let bench = bench(&["*.src,sh script.sh"], "echo \"$1\" > result.out\n");
    bench.project.write("-rf.src", "source");
    bench.server.wait_file("result.out", "./-rf.src\n");
    bench.expect_sent(&["result.out"]);
}

#[test]
fn the_first_rule_that_matches_wins() {
    let bench = bench(
        &["main.src,sh script.sh first", "*.src,sh script.sh second"],
        "echo \"$1\" > $(basename \"$2\" .src).out\n",
    );
    bench.project.write("main.src", "source");
    bench.project.write("other.src", "source");
    bench.server.wait_file("main.out", "first\n");
    bench.server.wait_file("other.out", "second\n");
    bench.expect_sent(&["main.out", "other.out"]);
}

#[test]
fn its_output_is_shown() {
    let bench =
        bench(&["*.src,sh script.sh"], "echo to stdout\necho to stderr >&2\nprintf 'no newline'\n");
    bench.project.write("a.src", "source");
    for text in ["to stdout", "to stderr", "no newline"] {
        bench.run.wait_for(text);
    }
    bench.expect_sent(&[]);
}

#[test]
fn a_failure_is_reported_and_the_file_not_sent() {
    let bench = bench(&["*.py,sh script.sh"], "exit 3\n");
    bench.project.write("a.py", "source");
    let error = bench.run.wait_for_error("a.py");
    assert!(error.text.contains('3'), "{}", error.text);
    assert_eq!(bench.server.puts(), [""; 0]);
}

#[test]
fn a_missing_program_is_named() {
    let bench = bench(&["*.src,no-such-program --flag"], "");
    bench.project.write("a.src", "source");
    bench.run.wait_for_error("no-such-program");
    bench.save("after.py", "it goes on");
}

#[test]
fn death_by_signal_is_reported() {
    let bench = bench(&["*.src,sh script.sh"], "kill -9 $$\n");
    bench.project.write("a.src", "source");
    let error = bench.run.wait_for_error("a.src");
    assert!(error.text.contains("signal") || error.text.contains("kill"), "{}", error.text);
}

#[test]
fn a_script_that_hangs_is_ended_with_all_it_started() {
    let project = Project::new();
    let server = Scripted::start();
    // The sleep is a child of the script, holds its output open, and must go too.
    project.write("script.sh", "sleep 1000 &\necho $! > sleeper\nwait\n");
    let mut run =
        project.watch(&["-s", "*.src,sh script.sh", "--process-timeout", "1", &server.host()]);
    let begun = Instant::now();
    project.write("a.src", "source");
    run.wait_for_error("script.sh");
    assert!(begun.elapsed() < Duration::from_secs(8));
    let sleeper: i32 = fs::read_to_string(project.path("sleeper")).unwrap().trim().parse().unwrap();
    wait_ended(sleeper);
    project.write("b.py", "b");
    server.wait_stored("b.py", "b");
    run.interrupt_and_wait();
}

/// Waits until no such process runs any more.
pub fn wait_ended(id: i32) {
    let id = rustix::process::Pid::from_raw(id).unwrap();
    let begun = Instant::now();
    while rustix::process::test_kill_process(id).is_ok() && !is_zombie(id) {
        assert!(begun.elapsed() < Duration::from_secs(20), "process {id:?} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Dead, though nobody has asked after it: as good as gone.
fn is_zombie(id: rustix::process::Pid) -> bool {
    let status =
        fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn a_script_that_sets_itself_off_is_stopped_and_named() {
    let bench = bench(&["*.src,sh script.sh"], "echo run >> runs\necho again >> \"$1\"\n");
    bench.project.write("loop.src", "source");
    let error = bench.run.wait_for_line("the loop's end", |line| {
        line.text.contains("script.sh")
            && line.text.contains("loop.src")
            && line.text.starts_with("!!")
    });
    let runs = || fs::read_to_string(bench.project.path("runs")).unwrap().lines().count();
    let stopped_at = runs();
    assert!((3..=20).contains(&stopped_at), "{stopped_at} runs before: {}", error.text);
    bench.save("after.py", "it goes on");
    assert!(runs() <= stopped_at + 1, "it was stopped");
}

#[test]
fn it_runs_once_however_many_hosts() {
    let (project, one, two) = (Project::new(), Scripted::start(), Scripted::start());
    project.write("script.sh", "echo run >> runs.txt\ncp \"$1\" a.out\n");
    let mut run =
        project.watch(&["-p", "*.out", "-s", "*.src,sh script.sh", &one.host(), &two.host()]);
    project.write("a.src", "source");
    one.wait_stored("a.out", "source");
    two.wait_stored("a.out", "source");
    run.stop();
    assert_eq!(fs::read_to_string(project.path("runs.txt")).unwrap(), "run\n");
}

#[test]
fn for_one_file_scripts_run_one_after_the_other_and_the_last_sees_the_last_content() {
    // mkdir fails where another run is still inside.
    let script = "mkdir inside || exit 7\nsleep 0.2\ncp \"$1\" result.out\nrmdir inside\n";
    let mut bench = bench(&["*.src,sh script.sh"], script);
    for content in ["one", "two", "three"] {
        bench.project.write("a.src", content);
    }
    bench.server.wait_file("result.out", "three");
    assert_eq!(bench.run.stderr(), "");
    bench.run.stop();
}

#[test]
fn for_different_files_scripts_run_side_by_side() {
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return eprintln!("one core: nothing runs side by side here");
    }
    // Each waits for the other.
    let script = "\
        echo met > \"$1.here\"\n\
        while ! [ -e a.src.here -a -e b.src.here ]; do sleep 0.02; done\n\
        cp \"$1\" \"$1.out\"\n";
    let bench = bench(&["*.src,sh script.sh"], script);
    bench.project.write("a.src", "a");
    bench.project.write("b.src", "b");
    bench.server.wait_file("a.src.out", "a");
    bench.server.wait_file("b.src.out", "b");
    bench.expect_sent(&["a.src.out", "b.src.out"]);
}

#[test]
fn a_dry_run_runs_scripts() {
    let project = Project::new();
    let server = Scripted::start();
    project.write("script.sh", "echo processed > result.py\n");
    let mut run = project.watch(&["-n", "-s", "*.src,sh script.sh", &server.host()]);
    project.write("a.src", "source");
    run.wait_for_line("the result", |line| {
        line.text.contains("would send") && line.text.contains("result.py")
    });
    run.stop();
    assert_eq!(server.commands("STOR"), [""; 0]);
}

#[test]
fn the_settings_file_may_name_several() {
    let bench = Bench::start_with(&["-p", "*.out,*.py"], |project| {
        project.write("script.sh", "echo \"$1\" > $(basename \"$2\").out\n");
        project.write(
            ".autoftp",
            "process: *.one, sh script.sh first\nprocess: *.two, sh script.sh second\n",
        );
    });
    bench.project.write("a.one", "source");
    bench.project.write("a.two", "source");
    bench.server.wait_file("a.one.out", "first\n");
    bench.server.wait_file("a.two.out", "second\n");
    bench.expect_sent(&["a.one.out", "a.two.out"]);
}

#[test]
fn a_script_gets_no_input_to_wait_for() {
    let bench = bench(&["*.src,sh script.sh"], "cat > result.out\n");
    bench.project.write("a.src", "source");
    bench.server.wait_file("result.out", "");
    bench.expect_sent(&["result.out"]);
}
