//! How lapin gets its stream: the socket, TLS around it if the URL says so, and [`Frames`] around both.

use super::{
    frames::{Frames, Patience},
    tls::{Tls, advised},
};
use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties, Error,
    tcp::{AMQPUriTcpExt, TLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Connects, within this time.
pub(super) async fn connect(
    uri: AMQPUri,
    tls: &Tls,
    options: ConnectionProperties,
    limit: Duration,
) -> Result<Connection, Error> {
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Checked(tokio.clone())));
    let tokio = Runtime::new(tokio);
    let is_in = Arc::new(AtomicBool::new(false));
    let lets_in = is_in.clone();
    let tls = tls.clone();
    let open = async move |uri: AMQPUri, _| {
        let patience = Patience::new(limit, is_in.clone());
        let socket = AMQPUri { scheme: AMQPScheme::AMQP, ..uri.clone() };
        let connecting = async {
            let stream = socket.connect_with_config_async(TLSConfig::default(), &tokio).await?;
            match uri.scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => stream.into_rustls(&tls.connector()?, &uri.authority.host).await,
            }
        };
        let stream = tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(silent()))?;
        Ok(AsyncTcpStream::Plain(Frames::new(stream, Some(patience))))
    };
    match tokio::time::timeout(limit, Connection::connector(uri, runtime, open, options)).await {
        Ok(connected) => {
            lets_in.store(connected.is_ok(), Ordering::Release);
            connected.map_err(advised)
        }
        Err(_) => Err(silent().into()),
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the broker does not answer")
}

/// tokio's reactor, whose connections are [`Frames`].
#[derive(Clone, Debug)]
struct Checked(Tokio);

impl Reactor for Checked {
    type TcpStream = Frames<AsyncTcpStream<<Tokio as Reactor>::TcpStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::Error::from(io::ErrorKind::Unsupported)) // lapin connects by itself
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Frames::new(AsyncTcpStream::Plain(connecting.await?), None)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_that_accepts_and_never_answers_is_given_up() {
        let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: AMQPUri = format!("amqp://127.0.0.1:{}", broker.local_addr().unwrap().port()).parse().unwrap();
        let limit = Duration::from_millis(200);
        let connecting =
            tokio::spawn(async move { connect(uri, &Tls::default(), ConnectionProperties::default(), limit).await });
        let (mut connection, _) = broker.accept().await.unwrap();
        let error = connecting.await.unwrap().unwrap_err();
        assert!(error.is_io_error(), "{error}");
        // and lapin's thread does not keep the connection open
        let mut came = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut came)).await;
        assert!(closed.is_ok(), "the connection is still open");
    }
}
