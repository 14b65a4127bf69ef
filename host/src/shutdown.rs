//! When to stop: the first SIGINT or SIGTERM asks, the second one does not wait.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process;
use std::task::{Context, Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// A future that ends when the process is asked to stop. Whoever serves takes any future for this, so tests bring their
/// own.
#[derive(Debug)]
pub struct Shutdown(oneshot::Receiver<()>);

impl Shutdown {
    /// Takes over SIGINT and SIGTERM for the rest of the process's life. The first of them ends the returned future; the
    /// second ends the process at once, with the exit code that a shell would give it (130 or 143). Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// The system refuses to install a signal handler.
    pub fn on_signal() -> io::Result<Self> {
        // Installed here and not in the task, so that no signal is missed once this function has returned.
        let mut signals = Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        };
        let (asked, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let first = signals.next().await;
            tracing::info!("{} received: finishing what runs; a second signal ends it at once", name(first));
            // The receiver is gone when the server has ended by itself.
            let _ = asked.send(());
            let second = signals.next().await;
            tracing::warn!("{} received: ending at once", name(second));
            process::exit(128 + second.as_raw_value());
        });
        Ok(Self(receiver))
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The sender is dropped only with the runtime, when there is nothing left to serve.
        Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Cancel-safe.
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

fn name(signal: SignalKind) -> &'static str {
    if signal == SignalKind::interrupt() { "SIGINT" } else { "SIGTERM" }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_ends_the_future() {
        let shutdown = Shutdown::on_signal().unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        shutdown.await;
    }
}
