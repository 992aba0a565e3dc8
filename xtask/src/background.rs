//! Processes that run beside a command, such as a server under test. None outlives its owner, nor xtask, if that is
//! stopped by Ctrl-C, SIGTERM or SIGHUP.

use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// How long a process that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// What is running, for the signal handler.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A process that is asked to end (SIGTERM) when this is dropped, and killed if it does not.
pub(crate) struct Background {
    child: Child,
    pid: Pid,
}

impl Background {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        running().push(pid);
        Ok(Self { child, pid })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A process that has ended already is what is wanted here: errors say no more than that.
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if !ended(&mut self.child) {
            let _ = signal::kill(self.pid, Signal::SIGTERM);
            let deadline = Instant::now() + GRACE;
            while !ended(&mut self.child) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        running().retain(|pid| *pid != self.pid);
    }
}

/// Lets a signal that ends xtask end the processes in the background too.
pub(crate) fn end_with_xtask() -> Result<()> {
    ctrlc::set_handler(|| {
        for pid in running().iter() {
            let _ = signal::kill(*pid, Signal::SIGTERM);
        }
        std::process::exit(130);
    })
    .context("cannot handle signals")
}

fn running() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
