//! Cuts connections that begin a request's headers and do not end them, and leaves idle ones alone.
//!
//! hyper has one timer for both: long enough for idle keep-alive connections (load balancers expect minutes) it lets
//! half-sent headers linger, short enough for those it closes pooled connections under their clients. So its timer is
//! set for idleness, and this wrapper watches for headers: bytes have come, no request has begun, none is under way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    begun: AtomicU64,
    under_way: AtomicU64,
}

/// A request being answered.
pub(super) struct UnderWay(Arc<Requests>);

impl Requests {
    /// A request's headers are complete.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's stream with the watch on headers.
pub(super) struct Guarded {
    stream: TcpStream,
    requests: Arc<Requests>,
    header_time: Duration,
    /// HTTP/2 has frames between requests; there only the first one is waited for.
    first_only: bool,
    seen: u64,
    /// Bytes have come that no request has begun with.
    partial: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    pub(super) fn new(
        stream: TcpStream,
        requests: Arc<Requests>,
        header_time: Duration,
        first_only: bool,
    ) -> Self {
        Self { stream, requests, header_time, first_only, seen: 0, partial: false, timer: None }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let begun = this.requests.begun.load(Ordering::Relaxed);
        let answering = this.requests.under_way.load(Ordering::Relaxed) > 0;
        if begun != this.seen || answering || (this.first_only && begun > 0) {
            this.seen = begun;
            this.partial = false;
            this.timer = None;
        }
        // Set only when a second read is needed, so an ordinary request costs no timer.
        if this.partial {
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.header_time)));
            if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.partial |= buffer.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
