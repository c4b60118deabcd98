//! What travels back to a waiting request: one answer, or a stream of replies whose unread part has a bound.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::owner::Message;
use super::station::Open;
use crate::admission::{Permit, Reservation};
use crate::cache::{Cache, Miss};
use crate::error::{InferError, shown_id};
use crate::request::InferResponse;

/// Responses of one request that may wait for its reader.
pub const MAX_UNREAD: usize = 1024;
/// Bytes of the same; a single response may have more.
pub const MAX_UNREAD_BYTES: u64 = 64 << 20;

/// The answer to a request.
pub type Outcome = Result<InferResponse, InferError>;

/// One message of a stream of responses.
#[derive(Debug)]
pub struct Reply {
    /// A response, a failure, or nothing but the end.
    pub outcome: Result<Option<InferResponse>, InferError>,
    /// Nothing comes behind it.
    pub last: bool,
}

/// What travels back to a request that has one answer.
#[derive(Debug)]
pub struct Answer {
    outcome: Outcome,
    turn: Option<Turn>,
}

/// A request's place among those whose responses must leave in order.
#[derive(Debug)]
pub struct Turn {
    /// Ends when the response before has left or will never come.
    pub before: oneshot::Receiver<()>,
    /// Its drop lets the next response leave.
    pub after: oneshot::Sender<()>,
}

/// Where the answer or the replies of a job go.
#[derive(Debug)]
pub enum ReplyTo {
    /// One answer, in its turn where there is one.
    One {
        /// To the waiting request.
        answer: oneshot::Sender<Answer>,
        /// Its place, if order matters.
        turn: Option<Turn>,
    },
    /// Any number of replies.
    Many(Outlet),
}

impl ReplyTo {
    /// Whether nobody waits for an answer any more.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::One { answer, .. } => answer.is_closed(),
            Self::Many(outlet) => outlet.replies.is_closed(),
        }
    }

    /// The last thing that is said; nobody listens if the request was cancelled.
    pub fn finish(self, outcome: Result<Option<InferResponse>, InferError>) {
        match self {
            Self::One { answer, turn } => {
                let none = || InferError::Internal("the model gave no response".to_owned());
                let outcome = outcome.and_then(|response| response.ok_or_else(none));
                let _ = answer.send(Answer { outcome, turn });
            }
            Self::Many(outlet) => outlet.send(Reply { outcome, last: true }, 0, None),
        }
    }
}

/// The sending side of a stream of replies.
#[derive(Debug)]
pub struct Outlet {
    // Unbounded, for `unread` bounds it; what ends a stream always finds room.
    replies: mpsc::UnboundedSender<Unread>,
    unread: Arc<Count>,
    _open: Open,
}

/// What waits for the reader.
#[derive(Debug, Default)]
struct Count {
    replies: AtomicUsize,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Unread {
    reply: Reply,
    bytes: u64,
    _budget: Option<Reservation>,
}

impl Outlet {
    /// Both ends of a stream; `owner` hears when its reader goes away early, and `open` counts it.
    pub fn new(owner: mpsc::UnboundedSender<Message>, open: Open) -> (Self, Responses) {
        let (replies, inlet) = mpsc::unbounded_channel();
        let unread = Arc::<Count>::default();
        let source = Source::Many { inlet, unread: Arc::clone(&unread), owner };
        (Self { replies, unread, _open: open }, Responses { source, expiry: None, keeper: None })
    }

    /// A reply that is not the last; fails if its reader has fallen too far behind.
    pub fn push(&self, outcome: Outcome, permit: &Permit) -> Result<(), InferError> {
        let bytes = outcome.as_ref().map_or(0, InferResponse::bytes);
        let replies = self.unread.replies.load(Ordering::Relaxed);
        let held = self.unread.bytes.load(Ordering::Relaxed);
        let behind = InferError::SlowReader { replies, bytes: held };
        if replies >= MAX_UNREAD || (replies > 0 && held.saturating_add(bytes) > MAX_UNREAD_BYTES) {
            return Err(behind);
        }
        let Some(budget) = permit.reserve(bytes) else { return Err(behind) };
        self.send(Reply { outcome: outcome.map(Some), last: false }, bytes, Some(budget));
        Ok(())
    }

    fn send(&self, reply: Reply, bytes: u64, budget: Option<Reservation>) {
        self.unread.replies.fetch_add(1, Ordering::Relaxed);
        self.unread.bytes.fetch_add(bytes, Ordering::Relaxed);
        let _ = self.replies.send(Unread { reply, bytes, _budget: budget });
    }
}

/// The responses to one request as they come; dropping them cancels what is still to come.
#[derive(Debug)]
pub struct Responses {
    source: Source,
    expiry: Option<Expiry>,
    keeper: Option<Keeper>,
}

/// Where a good answer is kept.
type Keeper = (Arc<Cache>, Miss);

#[derive(Debug)]
enum Source {
    /// Of a model that gives one response.
    One(Pending),
    Many {
        inlet: mpsc::UnboundedReceiver<Unread>,
        unread: Arc<Count>,
        owner: mpsc::UnboundedSender<Message>,
    },
    /// From the response cache.
    Known(Box<InferResponse>),
    Over,
}

/// When a request is answered though its model has not.
#[derive(Clone, Debug)]
pub struct Expiry {
    /// That moment.
    pub at: Instant,
    /// The request's id.
    pub id: String,
}

impl Expiry {
    fn error(&self) -> InferError {
        InferError::QueueTimeout { id: shown_id(&self.id) }
    }

