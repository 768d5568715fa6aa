//! `--mirror`: what is removed and renamed here is removed and renamed there, and nothing else.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Act, Autoftp, Dialect, Project, Scripted, Server, side_by_side};

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

/// A project and a server with the same files in them, and `autoftp --mirror` between.
struct Mirror {
    run: Autoftp,
    project: Project,
    server: Scripted,
}

impl Mirror {
    fn start(args: &[&str], paths: &[&str]) -> Mirror {
        Mirror::with(Dialect::PLAIN, &[&["--mirror"], args].concat(), paths)
    }

    fn with(dialect: Dialect, args: &[&str], paths: &[&str]) -> Mirror {
        let (project, server) = (Project::new(), Scripted::with(dialect));
        for path in paths {
            project.write(path, *path);
        }
        let host = server.host();
        let mut run = project.run(&["--once", "-p", "*", &host]);
        assert_eq!(run.wait_exit(), 0);
        assert_eq!(server.files().len(), paths.len());
        let run = project.watch(&[args, &[host.as_str()]].concat());
        run.wait_for("connected");
        Mirror { run, project, server }
    }

    /// Waits until what was removed before would have been removed there, too, and ends it.
    fn finish(&mut self) {
        self.project.write("marker.py", "marker");
        self.server.wait_file("marker.py", "marker");
        self.run.wait_for(" marker.py ");
        self.project.remove("marker.py");
        self.server.wait_no_file("marker.py");
        self.run.stop();
    }

    /// Ends it, and expects that the server holds these paths.
    fn expect(mut self, paths: &[&str]) -> Mirror {
        self.finish();
        assert_eq!(self.paths(), paths);
        self
    }

    fn paths(&self) -> Vec<String> {
        self.server.files().into_iter().map(|(path, _)| path).collect()
    }

    /// The commands of these kinds, without those for the marker.
    fn commands(&self, verbs: &[&str]) -> Vec<String> {
        let mut commands = self.server.commands("");
        commands.retain(|line| {
            verbs.contains(&line.split(' ').next().unwrap()) && !line.contains("marker.py")
        });
        commands
    }
}

#[test]
fn a_removed_file_is_removed_there_a_second_later() {
    let mut mirror = Mirror::start(&[], &["a.py", "b.py"]);
    let removed = Instant::now();
    mirror.project.remove("a.py");
    mirror.server.wait_no_file("a.py");
    assert!(removed.elapsed() >= Duration::from_millis(950), "an editor may put it back");
    mirror.run.wait_for("a.py                     removed");
    mirror.run.stop();
    assert_eq!(mirror.paths(), ["b.py"]);
    assert_eq!(mirror.commands(&["DELE"]), ["DELE a.py"]);
    assert_eq!(mirror.run.stderr(), "");
}

/// Not even for a moment.
#[test]
fn what_an_editor_puts_back_is_never_gone_there() {
    let mirror = Mirror::start(&[], &["removed.py", "aside.py", "backup.py", "over.py"]);
    let project = &mirror.project;
    project.remove("removed.py");
    project.rename("aside.py", "aside.py.bak");
    project.rename("backup.py", "backup.py~");
    project.write("over.py.tmp", "new over.py");
    project.rename("over.py.tmp", "over.py");
    // The slow editor is the case, not a wait of the test.
    thread::sleep(Duration::from_millis(300));
    for path in ["removed.py", "aside.py", "backup.py"] {
        project.write(path, format!("new {path}"));
    }
    project.remove("backup.py~");
    let mirror = mirror.expect(&["aside.py", "backup.py", "over.py", "removed.py"]);
    for (path, content) in mirror.server.files() {
        assert_eq!(content, format!("new {path}"));
        assert!(!mirror.server.history(&path).contains(&None), "{path}");
    }
    assert_eq!(mirror.commands(&["DELE", "RNFR", "RMD"]), [""; 0]);
}

#[test]
fn a_file_put_back_as_it_was_within_a_second_is_not_removed_there() {
    let mirror = Mirror::start(&[], &["a.py", "b.py"]);
    mirror.project.rename("a.py", "a.tmp");
    mirror.project.rename("a.tmp", "a.py");
    let mirror = mirror.expect(&["a.py", "b.py"]);
    assert_eq!(mirror.commands(&["DELE", "RNFR", "STOR"]).len(), 2, "the first ones");
}

