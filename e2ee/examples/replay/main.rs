//! Plays transcripts of the oracle again, and exits with 1 at the first difference.
//!
//! ```sh
//! python3 e2ee/oracle/ratchet_oracle.py vectors 7 400 > 7.json
//! cargo run -p unhidra-e2ee --example replay -- 7.json
//! ```

use std::process::ExitCode;

mod transcript;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: replay FILE...");
        return ExitCode::from(2);
    }
    for file in files {
        let played = std::fs::read_to_string(&file).map_err(|e| e.to_string()).and_then(|json| transcript::play(&json));
        match played {
            Ok(played) => {
                println!("{file}: {} sent, {} opened, {} refused", played.sent, played.opened, played.refused);
            }
            Err(difference) => {
                eprintln!("{file}: {difference}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
