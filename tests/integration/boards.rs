//! The whole journey with the servers that boards run, as they really answer.


use crate::support::{Autoftp, Board, Project, side_by_side};

/// How to make each board, and who may write there.
const BOARDS: [(fn() -> Board, &str); 4] = [
    (Board::uftpd, "anonymous"),
    (Board::uftpd_on_esp32, "anonymous"),
    (Board::ftpdlite, "ftpadmin"),
    (|| Board::ftpdlite_for("maker", "secret"), "maker:secret"),
];

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

/// `autoftp ARGS` between a project and a board, ready to catch saves.
fn watch(project: &Project, board: &Board, login: &str, args: &[&str]) -> Autoftp {
    let host = format!("ftp://{login}@{}", board.host());
    project.watch(&[args, &[host.as_str()]].concat())
}

/// Does the same with every board.
fn on_every_board(test: impl Fn(&Project, &Board, &str) + Sync) {
    side_by_side(BOARDS, |(make, login)| test(&Project::new(), &make(), login));
}

#[test]
fn saves_arrive_over_one_session_and_it_says_goodbye() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &["-p", "*"]);
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for (path, content) in [("a.py", &b"one"[..]), ("b.bin", &bytes), ("empty.py", b"")] {
            project.write(path, content);
            board.wait_stored(path, content);
        }
        project.write("a.py", "two");
        board.wait_stored("a.py", "two");
        run.stop();
        board.wait_file("a.py", "two");
        assert_eq!(board.stored().len(), 4);
        assert_eq!(board.sessions(), 1);
        assert_eq!(board.commands("QUIT").len(), 1);
        assert_eq!(board.commands("EPSV").len(), 0, "uftpd does not know it");
    });
}

#[test]
fn new_directories_are_made_on_the_way() {
    on_every_board(|project, board, login| {
        let mut run = watch(project, board, login, &[]);
        for path in ["lib/deep/er/a.py", "lib/deep/b.py", "lib/other/c.py"] {
            project.write(path, path);
            board.wait_stored(path, path);
        }
        run.stop();
        assert_eq!(board.stored().len(), 3);
        assert_eq!(run.stderr(), "", "what is mended by itself is not said");
    });
}
