//! What has been opened: deterministic CBOR and its padding.

use unhidra_e2ee::plaintext::Plaintext;

/// What is read is written again, shorter or as long, and reads as the same.
pub(crate) fn run(padded: &[u8]) {
    let Ok(plaintext) = Plaintext::decode(padded) else { return };
    let mut out = vec![0; plaintext.padded_len()];
    // What is unknown is left out, so it is never longer.
    assert_eq!(plaintext.encode_padded(&mut out), Ok(out.len()));
    assert!(out.len() <= padded.len());
    assert_eq!(Plaintext::decode(&out), Ok(plaintext));
    // With as many keys none was left out, and there is one way to write what is known.
    if padded.first() == out.first() {
        assert_eq!(padded, out, "one plaintext has two encodings");
    }
}