#[test]
fn a_renamed_file_is_renamed_there_and_not_sent() {
    let mirror = Mirror::start(&[], &["a.py", "b.py"]);
    mirror.project.rename("a.py", "new.py");
    mirror.server.wait_file("new.py", "a.py");
    let mirror = mirror.expect(&["b.py", "new.py"]);
    assert_eq!(mirror.commands(&["RNFR", "RNTO", "DELE"]), ["RNFR a.py", "RNTO new.py"]);
    assert_eq!(mirror.server.commands("STOR new.py"), [""; 0]);
    assert!(mirror.run.stdout().contains("renamed from a.py"), "{}", mirror.run.stdout());
}

#[test]
fn a_file_renamed_into_another_directory_is_renamed_there() {
    let mirror = Mirror::start(&[], &["old/a.py", "b.py", "new/deep/c.txt"]);
    mirror.server.lose("new/deep/c.txt");
    mirror.project.rename("old/a.py", "new/deep/a.py");
    let mirror = mirror.expect(&["b.py", "new/deep/a.py"]);
    assert_eq!(mirror.commands(&["RNTO"]), ["RNTO new/deep/a.py"]);
    // The old one is still here.
    assert_eq!(mirror.server.directories(), ["new", "new/deep", "old"]);
}

#[test]
fn a_renamed_directory_is_renamed_there_file_by_file() {
    let mirror = Mirror::start(&[], &["b.py", "old/a.py", "old/deep/c.py"]);
    mirror.project.rename("old", "new");
    let mirror = mirror.expect(&["b.py", "new/a.py", "new/deep/c.py"]);
    assert_eq!(mirror.commands(&["RNTO"]).len(), 2);
    assert_eq!(mirror.server.commands("STOR new"), [""; 0]);
    assert_eq!(mirror.commands(&["DELE"]), [""; 0]);
    assert_eq!(mirror.server.directories(), ["new", "new/deep"], "the emptied ones are gone");
}

#[test]
fn a_file_renamed_over_another_replaces_it_there() {
    side_by_side([None, Some("553 File exists")], |rename_over| {
        let dialect = Dialect { rename_over, ..Dialect::PLAIN };
        let mirror = Mirror::with(dialect, &["--mirror"], &["a.py", "b.py", "c.py"]);
        mirror.project.rename("a.py", "b.py");
        let mirror = mirror.expect(&["b.py", "c.py"]);
        assert_eq!(mirror.server.files()[0], pair("b.py", "a.py"), "{rename_over:?}");
        assert_eq!(mirror.server.commands("STOR b.py").len(), 1, "{rename_over:?}");
    });
}

#[test]
fn two_files_that_swap_their_names_swap_their_contents_there() {
    let mirror = Mirror::start(&[], &["a.py", "b.py", "c.py"]);
    mirror.project.rename("a.py", "x.py");
    mirror.project.rename("b.py", "a.py");
    mirror.project.rename("x.py", "b.py");
    let mirror = mirror.expect(&["a.py", "b.py", "c.py"]);
    let swapped = [pair("a.py", "b.py"), pair("b.py", "a.py"), pair("c.py", "c.py")];
    assert_eq!(mirror.server.files(), swapped);
}

#[test]
fn a_renamed_file_that_is_changed_at_once_is_right_there() {
    let mirror = Mirror::start(&[], &["a.py", "b.py"]);
    mirror.project.rename("a.py", "new.py");
    mirror.project.write("new.py", "changed");
    let mirror = mirror.expect(&["b.py", "new.py"]);
    assert_eq!(mirror.server.files()[1], pair("new.py", "changed"));
}

#[test]
fn what_cannot_be_renamed_there_is_sent_and_removed() {
    side_by_side(["502 Not implemented", "550 No", "450 Busy"], |reply| {
        let mirror = Mirror::start(&[], &["a.py", "b.py"]);
        mirror.server.on("RNFR", Act::Reply(reply));
        mirror.project.rename("a.py", "new.py");
        let mirror = mirror.expect(&["b.py", "new.py"]);
        assert_eq!(mirror.run.stderr(), "", "{reply}");
    });
}

/// Somebody else's content is not ours to rename, and is not what is here.
#[test]
fn what_is_not_there_as_it_is_here_is_sent_under_its_new_name() {
    let mirror = Mirror::start(&[], &["a.py", "b.py"]);
    mirror.server.put("a.py", "somebody else's");
    mirror.project.rename("a.py", "new.py");
    mirror.server.wait_file("new.py", "a.py");
    let mirror = mirror.expect(&["b.py", "new.py"]);
    assert_eq!(mirror.commands(&["RNFR"]), [""; 0]);
}

