//! What stands between the socket (or TLS) and lapin: follows the frames of what the broker sends, and lets nothing
//! through that would end the connection or the process because of one message (see `readable.rs`). Bodies, which are
//! most of the bytes, pass unread and uncopied. A frame that must be seen whole is copied only when a read ends within
//! it.

use super::readable;
use futures_io::{AsyncRead, AsyncWrite};
use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Sleep;

/// Type, channel and length stand before a frame's payload; one byte ends it.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// No broker sends a larger method or content header: the negotiated limit is 128 KiB by default.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// A stream of which lapin can read every frame.
#[derive(Debug)]
pub(super) struct Frames<S> {
    stream: S,
    read: Reading,
    patience: Option<Patience>,
}

/// How long the broker may take to let us in. After that the stream ends: otherwise lapin's thread would wait for ever
/// on an abandoned connection.
#[derive(Debug)]
pub(super) struct Patience {
    until: Pin<Box<Sleep>>,
    is_in: Arc<AtomicBool>,
}

impl Patience {
    /// Within this time `is_in` must be set.
    pub(super) fn new(limit: Duration, is_in: Arc<AtomicBool>) -> Self {
        Self { until: Box::pin(tokio::time::sleep(limit)), is_in }
    }
}

impl<S> Frames<S> {
    pub(super) fn new(stream: S, patience: Option<Patience>) -> Self {
        Self { stream, read: Reading::default(), patience }
    }

    /// Whether the broker took too long to let us in.
    fn is_given_up(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.patience {
            None => false,
            Some(patience) if patience.is_in.load(Ordering::Acquire) => {
                self.patience = None;
                false
            }
            Some(patience) => patience.until.as_mut().poll(cx).is_ready(),
        }
    }
}

#[derive(Debug, Default)]
struct Reading {
    /// Bytes of the frame that pass unread.
    pass: usize,
    /// The beginning of a frame that must be seen whole.
    begun: Vec<u8>,
    /// What was checked and waits for lapin, from `taken` on.
    checked: Vec<u8>,
    taken: usize,
}

impl Reading {
    /// Checks received bytes. Those up to the returned number may pass; the rest was moved into `self`.
    fn look(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        // once a frame was replaced, what follows it is copied from `run` on
        let mut direct = None;
        let mut run = 0;
        while at < bytes.len() {
            if self.pass > 0 {
                let passed = self.pass.min(bytes.len() - at);
                self.pass -= passed;
                at += passed;
                continue;
            }
            match length(&bytes[at..])? {
                Length::Pass(length) => self.pass = length,
                Length::Whole(length) if at + length <= bytes.len() => {
                    if let Some(replaced) = checked(&mut bytes[at..at + length]) {
                        match direct {
                            None => direct = Some(at),
                            Some(_) => self.checked.extend_from_slice(&bytes[run..at]),
                        }
                        self.checked.extend(replaced);
                        run = at + length;
                    }
                    at += length;
                }
                Length::Whole(_) | Length::Unknown => {
                    self.begun.extend_from_slice(&bytes[at..]);
                    break;
                }
            }
        }
        if direct.is_some() {
            self.checked.extend_from_slice(&bytes[run..at]);
        }
        Ok(direct.unwrap_or(at))
    }

    /// How many bytes the frame that has begun still lacks, as far as known.
    fn missing(&self) -> io::Result<usize> {
        Ok(match length(&self.begun)? {
            Length::Unknown => HEAD - self.begun.len(),
            Length::Whole(length) => length - self.begun.len(),
            Length::Pass(_) => 0,
        })
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let taken = buf.len().min(self.checked.len() - self.taken);
        buf[..taken].copy_from_slice(&self.checked[self.taken..self.taken + taken]);
        self.taken += taken;
        if self.taken == self.checked.len() {
            self.checked.clear();
            self.taken = 0;
        }
        taken
    }
}

enum Length {
    /// This many bytes pass.
    Pass(usize),
    /// The frame must be seen whole; it has this length.
    Whole(usize),
    /// The frame's head is not complete.
    Unknown,
}

fn length(frame: &[u8]) -> io::Result<Length> {
    let Some(head) = frame.first_chunk::<HEAD>() else {
        // not a frame, as when the broker speaks another version of AMQP: lapin says so
        let known = frame.first().is_none_or(|kind| [METHOD, CONTENT_HEADER, BODY, HEARTBEAT].contains(kind));
        return Ok(if known { Length::Unknown } else { Length::Pass(usize::MAX) });
    };
    let length = HEAD + u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1;
    match head[0] {
        METHOD | CONTENT_HEADER if length > FRAME_BYTES_MAX => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("the broker sent a frame of {length} bytes")))
        }
        METHOD | CONTENT_HEADER => Ok(Length::Whole(length)),
        BODY | HEARTBEAT => Ok(Length::Pass(length)),
        _ => Ok(Length::Pass(usize::MAX)),
    }
}

