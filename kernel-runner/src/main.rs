//! The kernel runner: PID 1 of every kernel container. See the library's documentation.

fn main() {
    std::process::exit(backendai_kernel_runner::main());
}
