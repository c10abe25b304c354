//! Who must answer for a panic.

use std::fmt;

/// One frame of what stands at an address: a function, and what was inlined into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// The function.
    pub(crate) function: &'a str,
    /// Its file, as the compiler wrote it down.
    pub(crate) file: &'a str,
    /// The line in it; 0 where several lines were made one.
    pub(crate) line: u32,
}

/// Whose source it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Whose {
    /// Ours: e2ee, core, device-sdk.
    Ours,
    /// A crate of somebody else, by name.
    Other(String),
    /// The image's own, which calls what is looked at.
    Image,
}

/// A place that can panic.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Owner {
    /// Whose.
    pub(crate) whose: Whose,
    /// The function, without its generic arguments.
    pub(crate) function: String,
    /// The file from its crate on, and the line.
    place: String,
    /// What of Rust's own it calls.
    pub(crate) callee: String,
}

impl Owner {
    /// The owner, unless the frame is Rust's own.
    pub(crate) fn of(frame: Frame<'_>, callee: &str) -> Option<Self> {
        let (whose, file) = whose(frame.file)?;
        Some(Self {
            whose,
            function: last_name(frame.function),
            place: format!("{file}:{}", frame.line),
            callee: last_name(callee),
        })
    }

    /// What may be excused: a function of somebody else, and of what is ours a function of Rust's
    /// own, with that crate's name.
    pub(crate) fn excusable(&self) -> (&str, &str) {
        match &self.whose {
            Whose::Other(name) => (name, &self.function),
            Whose::Ours | Whose::Image => ("core", &self.callee),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} calls {}", self.function, self.place, self.callee)
    }
}

/// Whose a file is, and its name from the crate on. `None` where it is Rust's own.
fn whose(file: &str) -> Option<(Whose, &str)> {
    let after = |mark: &str| file.split_once(mark).map(|(_, rest)| rest);
    if file.starts_with("/rustc/") || file.contains("/library/core/") {
        return None;
    }
    if let Some(rest) = after("/registry/src/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest) {
        let (name, _) = rest.split_once('/').unwrap_or((rest, ""));
        let name = name.rsplit_once('-').map_or(name, |(name, _version)| name);
        return Some((Whose::Other(name.to_owned()), rest));
    }
    let ours = ["/e2ee/src/", "/core/src/", "/device-sdk/src/"].iter().find_map(|mark| file.find(mark));
    match ours.and_then(|at| file.get(at + 1..)) {
        Some(rest) => Some((Whose::Ours, rest)),
        // What is neither known nor named counts as ours, so that it is looked at.
        None => Some(after("/metal/").map_or((Whose::Ours, file), |rest| (Whose::Image, rest))),
    }
}

/// `encode` of `<a::B<C>>::encode::<D>`.
fn last_name(function: &str) -> String {
    let mut depth = 0_u32;
    let outer: String = function
        .chars()
        .filter(|character| {
            depth += u32::from(*character == '<');
            let keep = depth == 0;
            depth -= u32::from(*character == '>' && depth > 0);
            keep
        })
        .collect();
    outer.rsplit("::").find(|part| !part.is_empty()).unwrap_or(function).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_of_its_crate() {
        let registry = "/home/a/.cargo/registry/src/index-1949cf8c6b5b557f/curve25519-dalek-5.0.0/src/field.rs";
        assert_eq!(
            whose(registry),
            Some((Whose::Other("curve25519-dalek".into()), "curve25519-dalek-5.0.0/src/field.rs"))
        );
        assert_eq!(whose("/home/a/unhidra/e2ee/src/wire.rs"), Some((Whose::Ours, "e2ee/src/wire.rs")));
        assert_eq!(whose("/a/metal/src/ops.rs"), Some((Whose::Image, "src/ops.rs")));
        assert_eq!(whose("/rustc/59807616/library/core/src/slice/mod.rs"), None);
    }

    #[test]
    fn what_is_not_known_counts_as_ours() {
        assert_eq!(whose("").map(|(whose, _)| whose), Some(Whose::Ours));
    }

    #[test]
    fn a_function_is_known_by_its_last_name() {
        assert_eq!(last_name("<a::B<C>>::encode::<D>"), "encode");
        assert_eq!(last_name("encode<a::B>"), "encode");
        assert_eq!(last_name("a::b::{closure#0}"), "{closure#0}");
    }
}
