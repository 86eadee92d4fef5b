//! One append stream a client: a later one ends those before it, and waits until they are gone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The streams of all clients.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Mutex<HashMap<u64, Place>>,
}

#[derive(Clone, Debug)]
struct Place {
    stream: u64,
    /// It is to take nothing more.
    ends: CancellationToken,
    /// It takes nothing more, nor do those before it.
    left: CancellationToken,
}

/// The right of a stream to take appends, while it is kept.
#[derive(Debug)]
pub(super) struct Stay {
    streams: Arc<Streams>,
    client: u64,
    place: Place,
}

impl Streams {
    /// The turn of stream `stream` of `client`, when the one before it is gone. Run it to its end:
    /// the next one waits for it.
    ///
    /// # Errors
    /// ABORTED when a later stream was there.
    pub(super) async fn enter(self: &Arc<Self>, client: u64, stream: u64) -> Result<Stay, Status> {
        let place =
            Place { stream, ends: CancellationToken::new(), left: CancellationToken::new() };
        let before = {
            let mut places = self.places.lock();
            if places.get(&client).is_some_and(|found| found.stream >= stream) {
                return Err(replaced());
            }
            places.insert(client, place.clone())
        };
        let stay = Stay { streams: Arc::clone(self), client, place };
        if let Some(before) = before {
            before.ends.cancel();
            before.left.cancelled().await;
        }
        Ok(stay)
    }
}

impl Stay {
    /// Resolves when a later stream has come.
    pub(super) async fn ended(&self) {
        self.place.ends.cancelled().await;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut places = self.streams.places.lock();
        if places.get(&self.client).is_some_and(|found| found.stream == self.place.stream) {
            places.remove(&self.client);
        }
        drop(places);
        self.place.left.cancel();
    }
}

/// What an earlier stream is told.
pub(super) fn replaced() -> Status {
    Status::aborted("a later stream of this client has begun")
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn waits<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> bool {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn a_later_stream_waits_for_the_earlier_and_none_comes_after_it() {
        let streams = Arc::new(Streams::default());
        let first = streams.enter(7, 1).await.unwrap();
        let other = streams.enter(8, 1).await.unwrap();
        let mut second = Box::pin(streams.enter(7, 2));
        assert!(waits(&mut second));
        first.ended().await;
        assert!(streams.enter(7, 1).await.is_err() && streams.enter(7, 2).await.is_err());
        // A third waits for both.
        let mut third = Box::pin(streams.enter(7, 3));
        assert!(waits(&mut third));
        drop(first);
        let second = second.await.unwrap();
        second.ended().await;
        assert!(waits(&mut third));
        drop(second);
        drop(third.await.unwrap());
        drop(other);
        assert!(streams.places.lock().is_empty());
    }
}
