//! The other side: a process that answers one JSON line with one.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A process of the oracle, killed when dropped.
pub(crate) struct Peer {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the peer made of a message.
pub(crate) enum Heard {
    Opened(Vec<u8>),
    Refused,
}

impl Peer {
    pub(crate) fn start(command: &[String]) -> Result<Self, String> {
        let (program, args) = command.split_first().ok_or("no command")?;
        let mut process = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{program}: {e}"))?;
        let asks = process.stdin.take().ok_or("no stdin")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        Ok(Self { process, asks, answers })
    }

    fn ask(&mut self, question: &Value) -> Result<Value, String> {
        let io = |e: std::io::Error| format!("the peer is gone: {e}");
        writeln!(self.asks, "{question}").map_err(io)?;
        self.asks.flush().map_err(io)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(io)?;
        serde_json::from_str(&line).map_err(|e| format!("the peer answered {line:?}: {e}"))
    }

    /// The peer begins: its first message.
    pub(crate) fn begins(
        &mut self,
        sk: &[u8; 32],
        spk: &[u8; 32],
        sad: &[u8; 32],
        text: &[u8],
    ) -> Result<Vec<u8>, String> {
        let (sk, spk, sad) = (hex::encode(sk), hex::encode(spk), hex::encode(sad));
        let answer = self.ask(&json!({"op": "init_a", "sk": sk, "spk": spk, "sad": sad, "pt": hex::encode(text)}))?;
        sealed(&answer)
    }

    /// The peer answers: what it read in our first message.
    pub(crate) fn answers(
        &mut self,
        sk: &[u8; 32],
        spk_secret: &[u8; 32],
        sad: &[u8; 32],
        first: &[u8],
    ) -> Result<Heard, String> {
        let (sk, spk_secret, sad) = (hex::encode(sk), hex::encode(spk_secret), hex::encode(sad));
        let (header, ct) = halves(first)?;
        let question =
            json!({"op": "init_b", "sk": sk, "spk_priv": spk_secret, "sad": sad, "header": header, "ct": ct});
        heard(&self.ask(&question)?)
    }

    pub(crate) fn seals(&mut self, text: &[u8]) -> Result<Vec<u8>, String> {
        sealed(&self.ask(&json!({"op": "enc", "pt": hex::encode(text)}))?)
    }

    pub(crate) fn opens(&mut self, message: &[u8]) -> Result<Heard, String> {
        let (header, ct) = halves(message)?;
        heard(&self.ask(&json!({"op": "dec", "header": header, "ct": ct}))?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn halves(message: &[u8]) -> Result<(String, String), String> {
    let (header, ct) = message.split_at_checked(41).ok_or("a message without a header")?;
    Ok((hex::encode(header), hex::encode(ct)))
}

fn field(answer: &Value, name: &str) -> Result<Vec<u8>, String> {
    let text = answer.get(name).and_then(Value::as_str).ok_or_else(|| format!("no {name} in {answer}"))?;
    hex::decode(text).map_err(|e| format!("{name}: {e}"))
}

fn sealed(answer: &Value) -> Result<Vec<u8>, String> {
    Ok([field(answer, "header")?, field(answer, "ct")?].concat())
}

fn heard(answer: &Value) -> Result<Heard, String> {
    match answer.get("err") {
        Some(_) => Ok(Heard::Refused),
        None => field(answer, "pt").map(Heard::Opened),
    }
}
