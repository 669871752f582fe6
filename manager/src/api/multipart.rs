//! Bodies of `multipart/form-data`, read part by part.
//!
//! The library looks for the end of what it wants in all that it can get. Here it gets one
//! chunk of the network at a time, and not too many of them for nothing, so that memory does
//! not grow with the body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use multer::{Field, Multipart};
use warp::http::header::CONTENT_TYPE;

use super::call::{BodyStream, Call};
use super::problem::Problem;

/// How long a client may take for the next bytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that may be taken before anything comes of them: headers of a part are shorter.
const MAX_UNUSED: usize = 1 << 20;
/// Bytes that are skipped after an error, for the client to see the answer.
const MAX_SKIPPED: usize = 64 << 20;

/// The parts of a body.
pub struct Parts {
    inner: Multipart<'static>,
    unused: Arc<AtomicUsize>,
}

/// A part.
pub struct Part {
    field: Field<'static>,
    unused: Arc<AtomicUsize>,
}

impl Parts {
    /// Those of a request whose route streams its body.
    ///
    /// # Errors
    /// The request has another kind of body.
    pub fn of(call: &mut Call) -> Result<Self, Problem> {
        let content_type = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default());
        let (Ok(boundary), Some(stream)) = (boundary, call.stream.take()) else {
            return Err(Problem::invalid_params("The body is not multipart/form-data."));
        };
        let unused = Arc::new(AtomicUsize::new(0));
        let chunks = Chunks { stream, unused: Arc::clone(&unused), rested: true };
        Ok(Self { inner: Multipart::new(chunks, boundary), unused })
    }

    /// The next part, after the last one has been read.
    ///
    /// # Errors
    /// The body is malformed or breaks off.
    pub async fn next(&mut self) -> Result<Option<Part>, Problem> {
        self.unused.store(0, Ordering::Relaxed);
        let field = in_time(self.inner.next_field()).await?;
        Ok(field.map(|field| Part { field, unused: Arc::clone(&self.unused) }))
    }

    /// Reads what is left, if it is not too much.
    pub async fn skip_rest(&mut self) {
        let mut skipped = 0;
        while let Ok(Some(mut part)) = self.next().await {
            while let Ok(Some(bytes)) = part.next().await {
                skipped += bytes.len();
                if skipped > MAX_SKIPPED {
                    return;
                }
            }
        }
    }
}

impl Part {
    /// The name of the file, as the client wrote it.
    pub fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// The next bytes of its content.
    ///
    /// # Errors
    /// As [`Parts::next`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        self.unused.store(0, Ordering::Relaxed);
        in_time(self.field.chunk()).await
    }
}

async fn in_time<T>(step: impl Future<Output = multer::Result<T>>) -> Result<T, Problem> {
    match tokio::time::timeout(PATIENCE, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Problem::invalid_params(format!("The body cannot be read: {error}"))),
        Err(_) => Err(Problem::bad_request()),
    }
}

/// A body that gives one chunk whenever it is asked, and rests until the next time.
struct Chunks {
    stream: BodyStream,
    unused: Arc<AtomicUsize>,
    rested: bool,
}

impl Stream for Chunks {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.rested, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let chunk = std::task::ready!(self.stream.as_mut().poll_next(context));
        self.rested = false;
        Poll::Ready(match chunk {
            Some(Ok(bytes)) => {
                let unused = self.unused.fetch_add(bytes.len(), Ordering::Relaxed);
                if unused > MAX_UNUSED {
                    Some(Err("a part's headers do not end".into()))
                } else {
                    Some(Ok(bytes))
                }
            }
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }
}
