//! Reads away what a refused request still sends.
//!
//! A client that is sending a large body sees the answer only if the connection is not reset under it: an answer sent
//! with unread bytes in the socket ends in a reset, and most HTTP libraries then report that instead of the answer. So
//! the rest of the body is read and thrown away first, within bounds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// What is read away at most.
const MAX_BYTES: usize = 256 << 20;
const MAX_TIME: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// What a handler left of a body.
pub struct Leftover(Option<oneshot::Receiver<Incoming>>);

/// The body for the handler, and what it leaves of it. A body of less than `from` bytes is not followed: where requests
/// are many and small, they are read whole with their headers, and the bookkeeping costs more than it saves.
pub fn reclaimable(body: Incoming, from: u64) -> (Body, Leftover) {
    if body.is_end_stream() || body.size_hint().upper().is_some_and(|size| size < from) {
        return (Body::new(body), Leftover(None));
    }
    let (back, leftover) = oneshot::channel();
    (Body::new(Reclaimed { body: Some(body), back: Some(back) }), Leftover(Some(leftover)))
}

impl Leftover {
    /// Reads the rest away; at once if there is none. The handler must have let go of the body.
    pub async fn discard(self) {
        let Some(leftover) = self.0 else { return };
        let Ok(mut body) = leftover.await else { return };
        let discard = async {
            let mut bytes = 0;
            // Who has stopped sending is not waited for.
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(MAX_PAUSE, body.frame()).await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > MAX_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(MAX_TIME, discard).await;
    }
}

/// Gives an unfinished body back when it is dropped.
struct Reclaimed {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

impl http_body::Body for Reclaimed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            // Ended, well or badly: nothing is left to read.
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for Reclaimed {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            let _ = back.send(body);
        }
    }
}
