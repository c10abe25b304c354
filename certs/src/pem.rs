//! The textual encoding of RFC 7468.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Encodes under a label. The text is built in one buffer of its final size, so that growing it
/// leaves no copy of a key behind.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut base64 = Zeroizing::new(String::with_capacity(der.len().div_ceil(3) * 4));
    STANDARD.encode_string(der, &mut base64);
    let lines = base64.len().div_ceil(LINE);
    let mut text = Zeroizing::new(String::with_capacity(base64.len() + lines + 2 * label.len() + 40));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Characters a line (RFC 7468 section 2).
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn every_length_reads_back_and_the_buffer_never_grows() {
        for len in [0_usize, 1, 47, 48, 49, 96, 500] {
            let der: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let text = encode("CERTIFICATE", &der);
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
            assert!(text.lines().all(|line| line.len() <= LINE));
            let reserved = der.len().div_ceil(3) * 4 + der.len().div_ceil(48) + 2 * "CERTIFICATE".len() + 40;
            assert!(text.len() <= reserved, "{len}: {} of {reserved}", text.len());
        }
    }
}
