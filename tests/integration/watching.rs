//! Every way people and programs save, each ending in exactly one upload of the final content.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::support::{Bench, Project};

const EVERYTHING: &[&str] = &["-p", "*"];
const PYTHON: &[&str] = &["-p", "*.py"];

#[test]
fn a_file_written_in_place_is_sent_once() {
    let bench = Bench::start(PYTHON);
    bench.save("main.py", "print('saved')");
    bench.expect_sent(&["main.py"]);
}

#[test]
fn what_was_there_before_is_not_sent() {
    let bench = Bench::start_with(PYTHON, |project| project.write("old.py", "old"));
    bench.expect_sent(&[]);
}

#[test]
fn each_save_of_a_file_is_sent() {
    let bench = Bench::start(PYTHON);
    bench.save("main.py", "one");
    bench.save("main.py", "two");
    bench.save("main.py", "one");
    bench.expect_sent(&["main.py", "main.py", "main.py"]);
}

#[test]
fn an_empty_file_is_sent() {
    let bench = Bench::start(PYTHON);
    bench.save("__init__.py", "");
    bench.expect_sent(&["__init__.py"]);
}

#[test]
fn five_megabytes_arrive_byte_for_byte() {
    let bench = Bench::start(EVERYTHING);
    let bytes: Vec<u8> =
        (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    bench.project.write("firmware.bin", &bytes);
    bench.server.wait_file("firmware.bin", &bytes);
    bench.expect_sent(&["firmware.bin"]);
}

#[test]
fn truncated_and_written_in_pieces_is_sent_once() {
    let bench = Bench::start_with(PYTHON, |project| {
        project.write("main.py", "a longer text than the new one");
    });
    let mut file =
        OpenOptions::new().write(true).truncate(true).open(bench.project.path("main.py")).unwrap();
    for piece in ["first ", "second ", "third"] {
        file.write_all(piece.as_bytes()).unwrap();
        file.flush().unwrap();
    }
    drop(file);
    bench.server.wait_file("main.py", "first second third");
    bench.expect_sent(&["main.py"]);
}

#[test]
fn appended_is_sent_whole() {
    let bench = Bench::start_with(PYTHON, |project| project.write("main.py", "head "));
    OpenOptions::new()
        .append(true)
        .open(bench.project.path("main.py"))
        .unwrap()
        .write_all(b"tail")
        .unwrap();
    bench.server.wait_file("main.py", "head tail");
    bench.expect_sent(&["main.py"]);
}

#[test]
fn a_temporary_file_renamed_over_the_target_is_sent_once_as_the_target() {
    let bench = Bench::start_with(PYTHON, |project| project.write("main.py", "old"));
    bench.project.write("main.py.tmp.4711", "new");
    bench.project.rename("main.py.tmp.4711", "main.py");
    bench.server.wait_file("main.py", "new");
    bench.expect_sent(&["main.py"]);
}

#[test]
fn a_file_moved_in_from_outside_is_sent() {
    let bench = Bench::start(PYTHON);
    fs::write(bench.project.outside("elsewhere.py"), "moved").unwrap();
    fs::rename(bench.project.outside("elsewhere.py"), bench.project.path("here.py")).unwrap();
    bench.server.wait_file("here.py", "moved");
    bench.expect_sent(&["here.py"]);
}

/// vim with `backupcopy=no`: probes whether it may write, moves the old file aside, writes a new
/// one, drops the old.
#[test]
fn vim_saving_through_a_backup_rename_is_sent_once() {
    let bench = Bench::start_with(EVERYTHING, |project| project.write("main.py", "old"));
    let project = &bench.project;
    project.write(".main.py.swp", "swap");
    project.write("4913", "");
    project.remove("4913");
    project.rename("main.py", "main.py~");
    project.write("main.py", "new");
    project.remove("main.py~");
    project.remove(".main.py.swp");
    bench.server.wait_file("main.py", "new");
    assert_eq!(bench.run.stderr(), "", "probes and backups that vanish are no errors");
    bench.expect_sent(&["main.py"]);
}

/// vim with `backupcopy=yes`: copies the old file aside and writes in place.
#[test]
fn vim_saving_through_a_backup_copy_is_sent_once() {
    let bench = Bench::start_with(EVERYTHING, |project| project.write("main.py", "old"));
    let project = &bench.project;
    fs::copy(project.path("main.py"), project.path("main.py~")).unwrap();
    project.write("main.py", "new");
    project.remove("main.py~");
    bench.server.wait_file("main.py", "new");
    bench.expect_sent(&["main.py"]);
}

#[test]
fn a_hard_link_is_sent() {
    // A link is one Create, without the close that other saves end in.
    let bench = Bench::start(PYTHON);
    fs::write(bench.project.outside("elsewhere.py"), "linked").unwrap();
    fs::hard_link(bench.project.outside("elsewhere.py"), bench.project.path("linked.py")).unwrap();
    bench.server.wait_file("linked.py", "linked");
    bench.expect_sent(&["linked.py"]);
}

#[test]
fn a_directory_moved_in_is_sent_with_all_beneath() {
    // The move is one event; the files in it have none.
    let bench = Bench::start(PYTHON);
    let elsewhere = bench.project.make_outside("elsewhere/deep");
    fs::write(elsewhere.join("a.py"), "a").unwrap();
    fs::write(bench.project.outside("elsewhere/b.py"), "b").unwrap();
    fs::rename(bench.project.outside("elsewhere"), bench.project.path("lib")).unwrap();
    bench.server.wait_file("lib/deep/a.py", "a");
    bench.server.wait_file("lib/b.py", "b");
    // And it is watched from now on.
    bench.save("lib/deep/a.py", "again");
    bench.expect_sent(&["lib/b.py", "lib/deep/a.py", "lib/deep/a.py"]);
}

#[test]
fn a_renamed_directory_is_sent_under_its_new_name() {
    let bench = Bench::start_with(PYTHON, |project| project.write("old/a.py", "a"));
    bench.project.rename("old", "new");
    bench.server.wait_file("new/a.py", "a");
    bench.save("new/b.py", "b");
    bench.expect_sent(&["new/a.py", "new/b.py"]);
}

#[test]
fn a_directory_renamed_again_and_again_is_watched_all_the_way_down() {
    let bench = Bench::start_with(PYTHON, |project| project.write("one/sub/a.py", "a"));
    bench.project.rename("one", "two");
    bench.server.wait_file("two/sub/a.py", "a");
    bench.project.rename("two", "three");
    bench.server.wait_file("three/sub/a.py", "a");
    bench.save("three/sub/a.py", "saved after that");
    bench.save("one/sub/a.py", "made anew");
    bench.expect_sent(&["one/sub/a.py", "three/sub/a.py", "three/sub/a.py", "two/sub/a.py"]);
}

#[test]
fn a_directory_removed_and_made_anew_is_watched_again() {
    let bench = Bench::start_with(PYTHON, |project| project.write("lib/sub/a.py", "old"));
    fs::remove_dir_all(bench.project.path("lib")).unwrap();
    bench.save("lib/sub/a.py", "new");
    bench.save("lib/sub/a.py", "newer");
    bench.expect_sent(&["lib/sub/a.py", "lib/sub/a.py"]);
}

#[test]
fn deep_new_directories_with_a_file_in_the_same_instant_are_sent() {
    let bench = Bench::start(PYTHON);
    bench.save("a/b/c/d/e/f/g.py", "deep");
    bench.expect_sent(&["a/b/c/d/e/f/g.py"]);
}

#[test]
fn three_hundred_files_in_racing_new_directories_arrive_none_missed_none_twice() {
    // A recursive watch of the notify crate loses files created before the watch on their directory
    // exists.
    let mut bench = Bench::start(PYTHON);
    thread::scope(|scope| {
        for racer in 0..3 {
            let project = &bench.project;
            scope.spawn(move || {
                for number in 0..100 {
                    project.write(racing(racer, number), format!("{racer} {number}"));
                }
            });
        }
    });
    let mut expected = Vec::new();
    for (racer, number) in (0..3).flat_map(|racer| (0..100).map(move |number| (racer, number))) {
        bench.server.wait_file(&racing(racer, number), format!("{racer} {number}"));
        expected.push(racing(racer, number));
    }
    expected.sort();
    assert_eq!(bench.finish(), expected);
}

/// Some share a directory with the other racers, most have one of their own, at four depths.
fn racing(racer: usize, number: usize) -> String {
    match number % 4 {
        0 => format!("shared{}/{racer}_{number}.py", number % 8),
        1 => format!("own{racer}_{number}/x.py"),
        2 => format!("own{racer}_{}/deeper/x{number}.py", number % 12),
        _ => format!("own{racer}_{}/deeper/and/deeper{number}/x.py", number % 12),
    }
}

#[test]
fn a_file_written_slowly_ends_with_its_final_content() {
    let mut bench = Bench::start(PYTHON);
    let mut file = fs::File::create(bench.project.path("slow.py")).unwrap();
    let mut whole = String::new();
    for number in 0..6 {
        let piece = format!("line {number}\n");
        file.write_all(piece.as_bytes()).unwrap();
        whole.push_str(&piece);
        // The slow writer is the case, not a wait of the test.
        thread::sleep(Duration::from_millis(500));
    }
    drop(file);
    bench.server.wait_file("slow.py", &whole);
    let sent = bench.finish();
    assert!(sent.len() <= 7, "an upload needs a change of content: {sent:?}");
}

#[test]
fn a_burst_of_saves_ends_with_the_last_content() {
    let bench = Bench::start(PYTHON);
    for number in 0..200 {
        bench.project.write("main.py", format!("save {number}"));
    }
    bench.server.wait_file("main.py", "save 199");
    bench.save("main.py", "and after that");
}

#[test]
fn the_same_content_saved_again_is_not_sent_again() {
    let bench = Bench::start(PYTHON);
    bench.save("main.py", "same");
    bench.run.wait_for(">> ");
    bench.project.write("main.py", "same");
    bench.expect_sent(&["main.py"]);
}

#[cfg(unix)]
#[test]
fn chmod_and_touch_send_nothing() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::start(PYTHON);
    bench.save("main.py", "same");
    let path = bench.project.path("main.py");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(bench.project.command("touch").arg(&path).status().unwrap().success());
    bench.expect_sent(&["main.py"]);
}

