//! A publisher that writes AMQP's bytes itself: unlike a client library, it can send malformed messages.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One connection with one channel.
#[derive(Debug)]
pub struct RawPublisher {
    stream: TcpStream,
}

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;

impl RawPublisher {
    /// Connects.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn connect(url: &str) -> Self {
        let url = reqwest::Url::parse(url).expect("the broker's address is a URL");
        let address = (url.host_str().expect("it has a host"), url.port().unwrap_or(5672));
        let stream = TcpStream::connect(address).await.expect("the broker accepts");
        let mut raw = Self { stream };
        raw.stream.write_all(b"AMQP\0\0\x09\x01").await.expect("the broker reads");
        raw.answer(0, [0, 10, 0, 10]).await;
        let plain = format!("\0{}\0{}", url.username(), url.password().unwrap_or_default());
        let length = (plain.len() as u32).to_be_bytes();
        let start_ok = [b"\0\0\0\0\x05PLAIN".as_slice(), &length, plain.as_bytes(), b"\x05en_US"].concat();
        raw.method(0, [0, 10, 0, 11], &start_ok).await;
        let tune = raw.answer(0, [0, 10, 0, 30]).await;
        let tune_ok = [&tune[..6], &[0, 0]].concat(); // the broker's limits, no heartbeats
        raw.method(0, [0, 10, 0, 31], &tune_ok).await;
        let open = [&short(url.path().trim_start_matches('/').as_bytes())[..], &[0, 0]].concat();
        raw.method(0, [0, 10, 0, 40], &open).await;
        raw.answer(0, [0, 10, 0, 41]).await;
        raw.method(1, [0, 20, 0, 10], &[0]).await;
        raw.answer(1, [0, 20, 0, 11]).await;
        raw
    }

    /// Publishes a message with these properties, as on the wire behind their flags.
    pub async fn publish(&mut self, exchange: &str, routing_key: &[u8], flags: u16, properties: &[u8], body: &[u8]) {
        let arguments = [&[0, 0][..], &short(exchange.as_bytes()), &short(routing_key), &[0]].concat();
        self.method(1, [0, 60, 0, 40], &arguments).await;
        let size = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
        self.frame(CONTENT_HEADER, 1, &header).await;
        self.frame(BODY, 1, body).await;
    }

    /// Returns when the broker has accepted everything.
    ///
    /// # Panics
    /// When it has refused something.
    pub async fn done(mut self) {
        self.method(1, [0, 20, 0, 40], &[0, 200, 0, 0, 0, 0, 0]).await;
        self.answer(1, [0, 20, 0, 41]).await;
    }

    async fn method(&mut self, channel: u16, method: [u8; 4], arguments: &[u8]) {
        self.frame(METHOD, channel, &[&method[..], arguments].concat()).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let (channel, length) = (channel.to_be_bytes(), (payload.len() as u32).to_be_bytes());
        let frame = [&[kind][..], &channel, &length, payload, &[0xce]].concat();
        self.stream.write_all(&frame).await.expect("the broker reads");
    }

    /// The arguments of the method that must come next.
    async fn answer(&mut self, channel: u16, method: [u8; 4]) -> Vec<u8> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).await.expect("the broker answers");
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; length + 1];
        self.stream.read_exact(&mut payload).await.expect("the broker answers");
        let came = u16::from_be_bytes([head[1], head[2]]);
        assert!(came == channel && payload.starts_with(&method), "{}", String::from_utf8_lossy(&payload));
        payload[4..length].to_vec()
    }
}

/// A short string.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8][..], text].concat()
}

/// A table with these entries (name, type and value, as on the wire).
pub fn table(entries: &[u8]) -> Vec<u8> {
    [&(entries.len() as u32).to_be_bytes()[..], entries].concat()
}

/// Tables nested this deep.
pub fn nested(depth: usize) -> Vec<u8> {
    // from the inside out, backwards, so that no level copies those within it
    let mut backwards = Vec::new();
    for _ in 0..depth {
        let length = (backwards.len() as u32).to_be_bytes();
        backwards.extend(length.iter().rev());
        backwards.extend(b"F\x61\x01");
    }
    backwards.reverse();
    table(&backwards)
}
