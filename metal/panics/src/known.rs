//! Which functions of third parties, and of Rust's own, keep a panic, and why none is ever reached.

use anyhow::{Context, Result};

use crate::owner::Owner;

/// One line: `crate function: why`.
#[derive(Debug)]
struct Line {
    of: String,
    function: String,
    why: String,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Known(Vec<Line>);

impl Known {
    /// Reads the text. Lines that are empty or begin with `#` say nothing.
    ///
    /// # Errors
    ///
    /// Where a line is none.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines = lines.map(|line| {
            let (name, why) = line.split_once(": ").with_context(|| format!("no reason in: {line}"))?;
            let (of, function) = name.split_once(' ').with_context(|| format!("no function in: {line}"))?;
            Ok(Line { of: of.to_owned(), function: function.to_owned(), why: why.to_owned() })
        });
        lines.collect::<Result<_>>().map(Self)
    }

    fn line(&self, owner: &Owner) -> Option<&Line> {
        let (of, function) = owner.excusable();
        self.0.iter().find(|line| line.of == of && line.function == function)
    }

    /// Why this one is never reached.
    pub(crate) fn why(&self, owner: &Owner) -> Option<&str> {
        self.line(owner).map(|line| line.why.as_str())
    }

    /// Lines that none of these needs.
    pub(crate) fn unused<'a>(&self, owners: impl Iterator<Item = &'a Owner> + Clone) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .filter(move |line| {
                !owners.clone().any(|owner| self.line(owner).is_some_and(|used| std::ptr::eq(used, *line)))
            })
            .map(|line| format!("{} {}", line.of, line.function))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_reason_is_refused() {
        assert!(Known::parse("# nothing\n\nsha2 compress: its block has 64 bytes\n").is_ok());
        assert!(Known::parse("sha2 compress").is_err());
        assert!(Known::parse("sha2: why").is_err());
    }
}
