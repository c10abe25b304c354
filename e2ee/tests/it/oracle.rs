//! Transcripts of a Double Ratchet that others wrote (e2ee/oracle/ratchet_oracle.py).

#[path = "../../examples/replay/transcript.rs"]
mod transcript;

const TRANSCRIPTS: [&str; 4] = [
    include_str!("../vectors/oracle-1.json"),
    include_str!("../vectors/oracle-2.json"),
    include_str!("../vectors/oracle-3.json"),
    include_str!("../vectors/oracle-4.json"),
];

#[test]
fn transcripts_of_the_oracle_play_byte_for_byte() {
    for (at, json) in TRANSCRIPTS.iter().enumerate() {
        let played = transcript::play(json).unwrap_or_else(|difference| panic!("transcript {}: {difference}", at + 1));
        assert!(played.sent > 150 && played.opened > 100 && played.refused > 10);
    }
}

#[test]
fn a_transcript_that_differs_is_told() {
    let json = TRANSCRIPTS[0];
    let last = json.rfind("\"ct\": \"").unwrap() + 7;
    let digit = if json[last..].starts_with('0') { "1" } else { "0" };
    let other = format!("{}{digit}{}", &json[..last], &json[last + 1..]);
    assert!(transcript::play(&other).is_err_and(|difference| difference.contains("envelope is")));

    let refused_is_opened = json.replacen("\"ok\": false", "\"ok\": true", 1);
    assert!(transcript::play(&refused_is_opened).is_err_and(|difference| difference.contains("did not open")));
    let opened_is_refused = json.replacen("\"ok\": true", "\"ok\": false", 1);
    assert!(transcript::play(&opened_is_refused).is_err_and(|difference| difference.contains("refused")));
    assert!(transcript::play("{}").is_err());
}
