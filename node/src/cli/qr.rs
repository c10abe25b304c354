//! A fingerprint's QR code: on a terminal, and as a drawing.

use std::fmt::Write as _;

use qrcodegen_no_heap::{QrCode, QrCodeEcc, Version};
use unhidra_bridge::Fingerprint;

/// Light modules around the code, which a scanner needs on every side.
const QUIET_ZONE: i32 = 4;
/// The version of the standard (ISO/IEC 18004) that every fingerprint fits.
const VERSION: u8 = 5;
const BUFFER_LEN: usize = Version::new(VERSION).buffer_len();
/// Black on white out of the fixed part of the palette: right on dark terminals and on light ones.
const COLOURS: &str = "\x1b[38;5;16;48;5;231m";
const NO_COLOURS: &str = "\x1b[0m";

/// The modules of a code.
pub(super) struct Picture {
    size: i32,
    dark: Vec<(i32, i32)>,
}

impl Picture {
    /// Draws the code of a fingerprint.
    pub(super) fn of(fingerprint: &Fingerprint) -> Self {
        let (mut buffer, mut drawn) = ([0; BUFFER_LEN], [0; BUFFER_LEN]);
        let (code, version) = (fingerprint.code(), Version::new(VERSION));
        let text = String::from_utf8_lossy(&code);
        let drawn = QrCode::encode_text(&text, &mut buffer, &mut drawn, QrCodeEcc::Low, version, version, None, true);
        // Every code has the same length and alphabet, so that one fits because all do.
        let Ok(drawn) = drawn else { return Self { size: 0, dark: Vec::new() } };
        let places = || 0..drawn.size();
        let dark = places().flat_map(|y| places().map(move |x| (x, y)));
        Self { size: drawn.size(), dark: dark.filter(|(x, y)| drawn.get_module(*x, *y)).collect() }
    }

    fn is_dark(&self, x: i32, y: i32) -> bool {
        // They are in the order of their rows.
        self.dark.binary_search_by_key(&(y, x), |(x, y)| (*y, *x)).is_ok()
    }

    fn places(&self) -> std::ops::Range<i32> {
        -QUIET_ZONE..self.size + QUIET_ZONE
    }

    /// Lines of half blocks, two rows of modules in each, black on white.
    pub(super) fn terminal(&self) -> String {
        let mut lines = String::new();
        for y in self.places().step_by(2) {
            let blocks = self.places().map(|x| match (self.is_dark(x, y), self.is_dark(x, y + 1)) {
                (false, false) => ' ',
                (true, false) => '▀',
                (false, true) => '▄',
                (true, true) => '█',
            });
            lines.push_str(COLOURS);
            lines.extend(blocks);
            lines.push_str(NO_COLOURS);
            lines.push('\n');
        }
        lines.truncate(lines.trim_end_matches('\n').len());
        lines
    }

    /// An SVG with the code, and below it the name and the digits: for a label or a screen.
    pub(super) fn svg(&self, name: &str, digits: &str) -> String {
        const LINE: i32 = 4;
        let texts: Vec<&str> = std::iter::once(name).chain(digits.lines()).collect();
        let width = self.size + 2 * QUIET_ZONE;
        let text_lines = i32::try_from(texts.len()).unwrap_or_default();
        let height = width + text_lines * LINE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{}\" height=\"{}\" \
             role=\"img\" shape-rendering=\"crispEdges\">\n<title>The fingerprint of {name}: {}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n<path d=\"",
            width * 8,
            height * 8,
            digits.replace('\n', " "),
        );
        for (x, y) in &self.dark {
            let _ = write!(svg, "M{} {}h1v1h-1z", x + QUIET_ZONE, y + QUIET_ZONE);
        }
        svg.push_str("\"/>\n");
        // Below the quiet zone, and not wider than the code, whatever the font and however long the name.
        for (line, text) in (0..).zip(texts) {
            let letters = i32::try_from(text.len()).unwrap_or(i32::MAX).max(1);
            let size = (f64::from(self.size) / (0.65 * f64::from(letters))).min(2.6);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" font-family=\"monospace\" font-size=\"{size:.2}\" text-anchor=\"middle\">{text}</text>",
                f64::from(width) / 2.0,
                width + line * LINE + LINE - 1,
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rqrr::PreparedImage;
    use unhidra_bridge::IdentitySecret;
    use unhidra_core::ids::DeviceId;

    fn fingerprint() -> Fingerprint {
        let key = |seed| IdentitySecret::from_seed(&[seed; 32]).public();
        Fingerprint::of(&DeviceId::parse("pump-7").unwrap(), &key(1), &key(2))
    }

    /// What a camera reads that sees a module as a square of pixels.
    fn scanned(width: usize, height: usize, is_dark: impl Fn(usize, usize) -> bool) -> Vec<String> {
        const SCALE: usize = 4;
        let shade = |x, y| if is_dark(x / SCALE, y / SCALE) { 0 } else { 255 };
        let mut image = PreparedImage::prepare_from_greyscale(width * SCALE, height * SCALE, shade);
        image.detect_grids().iter().map(|grid| grid.decode().unwrap().1).collect()
    }

    fn expected() -> Vec<String> {
        vec![String::from_utf8(fingerprint().code().to_vec()).unwrap()]
    }

    #[test]
    fn a_terminal_shows_what_a_camera_reads() {
        let text = Picture::of(&fingerprint()).terminal();
        let lines: Vec<Vec<char>> = text
            .lines()
            .map(|line| {
                let line = line.strip_prefix(COLOURS).and_then(|line| line.strip_suffix(NO_COLOURS));
                line.expect("every line sets its colours and takes them back").chars().collect()
            })
            .collect();
        assert!((lines.len(), lines[0].len()) == (23, 45), "it fits 80 columns: {text}");
        let is_dark = |x: usize, y: usize| match lines[y / 2][x] {
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            '█' => true,
            _ => false,
        };
        assert_eq!(scanned(45, 46, is_dark), expected());
    }

    #[test]
    fn a_drawing_shows_what_a_camera_reads_and_the_digits() {
        let digits = fingerprint().to_string();
        let svg = Picture::of(&fingerprint()).svg("pump-7", &digits);
        for line in digits.lines().chain(["pump-7"]) {
            assert!(svg.contains(&format!(">{line}</text>")), "{svg}");
        }
        let path = svg.split("<path d=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let dark: Vec<(usize, usize)> = path
            .split('M')
            .skip(1)
            .map(|module| {
                let place = module.strip_suffix("h1v1h-1z").unwrap();
                let (x, y) = place.split_once(' ').unwrap();
                (x.parse().unwrap(), y.parse().unwrap())
            })
            .collect();
        assert_eq!(scanned(45, 45, |x, y| dark.contains(&(x, y))), expected());
    }
}