#[test]
fn what_is_moved_out_of_the_project_is_removed_there() {
    let mirror = Mirror::start(&[], &["a.py", "b.py", "lib/c.py", "lib/deep/d.py"]);
    fs::rename(mirror.project.path("a.py"), mirror.project.outside("a.py")).unwrap();
    fs::rename(mirror.project.path("lib"), mirror.project.outside("lib")).unwrap();
    let mirror = mirror.expect(&["b.py"]);
    assert_eq!(mirror.server.directories(), [""; 0]);
}

#[test]
fn directories_that_were_emptied_are_removed_there_from_the_innermost() {
    let mirror = Mirror::start(&[], &["b.py", "lib/deep/a.py", "lib/deep/deeper/c.py"]);
    fs::remove_dir_all(mirror.project.path("lib")).unwrap();
    let mirror = mirror.expect(&["b.py"]);
    let removed = ["RMD lib/deep/deeper", "RMD lib/deep", "RMD lib"].map(str::to_owned);
    assert!(mirror.commands(&["RMD"]).ends_with(&removed), "{:?}", mirror.commands(&["RMD"]));
    assert_eq!(mirror.server.directories(), [""; 0]);
}

/// Nor does the temporary name count as a file that has gone.
#[test]
fn the_only_file_is_removed_there_though_it_was_saved_by_renaming_before_anybody_looked() {
    let mut mirror = Mirror::start(&[], &["a.py"]);
    mirror.run.signal(Signal::STOP);
    mirror.project.write("new-a.py", "new");
    mirror.project.rename("new-a.py", "a.py");
    mirror.project.write("a.py", "newer");
    mirror.project.remove("a.py");
    mirror.run.signal(Signal::CONT);
    mirror.server.wait_no_file("a.py");
    mirror.run.stop();
}

#[test]
fn a_directory_that_matches_is_not_taken_for_a_file() {
    let mirror = Mirror::start(&["-p", "*"], &["a.py", "lib/b.py"]);
    fs::remove_dir_all(mirror.project.path("lib")).unwrap();
    let mirror = mirror.expect(&["a.py"]);
    assert_eq!(mirror.commands(&["DELE", "RMD"]), ["DELE lib/b.py", "RMD lib"]);
    assert_eq!(mirror.run.stderr(), "");
}

#[test]
fn a_directory_that_is_not_empty_there_stays_and_that_is_no_trouble() {
    let mirror = Mirror::start(&[], &["b.py", "lib/deep/a.py"]);
    mirror.server.put("lib/theirs.py", "somebody else's");
    fs::remove_dir_all(mirror.project.path("lib")).unwrap();
    let mirror = mirror.expect(&["b.py", "lib/theirs.py"]);
    assert_eq!(mirror.run.stderr(), "");
    assert_eq!(mirror.server.directories(), ["lib"]);
}

#[test]
fn a_directory_that_is_still_here_stays_there() {
    let mirror = Mirror::start(&[], &["b.py", "lib/a.py"]);
    mirror.project.remove("lib/a.py");
    let mirror = mirror.expect(&["b.py"]);
    assert_eq!(mirror.commands(&["RMD"]), [""; 0]);
}

#[test]
fn a_directory_that_is_used_again_is_made_again() {
    let mirror = Mirror::start(&[], &["b.py", "lib/a.py"]);
    fs::remove_dir_all(mirror.project.path("lib")).unwrap();
    mirror.server.wait_commands(1, "RMD");
    mirror.project.write("lib/c.py", "c");
    mirror.server.wait_file("lib/c.py", "c");
    mirror.expect(&["b.py", "lib/c.py"]);
}

#[test]
fn what_is_missing_at_the_start_is_not_removed_there() {
    let (project, server) = (Project::new(), Scripted::start());
    for path in ["a.py", "b.py", "lib/c.py"] {
        project.write(path, path);
    }
    let mut run = project.run(&["--once", "--mirror", &server.host()]);
    assert_eq!(run.wait_exit(), 0);
    project.remove("a.py");
    fs::remove_dir_all(project.path("lib")).unwrap();
    for args in [&["--mirror"][..], &["--mirror", "--sync"], &["--mirror", "--poll=0.2"]] {
        let mut run = project.watch(&[args, &[server.host().as_str()]].concat());
        run.wait_for("connected");
        project.write("marker.py", format!("{args:?}"));
        server.wait_file("marker.py", &format!("{args:?}"));
        project.remove("marker.py");
        server.wait_no_file("marker.py");
        run.stop();
    }
    assert_eq!(server.files().len(), 3, "{:?}", server.files());
}

