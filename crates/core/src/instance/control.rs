//! What a worker that serves says on its control channel: metrics of its model's code, and whether that code is ready.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::metrics::custom::{CustomMetrics, FamilyChange};

/// A longer line is nothing that a worker says.
const LONGEST_LINE: u64 = 1 << 20;
/// How long the code of a model may think about whether it is ready.
const READY_WITHIN: Duration = Duration::from_secs(5);
const FOLLOW: &[u8] = b"{\"type\":\"FOLLOW\"}\n";
const IS_READY: &[u8] = b"{\"type\":\"IS_READY\"}\n";

/// What the workers of one version say besides their answers.
#[derive(Debug, Default)]
pub struct Voice {
    /// The metrics that the model's code makes.
    pub metrics: CustomMetrics,
    /// The workers whose model says itself whether it is ready.
    asked: Mutex<Vec<Arc<Asked>>>,
}

impl Voice {
    fn asked(&self) -> MutexGuard<'_, Vec<Arc<Asked>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, worker: &Arc<Asked>) {
        let mut asked = self.asked();
        if !asked.iter().any(|other| Arc::ptr_eq(other, worker)) {
            asked.push(Arc::clone(worker));
        }
    }

    /// Whether the code of every living instance says that it is ready; one without such code is.
    pub async fn is_ready(&self) -> bool {
        // All are asked at the same time.
        let answers: Vec<_> = self.asked().iter().map(|worker| worker.ask()).collect();
        let all = async {
            for answer in answers {
                // One that is gone is not asked: others answer its requests, or the version has no worker.
                if !answer.await.unwrap_or(true) {
                    return false;
                }
            }
            true
        };
        timeout(READY_WITHIN, all).await.unwrap_or(false)
    }
}

/// A worker whose model is asked, one question at a time.
#[derive(Debug)]
struct Asked {
    channel: OwnedWriteHalf,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// A question is on its way; who asks meanwhile gets the same answer.
    asked: bool,
    answers: Vec<oneshot::Sender<bool>>,
}

impl Asked {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> oneshot::Receiver<bool> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.answers.retain(|other| !other.is_closed());
        waiting.answers.push(answer);
        // One that does not read its channel gets no question, and its askers no answer in time.
        if !waiting.asked {
            waiting.asked = self.channel.try_write(IS_READY).is_ok();
        }
        receiver
    }

    fn answer(&self, ready: bool) {
        let mut waiting = self.waiting();
        waiting.asked = false;
        for answer in waiting.answers.drain(..) {
            let _ = answer.send(ready);
        }
    }

    fn end(&self) {
        self.waiting().answers.clear();
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
enum Said {
    /// It has heard FOLLOW.
    Followed {
        is_ready: bool,
    },
    IsReady {
        ready: bool,
    },
    Metric {
        families: Vec<FamilyChange>,
    },
}

/// Makes a control channel ours to read. Whoever else writes to it must not count on waiting for room there: not to
/// block is a property of the channel and not of the descriptor. Needs the runtime context.
pub fn channel(descriptor: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(descriptor);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Listens to a worker that serves until it ends. What it says wrongly is passed over: it cannot hurt but itself.
pub async fn follow(stream: UnixStream, voice: Arc<Voice>) {
    let (reader, mut writer) = stream.into_split();
    // Waits for the first readiness, without which nothing can be tried later.
    if writer.write_all(FOLLOW).await.is_err() {
        return writer.forget(); // it is not ours to end the worker
    }
    let asked = Arc::new(Asked { channel: writer, waiting: Mutex::default() });
    listen(reader, &voice, &asked).await;
    voice.asked().retain(|other| !Arc::ptr_eq(other, &asked));
    asked.end();
}

async fn listen(reader: OwnedReadHalf, voice: &Voice, asked: &Arc<Asked>) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await.is_ok_and(|size| size > 0) {
        match serde_json::from_slice(&line) {
            Ok(Said::Followed { is_ready: true }) => voice.add(asked),
            Ok(Said::IsReady { ready }) => asked.answer(ready),
            Ok(Said::Metric { families }) => voice.metrics.apply(families),
            Ok(Said::Followed { is_ready: false }) | Err(_) => {}
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Worker(BufReader<UnixStream>);

    impl Worker {
        async fn heard(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            line
        }

        async fn say(&mut self, line: &str) {
            self.0.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
    }

    async fn followed() -> (Arc<Voice>, Worker) {
        let (core, worker) = UnixStream::pair().unwrap();
        let voice = Arc::<Voice>::default();
        tokio::spawn(follow(core, Arc::clone(&voice)));
        let mut worker = Worker(BufReader::new(worker));
        assert_eq!(worker.heard().await.as_bytes(), FOLLOW);
        (voice, worker)
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_gets_the_same_answer() {
        let (voice, mut worker) = followed().await;
        assert!(voice.is_ready().await, "nobody is asked yet");
        for line in ["no JSON", r#"{"type":"METRIC"}"#, r#"{"type":"NEWS"}"#, r#"{"type":"FOLLOWED","is_ready":true}"#]
        {
            worker.say(line).await;
        }
        worker.say(r#"{"type":"FOLLOWED","is_ready":true}"#).await;
        while voice.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        for ready in [false, true] {
            let answers = async { tokio::join!(voice.is_ready(), voice.is_ready()) };
            let answering = async {
                assert_eq!(worker.heard().await.as_bytes(), IS_READY);
                worker.say(&format!(r#"{{"type":"IS_READY","ready":{ready}}}"#)).await;
            };
            assert_eq!(tokio::join!(answers, answering).0, (ready, ready));
        }
        let gone = async {
            assert_eq!(worker.heard().await.as_bytes(), IS_READY);
            drop(worker);
        };
        assert!(tokio::join!(voice.is_ready(), gone).0, "one that is gone is not asked");
        while !voice.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
