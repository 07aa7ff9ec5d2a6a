//! `sagabus`: the program is the library's.

fn main() -> std::process::ExitCode {
    sagabus_operator::program()
}
