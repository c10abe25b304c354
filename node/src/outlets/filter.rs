//! Which rows an outlet takes.

use unhidra_core::device::Device;
use unhidra_core::message::{Reading, UplinkKind};

use super::config::{Config, RowKind};

/// What a row must be, all of it. An empty list asks for nothing.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    kinds: Vec<RowKind>,
    devices: Vec<Pattern>,
    classes: Vec<String>,
    tags: Vec<String>,
    names: Vec<Pattern>,
}

/// A text, or the beginning of one.
#[derive(Clone, Debug)]
enum Pattern {
    Whole(String),
    Begins(String),
}

impl Pattern {
    fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(begin) => Self::Begins(begin.to_owned()),
            None => Self::Whole(text.to_owned()),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Whole(whole) => whole == text,
            Self::Begins(begin) => text.starts_with(begin.as_str()),
        }
    }
}

impl Filter {
    pub(crate) fn new(config: &Config) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        Self {
            kinds: config.kinds.clone(),
            devices: patterns(&config.devices),
            classes: config.classes.clone(),
            tags: config.tags.clone(),
            names: patterns(&config.names),
        }
    }

    /// Whether it takes a row of a device, of which the registry knows `device`.
    pub(crate) fn wants(&self, row: &Reading, device: Option<&Device>) -> bool {
        let Some(kind) = shown(row.uplink.kind) else { return false };
        let any = |patterns: &[Pattern], text: &str| patterns.is_empty() || patterns.iter().any(|p| p.matches(text));
        let class = || device.is_some_and(|device| self.classes.contains(&device.class));
        let tag = || device.is_some_and(|d| d.tags.iter().any(|tag| self.tags.iter().any(|t| t == tag.as_str())));
        self.kinds.contains(&kind)
            && any(&self.devices, row.uplink.device.as_str())
            && any(&self.names, &row.uplink.name)
            && (self.classes.is_empty() || class())
            && (self.tags.is_empty() || tag())
    }
}

/// What an outlet may show of a kind: nobody is shown what is ignored, nor that a row was there once.
const fn shown(kind: UplinkKind) -> Option<RowKind> {
    match kind {
        UplinkKind::Reading => Some(RowKind::Reading),
        UplinkKind::Event => Some(RowKind::Event),
        UplinkKind::Receipt { .. } => Some(RowKind::Receipt),
        UplinkKind::Ignored | UplinkKind::Trimmed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlets::config::tests::config;
    use crate::outlets::testing::{device, row};

    fn wants(text: &str, row: &Reading) -> bool {
        let device = device("pump-7", "pump", &["site=a", "old"]);
        Filter::new(&config(&format!("kind = 'local'\n{text}"))).wants(row, Some(&device))
    }

    #[test]
    fn a_row_must_be_all_that_is_asked_for() {
        let row = row("pump-7", 1, "temp.inlet");
        for text in ["", "devices = ['pump-*']", "names = ['x', 'temp.*']", "classes = ['pump']", "tags = ['n', 'old']"]
        {
            assert!(wants(text, &row), "{text}");
        }
        for text in
            ["devices = ['pump']", "names = ['temp']", "classes = ['fan']", "tags = ['site']", "kinds = ['event']"]
        {
            assert!(!wants(text, &row), "{text}");
        }
        assert!(!wants("devices = ['pump-7']\nnames = ['x']", &row));
    }

    #[test]
    fn a_row_nobody_is_shown_never_leaves() {
        for kind in [UplinkKind::Ignored, UplinkKind::Trimmed] {
            let mut hidden = row("pump-7", 1, "temp");
            hidden.uplink.kind = kind;
            assert!(!wants("kinds = ['reading', 'event', 'receipt']", &hidden));
        }
    }

    #[test]
    fn a_device_the_registry_does_not_know_has_no_class_and_no_tag() {
        let row = row("pump-7", 1, "temp");
        let of = |text: &str| Filter::new(&config(&format!("kind = 'local'\n{text}"))).wants(&row, None);
        assert!(of("") && !of("classes = ['pump']") && !of("tags = ['old']"));
    }
}
