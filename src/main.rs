//! The command `metatape`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
