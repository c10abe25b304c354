//! `unhidra user add | passwd | remove | list`: the file of users, whether a node runs or not.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Subcommand;
use rand_core::CryptoRng;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;
use zeroize::Zeroizing;

use super::output::Output;
use super::{CliError, Global};
use crate::access::{AccessError, Hashed, PASSWORD_LEN_MAX, SALT_LEN, Users, check_name};
use crate::config::Purpose;
use crate::control::{UserAct, UserDeed};

/// What is done with the users of MQTT.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Adds a user. Its password is asked for twice, or read from a pipe.
    Add {
        /// Its name, as MQTT's User Name.
        name: String,
        /// Reads the password from stdin: its first line.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Gives a user another password. Connections made with the old one are closed.
    Passwd {
        /// Who.
        name: String,
        /// Reads the password from stdin: its first line.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Removes a user. Its connections are closed, and its sessions end.
    Remove {
        /// Who.
        name: String,
    },
    /// Lists the users.
    List,
}

/// What is written.
enum Change {
    Add(Hashed),
    Replace(Hashed),
    Remove,
}

#[derive(Serialize)]
struct Done<'a> {
    user: &'a str,
    file: String,
}

/// What was changed. It is told once it is in the log of acts: who prints first and then fails leaves no trace there.
pub(super) struct Changed {
    user: String,
    done: UserDeed,
    file: String,
}

impl Changed {
    /// What the log of acts is to hold.
    pub(super) fn act(&self) -> UserAct {
        UserAct { user: self.user.clone(), done: self.done }
    }

    /// Says what was done.
    pub(super) fn tell(&self, out: &mut Output<'_>) -> Result<(), CliError> {
        let Self { user, done, file } = self;
        let what = match done {
            UserDeed::Added => "is a user now",
            UserDeed::Changed => "has another password",
            UserDeed::Removed => "is no user any more",
        };
        out.say(&Done { user, file: file.clone() }, &format!("{user} {what} ({file}); a node that runs follows"))
    }
}

/// Does it, and gives what is to be noted and then told.
pub(super) fn run(
    action: Action,
    global: &Global,
    rng: &mut impl CryptoRng,
    out: &mut Output<'_>,
) -> Result<Option<Changed>, CliError> {
    let path = global.sources(Purpose::Node).load()?.config.users.file;
    let users = Users::read_or_none(&path).map_err(AccessError::from)?;
    let (user, change) = match action {
        Action::List => return list(&users, out).map(|()| None),
        Action::Add { name, password_stdin } => {
            check_name(&name).map_err(|error| CliError::Usage(error.to_string()))?;
            // Before it is asked for, and again when it is there: nobody waits for who types.
            may_add(&users, &name, &path)?;
            (name, Change::Add(hashed(&password(password_stdin)?, rng)?))
        }
        Action::Passwd { name, password_stdin } => {
            must_be_in(&users, &name, &path)?;
            (name, Change::Replace(hashed(&password(password_stdin)?, rng)?))
        }
        Action::Remove { name } => (name, Change::Remove),
    };
    let done = match &change {
        Change::Add(_) => UserDeed::Added,
        Change::Replace(_) => UserDeed::Changed,
        Change::Remove => UserDeed::Removed,
    };
    apply(change, &user, &path)?;
    Ok(Some(Changed { user, done, file: path.display().to_string() }))
}

/// Makes a change to the file as it is now.
fn apply(change: Change, name: &str, path: &Path) -> Result<(), CliError> {
    let (mut users, _edit) = Users::edit(path).map_err(AccessError::from)?;
    match change {
        Change::Add(hashed) => {
            may_add(&users, name, path)?;
            users.set(name, hashed);
        }
        Change::Replace(hashed) => {
            must_be_in(&users, name, path)?;
            users.set(name, hashed);
        }
        Change::Remove => {
            must_be_in(&users, name, path)?;
            users.remove(name);
        }
    }
    Ok(users.write(path).map_err(AccessError::from)?)
}

fn may_add(users: &Users, name: &str, path: &Path) -> Result<(), CliError> {
    if users.get(name).is_none() {
        return Ok(());
    }
    let (file, hint) = (path.display(), "`unhidra user passwd` gives it another password");
    Err(CliError::Failed(format!("the user {name} is in {file} already; {hint}")))
}

fn must_be_in(users: &Users, name: &str, path: &Path) -> Result<(), CliError> {
    if users.get(name).is_some() {
        return Ok(());
    }
    let (file, hint) = (path.display(), "`unhidra user list` names those that are");
    Err(CliError::Failed(format!("no user {name} is in {file}; {hint}")))
}

fn list(users: &Users, out: &mut Output<'_>) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Listed<'a> {
        user: &'a str,
    }
    let mut any = false;
    for (user, _) in users.iter() {
        any = true;
        out.say(&Listed { user }, user)?;
    }
    if any || out.is_json() { Ok(()) } else { out.line("no users; `unhidra user add NAME` adds one") }
}

fn hashed(password: &[u8], rng: &mut impl CryptoRng) -> Result<Hashed, CliError> {
    if password.is_empty() || password.len() > PASSWORD_LEN_MAX {
        let len = password.len();
        return Err(CliError::Usage(format!("a password of {len} bytes; it has 1 to {PASSWORD_LEN_MAX}")));
    }
    let mut salt = [0; SALT_LEN];
    rng.fill_bytes(&mut salt);
    Hashed::of(password, &salt).map_err(|error| CliError::Failed(error.to_string()))
}

/// From a pipe its first line; from a person twice, and not shown.
fn password(from_stdin: bool) -> Result<Zeroizing<Vec<u8>>, CliError> {
    if from_stdin || !io::stdin().is_terminal() {
        return line();
    }
    let first = asked("Password: ")?;
    let second = asked("Again: ")?;
    if first == second { Ok(first) } else { Err(CliError::Failed("the two passwords differ".to_owned())) }
}

fn asked(prompt: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |error: io::Error| CliError::Failed(format!("the password cannot be asked for: {error}"));
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}").and_then(|()| stderr.flush()).map_err(failed)?;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
    let line = line();
    // Whatever came, the terminal is given back as it was.
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(|error| failed(error.into()))?;
    writeln!(stderr).map_err(failed)?;
    line
}

fn line() -> Result<Zeroizing<Vec<u8>>, CliError> {
    // Room for the longest at once, so that growing leaves no copy behind.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_LEN_MAX + 2));
    let stdin = io::stdin().lock();
    io::Read::take(stdin, PASSWORD_LEN_MAX as u64 + 2)
        .read_until(b'\n', &mut line)
        .map_err(|error| CliError::Failed(format!("no password on stdin: {error}")))?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}
