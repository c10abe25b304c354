//! The binary: arguments in, exit status out.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use clap::Parser as _;
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use unhidra_node::cli::{self, Args, CliError};

/// How many sockets a thread hears of before it runs what they woke.
///
/// Fewer than the 61 tasks it runs before it asks again: were there more, they would pile up in the
/// queue that all threads share, which is behind each thread's own, and whoever is in it waits for
/// several rounds of the others. With 500 busy pairs the 99th percentile is three times as long then.
const IO_EVENTS_PER_TICK: usize = 32;

fn main() -> ExitCode {
    // clap answers for --help and --version, and for what it does not understand, by itself.
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            if code != 0 {
                // Nobody is left to tell where stderr is gone too.
                let _ = writeln!(stderr(), "unhidra: {error}");
            }
            ExitCode::from(code)
        }
    }
}

fn run(args: Args) -> Result<(), CliError> {
    // Before anything may ask rustls for its default: two providers in one binary would panic it.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return Err(CliError::Failed("another TLS provider is installed already".to_owned()));
    }
    let rng = StdRng::try_from_rng(&mut SysRng);
    let rng = rng.map_err(|error| CliError::Failed(format!("the system gives no randomness: {error}")))?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.max_io_events_per_tick(IO_EVENTS_PER_TICK).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Failed(format!("the threads cannot be started: {error}")))?;
    runtime.block_on(cli::dispatch(args, rng, &mut stdout()))
}