/// The frame that takes this one's place, if lapin could not read it.
fn checked(frame: &mut [u8]) -> Option<Vec<u8>> {
    let end = frame.len() - 1;
    if frame[0] == METHOD {
        readable::clean_method(&mut frame[HEAD..end]);
        return None;
    }
    let payload = readable::replacement(&frame[HEAD..end])?;
    let mut replaced = frame[..3].to_vec();
    replaced.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    replaced.extend(payload);
    replaced.push(frame[end]);
    Some(replaced)
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.is_given_up(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let Self { stream, read, .. } = &mut *self;
        loop {
            if read.taken < read.checked.len() {
                return Poll::Ready(Ok(read.take(buf)));
            }
            if read.begun.is_empty() {
                let came = ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
                let passed = read.look(&mut buf[..came])?;
                if passed > 0 || came == 0 {
                    return Poll::Ready(Ok(passed));
                }
                continue;
            }
            let had = read.begun.len();
            let missing = read.missing()?;
            if missing > 0 {
                read.begun.resize(had + missing, 0);
                let came = Pin::new(&mut *stream).poll_read(cx, &mut read.begun[had..]);
                read.begun.truncate(had + if let Poll::Ready(Ok(came)) = came { came } else { 0 });
                if ready!(came)? == 0 {
                    return Poll::Ready(Ok(0)); // the broker is gone in the middle of a frame
                }
            }
            if !matches!(length(&read.begun)?, Length::Unknown) && read.missing()? == 0 {
                let mut begun = std::mem::take(&mut read.begun);
                if read.look(&mut begun)? > 0 {
                    read.checked = begun;
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields its bytes in pieces of one size, and now and then none.
    struct Pieces {
        bytes: Vec<u8>,
        piece: usize,
        wait: bool,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            self.wait = !self.wait;
            if self.wait {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let n = self.piece.min(self.bytes.len()).min(buf.len());
            buf[..n].copy_from_slice(&self.bytes[..n]);
            self.bytes.drain(..n);
            Poll::Ready(Ok(n))
        }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&[kind, 0, 1], length.as_slice(), payload, &[0xce]].concat()
    }

    fn message(app_id: &[u8], body: &[u8]) -> Vec<u8> {
        let deliver = b"\0\x3c\0\x3c\x01t\0\0\0\0\0\0\0\x01\0\0\x01k";
        let size = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0], size.as_slice(), &[0, 8, app_id.len() as u8], app_id].concat();
        [frame(METHOD, deliver), frame(CONTENT_HEADER, &header), frame(BODY, body)].concat()
    }

    async fn through(bytes: &[u8], piece: usize, buffer: usize) -> io::Result<Vec<u8>> {
        let mut frames = Frames::new(Pieces { bytes: bytes.to_vec(), piece, wait: false }, None);
        let mut came = Vec::new();
        let mut buf = vec![0; buffer];
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut frames).poll_read(cx, &mut buf)).await? {
                0 => return Ok(came),
                n => came.extend_from_slice(&buf[..n]),
            }
        }
    }

    #[tokio::test]
    async fn good_frames_pass_untouched_however_they_are_cut() {
        let body = vec![7; 300];
        let sent = [message(b"app", &body), frame(HEARTBEAT, b""), message(b"", b"x"), message(b"app", &body)].concat();
        for piece in [1, 2, 3, 6, 7, 8, 13, 64, 101, 5_000] {
            for buffer in [1, 7, 50, 5_000] {
                assert_eq!(through(&sent, piece, buffer).await.unwrap(), sent, "pieces of {piece}, buffer of {buffer}");
            }
        }
    }

    #[tokio::test]
    async fn only_the_frame_that_cannot_be_read_is_replaced() {
        let (one, bad, two) = (message(b"one", b"1"), message(b"B\xfcro", b"2"), message(b"two", &[3; 300]));
        let sent = [one.clone(), bad.clone(), bad.clone(), two.clone(), bad, two.clone()].concat();
        let whole = through(&sent, 5_000, 5_000).await.unwrap();
        assert!(whole.starts_with(&one) && whole.ends_with(&two));
        let replaced = whole.windows(18).filter(|bytes| bytes == b"sagabus-unreadable").count();
        assert_eq!(replaced, 6, "three headers with two entries each");
        for piece in [1, 2, 5, 7, 8, 29, 64, 200] {
            for buffer in [1, 9, 64, 5_000] {
                assert_eq!(through(&sent, piece, buffer).await.unwrap(), whole, "pieces of {piece}, buffer {buffer}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_is_left_to_lapin() {
        assert_eq!(through(b"AMQP\0\0\x09\x01", 3, 64).await.unwrap(), b"AMQP\0\0\x09\x01");
        assert_eq!(through(b"\x01\0\0\0\0", 3, 64).await.unwrap(), b"", "the end, in the middle of a frame");
        let error = through(b"\x02\0\0\xff\xff\xff\xff", 64, 64).await.unwrap_err();
        assert!(error.to_string().contains("frame of"), "{error}");
    }
}