    /// The answer, or the refusal once the time has come.
    pub async fn bound(self, answer: Pending) -> Outcome {
        timeout_at(self.at, answer).await.unwrap_or_else(|_| Err(self.error()))
    }
}

impl Responses {
    /// The only response of a model that gives one, to be kept where there is a keeper.
    pub fn one(answer: Pending, keeper: Option<Keeper>) -> Self {
        Self { source: Source::One(answer), expiry: None, keeper }
    }

    /// A response that is known already.
    pub fn known(response: InferResponse) -> Self {
        Self { source: Source::Known(Box::new(response)), expiry: None, keeper: None }
    }

    /// Ends them with a refusal when the time has come.
    #[must_use]
    pub fn until(mut self, expiry: Option<Expiry>) -> Self {
        self.expiry = expiry;
        self
    }

    /// The next reply; none behind the last one. Nothing is lost if the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Reply> {
        let reply = match &self.expiry {
            None => self.source.next().await,
            Some(expiry) => match timeout_at(expiry.at, self.source.next()).await {
                Ok(reply) => reply,
                Err(_) => Some(Reply { outcome: Err(expiry.error()), last: true }),
            },
        };
        if reply.as_ref().is_none_or(|reply| reply.last) {
            self.source = Source::Over;
        }
        if let (Some(Ok(Some(response))), Some((cache, miss))) =
            (reply.as_ref().map(|reply| reply.outcome.as_ref().map(Option::as_ref)), self.keeper.take())
        {
            cache.keep(miss, response);
        }
        reply
    }
}

impl Source {
    async fn next(&mut self) -> Option<Reply> {
        match self {
            Self::One(answer) => Some(Reply { outcome: answer.await.map(Some), last: true }),
            Self::Many { inlet, unread, .. } => {
                let Some(next) = inlet.recv().await else {
                    return Some(Reply { outcome: Err(dropped()), last: true });
                };
                unread.replies.fetch_sub(1, Ordering::Relaxed);
                unread.bytes.fetch_sub(next.bytes, Ordering::Relaxed);
                Some(next.reply)
            }
            Self::Known(response) => Some(Reply { outcome: Ok(Some((**response).clone())), last: true }),
            Self::Over => None,
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Many { inlet, owner, .. } = self {
            let over = inlet.is_closed();
            // Before the owner looks, so that it sees which request is meant.
            inlet.close();
            if !over {
                let _ = owner.send(Message::Sweep);
            }
        }
    }
}

fn dropped() -> InferError {
    InferError::Internal("request dropped".to_owned())
}

/// The answer to come.
#[derive(Debug)]
pub struct Pending {
    state: State,
    /// Told when this is dropped before the answer came.
    owner: mpsc::UnboundedSender<Message>,
}

#[derive(Debug)]
enum State {
    Refused(InferError),
    Waiting(oneshot::Receiver<Answer>),
    InTurn { outcome: Outcome, turn: Turn },
    Over,
}

impl Pending {
    /// An answer that is known already.
    pub fn refused(error: InferError, owner: mpsc::UnboundedSender<Message>) -> Self {
        Self { state: State::Refused(error), owner }
    }

    /// An answer that `owner` sees to.
    pub fn waiting(answer: oneshot::Receiver<Answer>, owner: mpsc::UnboundedSender<Message>) -> Self {
        Self { state: State::Waiting(answer), owner }
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match &mut self.state {
                State::Waiting(answer) => {
                    let lost = || Answer { outcome: Err(dropped()), turn: None };
                    let answer = ready!(Pin::new(answer).poll(context)).unwrap_or_else(|_| lost());
                    let Some(turn) = answer.turn else {
                        self.state = State::Over;
                        return Poll::Ready(answer.outcome);
                    };
                    self.state = State::InTurn { outcome: answer.outcome, turn };
                }
                State::InTurn { turn, .. } => {
                    let _ = ready!(Pin::new(&mut turn.before).poll(context));
                    if let State::InTurn { outcome, .. } = std::mem::replace(&mut self.state, State::Over) {
                        return Poll::Ready(outcome);
                    }
                }
                State::Refused(_) | State::Over => match std::mem::replace(&mut self.state, State::Over) {
                    State::Refused(error) => return Poll::Ready(Err(error)),
                    _ => panic!("a finished request is polled again"),
                },
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let State::Waiting(_) = std::mem::replace(&mut self.state, State::Over) {
            // The receiver is gone by now, so the owner sees which request is meant.
            let _ = self.owner.send(Message::Sweep);
        }
    }
}
