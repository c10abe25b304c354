//! The device: a process that answers one JSON line with one.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::suite::Suite;

/// A process of the device, killed when dropped.
pub(crate) struct Device {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// A hash of all it keeps, as of its last answer.
    pub(crate) state: String,
    /// Whether its last answer said that it is to begin a session of its own accord.
    pub(crate) restart: bool,
}

/// What it made of something: an answer, or the name of a refusal.
pub(crate) type Answer = Result<Value, String>;

impl Device {
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
        Ok(Self { process, asks, answers, state: String::new(), restart: false })
    }

    /// Asks; the outer error ends the schedule.
    fn ask(&mut self, question: &Value) -> Result<Answer, String> {
        let io = |e: std::io::Error| format!("the device is gone: {e}");
        writeln!(self.asks, "{question}").map_err(io)?;
        self.asks.flush().map_err(io)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(io)?;
        let answer: Value = serde_json::from_str(&line).map_err(|e| format!("the device answered {line:?}: {e}"))?;
        self.state = text(&answer, "state")?;
        self.restart = answer.get("restart") == Some(&Value::Bool(true));
        Ok(match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        })
    }

    /// Enrols it. Its identity key.
    pub(crate) fn enroll(&mut self, id: &str, suite: Suite, node: &[u8; 32]) -> Result<[u8; 32], String> {
        let question = json!({"op": "enroll", "device_id": id, "suite": suite.as_byte(), "node": hex::encode(node)});
        let answer = self.ask(&question)??;
        bytes(&answer, "identity")?.try_into().map_err(|_| "an identity key of another length".into())
    }

    pub(crate) fn asks_for_bundle(&mut self) -> Result<Vec<u8>, String> {
        bytes(&self.ask(&json!({"op": "ask"}))??, "request")
    }

    pub(crate) fn takes_bundle(&mut self, bundle: &[u8], now: UnixTime) -> Result<Answer, String> {
        self.ask(&json!({"op": "bundle", "bundle": hex::encode(bundle), "now_ms": now.as_ms()}))
    }

    pub(crate) fn says(&mut self, fields: &Value, now: UnixTime) -> Result<Vec<u8>, String> {
        bytes(&self.ask(&json!({"op": "say", "fields": fields, "now_ms": now.as_ms()}))??, "envelope")
    }

    pub(crate) fn hears(&mut self, envelope: &[u8], now: UnixTime) -> Result<Answer, String> {
        self.ask(&json!({"op": "hear", "envelope": hex::encode(envelope), "now_ms": now.as_ms()}))
    }

    /// Whether it obeys a ResetRequest.
    pub(crate) fn obeys(&mut self, request: &[u8]) -> Result<bool, String> {
        let answer = self.ask(&json!({"op": "reset", "request": hex::encode(request)}))?;
        // A request that does not verify is not obeyed either.
        Ok(answer.is_ok_and(|answer| answer.get("obeyed") == Some(&Value::Bool(true))))
    }

    pub(crate) fn reboots(&mut self) -> Result<(), String> {
        self.ask(&json!({"op": "reboot"}))?.map(drop)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(answer: &Value, name: &str) -> Result<String, String> {
    answer.get(name).and_then(Value::as_str).map(Into::into).ok_or_else(|| format!("no {name} in {answer}"))
}

fn bytes(answer: &Value, name: &str) -> Result<Vec<u8>, String> {
    hex::decode(text(answer, name)?).map_err(|e| format!("{name}: {e}"))
}