/// How people push a file that has not changed.
#[cfg(target_os = "linux")]
#[test]
fn touching_a_file_that_was_never_sent_sends_it() {
    let bench = Bench::start_with(PYTHON, |project| project.write("old.py", "old"));
    assert!(bench.project.command("touch").arg("old.py").status().unwrap().success());
    bench.server.wait_file("old.py", "old");
    bench.expect_sent(&["old.py"]);
}

#[cfg(unix)]
#[test]
fn copied_recursively_is_sent_once_each() {
    let bench = Bench::start(PYTHON);
    let elsewhere = bench.project.make_outside("elsewhere/sub/deeper");
    fs::write(bench.project.outside("elsewhere/a.py"), "a").unwrap();
    fs::write(bench.project.outside("elsewhere/sub/b.py"), "b").unwrap();
    fs::write(elsewhere.join("c.py"), "c").unwrap();
    let mut copy = bench.project.command("cp");
    assert!(copy.args(["-r", "../elsewhere", "lib"]).status().unwrap().success());
    bench.server.wait_file("lib/a.py", "a");
    bench.server.wait_file("lib/sub/b.py", "b");
    bench.server.wait_file("lib/sub/deeper/c.py", "c");
    bench.expect_sent(&["lib/a.py", "lib/sub/b.py", "lib/sub/deeper/c.py"]);
}

