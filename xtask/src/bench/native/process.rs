//! A program of the bench that runs, and the two that a subject is made of: benches/native/workload says what they do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

use super::namespace::Namespace;
use crate::background::Background;

/// No command takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);

/// A process that answers lines with lines.
pub(super) struct Process {
    process: Background,
    pid: Pid,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut process = Background::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let input = process.child().stdin.take().context("stdin is piped")?;
        let output = process.child().stdout.take().context("stdout is piped")?;
        let (sender, lines) = sync_channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let pid = Pid::from_raw(i32::try_from(process.child().id())?);
        Ok(Self { process, pid, input, lines })
    }

    /// The next line that it prints.
    pub(super) fn line(&mut self) -> Result<String> {
        self.lines.recv_timeout(ANSWER_LIMIT).ok().with_context(|| match self.process.child().try_wait() {
            Ok(Some(status)) => format!("the program has ended: {status}"),
            _ => "the program does not answer".to_owned(),
        })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("the program takes no more commands")
    }

    /// What all its threads have used so far, in the kernel too.
    fn cpu(&self) -> Result<Duration> {
        Ok(clock_gettime(clock_getcpuclockid(self.pid)?)?.into())
    }

    /// Its memory that is no file's, in bytes.
    fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no RssAnon")?;
        Ok(kib.trim().parse::<f64>()? * 1024.0)
    }
}

/// A subject that listens, and one that dials it.
pub(super) struct Pair {
    listener: Process,
    dialer: Process,
    address: String,
}

/// How a command went.
pub(super) struct Outcome {
    answer: Value,
    /// What both sides have used for it.
    pub(super) cpu: Duration,
}

impl Pair {
    /// Both in one namespace.
    pub(super) fn on_loopback(namespace: &Namespace, program: &Path, transport: &str) -> Result<Self> {
        Self::start(program, transport, (namespace, "127.0.0.1"), namespace)
    }

    /// `listening` is where the listener is, and at which address.
    pub(super) fn start(
        program: &Path,
        transport: &str,
        listening: (&Namespace, &str),
        dialing: &Namespace,
    ) -> Result<Self> {
        let (namespace, ip) = listening;
        let mut listener = Process::start(namespace.command(program).args(["listen", transport, ip]))?;
        let line: Value = serde_json::from_str(&listener.line()?)?;
        let address = line.get("address").and_then(Value::as_str).context("the listener tells no address")?;
        let dialer = Process::start(dialing.command(program).args(["dial", transport, address]))?;
        Ok(Self { listener, dialer, address: address.to_owned() })
    }

    /// One of the listener's.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Connections that the listener has accepted so far.
    pub(super) fn accepted(&mut self) -> Result<f64> {
        self.listener.say("accepted")?;
        let line: Value = serde_json::from_str(&self.listener.line()?)?;
        line.get("accepted").and_then(Value::as_f64).context("the listener does not tell what it accepted")
    }

    pub(super) fn run(&mut self, command: &str) -> Result<Outcome> {
        let before = self.cpu()?;
        self.dialer.say(command)?;
        let answer = self.dialer.line().with_context(|| command.to_owned())?;
        let cpu = self.cpu()?.saturating_sub(before);
        Ok(Outcome { answer: serde_json::from_str(&answer)?, cpu })
    }

    fn cpu(&self) -> Result<Duration> {
        Ok(self.listener.cpu()? + self.dialer.cpu()?)
    }

    /// The listener's memory, in bytes.
    pub(super) fn memory(&self) -> Result<f64> {
        self.listener.memory()
    }
}

impl Outcome {
    pub(super) fn number(&self, key: &str) -> Result<f64> {
        let number = self.answer.get(key).and_then(Value::as_f64);
        number.with_context(|| format!("no {key} in {}", self.answer))
    }

    /// Of what was done several times, the median, in seconds.
    pub(super) fn typical(&self) -> Result<f64> {
        let each = self.answer.get("each").and_then(Value::as_array).into_iter().flatten();
        let each: Vec<f64> = each.filter_map(Value::as_f64).collect();
        let summary = super::super::statistics::Summary::of(&each);
        Ok(summary.with_context(|| format!("nothing was measured: {}", self.answer))?.median)
    }
}
