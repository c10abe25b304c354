//! The fingerprint as a QR code, for a display or a console that a camera can look at.
//!
//! A console whose font has the half blocks shows two rows of modules in one line:
//!
//! ```
//! use std::fmt::Write;
//! use unhidra_device_sdk::qr::{QUIET_ZONE, QrCode, SIZE};
//! # use unhidra_core::ids::DeviceId;
//! # use unhidra_device_sdk::{Fingerprint, IdentitySecret};
//! # let key = IdentitySecret::from_seed(&[1; 32]).public();
//! # let fingerprint = Fingerprint::of(&DeviceId::parse("pump-7").unwrap(), &key, &key);
//! # let mut console = String::new();
//! let code = QrCode::of(&fingerprint);
//! let places = -QUIET_ZONE..SIZE as i8 + QUIET_ZONE;
//! for y in places.clone().step_by(2) {
//!     // Black on white, whatever the console's own colours are.
//!     write!(console, "\x1b[30;107m")?;
//!     for x in places.clone() {
//!         let block = match (code.is_dark(x, y), code.is_dark(x, y + 1)) {
//!             (false, false) => ' ',
//!             (true, false) => '▀',
//!             (false, true) => '▄',
//!             (true, true) => '█',
//!         };
//!         console.write_char(block)?;
//!     }
//!     writeln!(console, "\x1b[0m\r")?;
//! }
//! # assert_eq!(console.lines().count(), 23);
//! # Ok::<_, std::fmt::Error>(())
//! ```

use qrcodegen_no_heap::{QrCode as Drawn, QrCodeEcc, Version};
use unhidra_e2ee::fingerprint::Fingerprint;

/// Modules of a side: version 5 of the standard (ISO/IEC 18004), which is always enough.
pub const SIZE: usize = 37;
/// Light modules that a scanner needs on every side.
pub const QUIET_ZONE: i8 = 4;

const VERSION: u8 = 5;
const BUFFER_LEN: usize = Version::new(VERSION).buffer_len();

/// A fingerprint's code in modules, 296 bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QrCode {
    /// A row each; the module at x is bit x.
    rows: [u64; SIZE],
}

impl QrCode {
    /// Draws the code of a fingerprint.
    #[must_use]
    pub fn of(fingerprint: &Fingerprint) -> Self {
        let mut rows = [0; SIZE];
        let (mut buffer, mut drawn) = ([0; BUFFER_LEN], [0; BUFFER_LEN]);
        let (code, version) = (fingerprint.code(), Version::new(VERSION));
        let text = core::str::from_utf8(&code).unwrap_or_default();
        // Every code has the same length and alphabet, so that one fits because all do.
        if let Ok(drawn) =
            Drawn::encode_text(text, &mut buffer, &mut drawn, QrCodeEcc::Low, version, version, None, true)
        {
            for (y, row) in (0..).zip(&mut rows) {
                *row = (0..).take(SIZE).filter(|x| drawn.get_module(*x, y)).fold(0, |row, x| row | 1 << x);
            }
        }
        Self { rows }
    }

    /// Whether the module in this column and row, from 0 in the upper left corner, is dark. Outside
    /// of the code all are light.
    #[must_use]
    pub fn is_dark(&self, x: i8, y: i8) -> bool {
        let row = usize::try_from(y).ok().and_then(|y| self.rows.get(y));
        let column = u32::try_from(x).ok().filter(|x| *x < u64::BITS);
        row.zip(column).is_some_and(|(row, x)| row >> x & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use rqrr::{PreparedImage, SimpleGrid};
    use std::string::String;
    use unhidra_core::ids::DeviceId;
    use unhidra_e2ee::identity::IdentitySecret;

    fn fingerprint(seed: u8) -> Fingerprint {
        let key = |seed| IdentitySecret::from_seed(&[seed; 32]).public();
        Fingerprint::of(&DeviceId::parse("pump-7").unwrap(), &key(seed), &key(0xff))
    }

    fn side(at: usize) -> i8 {
        i8::try_from(at).unwrap()
    }

    #[test]
    fn somebody_elses_decoder_reads_the_code() {
        for seed in 0..32 {
            let fingerprint = fingerprint(seed);
            let code = QrCode::of(&fingerprint);
            let grid = SimpleGrid::from_func(SIZE, |x, y| code.is_dark(side(x), side(y)));
            let (meta, text) = rqrr::Grid::new(grid).decode().unwrap();
            assert_eq!((text.as_bytes(), meta.version.to_size()), (&fingerprint.code()[..], SIZE));
        }
    }

    #[test]
    fn a_camera_finds_it_within_its_quiet_zone() {
        const SCALE: usize = 3;
        let fingerprint = fingerprint(1);
        let code = QrCode::of(&fingerprint);
        let pixels = (SIZE + 2 * usize::try_from(QUIET_ZONE).unwrap()) * SCALE;
        let is_dark = |x, y| code.is_dark(side(x / SCALE) - QUIET_ZONE, side(y / SCALE) - QUIET_ZONE);
        let shade = |x, y| if is_dark(x, y) { 0 } else { 255 };
        let mut image = PreparedImage::prepare_from_greyscale(pixels, pixels, shade);
        let texts: std::vec::Vec<String> = image.detect_grids().iter().map(|grid| grid.decode().unwrap().1).collect();
        assert_eq!(texts, [String::from_utf8(fingerprint.code().to_vec()).unwrap()]);
    }

    #[test]
    fn outside_of_the_code_all_is_light() {
        let code = QrCode::of(&fingerprint(1));
        let beyond = side(SIZE);
        assert!(code.is_dark(0, 0) && code.is_dark(beyond - 1, 0) && code.is_dark(0, beyond - 1));
        for (x, y) in [(-1, 0), (0, -1), (beyond, 0), (0, beyond), (i8::MIN, 0), (0, i8::MIN), (i8::MAX, 0), (64, 0)] {
            assert!(!code.is_dark(x, y), "{x} {y}");
        }
    }
}