#[test]
fn what_is_deleted_here_for_having_been_sent_stays_there() {
    let mirror = Mirror::start(&["-k", "*.mpy", "-p", "*.py,*.mpy"], &["b.py"]);
    mirror.project.write("a.mpy", "a");
    mirror.project.wait_gone("a.mpy");
    mirror.expect(&["a.mpy", "b.py"]);
}

#[test]
fn what_is_excluded_or_does_not_match_stays_there() {
    let args = ["-p", "*.py", "-x", "attic,deep/*.py"];
    let paths = ["a.txt", "attic/a.py", "b.py", "c.txt", "deep/d.py"];
    let mirror = Mirror::start(&args, &paths);
    mirror.project.remove("a.txt");
    fs::remove_dir_all(mirror.project.path("attic")).unwrap();
    fs::remove_dir_all(mirror.project.path("deep")).unwrap();
    mirror.project.rename("c.txt", "d.txt");
    let mirror = mirror.expect(&paths);
    assert_eq!(mirror.commands(&["DELE", "RMD", "RNFR"]), [""; 0]);
}

/// It is as if it was moved out.
#[test]
fn what_is_renamed_to_what_does_not_match_is_removed_there() {
    let mirror = Mirror::start(&[], &["a.py", "b.py"]);
    mirror.project.rename("a.py", "a.off");
    let mirror = mirror.expect(&["b.py"]);
    assert_eq!(mirror.commands(&["DELE", "RNFR"]), ["DELE a.py"]);
}

#[test]
fn without_it_nothing_is_ever_removed_or_renamed_there() {
    let paths = ["a.py", "b.py", "c.py", "lib/d.py", "old/e.py"];
    let mut mirror = Mirror::with(Dialect::PLAIN, &[], &paths);
    mirror.project.remove("a.py");
    mirror.project.rename("b.py", "new.py");
    fs::remove_dir_all(mirror.project.path("lib")).unwrap();
    mirror.project.rename("old", "new");
    mirror.server.wait_file("new.py", "b.py");
    mirror.server.wait_file("new/e.py", "old/e.py");
    // A second and more, in which one that mirrors would have done it.
    let other = Mirror::start(&[], &["b.py"]);
    other.expect(&["b.py"]);
    mirror.run.stop();
    for path in paths {
        mirror.server.wait_file(path, path);
    }
    assert_eq!(mirror.commands(&["DELE", "RMD", "RNFR", "RNTO"]), [""; 0]);
}

/// What is gone with its project was not deleted from it, whatever is in the one that is back.
fn bring_back(mirror: &mut Mirror) {
    mirror.run.wait_for_error("has gone");
    fs::create_dir_all(mirror.project.root()).unwrap();
    mirror.run.wait_for("is back");
    mirror.project.write("new.py", "new");
    mirror.server.wait_file("new.py", "new");
    mirror.finish();
    assert_eq!(mirror.paths(), ["a.py", "b.py", "lib/c.py", "new.py"]);
    assert_eq!(mirror.commands(&["DELE", "RMD"]), [""; 0]);
}

#[test]
fn a_project_that_was_renamed_away_and_is_back_empty_removes_nothing() {
    side_by_side([&[][..], &["--poll=0.2"]], |args| {
        let mut mirror = Mirror::start(args, &["a.py", "b.py", "lib/c.py"]);
        let elsewhere = mirror.project.outside("elsewhere");
        fs::rename(mirror.project.root(), &elsewhere).unwrap();
        if args.is_empty() {
            // Only now does it come to light.
            fs::write(elsewhere.join("a.py"), "saved there").unwrap();
        }
        bring_back(&mut mirror);
    });
}

#[test]
fn a_project_that_was_removed_and_is_back_empty_removes_nothing() {
    side_by_side([&[][..], &["--poll=0.2"]], |args| {
        let mut mirror = Mirror::start(args, &["a.py", "b.py", "lib/c.py"]);
        fs::remove_dir_all(mirror.project.root()).unwrap();
        bring_back(&mut mirror);
    });
}

