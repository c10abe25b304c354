//! Lists what in a linked image can panic, and in whose source it stands.
//!
//! ```text
//! unhidra-panics KNOWN IMAGE...
//! ```
//!
//! An image was linked with `--emit-relocs --no-relax` and line tables. Every relocation of its
//! code that names a function is a call of it, or takes its address. From `core::panicking` it goes
//! back to every function that can reach it, and of each call into one to the source it came from,
//! through all that was inlined there. The innermost place that is not of Rust's own `core` is the
//! one that must answer for it.
//!
//! It ends with 1 where one of those is not in KNOWN, or a line of KNOWN is in no image: a text with one line for each function of a
//! third party, or of `core`, that may keep a panic: `crate function: why it is never reached`. What
//! stands in our own source is not excused there; only what `core` does inside itself is.

mod image;
mod known;
mod owner;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::image::Image;
use crate::known::Known;
use crate::owner::{Owner, Whose};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [known, images @ ..] = arguments.as_slice() else { bail!("usage: unhidra-panics KNOWN IMAGE...") };
    let known = Known::parse(&fs::read_to_string(known).with_context(|| known.clone())?)?;
    let mut found = BTreeMap::new();
    for image in images {
        look(image, &mut found).with_context(|| image.clone())?;
    }
    Ok(report(&found, &known))
}

/// Adds what an image keeps of ways to panic.
fn look(image: &str, found: &mut BTreeMap<Owner, u32>) -> Result<()> {
    let bytes = fs::read(image)?;
    let image = Image::read(&bytes)?;
    for call in image.calls_that_panic() {
        if let Some(owner) = image.owner(call)? {
            *found.entry(owner).or_default() += 1;
        }
    }
    println!("{} functions, {} calls among them", image.functions(), image.calls());
    Ok(())
}

fn report(found: &BTreeMap<Owner, u32>, known: &Known) -> ExitCode {
    let mut red = 0;
    for (owner, count) in found {
        let verdict = known.why(owner).unwrap_or(match owner.whose {
            Whose::Ours => "RED: ours, which must not panic",
            Whose::Image => "RED: of the image itself, which must not panic lest it hide what does",
            Whose::Other(_) => "RED: not known; say why it is never reached, or mend the call",
        });
        red += u32::from(known.why(owner).is_none());
        println!("{owner} ({count})\n    {verdict}");
    }
    for line in known.unused(found.keys()) {
        red += 1;
        println!("RED: known, and in no image: {line}");
    }
    if red > 0 {
        println!("RED: {red} in all");
        return ExitCode::FAILURE;
    }
    println!("none in ours");
    ExitCode::SUCCESS
}
