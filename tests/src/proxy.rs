//! A proxy in front of a server that counts round trips: how often the client speaks after the server did.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A counting proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    round_trips: AtomicU64,
    /// Those that delete confirmed rows of the outbox: how many there are is a matter of time, not of units of work.
    deletions: AtomicU64,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `server`, `host:port`.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let counts = Arc::new(Counts::default());
        let count = counts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(&server).await else { continue };
                let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = upstream.into_split();
                // 1: the server spoke last, so that the client's next word begins a round trip
                let turn = Arc::new(AtomicU64::new(1));
                tokio::spawn(pass(from_client, to_server, turn.clone(), Some(count.clone())));
                tokio::spawn(pass(from_server, to_client, turn, None));
            }
        });
        Self { port, counts }
    }

    /// Round trips so far.
    pub fn round_trips(&self) -> u64 {
        self.counts.round_trips.load(Ordering::SeqCst)
    }

    /// Of them, those that delete confirmed rows of the outbox.
    pub fn deletions(&self) -> u64 {
        self.counts.deletions.load(Ordering::SeqCst)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, turn: Arc<AtomicU64>, count: Option<Arc<Counts>>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut bytes).await {
        if n == 0 {
            break;
        }
        match &count {
            Some(count) => {
                let begun = turn.swap(0, Ordering::SeqCst);
                count.round_trips.fetch_add(begun, Ordering::SeqCst);
                // a simple query: its kind, its length, its text
                if bytes[..n].get(5..).is_some_and(|text| text.starts_with(b"DELETE FROM sagabus.outbox")) {
                    count.deletions.fetch_add(begun, Ordering::SeqCst);
                }
            }
            None => turn.store(1, Ordering::SeqCst),
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            break;
        }
    }
}