/// It is rather a disk that was taken away.
#[test]
fn when_all_files_vanish_at_once_none_is_removed_there() {
    side_by_side([&[][..], &["--poll=0.2"]], |args| {
        let mut mirror = Mirror::start(args, &["a.py", "b.py", "lib/c.py"]);
        mirror.run.signal(Signal::STOP);
        for path in ["a.py", "b.py"] {
            mirror.project.remove(path);
        }
        fs::remove_dir_all(mirror.project.path("lib")).unwrap();
        mirror.run.signal(Signal::CONT);
        mirror.run.wait_for("all files have gone at once");
        mirror.finish();
        assert_eq!(mirror.paths(), ["a.py", "b.py", "lib/c.py"], "{args:?}");
        assert_eq!(mirror.commands(&["DELE", "RMD"]), [""; 0]);
    });
}

/// With `--serve`, more is watched than is sent.
#[test]
fn when_all_that_is_sent_vanishes_at_once_none_is_removed_there() {
    let args = ["--serve", "127.0.0.1:0"];
    let mut mirror = Mirror::start(&args, &["a.py", "b.py", "README.md"]);
    mirror.run.signal(Signal::STOP);
    for path in ["a.py", "b.py"] {
        mirror.project.remove(path);
    }
    mirror.run.signal(Signal::CONT);
    mirror.run.wait_for("all files have gone at once");
    mirror.run.stop();
    assert_eq!(mirror.commands(&["DELE"]), [""; 0]);
}

/// `ln -sf` to what is yet to be made; failed for a while with the server's needs.
#[test]
fn a_name_that_leads_nowhere_is_not_gone() {
    let mut mirror = Mirror::start(&[], &["a.py", "b.py"]);
    std::os::unix::fs::symlink("nowhere", mirror.project.path(".aside")).unwrap();
    mirror.project.rename(".aside", "a.py");
    mirror.project.remove("b.py");
    mirror.server.wait_no_file("b.py");
    mirror.run.stop();
    assert_eq!(mirror.paths(), ["a.py"]);
}

#[test]
fn a_removal_that_is_refused_for_now_is_tried_again() {
    side_by_side(["450 File busy", "451 Error", "421 Bye", "550 Busy"], |reply| {
        let mirror = Mirror::start(&[], &["a.py", "b.py"]);
        mirror.server.times(1, "DELE", Act::Reply(reply));
        mirror.project.remove("a.py");
        mirror.server.wait_no_file("a.py");
        let mirror = mirror.expect(&["b.py"]);
        assert_eq!(mirror.commands(&["DELE"]).len(), 2, "{reply}");
        assert_eq!(mirror.run.stderr().lines().count(), 1, "{reply}: {}", mirror.run.stderr());
    });
}

#[test]
fn a_file_that_is_not_there_any_more_need_not_be_removed() {
    let mirror = Mirror::start(&[], &["a.py", "b.py"]);
    mirror.server.lose("a.py");
    mirror.project.remove("a.py");
    let mirror = mirror.expect(&["b.py"]);
    assert_eq!(mirror.run.stderr(), "");
}

#[test]
fn what_is_removed_while_the_server_is_away_is_removed_when_it_is_back() {
    let mut mirror = Mirror::start(&[], &["a.py", "b.py", "c.py"]);
    mirror.server.stop();
    mirror.project.remove("a.py");
    mirror.project.rename("c.py", "new.py");
    mirror.run.wait_for_error("not connected");
    mirror.project.wait_ordered("new.py");
    mirror.server.restart();
    mirror.server.wait_file("new.py", "c.py");
    mirror.server.wait_no_file("a.py");
    mirror.expect(&["b.py", "new.py"]);
}

#[test]
fn a_file_removed_while_it_is_sent_is_removed_there() {
    let mirror = Mirror::start(&[], &["b.py"]);
    mirror.server.times(1, "STOR a.py", Act::Hold);
    mirror.project.write("a.py", "a");
    mirror.server.wait_commands(1, "STOR a.py");
    mirror.project.remove("a.py");
    mirror.server.release();
    mirror.server.wait_no_file("a.py");
    mirror.expect(&["b.py"]);
}

#[test]
fn a_file_made_again_after_its_removal_is_sent_again() {
    let mirror = Mirror::start(&[], &["a.py", "b.py"]);
    mirror.project.remove("a.py");
    mirror.server.wait_no_file("a.py");
    mirror.project.write("a.py", "a.py");
    mirror.server.wait_file("a.py", "a.py");
    mirror.expect(&["a.py", "b.py"]);
}

#[test]
fn a_dry_run_only_says_what_it_would_remove() {
    let mut mirror = Mirror::start(&["-n"], &["a.py", "b.py"]);
    mirror.project.remove("a.py");
    mirror.run.wait_for("would remove");
    mirror.run.stop();
    assert_eq!(mirror.paths(), ["a.py", "b.py"]);
}

