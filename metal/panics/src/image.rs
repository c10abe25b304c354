//! A linked image: its functions, and which calls which.

use std::collections::{BTreeMap, BTreeSet};

use addr2line::gimli::{self, EndianSlice, RunTimeEndian};
use anyhow::{Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};

use crate::owner::{Frame, Owner};

type Bytes<'a> = EndianSlice<'a, RunTimeEndian>;

/// Where Rust keeps the ways to panic, all of them never inlined.
const PANICKING: &str = "core::panicking::";

/// A function's address, which names it.
type Address = u64;

/// One function that calls another, or takes its address.
#[derive(Debug)]
pub(crate) struct Call {
    /// Where.
    pub(crate) at: Address,
    /// What is called.
    pub(crate) callee: Address,
    caller: Address,
}

/// The image.
pub(crate) struct Image<'a> {
    functions: BTreeMap<Address, String>,
    calls: Vec<Call>,
    lines: addr2line::Context<Bytes<'a>>,
}

impl<'a> Image<'a> {
    /// Reads an image.
    ///
    /// # Errors
    ///
    /// Where it is none, or was linked without what is asked of it here.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        let file = object::File::parse(bytes)?;
        let functions: BTreeMap<Address, String> = file
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .map(|symbol| (symbol.address() & !1, plain_name(symbol.name().unwrap_or_default())))
            .collect();
        let calls = calls(&file, &functions)?;
        if calls.is_empty() {
            bail!("no relocations: link with --emit-relocs");
        }
        let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let section = |id: gimli::SectionId| -> Result<Bytes<'a>> {
            let data = file.section_by_name(id.name()).map(|section| section.data()).transpose()?;
            Ok(EndianSlice::new(data.unwrap_or_default(), endian))
        };
        let lines = addr2line::Context::from_dwarf(gimli::Dwarf::load(section)?)?;
        Ok(Self { functions, calls, lines })
    }

    /// How many functions there are.
    pub(crate) fn functions(&self) -> usize {
        self.functions.len()
    }

    /// How many calls there are.
    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Every call of a function that can panic.
    pub(crate) fn calls_that_panic(&self) -> impl Iterator<Item = &Call> {
        let panicking = self.panicking();
        self.calls.iter().filter(move |call| panicking.contains(&call.callee))
    }

    /// All functions that can panic.
    fn panicking(&self) -> BTreeSet<Address> {
        let ways = self.functions.iter().filter(|(_, name)| name.starts_with(PANICKING));
        let mut panicking: BTreeSet<Address> = ways.map(|(at, _)| *at).collect();
        loop {
            let before = panicking.len();
            let callers = self.calls.iter().filter(|call| panicking.contains(&call.callee)).map(|call| call.caller);
            let callers: Vec<Address> = callers.collect();
            panicking.extend(callers);
            if panicking.len() == before {
                return panicking;
            }
        }
    }

    /// Who must answer for a call that can panic: `None` where all of it is Rust's own, whose
    /// callers then answer, or where what is called is somebody else's, who answers for it there.
    ///
    /// # Errors
    ///
    /// Where the line tables cannot be read.
    pub(crate) fn owner(&self, call: &Call) -> Result<Option<Owner>> {
        let callee = self.name(call.callee);
        if !is_rusts_own(callee) {
            return Ok(None);
        }
        let mut frames = self.lines.find_frames(call.at).skip_all_loads()?;
        let mut any = false;
        // What of Rust's own was called from outside it: the last frame before the first that is not.
        let mut own = callee.to_owned();
        while let Some(frame) = frames.next()? {
            any = true;
            let function = frame.function.map(|function| function.demangle().map(|name| name.into_owned()));
            let function = function.transpose()?.unwrap_or_default();
            let file = frame.location.as_ref().and_then(|location| location.file).unwrap_or_default();
            let line = frame.location.as_ref().and_then(|location| location.line).unwrap_or_default();
            let function = plain_name(&function);
            if let Some(owner) = Owner::of(Frame { function: &function, file, line }, &own) {
                return Ok(Some(owner));
            }
            own = function;
        }
        if !any {
            bail!("no line table for 0x{:x} in {}", call.at, self.name(call.caller));
        }
        Ok(None)
    }

    fn name(&self, function: Address) -> &str {
        self.functions.get(&function).map_or("?", String::as_str)
    }
}

/// Every relocation of code that names a function, and the function it stands in.
fn calls(file: &object::File<'_>, functions: &BTreeMap<Address, String>) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for section in file.sections().filter(|section| section.kind() == object::SectionKind::Text) {
        for (at, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let target = file.symbol_by_index(symbol)?.address().wrapping_add_signed(relocation.addend()) & !1;
            let caller = functions.range(..=at).next_back().map(|(caller, _)| *caller);
            if let (Some(caller), true) = (caller, functions.contains_key(&target))
                && caller != target
            {
                calls.push(Call { at, callee: target, caller });
            }
        }
    }
    Ok(calls)
}

/// The name without its hash.
fn plain_name(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// Whether a function is of Rust's own libraries: a panic in it is its caller's matter.
fn is_rusts_own(name: &str) -> bool {
    let path = name.trim_start_matches(['<', '&', '[', '*']);
    ["core::", "alloc::", "__rustc::", "compiler_builtins::"].iter().any(|own| path.starts_with(own))
        || name.contains(" as core::")
}