#[cfg(target_os = "linux")]
#[test]
fn sed_in_place_is_sent_once() {
    let mut bench = Bench::start_with(EVERYTHING, |project| project.write("main.py", "old words"));
    let mut sed = bench.project.command("sed");
    assert!(sed.args(["-i", "s/old/new/", "main.py"]).status().unwrap().success());
    bench.server.wait_file("main.py", "new words");
    // Its temporary file may be caught too.
    let sent = bench.finish();
    assert_eq!(sent.iter().filter(|path| *path == "main.py").count(), 1);
}

#[cfg(unix)]
#[test]
fn a_git_checkout_is_sent_once_each() {
    let git = |project: &Project, args: &[&str]| {
        let identity = [
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.org",
            "-c",
            "init.defaultBranch=main",
        ];
        let output = project.command("git").args(identity).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    if std::process::Command::new("git").arg("--version").output().is_err() {
        return eprintln!("no git here: nothing to test");
    }
    let bench = Bench::start_with(PYTHON, |project| {
        git(project, &["init", "-q"]);
        for version in ["one", "two"] {
            for path in ["main.py", "lib/util.py", "lib/deep/same.py"] {
                project.write(path, if path.contains("same") { "same" } else { version });
            }
            git(project, &["add", "."]);
            git(project, &["commit", "-q", "-m", version]);
        }
    });
    git(&bench.project, &["checkout", "-q", "HEAD~1"]);
    bench.server.wait_file("main.py", "one");
    bench.server.wait_file("lib/util.py", "one");
    bench.expect_sent(&["lib/util.py", "main.py"]);
}

#[test]
fn editors_junk_is_ignored() {
    let bench = Bench::start(EVERYTHING);
    for path in JUNK {
        bench.project.write(path, "junk");
    }
    bench.expect_sent(&[]);
}

#[test]
fn editors_junk_is_sent_on_request() {
    let bench = Bench::start(&["-p", "*", "--no-default-ignores"]);
    for path in JUNK {
        bench.save(path, "junk");
    }
}

const JUNK: &[&str] = &[
    "4913",
    "main.py~",
    ".main.py.swp",
    "#main.py#",
    ".#main.py",
    "main.py___jb_tmp___",
    "lib/x.py~",
];

#[test]
fn autoftps_own_settings_and_netrc_are_never_sent() {
    let bench = Bench::start(&["-p", "*", "--no-default-ignores"]);
    bench.project.write(".autoftp", "# written while it runs\n");
    bench.project.write(".netrc", "machine board login me password secret\n");
    bench.expect_sent(&[]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_excluded_directory_costs_no_watch() {
    use std::os::unix::fs::MetadataExt;

    let bench = Bench::start_with(&["-p", "*.py", "-x", "node_modules"], |project| {
        project.write("lib/a.py", "");
        project.write("node_modules/deep/b.py", "");
    });
    let mut watches = String::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", bench.run.id())).unwrap().flatten() {
        watches.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
    }
    let watched = |path: &str| {
        let inode = bench.project.path(path).metadata().unwrap().ino();
        watches
            .lines()
            .any(|line| line.starts_with("inotify") && line.contains(&format!(" ino:{inode:x} ")))
    };
    assert!(watched("") && watched("lib"), "{watches}");
    assert!(!watched("node_modules") && !watched("node_modules/deep"), "{watches}");
}

#[cfg(unix)]
#[test]
fn a_symlink_to_a_file_outside_is_not_sent_and_said_once() {
    // Pins a fix: the original uploads what the link points at, wherever that is.
    let bench = Bench::start(PYTHON);
    fs::write(bench.project.outside("secret"), "secret").unwrap();
    let link = bench.project.path("leak.py");
    for content in ["once", "twice"] {
        std::os::unix::fs::symlink(bench.project.outside("secret"), &link).unwrap();
        bench.run.wait_for("leak.py");
        bench.save("after.py", content);
        fs::remove_file(&link).unwrap();
    }
    assert_eq!(bench.run.count("leak.py"), 1);
    bench.expect_sent(&["after.py", "after.py"]);
}

#[cfg(unix)]
#[test]
fn a_symlink_to_a_directory_outside_is_not_followed() {
    let bench = Bench::start(PYTHON);
    fs::write(bench.project.make_outside("secrets").join("key.py"), "secret").unwrap();
    std::os::unix::fs::symlink(bench.project.outside("secrets"), bench.project.path("lib"))
        .unwrap();
    fs::write(bench.project.outside("secrets/key.py"), "another secret").unwrap();
    bench.expect_sent(&[]);
}

#[cfg(unix)]
#[test]
fn a_directory_swapped_for_a_link_while_its_file_waits_leaks_nothing() {
    let mut bench = Bench::start(PYTHON);
    fs::write(bench.project.make_outside("secrets").join("a.py"), "secret").unwrap();
    bench.run.wait_for("connected");
    bench.server.stop();
    bench.project.write("lib/a.py", "harmless");
    bench.run.wait_for_error("not connected");
    fs::rename(bench.project.path("lib"), bench.project.path("old")).unwrap();
    std::os::unix::fs::symlink(bench.project.outside("secrets"), bench.project.path("lib"))
        .unwrap();
    bench.server.restart();
    bench.server.wait_file("old/a.py", "harmless");
    bench.expect_sent(&["old/a.py"]);
}

#[cfg(unix)]
#[test]
fn a_link_loop_does_no_harm() {
    let bench = Bench::start(PYTHON);
    fs::create_dir(bench.project.path("lib")).unwrap();
    std::os::unix::fs::symlink("..", bench.project.path("lib/loop")).unwrap();
    bench.save("lib/a.py", "a");
    bench.expect_sent(&["lib/a.py"]);
}

#[cfg(unix)]
#[test]
fn a_fifo_is_passed_over() {
    // Opening it would block for ever.
    let bench = Bench::start(PYTHON);
    assert!(bench.project.command("mkfifo").arg("pipe.py").status().unwrap().success());
    bench.save("main.py", "after");
    bench.expect_sent(&["main.py"]);
}

/// The system drops events when too many wait to be read.
#[cfg(target_os = "linux")]
#[test]
fn saves_whose_events_were_lost_are_found() {
    use rustix::process::Signal;

    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 100_000 {
        return eprintln!("it would take too long to have events lost here");
    }
    let bench = Bench::start_with(PYTHON, |project| project.write("lib/old.py", "old"));
    bench.run.signal(Signal::STOP);
    for _ in 0..limit {
        bench.project.write("noise.txt", "");
    }
    let lost = ["a.py", "lib/b.py", "lib/old.py", "new/deep/c.py"];
    for path in lost {
        bench.project.write(path, path);
    }
    bench.run.signal(Signal::CONT);
    bench.run.wait_for("too many changes");
    for path in lost {
        bench.server.wait_file(path, path);
    }
    bench.save("new/deep/c.py", "the new directory is watched");
    bench.expect_sent(&["a.py", "lib/b.py", "lib/old.py", "new/deep/c.py", "new/deep/c.py"]);
}

/// No event tells of it while a shell, or autoftp itself, still stands in the old directory.
#[cfg(unix)]
#[test]
fn a_project_removed_and_made_anew_is_watched_again() {
    let bench = Bench::start_with(PYTHON, |project| project.write("lib/a.py", "old"));
    fs::remove_dir_all(bench.project.root()).unwrap();
    bench.project.write("main.py", "made anew");
    bench.server.wait_file("main.py", "made anew");
    bench.save("main.py", "saved after that");
    bench.save("lib/a.py", "and beneath");
}

#[test]
fn polling_catches_saves_too() {
    let bench = Bench::start(&["-p", "*.py", "--poll=1"]);
    bench.save("main.py", "one");
    bench.save("lib/deep/a.py", "two");
    bench.save("main.py", "three");
    bench.expect_sent(&["lib/deep/a.py", "main.py", "main.py"]);
}

/// A file that was found had to stand for longer than the pause between two looks, and never did.
#[test]
fn polling_very_often_catches_saves_too() {
    let bench = Bench::start(&["-p", "*.py", "--poll=0.1"]);
    bench.save("main.py", "one");
    bench.expect_sent(&["main.py"]);
}

#[test]
fn a_deleted_file_is_no_upload_and_no_error() {
    let bench = Bench::start_with(PYTHON, |project| project.write("main.py", "old"));
    bench.project.remove("main.py");
    bench.save("other.py", "after");
    assert_eq!(bench.run.stderr(), "");
    bench.expect_sent(&["other.py"]);
}

/// A link gave them another name.
#[test]
#[cfg(unix)]
fn a_link_to_settings_or_to_what_is_excluded_is_not_sent() {
    let bench = Bench::start_with(&["-p", "*", "-x", "private/"], |project| {
        project.write(".autoftp", "# mine");
        project.write("private/key", "secret");
    });
    for (link, target) in [("settings", ".autoftp"), ("key", "private/key")] {
        std::os::unix::fs::symlink(target, bench.project.path(link)).unwrap();
        bench.run.wait_for_error(&format!("link to {target}"));
    }
    bench.expect_sent(&[]);
}

/// A directory that came back as it was counted as no change, though it may be new to the server.
#[test]
fn a_directory_moved_out_and_back_is_sent() {
    let bench = Bench::start_with(&[], |project| project.write("lib/deep/a.py", "a"));
    let (inside, outside) = (bench.project.path("lib"), bench.project.outside("elsewhere"));
    fs::rename(&inside, &outside).unwrap();
    bench.save("between.py", "now");
    fs::rename(&outside, &inside).unwrap();
    bench.server.wait_file("lib/deep/a.py", "a");
    bench.expect_sent(&["between.py", "lib/deep/a.py"]);
}

/// What was there already was sent when watching gave way to polling in the midst of the first scan.
#[test]
#[cfg(target_os = "linux")]
fn at_the_watch_limit_changes_are_looked_for_and_only_they_are_sent() {
    let limited = "echo 2 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let project = Project::new();
    let server = crate::support::Server::start(&project.make_outside("remote"));
    for number in 0..5 {
        project.write(format!("d{number}/old.py"), "old");
    }
    let mut command = project.command("unshare");
    command.args(["-Ur", "sh", "-c", limited, env!("CARGO_BIN_EXE_autoftp"), &server.host()]);
    // Not every system lets its users have a limit of their own.
    let allowed = project.command("unshare").args(["-Ur", "sh", "-c", limited, "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("left out: no namespace for a limit of our own");
        return;
    }
    let mut run = crate::support::Autoftp::spawn(command);
    run.wait_for("looking every");
    run.wait_for_error("max_user_watches");
    project.write("d3/new.py", "new");
    server.wait_file("d3/new.py", "new");
    run.stop();
    assert_eq!(server.puts(), ["d3/new.py"]);
}
