//! `serve`: the server, until it is told to stop.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::print::Printer;
use super::{Error, block_on};
use crate::config::Config;
use crate::engine::Engine;
use crate::hooks::Hooks;
use crate::keys::Keyring;
use crate::serve::{Parts, serve_engine};
use crate::shutdown::Shutdown;

pub(super) fn run(config: Config) -> Result<(), Error> {
    block_on(async {
        let shutdown = Shutdown::on_signal()
            .map_err(|source| Error::System { attempted: "install signal handlers", source })?;
        let listener = listen(config.listen).await?;
        let address =
            listener.local_addr().map_err(|source| Error::Listen { listen: config.listen, source })?;
        let keys = Keyring::open(config.keys_file.clone())?;
        let hooks = Hooks::load(&config)?;
        let engine = Engine::start(&config)?;
        Printer::stdout().line(format_args!("listening on http://{address}"))?;
        serve_engine(Parts { engine, keys, hooks }, &config, listener, shutdown).await;
        Ok(())
    })
}

/// Binds the address.
pub(super) async fn listen(listen: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { listen },
        _ => Error::Listen { listen, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("{address} is in use by another program")), "{error}");
        assert_eq!(error.exit().code(), 69);
    }
}