#[test]
fn with_temporary_names_it_mirrors_as_well() {
    let mirror = Mirror::start(&["--atomic"], &["a.py", "b.py", "old/c.py"]);
    mirror.project.remove("a.py");
    mirror.project.rename("old", "new");
    mirror.project.write("b.py", "changed");
    let mirror = mirror.expect(&["b.py", "new/c.py"]);
    assert_eq!(mirror.server.files()[0], pair("b.py", "changed"));
}

#[test]
fn a_real_server_is_mirrored() {
    let project = Project::new();
    let remote = project.make_outside("remote");
    let server = Server::start(&remote);
    for path in ["a.py", "keep.py", "old/deep/b.py", "gone/c.py"] {
        project.write(path, path);
    }
    let mut run = project.watch(&["--sync", "--mirror", "--atomic", &server.host()]);
    run.wait_for("in sync");
    project.remove("a.py");
    project.rename("old", "new");
    fs::remove_dir_all(project.path("gone")).unwrap();
    for path in ["a.py", "gone/c.py"] {
        run.wait_for(&format!("{path:<24} removed"));
    }
    run.stop();
    let mut names: Vec<String> = (fs::read_dir(&remote).unwrap())
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["keep.py", "new"]);
    assert_eq!(fs::read_to_string(remote.join("new/deep/b.py")).unwrap(), "old/deep/b.py");
    assert_eq!(server.puts().len(), 4);
    assert_eq!(run.stderr(), "");
}

/// Where changes are looked for, a rename looks like a removal and a new file.
#[test]
fn by_looking_for_changes_it_removes_and_sends() {
    let mirror = Mirror::start(&["--poll=0.2"], &["a.py", "b.py", "lib/c.py", "old/d.py"]);
    mirror.project.remove("a.py");
    fs::remove_dir_all(mirror.project.path("lib")).unwrap();
    mirror.project.rename("old", "new");
    mirror.project.write("b.py", "changed");
    let mirror = mirror.expect(&["b.py", "new/d.py"]);
    assert_eq!(mirror.server.files()[0], pair("b.py", "changed"));
    assert_eq!(mirror.server.directories(), ["new"]);
}

#[test]
fn each_host_is_mirrored() {
    let (project, one, two) = (Project::new(), Scripted::start(), Scripted::start());
    for path in ["a.py", "b.py", "c.py"] {
        project.write(path, path);
    }
    let mut run = project.watch(&["--sync", "--mirror", &one.host(), &two.host()]);
    for server in [&one, &two] {
        server.wait_file("c.py", "c.py");
    }
    project.remove("a.py");
    project.rename("b.py", "new.py");
    for server in [&one, &two] {
        server.wait_no_file("a.py");
        server.wait_file("new.py", "b.py");
    }
    run.stop();
    for server in [&one, &two] {
        assert_eq!(server.files(), [pair("c.py", "c.py"), pair("new.py", "b.py")]);
    }
}

/// Its directory is a new one by then, which is not watched for a moment.
#[test]
fn a_file_that_comes_back_for_a_moment_in_a_new_directory_is_removed() {
    let (project, server) = (Project::new(), Scripted::start());
    for number in 0..60 {
        project.write(format!("d{number}/x/a.py"), "a");
        project.write(format!("b{number}.py"), "b");
    }
    let mut run = project.watch(&["--mirror", "--sync", &server.host()]);
    run.wait_for("in sync");
    for number in 0..60 {
        let (dir, path) = (format!("d{number}"), format!("d{number}/x/a.py"));
        if number % 2 == 0 {
            project.remove(&path);
        }
        project.rename(&dir, &format!("e{number}"));
        // Wherever the program is just then.
        thread::sleep(Duration::from_micros(200) * (number % 20));
        fs::create_dir_all(project.path(format!("{dir}/x"))).unwrap();
        project.rename(&format!("b{number}.py"), &path);
        thread::sleep(Duration::from_micros(100) * (number % 7));
        project.write(format!("{dir}/x/.a.py.tmp"), "another");
        project.rename(&format!("{dir}/x/.a.py.tmp"), &path);
        thread::sleep(Duration::from_millis(1) * (number % 9));
        project.rename(&path, &format!("c{number}.py"));
    }
    for number in 0..60 {
        server.wait_no_file(&format!("d{number}/x/a.py"));
    }
    run.stop();
}
