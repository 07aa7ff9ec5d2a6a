//! A proxy in front of a server that holds traffic back and cuts connections; in front of PostgreSQL it counts what
//! units of work cost, and swallows the answer to a commit.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// The setting by which the transaction of a unit of work is recognised: its first simple query sets it.
const UNIT: &[u8] = b"sagabus.unit";

/// A counting proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    counts: Arc<Counts>,
    held: watch::Sender<bool>,
    answers_held: watch::Sender<bool>,
    /// Cuts all connections of now; another one is for those that follow.
    all: Arc<Mutex<CancellationToken>>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    units: AtomicU64,
    unit_trips: AtomicU64,
    /// Answers to commits that are still to be swallowed.
    to_swallow: AtomicU64,
    swallowed: AtomicU64,
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
        let (held, is_held) = watch::channel(false);
        let (answers_held, answers) = watch::channel(false);
        let all = Arc::new(Mutex::new(CancellationToken::new()));
        let (count, now) = (counts.clone(), all.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.accepted.fetch_add(1, Ordering::SeqCst);
                let Ok(upstream) = TcpStream::connect(&server).await else { continue };
                let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = upstream.into_split();
                let cut = now.lock().unwrap_or_else(PoisonError::into_inner).child_token();
                let line = Line { cut, server_spoke: Arc::new(AtomicBool::new(true)) };
                tokio::spawn(to_the_server(from_client, to_server, count.clone(), is_held.clone(), line.clone()));
                tokio::spawn(to_the_client(from_server, to_client, answers.clone(), line));
            }
        });
        Self { port, counts, held, answers_held, all }
    }

    /// A server's address with this in its place. The address is that of a URL, and names the port.
    ///
    /// # Panics
    /// When it does not.
    pub fn instead_of(&self, url: &str) -> String {
        let place = url.split("://").last().and_then(|rest| rest.split('/').next()).expect("it is a URL");
        let server = place.rsplit('@').next().expect("it names a server");
        url.replacen(server, &format!("127.0.0.1:{}", self.port), 1)
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Units of work so far.
    pub fn units(&self) -> u64 {
        self.counts.units.load(Ordering::SeqCst)
    }

    /// Round trips of all units of work so far, from their `BEGIN` to their `COMMIT`.
    pub fn unit_trips(&self) -> u64 {
        self.counts.unit_trips.load(Ordering::SeqCst)
    }

    /// Holds back everything that clients send, until [`Proxy::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Passes on what was held back.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Holds back everything that the server says, until [`Proxy::release_answers`].
    pub fn hold_answers(&self) {
        self.answers_held.send_replace(true);
    }

    /// Passes on what the server said meanwhile.
    pub fn release_answers(&self) {
        self.answers_held.send_replace(false);
    }

    /// Cuts all connections, without a word.
    pub fn cut(&self) {
        let next = CancellationToken::new();
        std::mem::replace(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner), next).cancel();
    }

    /// Swallows the answer to the next commits of units: the server commits, and the client's connection is cut.
    pub fn swallow_commits(&self, commits: u64) {
        self.counts.to_swallow.store(commits, Ordering::SeqCst);
    }

    /// Answers that were swallowed so far.
    pub fn swallowed(&self) -> u64 {
        self.counts.swallowed.load(Ordering::SeqCst)
    }
}

/// What both directions of a connection share.
#[derive(Clone)]
struct Line {
    cut: CancellationToken,
    /// The server sent last, so the client's next bytes begin a round trip.
    server_spoke: Arc<AtomicBool>,
}

async fn to_the_server(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counts: Arc<Counts>,
    mut held: watch::Receiver<bool>,
    Line { cut, server_spoke }: Line,
) {
    let mut bytes = vec![0; 256 * 1024];
    let mut in_unit = false;
    loop {
        let n = tokio::select! {
            read = from.read(&mut bytes) => read.unwrap_or(0),
            () = cut.cancelled() => return,
        };
        let passed = tokio::select! {
            biased;
            passed = held.wait_for(|held| !held) => passed.is_ok(),
            () = cut.cancelled() => false,
        };
        if n == 0 || !passed {
            return;
        }
        let said = &bytes[..n];
        let begins = said.first() == Some(&b'Q') && said.windows(UNIT.len()).any(|part| part == UNIT);
        let commits = said.first() == Some(&b'Q') && said.get(5..).is_some_and(|text| text.starts_with(b"COMMIT"));
        if begins {
            in_unit = true;
            counts.units.fetch_add(1, Ordering::SeqCst);
        }
        let trip = server_spoke.swap(false, Ordering::SeqCst) && in_unit;
        counts.unit_trips.fetch_add(u64::from(trip), Ordering::SeqCst);
        let swallows = commits
            && in_unit
            && counts.to_swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if swallows {
            // before the server can answer: the other direction stops passing data on, and waits for the commit
            cut.cancel();
        }
        in_unit &= !commits;
        if to.write_all(said).await.is_err() || swallows {
            counts.swallowed.fetch_add(u64::from(swallows), Ordering::SeqCst);
            return;
        }
    }
}

async fn to_the_client(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
    Line { cut, server_spoke }: Line,
) {
    let mut bytes = vec![0; 256 * 1024];
    loop {
        let n = tokio::select! {
            biased;
            () = cut.cancelled() => {
                // the answer to the commit arrives here and nowhere else
                let _ = from.read(&mut bytes).await;
                return;
            }
            read = from.read(&mut bytes) => read.unwrap_or(0),
        };
        tokio::select! {
            biased;
            _ = held.wait_for(|held| !held) => {}
            () = cut.cancelled() => {}
        }
        server_spoke.store(true, Ordering::SeqCst);
        if n == 0 || cut.is_cancelled() || to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}
