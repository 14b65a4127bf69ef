//! A running host: started, watched until it is ready, and stopped as an operator would.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::chat_client;
use crate::process;

/// How long the host may take to listen, to become ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What the host prints before the address it listens on.
const LISTENING: &str = "listening on http://";

/// A host process; it is killed when this is dropped.
pub(crate) struct HostProcess {
    child: Child,
    address: String,
}

impl HostProcess {
    /// Starts the host and waits until it listens and is ready.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Out of reach of the terminal's Ctrl-C, which this program passes on itself.
            .process_group(0)
            .spawn()
            .with_context(|| format!("could not start `{}`", process::display(command)))?;
        let stdout = child.stdout.take();
        let mut host = Self { child, address: String::new() };
        forward_termination(&host.child)?;
        host.address = host.wait_for_address(stdout)?;
        host.wait_until_ready()?;
        Ok(host)
    }

    /// The address it listens on, `IP:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself or after Ctrl-C.
    pub(crate) fn wait(mut self) -> Result<()> {
        let status = self.child.wait().context("could not wait for the host")?;
        require_success(status)
    }

    /// Asks it to stop with SIGTERM and requires that it ends in time with exit code 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .context("could not send SIGTERM to the host")?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return require_success(status);
            }
            thread::sleep(POLL_INTERVAL);
        }
        bail!("the host did not stop within {} s of SIGTERM", PATIENCE.as_secs());
    }

    /// Reads the line that names the address; everything else that the host prints is passed on, always.
    fn wait_for_address(&mut self, stdout: Option<ChildStdout>) -> Result<String> {
        let stdout = stdout.context("the host has no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                match line.split_once(LISTENING) {
                    // The receiver is gone after the first one, which is all that it wants.
                    Some((_, address)) => drop(sender.send(address.trim().to_owned())),
                    None => println!("{line}"),
                }
            }
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(address) => Ok(address),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the host did not say where it listens within {} s", PATIENCE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the host ended before it listened: {}", self.child.wait()?)
            }
        }
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !chat_client::is_ready(&self.address) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the host ended before it was ready: {status}");
            }
            if Instant::now() >= deadline {
                bail!("the host at {} was not ready within {} s", self.address, PATIENCE.as_secs());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn require_success(status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("the host failed: {status}");
    }
    Ok(())
}

/// Turns Ctrl-C and SIGTERM into a request to the host to stop, so that its shutdown is seen to its end.
fn forward_termination(child: &Child) -> Result<()> {
    let host = Pid::from_child(child);
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("could not catch signals")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            // It fails only when the host has ended already, and then there is nothing to stop.
            let _ = kill_process(host, Signal::TERM);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    /// Waits for SIGTERM, which a shell's trap would do with a race, and ends with a given exit code.
    const STAND_IN: &str = "
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print('listening on http://' + sys.argv[1], flush=True)
signal.sigwait({signal.SIGTERM})
sys.exit(int(sys.argv[2]))
";

    /// Starts a stand-in for the host; this test answers `/ready` at its address.
    fn start(exit_code: &str) -> HostProcess {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                // The client may be gone; then there is nothing to answer.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            }
        });
        HostProcess::start(Command::new("python3").args(["-c", STAND_IN, &address, exit_code])).unwrap()
    }

    #[test]
    fn a_host_that_ends_early_is_reported_with_its_status() {
        let error = HostProcess::start(Command::new("sh").args(["-c", "exit 7"])).err().unwrap();
        assert_eq!(error.to_string(), "the host ended before it listened: exit status: 7");
    }

    #[test]
    fn a_host_that_ends_before_it_is_ready_is_reported() {
        // Port 9 (discard) of the loopback address has no listener.
        let script = "echo listening on http://127.0.0.1:9; exit 5";
        let error = HostProcess::start(Command::new("sh").args(["-c", script])).err().unwrap();
        assert_eq!(error.to_string(), "the host ended before it was ready: exit status: 5");
    }

    #[test]
    fn stopping_wants_exit_code_0() {
        start("0").stop().unwrap();
        let error = start("4").stop().unwrap_err();
        assert_eq!(error.to_string(), "the host failed: exit status: 4");
    }
}
