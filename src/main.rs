//! The program: see the library `autoftp`.

use std::process::ExitCode;

fn main() -> ExitCode {
    autoftp::run().into()
}
